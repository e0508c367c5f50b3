//! Any text as a model's chat template: no panic, no memory beyond the ceiling (give libFuzzer
//! `-rss_limit_mb=1024 -timeout=60`), and no prompt longer than the longest.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tussah_inference::generate::{RandomArchitecture, RandomModel, RandomShape, WeightMix};
use tussah_inference::{ChatMessage, Gguf, LoadOptions, Model, PROMPT_BYTES_MAX};

/// A small file, and where in it the template's text stands; its length is the eight bytes before.
static FILE: LazyLock<(Vec<u8>, std::ops::Range<usize>)> = LazyLock::new(|| {
    let model = RandomModel {
        name: String::new(),
        architecture: RandomArchitecture::Llama,
        shape: RandomShape {
            vocabulary: 512,
            layers: 1,
            embedding_length: 32,
            feed_forward_length: 32,
            heads: 2,
            kv_heads: 1,
            head_size: 16,
            context_tokens_max: 64,
            tied_head: true,
        },
        weights: WeightMix::from_name("Q4_1").expect("a known type"),
        seed: 0,
    };
    let mut bytes = Vec::new();
    let written = model.write(&mut bytes, &mut |_| Ok(()));
    written.expect("a vector takes all");
    let key = b"tokenizer.chat_template";
    let found = bytes.windows(key.len()).position(|it| it == key);
    // The key, the type of its value, the length.
    let begin = found.expect("a chat model") + key.len() + 4 + 8;
    let length = bytes[begin - 8..begin].try_into().expect("eight bytes");
    let end = begin + u64::from_le_bytes(length) as usize;
    (bytes, begin..end)
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(template) = std::str::from_utf8(bytes) else {
        return;
    };
    let (file, old) = &*FILE;
    // A comment fills it up, so that what follows keeps its alignment.
    let mut template = template.to_owned();
    template.push_str("{#");
    while template.len() % 32 != (old.len() + 32 - 2) % 32 {
        template.push(' ');
    }
    template.push_str("#}");
    let mut bytes = file[..old.start].to_vec();
    let length = template.len() as u64;
    bytes[old.start - 8..].copy_from_slice(&length.to_le_bytes());
    bytes.extend(template.as_bytes());
    bytes.extend(&file[old.end..]);
    let options = LoadOptions {
        threads: 1,
        ..LoadOptions::default()
    };
    let gguf = Gguf::from_bytes(bytes).expect("only the template is odd");
    let Ok(model) = Model::from_gguf(gguf, &options, &mut |_| {}) else {
        return;
    };
    let turn = |role: &str, content: &str| ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    let messages = [
        turn("system", "be brief"),
        turn("user", "hello"),
        turn("assistant", "yes"),
    ];
    if let Ok(prompt) = model.render_chat(&messages, true) {
        assert!(prompt.len() <= PROMPT_BYTES_MAX);
    }
});
