//! Greedy decoding beside llama.cpp's; the rule stands in `goldens/README.md`.

use std::sync::Arc;

use serde::Deserialize;
use tussah_inference::{
    AddBos, CancelToken, EncodeOptions, Engine, Model, Sampling, Session, SessionOptions,
    SimdLevel, StopStrings, TextStream, TokenId,
};

use crate::fixture::{self, Real};

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) prompt: String,
    pub(crate) prompt_token_ids: Vec<u32>,
    pub(crate) text: String,
    pub(crate) generated_token_ids: Vec<u32>,
    top2_logit_margin: Vec<f32>,
}

pub(crate) fn cases(model: Real) -> Vec<Case> {
    let text = match model {
        Real::SmolLm2 => include_str!("../goldens/smollm2.json"),
        Real::Gemma3 => include_str!("../goldens/gemma3.json"),
    };
    serde_json::from_str(text).unwrap()
}

pub(crate) fn ids(numbers: &[u32]) -> Vec<TokenId> {
    numbers.iter().copied().map(TokenId).collect()
}

pub(crate) fn open(model: &Arc<Model>, context_tokens_max: u32) -> Session {
    let options = SessionOptions {
        context_tokens_max,
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    Session::open(model, options).unwrap()
}

const MARGIN: f32 = 0.5;

/// The top token of each position when the golden ids are fed.
fn teacher_forced(model: &Arc<Model>, case: &Case) -> Vec<u32> {
    let mut session = open(model, 512);
    session.append(&ids(&case.prompt_token_ids)).unwrap();
    let mut top = Vec::new();
    for token in &case.generated_token_ids {
        top.push(session.candidates(1).unwrap()[0].token.0);
        session.accept(TokenId(*token)).unwrap();
    }
    top
}

/// The first ids that the model makes by itself, and their text.
fn free_running(model: &Arc<Model>, case: &Case, count: usize) -> (Vec<u32>, String) {
    let mut session = open(model, 512);
    session.append(&ids(&case.prompt_token_ids)).unwrap();
    let mut stream = TextStream::new(StopStrings::none(), u32::try_from(count).unwrap());
    let (mut made, mut text) = (Vec::new(), String::new());
    while let Some(chunk) = stream.next(&mut session).unwrap() {
        made.extend(chunk.tokens.iter().map(|token| token.0));
        text.push_str(&chunk.text);
    }
    (made, text)
}

fn check(which: Real, engine: Engine) {
    let Some(model) = fixture::real(which, engine, SimdLevel::Auto, 0) else {
        return;
    };
    let (mut equal, mut positions) = (0, 0);
    for case in cases(which) {
        let golden = &case.generated_token_ids;
        let margins = &case.top2_logit_margin;
        let top = teacher_forced(&model, &case);
        for ((top, golden), margin) in top.iter().zip(golden).zip(margins) {
            assert!(
                top == golden || *margin < MARGIN,
                "{top} for {golden}, margin {margin}"
            );
            equal += usize::from(top == golden);
            positions += 1;
        }
        // Past the first narrow margin any id is right, so there is nothing to run for.
        let free = margins
            .iter()
            .position(|margin| *margin < MARGIN)
            .unwrap_or(margins.len());
        if free > 0 {
            let (made, text) = free_running(&model, &case, free);
            assert_eq!(made, golden[..free]);
            assert!(case.text.starts_with(&text), "{text:?} for {:?}", case.text);
        }
    }
    println!("{which:?} {engine:?}: top token equal at {equal} of {positions} positions");
    assert!(
        equal * 100 >= positions * 95,
        "only {equal} of {positions} top tokens are equal"
    );
}

#[test]
fn prompts_have_the_golden_token_ids() {
    let options = EncodeOptions {
        add_bos: AddBos::ByMetadata,
        parse_special: true,
    };
    let Some(model) = fixture::smollm2(Engine::Oracle, SimdLevel::Auto, 0) else {
        return;
    };
    for case in cases(Real::SmolLm2) {
        let tokens = model.tokenizer().encode(&case.prompt, options).unwrap();
        assert_eq!(tokens, ids(&case.prompt_token_ids));
    }
}

#[test]
fn the_oracle_follows_the_goldens_of_smollm2() {
    check(Real::SmolLm2, Engine::Oracle);
}

#[test]
fn the_exact_engine_follows_the_goldens_of_smollm2() {
    check(Real::SmolLm2, Engine::Exact);
}

#[test]
fn the_oracle_follows_the_goldens_of_gemma3() {
    check(Real::Gemma3, Engine::Oracle);
}

#[test]
fn the_exact_engine_follows_the_goldens_of_gemma3() {
    check(Real::Gemma3, Engine::Exact);
}
