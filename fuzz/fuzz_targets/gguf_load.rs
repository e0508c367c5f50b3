//! Any bytes as a model file, and small well-formed files with any bytes overwritten: no panic, no
//! memory without bound. What loads runs a few tokens on both engines.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tussah_inference::generate::{RandomArchitecture, RandomModel, RandomShape, WeightMix};
use tussah_inference::{
    AddBos, CancelToken, ChatMessage, EncodeOptions, Engine, Gguf, LoadOptions, Model, Sampling,
    Session, SessionOptions, TokenId,
};

/// A small file of each architecture, of different storage types.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let types = ["Q4_1", "Q4_K", "F16", "Q5_0"];
    let all = RandomArchitecture::ALL.into_iter().zip(types);
    all.map(|(architecture, weights)| file(architecture, weights))
        .collect()
});

fn file(architecture: RandomArchitecture, weights: &str) -> Vec<u8> {
    let width = if weights == "Q4_K" { 256 } else { 32 };
    let model = RandomModel {
        name: String::new(),
        architecture,
        shape: RandomShape {
            vocabulary: 512,
            layers: 1,
            embedding_length: width,
            feed_forward_length: width,
            heads: 2,
            kv_heads: 1,
            head_size: width / 2,
            context_tokens_max: 64,
            tied_head: true,
        },
        weights: WeightMix::from_name(weights).expect("a known type"),
        seed: 0,
    };
    let mut bytes = Vec::new();
    model
        .write(&mut bytes, &mut |_| Ok(()))
        .expect("a vector takes all");
    bytes
}

fn load(bytes: Vec<u8>, engine: Engine) {
    let options = LoadOptions {
        engine,
        threads: 1,
        ..LoadOptions::default()
    };
    let Ok(gguf) = Gguf::from_bytes(bytes) else {
        return;
    };
    let Ok(model) = Model::from_gguf(gguf, &options, &mut |_| {}) else {
        return;
    };
    let model = Arc::new(model);
    let options = EncodeOptions {
        add_bos: AddBos::ByMetadata,
        parse_special: true,
    };
    let _ = model.tokenizer().encode("a text, <|im_end|> größer", options);
    let turn = ChatMessage {
        role: "user".to_owned(),
        content: "hello".to_owned(),
    };
    let _ = model.render_chat(&[turn], true);
    let options = SessionOptions {
        context_tokens_max: model.info().context_tokens_max.min(8),
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    let Ok(mut session) = Session::open(&model, options) else {
        return;
    };
    let _ = session.append(&[TokenId(0), TokenId(300), TokenId(1)]);
    let _ = session.next();
}

fuzz_target!(|bytes: &[u8]| {
    load(bytes.to_vec(), Engine::Exact);
    let Some((choice, patches)) = bytes.split_first() else {
        return;
    };
    let mut file = FILES[usize::from(choice % 4)].clone();
    let mut at = 0;
    // Each patch is a step from the one before, a length up to 8, and so many bytes.
    let mut rest = patches;
    while let [low, high, length, more @ ..] = rest {
        at = (at + usize::from(u16::from_le_bytes([*low, *high]))) % file.len();
        let length = usize::from(length % 9).min(more.len()).min(file.len() - at);
        file[at..at + length].copy_from_slice(&more[..length]);
        rest = &more[length..];
    }
    let engine = match choice & 4 {
        0 => Engine::Exact,
        _ => Engine::Oracle,
    };
    load(file, engine);
});
