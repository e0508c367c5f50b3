//! The GPU's bits: those of the CPU's exact engine, in every layout of kernels, batch and cut.
//! On a machine without a GPU a software Vulkan adapter runs them, such as Mesa's llvmpipe:
//! `TUSSAH_TEST_GPU` names another. Without any a test says so and returns; under `REQUIRE_GPU=1` it fails.

use std::sync::Arc;

use tussah_inference::{
    Device, Engine, Gpu, GpuChoice, GpuLayout, GpuOptions, LoadOptions, Model, Sampling, Session,
    SimdLevel, TokenId,
};

use crate::builder::{
    self, BF16, F16, F32, Format, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SMALL, Sizes,
    WIDE, session,
};
use crate::fixture::{self, Real};
use crate::goldens;

/// The adapter that tests run on, or `None` with a line that says why.
pub(crate) fn gpu(options: GpuOptions) -> Option<Arc<Gpu>> {
    let name = std::env::var("TUSSAH_TEST_GPU").unwrap_or_else(|_| "llvmpipe".to_owned());
    let options = GpuOptions {
        choice: GpuChoice::Named(name),
        ..options
    };
    match Gpu::open(&options) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            assert!(
                std::env::var_os("REQUIRE_GPU").is_none_or(|value| value != "1"),
                "REQUIRE_GPU=1, but {error}: `cargo xtask setup` installs a software adapter"
            );
            println!("skipped: {error}; `cargo xtask setup` installs a software adapter");
            None
        }
    }
}

fn on(gpu: &Arc<Gpu>) -> LoadOptions {
    LoadOptions {
        device: Device::Gpu(Arc::clone(gpu)),
        ..LoadOptions::default()
    }
}

fn bits(session: &mut Session) -> Vec<u32> {
    let logits = session.logits().unwrap();
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn tokens(count: u32) -> Vec<TokenId> {
    (0..count).map(|i| TokenId(i * 31 % 256)).collect()
}

/// The logits after the tokens, appended `at_once` at a time, with those after each part.
fn logits_of(model: &Arc<Model>, tokens: &[TokenId], at_once: usize) -> Vec<Vec<u32>> {
    let mut session = session(model, 400, Sampling::default());
    let parts = tokens.chunks(at_once).map(|chunk| {
        session.append(chunk).unwrap();
        bits(&mut session)
    });
    parts.collect()
}

fn on_cpu() -> LoadOptions {
    LoadOptions {
        engine: Engine::Exact,
        ..LoadOptions::default()
    }
}

/// Layouts that must not change a bit.
fn layouts() -> [GpuOptions; 4] {
    let layout = |lanes, without_int64, binding_bytes_max| GpuOptions {
        layout: GpuLayout {
            lanes,
            without_int64,
        },
        binding_bytes_max,
        ..GpuOptions::default()
    };
    [
        layout(0, false, None),
        layout(0, true, None),
        layout(1, true, None),
        layout(32, false, None),
    ]
}

fn check(sizes: Sizes, formats: &[Format], count: u32) {
    for options in layouts() {
        let Some(gpu) = gpu(options.clone()) else {
            return;
        };
        for format in formats {
            let file = builder::llama(sizes, *format);
            let cpu = Arc::new(file.load(&on_cpu()).unwrap());
            let model = Arc::new(file.load(&on(&gpu)).unwrap());
            for at_once in [count as usize, 1, 7] {
                let found = logits_of(&model, &tokens(count), at_once);
                let wanted = logits_of(&cpu, &tokens(count), at_once);
                assert!(found == wanted, "{format:?} {options:?}, {at_once} at once");
            }
        }
    }
}

#[test]
fn every_format_has_the_bits_of_the_cpu() {
    check(SMALL, &[Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16, F32], 9);
}

#[test]
fn formats_of_larger_blocks_have_the_bits_of_the_cpu() {
    check(WIDE, &[Q4_K, Q5_K, Q6_K], 9);
}

/// Every logit of the positions of a golden text, on a device: token by token, or all at once.
fn real_logits(model: &Arc<Model>, tokens: &[TokenId], at_once: usize) -> Vec<Vec<u32>> {
    let mut session = goldens::open(model, 64);
    let parts = tokens.chunks(at_once).map(|chunk| {
        session.append(chunk).unwrap();
        bits(&mut session)
    });
    parts.collect()
}

/// 64 positions of a golden text.
fn golden_tokens(which: Real) -> Vec<TokenId> {
    let case = &goldens::cases(which)[0];
    let mut tokens = goldens::ids(&case.prompt_token_ids);
    tokens.extend(goldens::ids(&case.generated_token_ids));
    tokens.truncate(64);
    tokens
}

fn check_real(which: Real, options: GpuOptions) {
    let Some(cpu) = fixture::real(which, Engine::Exact, SimdLevel::Auto, 0) else {
        return;
    };
    let Some(gpu) = gpu(options) else { return };
    let path = fixture::path(which).unwrap();
    let model = Arc::new(Model::open(&path, &on(&gpu), &mut |_| {}).unwrap());
    let tokens = golden_tokens(which);
    let wanted = real_logits(&cpu, &tokens, 1);
    for at_once in [1, tokens.len(), 13] {
        let found = real_logits(&model, &tokens, at_once);
        let ends = (at_once..tokens.len() + at_once).step_by(at_once);
        for (found, end) in found.iter().zip(ends) {
            let end = end.min(tokens.len());
            assert!(
                *found == wanted[end - 1],
                "{which:?}: logits of position {end}, {at_once} at once"
            );
        }
    }
}

#[test]
fn every_logit_of_smollm2_is_the_cpus() {
    check_real(Real::SmolLm2, GpuOptions::default());
}

#[test]
fn every_logit_of_gemma3_is_the_cpus() {
    check_real(Real::Gemma3, GpuOptions::default());
}
