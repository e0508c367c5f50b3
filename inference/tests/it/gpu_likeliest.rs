//! The likeliest tokens, found on the device: those of the CPU, whatever the vocabulary and the sampling.

use std::sync::Arc;

use tussah_inference::{Engine, GpuOptions, Model, Sampling, Session, SimdLevel, TokenId, Usage};

use crate::builder::{self, Q4_1, SMALL, session};
use crate::fixture::{self, Real};
use crate::goldens;
use crate::gpu::{gpu, mixed, on, on_cpu};

fn sampling(temperature: f32, top_k: u32, repetition_penalty: f32) -> Sampling {
    Sampling {
        temperature,
        top_k,
        repetition_penalty,
        ..Sampling::default()
    }
}

/// What a job can see of a session that goes through all ways to ask for tokens.
#[derive(Debug, PartialEq)]
struct Seen {
    tokens: Vec<Option<TokenId>>,
    candidates: Vec<Vec<(TokenId, u32)>>,
    logits: Vec<u32>,
    usage: Usage,
}

fn walk(mut session: Session, prompt: &[TokenId], steps: usize) -> Seen {
    let mut candidates = Vec::new();
    let mut ask = |session: &mut Session, k: usize| {
        let found = session.candidates(k).unwrap();
        candidates.push(
            found
                .iter()
                .map(|it| (it.token, it.logit.to_bits()))
                .collect(),
        );
    };
    session.append(prompt).unwrap();
    let mut tokens: Vec<_> = (0..steps).map(|_| session.next().unwrap()).collect();
    // A fork has the likeliest tokens of its origin, and goes on by itself.
    let mut fork = session.fork().unwrap();
    ask(&mut session, 1);
    ask(&mut session, 64);
    tokens.push(session.next().unwrap());
    ask(&mut fork, 64);
    fork.accept(TokenId(9)).unwrap();
    // More than the device finds, and then whatever there is.
    ask(&mut fork, 65);
    ask(&mut fork, 1 << 20);
    tokens.push(fork.next().unwrap());
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect();
    Seen {
        tokens,
        candidates,
        logits: bits(session.logits().unwrap()),
        usage: fork.usage(),
    }
}

fn ways() -> [Sampling; 6] {
    [
        sampling(0.0, 0, 1.0),
        sampling(0.0, 0, 1.3),
        sampling(0.9, 20, 1.0),
        sampling(0.9, 32, 1.2),
        // These need all logits.
        sampling(0.9, 0, 1.0),
        sampling(0.0, 0, 0.8),
    ]
}

#[test]
fn vocabularies_of_all_sizes_give_the_tokens_of_the_cpu() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    // One slice, a slice and one token more, and slices of slices.
    for size in [268, 2048, 2049, 70_000] {
        let mut file = mixed(SMALL, [Q4_1; 7]);
        builder::widen(&mut file, size);
        let [found, wanted] = [on(&gpu), on_cpu()].map(|options| {
            let model = Arc::new(file.load(&options).unwrap());
            ways().map(|way| walk(session(&model, 100, way), &[TokenId(1), TokenId(70)], 4))
        });
        assert!(found == wanted, "{size} tokens");
    }
}

#[test]
fn of_tokens_that_are_equally_likely_the_lower_one_comes_first() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let mut file = mixed(SMALL, [Q4_1; 7]);
    builder::widen(&mut file, 5000);
    // Every row of the head is the first one, or for some tokens nothing at all: most logits are equal.
    let embedding = file.tensor("token_embd.weight");
    let row = embedding.data.len() / 5000;
    let (first, others) = embedding.data.split_at_mut(row);
    for (token, other) in others.chunks_exact_mut(row).enumerate() {
        match token % 3 {
            0 => other.fill(0),
            _ => other.copy_from_slice(first),
        }
    }
    let [found, wanted] = [on(&gpu), on_cpu()].map(|options| {
        let model = Arc::new(file.load(&options).unwrap());
        ways().map(|way| walk(session(&model, 100, way), &[TokenId(3)], 3))
    });
    assert_eq!(found, wanted);
}

#[test]
fn a_real_model_goes_on_as_on_the_cpu() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let Some(cpu) = fixture::smollm2(Engine::Exact, SimdLevel::Auto, 0) else {
        return;
    };
    let path = fixture::path(Real::SmolLm2).unwrap();
    let model = Arc::new(Model::open(&path, &on(&gpu), &mut |_| {}).unwrap());
    let case = &goldens::cases(Real::SmolLm2)[0];
    let mut prompt = goldens::ids(&case.prompt_token_ids);
    prompt.truncate(8);
    // Five dispatches a layer of 30, two of the head, and two that find the likeliest of 49,152 tokens.
    assert_eq!(model.dispatches_per_token(), Some(5 * 30 + 2 + 2));
    for way in [sampling(0.0, 0, 1.1), sampling(0.8, 30, 1.0)] {
        let [found, wanted] = [&model, &cpu].map(|model| walk(session(model, 64, way), &prompt, 3));
        assert!(
            found == wanted,
            "{way:?}: {:?}, not {:?}",
            found.tokens,
            wanted.tokens
        );
    }
}
