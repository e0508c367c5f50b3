//! Random models: the same description gives the same bytes, and what is made opens and runs.

use std::sync::Arc;

use expect_test::{Expect, expect};
use tussah_inference::generate::{
    GenerateError, Generated, RandomArchitecture, RandomModel, RandomShape, WeightMix,
};
use tussah_inference::{
    AddBos, CancelToken, ChatMessage, EncodeOptions, Engine, Gguf, LoadOptions, Model, QuantType,
    Sampling, Session, SessionOptions,
};

const SHAPE: RandomShape = RandomShape {
    vocabulary: 600,
    layers: 3,
    embedding_length: 256,
    feed_forward_length: 512,
    heads: 8,
    kv_heads: 2,
    head_size: 32,
    context_tokens_max: 256,
    tied_head: false,
};

fn model(architecture: RandomArchitecture, weights: WeightMix) -> RandomModel {
    RandomModel {
        name: "a test".to_owned(),
        architecture,
        shape: SHAPE,
        weights,
        seed: 7,
    }
}

fn written(model: &RandomModel) -> (Vec<u8>, Generated) {
    let mut bytes = Vec::new();
    let generated = model.write(&mut bytes, &mut |_| Ok(())).unwrap();
    assert_eq!(generated.file_bytes, bytes.len() as u64);
    assert_eq!(generated, model.measure().unwrap());
    (bytes, generated)
}

fn digest(model: &RandomModel) -> String {
    blake3::hash(&written(model).0).to_hex()[..16].to_owned()
}

/// Generates eight tokens with an engine.
fn run(bytes: Vec<u8>, engine: Engine) -> Vec<u32> {
    let options = LoadOptions {
        engine,
        threads: 1,
        ..LoadOptions::default()
    };
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let model = Arc::new(Model::from_gguf(gguf, &options, &mut |_| {}).unwrap());
    assert_eq!(model.info().vocabulary_size, SHAPE.vocabulary);
    let turn = ChatMessage {
        role: "user".to_owned(),
        content: "some text, größer 字".to_owned(),
    };
    let prompt = model.encode_chat(&[turn], true).unwrap();
    let plain = EncodeOptions {
        add_bos: AddBos::Never,
        parse_special: false,
    };
    let text = "every byte has a token: \u{7}\u{fffd}";
    let tokens = model.tokenizer().encode(text, plain).unwrap();
    let back: Vec<u8> = tokens
        .iter()
        .flat_map(|token| model.tokenizer().token_bytes(*token))
        .copied()
        .collect();
    assert_eq!(String::from_utf8(back).unwrap(), text);
    let options = SessionOptions {
        context_tokens_max: 128,
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    let mut session = Session::open(&model, options).unwrap();
    session.append(&prompt).unwrap();
    (0..8)
        .map(|_| {
            let best = session.candidates(4).unwrap();
            assert!(best.iter().all(|it| it.logit.is_finite()), "{best:?}");
            // Logits are neither flat nor absurd.
            assert!((0.5..60.0).contains(&best[0].logit.abs()), "{best:?}");
            session.append(&[best[0].token]).unwrap();
            best[0].token.0
        })
        .collect()
}

#[test]
fn every_architecture_and_storage_type_runs() {
    let types = QuantType::ALL.map(QuantType::name);
    for architecture in RandomArchitecture::ALL {
        for name in types.into_iter().chain(WeightMix::PRESETS) {
            let mix = WeightMix::from_name(name).unwrap();
            let (bytes, _) = written(&model(architecture, mix));
            let exact = run(bytes.clone(), Engine::Exact);
            let oracle = run(bytes, Engine::Oracle);
            assert_eq!(exact[0], oracle[0], "{architecture:?} {name}");
        }
    }
}

#[test]
fn the_same_description_gives_the_same_bytes() {
    let check = |architecture: RandomArchitecture, mix: &str, expected: Expect| {
        let mix = WeightMix::from_name(mix).unwrap();
        expected.assert_eq(&digest(&model(architecture, mix)));
    };
    check(
        RandomArchitecture::Llama,
        "Q4_K_M",
        expect!["e72e8d81d34680c7"],
    );
    check(
        RandomArchitecture::Gemma3,
        "Q5_K_M",
        expect!["8ba4efa3fb78a214"],
    );
    check(
        RandomArchitecture::Qwen2,
        "Q8_0",
        expect!["2776deaf773e43b7"],
    );
    check(
        RandomArchitecture::Qwen3,
        "BF16",
        expect!["d0d3b23cbb47340c"],
    );
    check(
        RandomArchitecture::Llama,
        "F16",
        expect!["af87a928918f61ca"],
    );
    check(
        RandomArchitecture::Llama,
        "F32",
        expect!["48531df9929f3e08"],
    );
    check(
        RandomArchitecture::Llama,
        "Q4_1",
        expect!["b8f510b3007a2eef"],
    );
}

#[test]
fn each_word_of_the_description_counts() {
    let base = model(RandomArchitecture::Llama, WeightMix::all(QuantType::Q8_0));
    let others = [
        RandomModel {
            seed: 8,
            ..base.clone()
        },
        RandomModel {
            name: "another".to_owned(),
            ..base.clone()
        },
        RandomModel {
            shape: RandomShape {
                tied_head: true,
                ..SHAPE
            },
            ..base.clone()
        },
        RandomModel {
            shape: RandomShape {
                vocabulary: 601,
                ..SHAPE
            },
            ..base.clone()
        },
    ];
    for other in others {
        assert_ne!(digest(&other), digest(&base), "{other:?}");
    }
}

#[test]
fn a_mix_gives_way_where_rows_are_short() {
    // 640 columns, as Gemma 3 270M has them, are no multiple of 256.
    let shape = RandomShape {
        embedding_length: 640,
        ..SHAPE
    };
    let mixed = RandomModel {
        shape,
        ..model(
            RandomArchitecture::Gemma3,
            WeightMix::from_name("Q4_K_M").unwrap(),
        )
    };
    written(&mixed);
    let strict = RandomModel {
        weights: WeightMix::all(QuantType::Q4K),
        ..mixed
    };
    let error = strict.measure().unwrap_err();
    assert_eq!(
        error.to_string(),
        "Q4_K has blocks of 256, and the rows of `token_embd.weight` have 640 values"
    );
}

#[test]
fn impossible_sizes_are_refused_by_name() {
    let base = model(RandomArchitecture::Llama, WeightMix::all(QuantType::Q8_0));
    let cases = [
        (
            RandomShape {
                vocabulary: 511,
                ..SHAPE
            },
            "the vocabulary is 511",
        ),
        (
            RandomShape {
                vocabulary: u32::MAX,
                ..SHAPE
            },
            "the vocabulary is",
        ),
        (
            RandomShape { layers: 0, ..SHAPE },
            "the number of layers is 0",
        ),
        (
            RandomShape {
                layers: 1025,
                ..SHAPE
            },
            "the number of layers is 1025",
        ),
        (
            RandomShape {
                embedding_length: 0,
                ..SHAPE
            },
            "the embedding length is 0",
        ),
        (
            RandomShape {
                feed_forward_length: u32::MAX,
                ..SHAPE
            },
            "the feed-forward length",
        ),
        (
            RandomShape {
                heads: u32::MAX,
                ..SHAPE
            },
            "the number of heads",
        ),
        (
            RandomShape {
                kv_heads: 3,
                ..SHAPE
            },
            "wanted a divisor of the 8 heads",
        ),
        (
            RandomShape {
                kv_heads: 9,
                ..SHAPE
            },
            "the number of key and value heads is 9",
        ),
        (
            RandomShape {
                head_size: 33,
                ..SHAPE
            },
            "the head size is 33, wanted an even number",
        ),
        (
            RandomShape {
                context_tokens_max: 0,
                ..SHAPE
            },
            "the context is 0",
        ),
        (
            RandomShape {
                embedding_length: 250,
                ..SHAPE
            },
            "Q8_0 has blocks of 32",
        ),
    ];
    for (shape, expected) in cases {
        let error = RandomModel {
            shape,
            ..base.clone()
        }
        .measure()
        .unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{error}, not {expected}"
        );
    }
}

#[test]
fn a_reader_that_stops_ends_the_writing() {
    let model = model(RandomArchitecture::Llama, WeightMix::all(QuantType::Q8_0));
    let stopped = model.write(&mut std::io::sink(), &mut |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        Err(std::io::ErrorKind::Interrupted.into())
    });
    assert!(matches!(stopped, Err(GenerateError::Io(_))));
}

#[test]
fn a_summary_says_how_the_weights_are_stored() {
    let mix = WeightMix::from_name("Q4_K_M").unwrap();
    let (bytes, generated) = written(&model(RandomArchitecture::Qwen3, mix));
    let summary = Gguf::from_bytes(bytes).unwrap().summary().unwrap();
    assert_eq!(summary.license.as_deref(), Some("cc0-1.0"));
    assert_eq!(summary.tokenizer.as_deref(), Some("gpt2"));
    assert_eq!(summary.pre_tokenizer.as_deref(), Some("qwen2"));
    assert!(summary.chat_template.unwrap().contains("<|im_start|>"));
    let shares = &summary.storage;
    let parameters: u64 = shares.iter().map(|share| share.parameters).sum();
    assert_eq!(parameters, generated.parameters);
    let has = |quant| shares.iter().any(|share| share.quant == quant);
    assert!(has(QuantType::Q4K) && has(QuantType::Q6K) && has(QuantType::F32));
    assert!(shares.is_sorted_by(|a, b| a.bytes >= b.bytes));
}
