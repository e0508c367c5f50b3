//! A guest of the job world that generates by `tussah:job/llm`.

use std::sync::Arc;

use tussah_inference::TokenId;
use tussah_runtime::{NoEvents, Run, run_job};

use crate::fixture::{self, LIMITS, RandomModels};

#[test]
fn a_guest_says_what_a_native_session_says() {
    let models = Arc::new(RandomModels::new());
    let prompt: Vec<_> = (0..9).map(|at| TokenId(at * 31 % 256)).collect();
    let (wanted, tokens) = fixture::native_text(models.model(), &prompt, 12);
    assert!(tokens > 1 && !wanted.is_empty(), "{tokens}: {wanted:?}");
    let input = fixture::llm_input(&prompt);
    let mut job = fixture::submit(fixture::llm_component(12), LIMITS, &input);
    models.name_in(&mut job, "tiny");
    let run = Run {
        models,
        ..fixture::run_with(Arc::new(NoEvents))
    };
    let result = fixture::block_on(run_job(&fixture::runtime(), job, run, &fixture::key(2)));
    let outcome = result.expect("it has a receipt").outcome;
    assert_eq!(outcome.output, wanted.as_bytes(), "{:?}", outcome.error);
    assert_eq!(outcome.used.inference_units > 0, tokens > 0);
}
