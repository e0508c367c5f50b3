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

/// The bits of a real model; other ones are a new version of the contract.
struct Golden {
    model: Real,
    /// BLAKE3 of the logits after the shorter golden prompt.
    prompt: &'static str,
    /// The same after the first tokens of the golden answer.
    answer: &'static str,
}

const ANSWER_TOKENS: usize = 4;

const SMOLLM2: Golden = Golden {
    model: Real::SmolLm2,
    prompt: "958b0ea3e3bb16a6b0b8c47dee9e03541af09c95c51d5be796079fae612c67b8",
    answer: "d677daa2397423303e7d22886f62f9a103bccb8d926f7aed73298d4386857752",
};

const GEMMA3: Golden = Golden {
    model: Real::Gemma3,
    prompt: "47be7e78a982a2277ef50c9a9e04063fa612c05a083bf20f436e4abcc328f1d6",
    answer: "1c8ede36db67d2e9d72e6b2633b2e8d772e4cfbd22c29554a19be63498407ec8",
};

fn digest(session: &mut Session) -> String {
    let bits = bits(session);
    let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    blake3::hash(&bytes).to_hex().to_string()
}

/// Digests after the golden prompt, appended `at_once` tokens at a time, and after its answer's begin.
fn digests(model: &Arc<Model>, case: &goldens::Case, at_once: usize) -> [String; 2] {
    let mut session = goldens::open(model, 64);
    for chunk in goldens::ids(&case.prompt_token_ids).chunks(at_once) {
        session.append(chunk).unwrap();
    }
    let prompt = digest(&mut session);
    for token in &case.generated_token_ids[..ANSWER_TOKENS] {
        session.accept(TokenId(*token)).unwrap();
        // Each is computed before the next is known.
        session.candidates(1).unwrap();
    }
    [prompt, digest(&mut session)]
}

impl Golden {
    fn check_all(&self) {
        for simd in SimdLevel::available() {
            for threads in [1, 2, 3] {
                self.check(simd, threads);
            }
        }
    }

    /// One composition for each level, which is quick enough for an emulated CPU.
    fn check_levels(&self) {
        for simd in SimdLevel::available() {
            let Some(model) = fixture::real(self.model, Engine::Exact, simd, 2) else {
                return;
            };
            let cases = goldens::cases(self.model);
            let found = digests(&model, &cases[1], usize::MAX);
            assert_eq!(
                found,
                [self.prompt, self.answer],
                "{:?} {simd:?}",
                self.model
            );
        }
    }

    /// One model with these settings: whatever is computed together, and whatever else runs.
    fn check(&self, simd: SimdLevel, threads: usize) {
        let Some(path) = fixture::path(self.model) else {
            return;
        };
        let options = LoadOptions {
            engine: Engine::Exact,
            threads,
            simd,
            ..LoadOptions::default()
        };
        let model = Arc::new(Model::open(&path, &options, &mut |_| {}).unwrap());
        let cases = goldens::cases(self.model);
        let case = &cases[1];
        let wanted = [self.prompt.to_owned(), self.answer.to_owned()];
        let setting = format!("{:?} {simd:?}, {threads} threads", self.model);
        assert_eq!(digests(&model, case, usize::MAX), wanted, "{setting}");
        // On a real model the scalar path takes seconds for each composition.
        if simd == SimdLevel::Scalar {
            return;
        }
        for at_once in [1, 5] {
            let found = digests(&model, case, at_once);
            assert_eq!(found, wanted, "{setting}, {at_once} at once");
        }
        let other = goldens::ids(&cases[0].prompt_token_ids[..40]);
        std::thread::scope(|scope| {
            let beside = [7, 1].map(|at_once| {
                let (model, other) = (&model, &other);
                scope.spawn(move || logits_of(model, other, at_once))
            });
            let found = digests(&model, case, 3);
            assert_eq!(found, wanted, "{setting}, beside other sessions");
            let [one, other] = beside.map(|beside| beside.join().unwrap());
            assert!(one == other, "{setting}, the other sessions");
        });
    }
}

#[test]
fn smollm2_has_the_committed_bits_at_every_level() {
    SMOLLM2.check_levels();
}

#[test]
fn gemma3_has_the_committed_bits_at_every_level() {
    GEMMA3.check_levels();
}

#[test]
fn smollm2_has_the_committed_bits_in_every_setting() {
    SMOLLM2.check_all();
}

#[test]
fn gemma3_has_the_committed_bits_in_every_setting() {
    GEMMA3.check_all();
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
