//! Every architecture with every storage type, on small random models: the exact engine beside the
//! oracle, and its bits over levels of SIMD, threads and batches.

use std::sync::Arc;

use tussah_inference::generate::{RandomArchitecture, RandomModel, RandomShape, WeightMix};
use tussah_inference::{
    Engine, Gguf, LoadOptions, Model, ModelError, QuantType, Sampling, SimdLevel, TokenId,
};

use crate::builder::session;

/// So many tokens that Gemma's window, made shorter here, slides over block borders.
const TOKENS: u32 = 60;
const WINDOW: u32 = 21;
/// How far an exact logit may be from the oracle's, relative to the largest: activations of 16 bits.
/// Measured: 2.5e-4 at most.
const TOLERANCE: f32 = 1e-3;

fn file(architecture: RandomArchitecture, weights: QuantType) -> Vec<u8> {
    let model = RandomModel {
        name: "a test".to_owned(),
        architecture,
        shape: RandomShape {
            vocabulary: 520,
            // Gemma's sixth layer sees everything.
            layers: if architecture == RandomArchitecture::Gemma3 {
                6
            } else {
                2
            },
            embedding_length: 256,
            feed_forward_length: 256,
            heads: 4,
            kv_heads: 2,
            head_size: 64,
            context_tokens_max: 128,
            tied_head: false,
        },
        weights: WeightMix::all(weights),
        seed: 1,
    };
    let mut bytes = Vec::new();
    model.write(&mut bytes, &mut |_| Ok(())).unwrap();
    if architecture == RandomArchitecture::Gemma3 {
        set_u32(&mut bytes, "gemma3.attention.sliding_window", WINDOW);
    }
    bytes
}

/// Overwrites a number in a file's metadata.
pub(crate) fn set_u32(bytes: &mut [u8], key: &str, value: u32) {
    let at = bytes
        .windows(key.len())
        .position(|window| window == key.as_bytes())
        .unwrap();
    // The key is followed by its type's code.
    let at = at + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn load(bytes: &[u8], options: LoadOptions) -> Result<Arc<Model>, ModelError> {
    let gguf = Gguf::from_bytes(bytes.to_vec())?;
    Ok(Arc::new(Model::from_gguf(gguf, &options, &mut |_| {})?))
}

fn logits(model: &Arc<Model>, at_once: usize) -> Vec<f32> {
    let mut session = session(model, 100, Sampling::default());
    let tokens: Vec<TokenId> = (0..TOKENS).map(|i| TokenId(5 + i * 31 % 500)).collect();
    for chunk in tokens.chunks(at_once) {
        session.append(chunk).unwrap();
    }
    session.logits().unwrap().to_vec()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn check(architecture: RandomArchitecture, weights: QuantType) -> f32 {
    let bytes = file(architecture, weights);
    let of = |engine, threads, simd, at_once| {
        let options = LoadOptions {
            engine,
            threads,
            simd,
            ..LoadOptions::default()
        };
        logits(&load(&bytes, options).unwrap(), at_once)
    };
    let exact = of(Engine::Exact, 1, SimdLevel::Scalar, 100);
    for simd in SimdLevel::available() {
        for (threads, at_once) in [(1, 100), (2, 100), (2, 7)] {
            let found = of(Engine::Exact, threads, simd, at_once);
            assert!(
                bits(&found) == bits(&exact),
                "{architecture:?} {} {simd:?}, {threads} threads, {at_once} at once",
                weights.name()
            );
        }
    }
    let oracle = of(Engine::Oracle, 2, SimdLevel::Auto, 100);
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let size = largest(&mut oracle.iter().map(|logit| logit.abs()));
    let apart = exact.iter().zip(&oracle).map(|(a, b)| (a - b).abs());
    let apart = largest(&mut apart.into_iter()) / size;
    assert!(
        size > 0.1 && apart < TOLERANCE,
        "{architecture:?} {}: {apart} apart of {size}",
        weights.name()
    );
    apart
}

fn check_all(architecture: RandomArchitecture) {
    let apart = QuantType::ALL.map(|weights| check(architecture, weights));
    println!("{architecture:?}: {apart:?}");
}

#[test]
fn llama_agrees_with_the_oracle_in_every_type() {
    check_all(RandomArchitecture::Llama);
}

#[test]
fn gemma3_agrees_with_the_oracle_in_every_type() {
    check_all(RandomArchitecture::Gemma3);
}

#[test]
fn qwen2_agrees_with_the_oracle_in_every_type() {
    check_all(RandomArchitecture::Qwen2);
}

#[test]
fn qwen3_agrees_with_the_oracle_in_every_type() {
    check_all(RandomArchitecture::Qwen3);
}

#[test]
fn a_window_hides_what_lies_before_it() {
    // A window as long as the text sees what no window sees; a shorter one does not.
    let with = |window: u32| {
        let mut bytes = file(RandomArchitecture::Gemma3, QuantType::Q8_0);
        set_u32(&mut bytes, "gemma3.attention.sliding_window", window);
        let options = LoadOptions {
            threads: 1,
            ..LoadOptions::default()
        };
        bits(&logits(&load(&bytes, options).unwrap(), 100))
    };
    let all = with(u32::MAX);
    assert!(with(TOKENS) == all);
    assert!(with(TOKENS - 1) != all);
    // One position is the least: the token itself.
    assert!(with(1) != all);
}
