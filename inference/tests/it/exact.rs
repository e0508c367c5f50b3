//! The exact engine's bits: the same at every width, number of threads and cutting into batches.

use std::sync::Arc;

use tussah_inference::{Engine, LoadOptions, Model, Sampling, Session, SimdLevel, TokenId};

use crate::builder::{
    self, BF16, F16, F32, Format, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SMALL, Sizes,
    WIDE, session,
};
use crate::fixture::{self, Real};
use crate::goldens;

fn bits(session: &mut Session) -> Vec<u32> {
    session
        .logits()
        .unwrap()
        .iter()
        .map(|logit| logit.to_bits())
        .collect()
}

/// The logits after the tokens, appended `at_once` at a time.
fn logits_of(model: &Arc<Model>, tokens: &[TokenId], at_once: usize) -> Vec<u32> {
    let mut session = session(model, 400, Sampling::default());
    tokens
        .chunks(at_once)
        .for_each(|chunk| session.append(chunk).unwrap());
    bits(&mut session)
}

fn tokens(count: u32) -> Vec<TokenId> {
    (0..count).map(|i| TokenId(i * 31 % 256)).collect()
}

/// Every engine setting that must not change a bit.
fn check(sizes: Sizes, format: Format, count: u32) {
    let file = builder::llama(sizes, format);
    let mut wanted = None;
    for simd in SimdLevel::available() {
        for threads in [1, 2, 3] {
            let options = LoadOptions {
                engine: Engine::Exact,
                threads,
                simd,
                ..LoadOptions::default()
            };
            let model = Arc::new(file.load(&options).unwrap());
            for at_once in [400, 1, 7] {
                let found = logits_of(&model, &tokens(count), at_once);
                let wanted = wanted.get_or_insert_with(|| found.clone());
                assert!(
                    found == *wanted,
                    "{format:?} {simd:?} {threads} threads, {at_once} at once"
                );
            }
        }
    }
    // And close to plain f32.
    let options = LoadOptions {
        engine: Engine::Oracle,
        threads: 1,
        simd: SimdLevel::Auto,
        ..LoadOptions::default()
    };
    let oracle = logits_of(&Arc::new(file.load(&options).unwrap()), &tokens(count), 400);
    let floats = |bits: &[u32]| {
        bits.iter()
            .map(|bits| f32::from_bits(*bits))
            .collect::<Vec<_>>()
    };
    let (exact, oracle) = (floats(&wanted.unwrap()), floats(&oracle));
    let largest = oracle
        .iter()
        .fold(0.0f32, |most, logit| most.max(logit.abs()));
    let apart = exact
        .iter()
        .zip(&oracle)
        .fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(
        largest > 0.01 && apart < largest * 2e-3,
        "{format:?}: {apart} apart of {largest}"
    );
}

#[test]
fn bits_do_not_depend_on_simd_threads_or_batches() {
    for format in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16, F32] {
        check(SMALL, format, 70);
    }
    for format in [Q4_K, Q5_K, Q6_K] {
        check(WIDE, format, 40);
    }
    // Heads of 64 scale scores by an exponent, heads of 32 by a factor.
    check(
        Sizes {
            heads: 2,
            kv_heads: 1,
            embedding: 128,
            ..SMALL
        },
        Q4_1,
        20,
    );
    check(
        Sizes {
            heads: 4,
            kv_heads: 4,
            embedding: 128,
            ..SMALL
        },
        Q8_0,
        20,
    );
    // More than one batch of 128, and a context that is no whole block.
    check(SMALL, Q4_1, 300);
}

/// BLAKE3 of the logits after the shorter golden prompt; a new value is a new version of the contract.
const LOGITS: [(Real, &str); 2] = [
    (
        Real::SmolLm2,
        "958b0ea3e3bb16a6b0b8c47dee9e03541af09c95c51d5be796079fae612c67b8",
    ),
    (
        Real::Gemma3,
        "47be7e78a982a2277ef50c9a9e04063fa612c05a083bf20f436e4abcc328f1d6",
    ),
];

#[test]
fn the_real_models_have_the_committed_bits() {
    for (which, wanted) in LOGITS {
        let case = &goldens::cases(which)[1];
        for (simd, threads) in SimdLevel::available()
            .into_iter()
            .flat_map(|level| [(level, 1), (level, 2)])
        {
            // The scalar path is slow: one of its settings is enough on a real model.
            if (simd, threads) == (SimdLevel::Scalar, 1) {
                continue;
            }
            let Some(model) = fixture::real(which, Engine::Exact, simd, threads) else {
                continue;
            };
            let mut session = goldens::open(&model, 64);
            session
                .append(&goldens::ids(&case.prompt_token_ids))
                .unwrap();
            let bytes: Vec<u8> = bits(&mut session)
                .iter()
                .flat_map(|bits| bits.to_le_bytes())
                .collect();
            let digest = blake3::hash(&bytes).to_hex();
            assert_eq!(
                digest.as_str(),
                wanted,
                "{which:?} {simd:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn the_real_models_read_a_prompt_as_they_read_tokens() {
    for which in [Real::SmolLm2, Real::Gemma3] {
        let Some(model) = fixture::real(which, Engine::Exact, SimdLevel::Auto, 2) else {
            continue;
        };
        let tokens = goldens::ids(&goldens::cases(which)[1].prompt_token_ids);
        assert!(logits_of(&model, &tokens, 400) == logits_of(&model, &tokens, 1));
    }
}
