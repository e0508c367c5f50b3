//! The fast profile on CPUs: near the oracle on every format and model, the same bits in every batch.

use std::sync::Arc;

use tussah_inference::{Engine, LoadOptions, Model, Sampling, SimdLevel, TokenId};

use crate::builder::{
    BF16, F16, F32, File, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SMALL, WIDE, session,
};
use crate::fixture::{self, Real};
use crate::goldens;
use crate::gpu::mixed;

/// The logits after each of the tokens, appended `at_once` at a time.
fn logits_of(model: &Arc<Model>, tokens: &[TokenId], at_once: usize) -> Vec<Vec<f32>> {
    let context = u32::try_from(tokens.len() + 1).unwrap();
    let mut session = session(model, context, Sampling::default());
    let vocabulary = model.info().vocabulary_size as usize;
    let chunks = tokens.chunks(at_once);
    let rows = chunks.flat_map(|chunk| session.append_scored(chunk).unwrap());
    let rows: Vec<f32> = rows.collect();
    rows.chunks(vocabulary).map(<[f32]>::to_vec).collect()
}

fn options(engine: Engine, simd: SimdLevel, threads: usize) -> LoadOptions {
    LoadOptions {
        engine,
        simd,
        threads,
        ..LoadOptions::default()
    }
}

/// The largest difference, relative to the largest logit.
fn apart(found: &[f32], wanted: &[f32]) -> f32 {
    let largest = wanted.iter().fold(0.0f32, |most, it| most.max(it.abs()));
    let apart = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    apart.fold(0.0f32, f32::max) / largest
}

fn check(file: &File) {
    let tokens: Vec<_> = (0..70).map(|i| TokenId(i * 31 % 256)).collect();
    let oracle = options(Engine::Oracle, SimdLevel::Auto, 1);
    let wanted = logits_of(&Arc::new(file.load(&oracle).unwrap()), &tokens, 70);
    for level in SimdLevel::available() {
        let load = |threads| {
            let options = options(Engine::Fast, level, threads);
            Arc::new(file.load(&options).unwrap())
        };
        let model = load(1);
        assert_eq!(
            model.info().engine,
            format!("fast {} 1 threads", level.name())
        );
        let found = logits_of(&model, &tokens, 1);
        for (position, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let apart = apart(found, wanted);
            // Random weights are harder on 8 bits than a model's.
            assert!(apart < 0.1, "{level:?}, position {position}: {apart}");
        }
        // Batches of whole tiles, of half ones, and of what is left over.
        for at_once in [3, 5, 12, 70] {
            let again = logits_of(&load(3), &tokens, at_once);
            assert!(again == found, "{level:?}, {at_once} at once");
        }
    }
}

#[test]
fn every_format_is_near_the_oracle_and_the_same_in_every_batch() {
    check(&mixed(SMALL, [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16]));
    check(&mixed(WIDE, [Q4_K, Q5_K, Q6_K, F32, Q6_K, Q4_K, Q5_K]));
}

/// What llama.cpp said is what it says, but where two tokens are nearly as likely.
fn check_real(which: Real) {
    let Some(exact) = fixture::real(which, Engine::Exact, SimdLevel::Auto, 0) else {
        return;
    };
    for level in SimdLevel::available() {
        if level == SimdLevel::Scalar {
            continue;
        }
        let Some(model) = fixture::real(which, Engine::Fast, level, 0) else {
            return;
        };
        for case in goldens::cases(which) {
            let mut tokens = goldens::ids(&case.prompt_token_ids);
            tokens.extend(goldens::ids(&case.generated_token_ids));
            let (found, wanted) = (
                logits_of(&model, &tokens, 64),
                logits_of(&exact, &tokens, 64),
            );
            for (position, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let best = |row: &[f32]| {
                    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                    best.unwrap().0
                };
                let lost = wanted[best(wanted)] - wanted[best(found)];
                assert!(
                    lost < 1.5,
                    "{which:?} {level:?} {position}: {lost} below the best"
                );
            }
        }
    }
}

#[test]
fn smollm2_picks_the_exact_profiles_tokens_or_nearly_as_likely_ones() {
    check_real(Real::SmolLm2);
}

#[test]
fn gemma3_picks_the_exact_profiles_tokens_or_nearly_as_likely_ones() {
    check_real(Real::Gemma3);
}
