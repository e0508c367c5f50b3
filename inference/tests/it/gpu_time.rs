//! What a session says of its time on a GPU.
//! Where the tests' adapter counts no time, that there is none is what they check.

use std::sync::Arc;
use std::time::Duration;

use tussah_inference::{GpuOptions, LoadOptions, Sampling, TokenId};

use crate::builder::{self, Q4_1, SMALL, session};
use crate::gpu::{gpu, on};

const PROMPT: [TokenId; 4] = [TokenId(5), TokenId(17), TokenId(200), TokenId(3)];

#[test]
fn a_session_counts_its_own_steps() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let file = builder::llama(SMALL, Q4_1);
    let model = Arc::new(file.load(&on(&gpu)).unwrap());
    let mut first = session(&model, 16, Sampling::default());
    first.append(&PROMPT).unwrap();
    if !gpu.info().timestamps {
        assert_eq!(first.gpu_time(), None);
        return;
    }
    let of_prompt = first.gpu_time().unwrap();
    assert!(of_prompt > Duration::ZERO);
    // A token that was picked is not run before its logits are wanted.
    first.next().unwrap();
    assert_eq!(first.gpu_time(), Some(of_prompt));
    first.logits().unwrap();
    let with_token = first.gpu_time().unwrap();
    assert!(with_token > of_prompt);
    // What a fork takes is its own, and no other session's.
    let mut fork = first.fork().unwrap();
    assert_eq!(fork.gpu_time(), Some(Duration::ZERO));
    fork.append(&PROMPT).unwrap();
    assert!(fork.gpu_time().unwrap() > Duration::ZERO);
    assert_eq!(first.gpu_time(), Some(with_token));
}

#[test]
fn after_a_step_that_failed_the_time_is_not_known() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let file = builder::llama(SMALL, Q4_1);
    let model = Arc::new(file.load(&on(&gpu)).unwrap());
    let mut session = session(&model, 16, Sampling::default());
    session.append(&PROMPT).unwrap();
    gpu.close();
    session.append(&PROMPT).unwrap_err();
    assert_eq!(session.gpu_time(), None);
}

#[test]
fn a_cpu_has_no_time_on_a_gpu() {
    let file = builder::llama(SMALL, Q4_1);
    let model = Arc::new(file.load(&LoadOptions::default()).unwrap());
    let mut session = session(&model, 16, Sampling::default());
    session.append(&PROMPT).unwrap();
    assert_eq!(session.gpu_time(), None);
}

#[test]
fn a_copy_inside_the_memory_has_a_rate() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let rate = gpu.measure_bandwidth().unwrap();
    // A megabyte a second would be a mistake, and so would what no memory does.
    assert!(rate > 1e6 && rate < 1e15, "{rate} bytes/s");
}
