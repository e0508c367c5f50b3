//! The GPU's bits: those of the CPU's exact engine, in every layout of kernels, batch and cut.
//! On a machine without a GPU a software Vulkan adapter runs them, such as Mesa's llvmpipe:
//! `TUSSAH_TEST_GPU` names another. Without any a test says so and returns; under `REQUIRE_GPU=1` it fails.

use std::sync::Arc;

use tussah_inference::{
    Device, Engine, Gpu, GpuChoice, GpuKind, GpuLayout, GpuOptions, GpuSubgroups, GpuTiles,
    LoadOptions, Model, Sampling, Session, SimdLevel, TokenId,
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

pub(crate) fn on(gpu: &Arc<Gpu>) -> LoadOptions {
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

/// The logits after the tokens, the first by itself and others `at_once` at a time, with those after each part.
fn logits_of(model: &Arc<Model>, tokens: &[TokenId], at_once: usize) -> Vec<Vec<u32>> {
    let mut session = session(model, 400, Sampling::default());
    let (first, others) = tokens.split_at(1);
    // Whoever asked for all logits once gets those of each part's own step.
    let parts = [first].into_iter().chain(others.chunks(at_once));
    let parts = parts.map(|chunk| {
        session.append(chunk).unwrap();
        bits(&mut session)
    });
    parts.collect()
}

pub(crate) fn on_cpu() -> LoadOptions {
    LoadOptions {
        engine: Engine::Exact,
        ..LoadOptions::default()
    }
}

/// Layouts that must not change a bit.
fn layouts() -> [GpuOptions; 3] {
    let layout =
        |lanes, [without_int64, without_floats]: [bool; 2], subgroups, groups, tiles| GpuOptions {
            layout: GpuLayout {
                lanes,
                without_int64,
                without_floats,
                subgroups,
                groups,
                tiles,
            },
            ..GpuOptions::default()
        };
    [
        layout(0, [false; 2], GpuSubgroups::Auto, 0, GpuTiles::Auto),
        // One workgroup takes all rows of a product that norms by itself.
        layout(0, [true, false], GpuSubgroups::Never, 1, GpuTiles::Always),
        layout(1, [false, true], GpuSubgroups::Always, 512, GpuTiles::Never),
    ]
}

/// A model whose matrices have formats of their own, in the order in which a layer uses them.
pub(crate) fn mixed(sizes: Sizes, formats: [Format; 7]) -> builder::File {
    let mut file = builder::llama(sizes, F32);
    let mut numbers = builder::Numbers(7);
    let parts = [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ];
    for layer in 0..sizes.layers {
        for (part, format) in parts.iter().zip(formats) {
            let tensor = file.tensor(&format!("blk.{layer}.{part}.weight"));
            let elements: u64 = tensor.dimensions.iter().product();
            let elements = usize::try_from(elements).unwrap();
            tensor.data = builder::random(format, elements, &mut numbers);
            tensor.format = format;
        }
    }
    file
}

fn check(file: &builder::File, options: &GpuOptions) {
    let Some(gpu) = gpu(options.clone()) else {
        return;
    };
    let cpu = Arc::new(file.load(&on_cpu()).unwrap());
    let model = Arc::new(file.load(&on(&gpu)).unwrap());
    // What a session is charged is part of a job's result, too.
    for context in [1, 100, 512] {
        let charged = |model: &Model| Session::memory_bytes_for(model, context);
        assert_eq!(charged(&model), charged(&cpu));
    }
    // One row alone, batches, and both after each other; then more than a page of the cache.
    for (count, at_once) in [(5, 1), (10, 9), (10, 4), (71, 69)] {
        let found = logits_of(&model, &tokens(count), at_once);
        let wanted = logits_of(&cpu, &tokens(count), at_once);
        assert!(found == wanted, "{options:?}, {at_once} of {count} at once");
    }
}

#[test]
fn every_format_has_the_bits_of_the_cpu() {
    let file = mixed(SMALL, [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16]);
    for options in layouts() {
        check(&file, &options);
    }
}

#[test]
fn formats_of_larger_blocks_have_the_bits_of_the_cpu() {
    let file = mixed(WIDE, [Q4_K, Q5_K, Q6_K, F32, Q6_K, Q4_K, Q5_K]);
    for options in layouts() {
        check(&file, &options);
    }
}

#[test]
fn subgroups_are_taken_where_they_are_right() {
    let of = |subgroups| {
        gpu(GpuOptions {
            layout: GpuLayout {
                subgroups,
                ..GpuLayout::default()
            },
            ..GpuOptions::default()
        })
    };
    for (wanted, whether) in [
        (GpuSubgroups::Always, [true, true]),
        (GpuSubgroups::Auto, [true, false]),
        (GpuSubgroups::Never, [false, false]),
    ] {
        let Some(gpu) = of(wanted) else { return };
        let is_software = gpu.info().kind == GpuKind::Software;
        let expected = gpu.info().subgroups && whether[usize::from(is_software)];
        assert_eq!(gpu.subgroups(), expected, "{wanted:?} on {}", gpu.info());
    }
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
    let Some(gpu) = gpu(options.clone()) else {
        return;
    };
    let path = fixture::path(which).unwrap();
    let model = Arc::new(Model::open(&path, &on(&gpu), &mut |_| {}).unwrap());
    let dispatches = model.dispatches_per_token().unwrap();
    let layers = model.info().layers as usize;
    assert!(
        dispatches <= 5 * layers + 6,
        "{which:?}: {dispatches} dispatches a token"
    );
    let tokens = golden_tokens(which);
    let wanted = scored(&cpu, &tokens, &[]);
    // Most of them at once and the last ones one after the other, as they would be generated; and in parts.
    let ways: &[&[usize]] = match options.layout == GpuLayout::default() {
        true => &[&[60, 61, 62, 63], &[5, 6, 40]],
        false => &[&[60, 61, 62, 63]],
    };
    for ends in ways {
        let found = scored(&model, &tokens, ends);
        for (position, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert!(
                found == wanted,
                "{which:?}: logits of position {position}, cut at {ends:?}"
            );
        }
        assert_eq!(found.len(), wanted.len());
    }
}

/// The bits of the logits after each token, which are appended in parts that end there.
fn scored(model: &Arc<Model>, tokens: &[TokenId], ends: &[usize]) -> Vec<Vec<u32>> {
    let mut session = goldens::open(model, 64);
    let mut rows = Vec::new();
    let mut from = 0;
    for end in ends.iter().copied().chain([tokens.len()]) {
        let logits = session.append_scored(&tokens[from..end]).unwrap();
        let vocabulary = model.info().vocabulary_size as usize;
        let bits = |row: &[f32]| row.iter().map(|logit| logit.to_bits()).collect();
        rows.extend(logits.chunks_exact(vocabulary).map(bits));
        from = end;
    }
    rows
}

#[test]
fn every_logit_of_smollm2_is_the_cpus() {
    for options in layouts() {
        check_real(Real::SmolLm2, options);
    }
}

#[test]
fn every_logit_of_gemma3_is_the_cpus() {
    for options in layouts() {
        check_real(Real::Gemma3, options);
    }
}

fn fast_on(gpu: &Arc<Gpu>) -> LoadOptions {
    LoadOptions {
        engine: Engine::Fast,
        ..on(gpu)
    }
}

/// How far values are from the oracle's, relative to the largest.
fn apart(found: &[u32], oracle: &[u32]) -> f32 {
    let float = |bits: &u32| f32::from_bits(*bits);
    let largest = oracle.iter().map(|bits| float(bits).abs());
    let largest = largest.fold(0.0f32, f32::max);
    assert!(largest > 0.01);
    let apart = found.iter().zip(oracle);
    let apart = apart.map(|(a, b)| (float(a) - float(b)).abs());
    apart.fold(0.0f32, f32::max) / largest
}

/// The fast profile: near the oracle, and the same bits each time, alone or in a batch.
fn check_fast(file: &builder::File) {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let oracle = LoadOptions {
        engine: Engine::Oracle,
        ..LoadOptions::default()
    };
    let oracle = Arc::new(file.load(&oracle).unwrap());
    let model = Arc::new(file.load(&fast_on(&gpu)).unwrap());
    let tokens = tokens(70);
    let wanted = logits_of(&oracle, &tokens, 1);
    let found = logits_of(&model, &tokens, 1);
    for (position, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let apart = apart(found, wanted);
        assert!(apart < 1e-3, "position {position}: {apart} apart");
    }
    // A second time, and all rows at once.
    assert!(logits_of(&model, &tokens, 1) == found);
    let at_once = logits_of(&model, &tokens, 70);
    assert!(at_once[1] == found[69], "bits of a batch");
}

#[test]
fn the_fast_profile_is_near_the_oracle_and_the_same_each_time() {
    check_fast(&mixed(SMALL, [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16]));
    check_fast(&mixed(WIDE, [Q4_K, Q5_K, Q6_K, F32, Q6_K, Q4_K, Q5_K]));
}

fn check_fast_real(which: Real) {
    let Some(oracle) = fixture::real(which, Engine::Oracle, SimdLevel::Auto, 0) else {
        return;
    };
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let path = fixture::path(which).unwrap();
    let model = Arc::new(Model::open(&path, &fast_on(&gpu), &mut |_| {}).unwrap());
    let tokens = &golden_tokens(which)[..24];
    let wanted = scored(&oracle, tokens, &[]);
    let found = scored(&model, tokens, &[]);
    for (position, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let apart = apart(found, wanted);
        assert!(
            apart < 1e-3,
            "{which:?}, position {position}: {apart} apart"
        );
    }
    // Alone, and run again: the same sums in the same order, by kernels that this driver compiles alike.
    let again = scored(&model, tokens, &[22, 23]);
    assert!(again == found, "{which:?}: bits of rows alone");
}

#[test]
fn the_fast_profile_follows_the_oracle_on_real_models() {
    check_fast_real(Real::SmolLm2);
    check_fast_real(Real::Gemma3);
}

#[test]
fn matrices_larger_than_a_binding_are_cut() {
    // Matrices of 2 MiB, and a limit that leaves room for the buffers of a step.
    let cut = GpuOptions {
        binding_bytes_max: Some(3 << 19),
        ..GpuOptions::default()
    };
    let sizes = Sizes {
        embedding: 1024,
        feed_forward: 1024,
        heads: 16,
        kv_heads: 2,
        layers: 1,
    };
    let file = mixed(sizes, [F16, F16, F16, F32, F16, BF16, F16]);
    check(&file, &cut);
    // The scores of a long prompt have no room there at once.
    let Some(gpu) = self::gpu(cut) else { return };
    let found = logits_of(&Arc::new(file.load(&on(&gpu)).unwrap()), &tokens(300), 300);
    let wanted = logits_of(&Arc::new(file.load(&on_cpu()).unwrap()), &tokens(300), 300);
    assert!(found == wanted, "a prompt whose scores are cut");
    // And one that does not.
    let cut = GpuOptions {
        binding_bytes_max: Some(1 << 18),
        ..GpuOptions::default()
    };
    let Some(gpu) = self::gpu(cut) else { return };
    let refused = mixed(SMALL, [Q4_0; 7]).load(&on(&gpu)).unwrap_err();
    assert!(refused.to_string().contains("out of memory"), "{refused}");
}

#[test]
fn sessions_share_batches_and_forks_share_pages() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let file = mixed(SMALL, [Q4_1; 7]);
    let cpu = Arc::new(file.load(&on_cpu()).unwrap());
    let model = Arc::new(file.load(&on(&gpu)).unwrap());
    // Eight threads with texts of their own, each forking in the middle of a page.
    let walk = |model: &Arc<Model>, seed: u32| {
        let mut session = session(model, 100, Sampling::default());
        let text: Vec<_> = (0..40 + seed)
            .map(|i| TokenId((i * 7 + seed) % 256))
            .collect();
        session.append(&text).unwrap();
        let mut all = vec![bits(&mut session)];
        let mut fork = session.fork().unwrap();
        for i in 0..6 {
            session.accept(TokenId(i + seed)).unwrap();
            fork.accept(TokenId(i * 3 + seed)).unwrap();
            all.extend([bits(&mut session), bits(&mut fork)]);
        }
        all
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..8)
            .map(|seed| {
                (
                    seed,
                    scope.spawn({
                        let (walk, model) = (&walk, &model);
                        move || walk(model, seed)
                    }),
                )
            })
            .collect();
        for (seed, thread) in running {
            assert!(thread.join().unwrap() == walk(&cpu, seed), "session {seed}");
        }
    });
}

/// What the first tokens give on both devices, or the error.
fn both(gpu: &Arc<Gpu>, file: &builder::File) -> [Result<Vec<u32>, String>; 2] {
    [on(gpu), on_cpu()].map(|options| {
        let model = Arc::new(file.load(&options).unwrap());
        let mut session = session(&model, 50, Sampling::default());
        let appended = session.append(&tokens(5));
        if appended.is_err() {
            assert!(session.next().is_err(), "a session that failed goes on");
        }
        appended.map_err(|error| error.to_string())?;
        Ok(bits(&mut session))
    })
}

/// F32 weights times a factor.
fn scaled(file: &mut builder::File, name: &str, factor: f32) {
    let tensor = file.tensor(name);
    let values = tensor.data.as_chunks::<4>().0.iter();
    tensor.data = values
        .flat_map(|bytes| (f32::from_le_bytes(*bytes) * factor).to_le_bytes())
        .collect();
}

#[test]
fn what_overflows_is_what_overflows_on_the_cpu() {
    // Floats of the device's own, and of integers.
    let [native, _, of_integers] = layouts();
    let open = [native, of_integers].map(gpu);
    let gpus: Vec<_> = open.into_iter().flatten().collect();
    // Heads of 32 scale scores by a factor, which must not bring infinity back.
    let sizes = Sizes {
        embedding: 64,
        feed_forward: 64,
        heads: 2,
        kv_heads: 1,
        layers: 1,
    };
    let names = |parts: &[&str]| -> Vec<String> {
        parts
            .iter()
            .map(|part| format!("blk.0.{part}.weight"))
            .collect()
    };
    for (matrices, factor) in [
        (names(&["ffn_down", "ffn_gate", "ffn_up"]), 1e30),
        (names(&["attn_q", "attn_k"]), 1e19),
        (names(&["attn_output"]), 1e38),
        // Squares of states overflow: the norm's factor is 0, and nothing is wrong.
        (names(&["ffn_down"]), 1e21),
        (names(&["ffn_gate"]), 1e20),
    ] {
        let mut file = mixed(sizes, [F32; 7]);
        for name in &matrices {
            scaled(&mut file, name, factor);
        }
        for gpu in &gpus {
            let [found, wanted] = both(gpu, &file);
            assert_eq!(found, wanted, "{matrices:?} times {factor}");
        }
    }
}

#[test]
fn a_gpu_is_taken_by_name_and_what_there_is_is_told() {
    let wrong = GpuOptions {
        choice: GpuChoice::Named("no such adapter".to_owned()),
        ..GpuOptions::default()
    };
    let error = Gpu::open(&wrong).unwrap_err().to_string();
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    assert!(
        error.contains("no such adapter") && error.contains(&gpu.info().name),
        "{error}"
    );
    // Software is never taken unless it is named.
    if Gpu::list()
        .iter()
        .all(|info| info.kind == GpuKind::Software)
    {
        let error = Gpu::open(&GpuOptions::default()).unwrap_err().to_string();
        assert!(error.contains("only software"), "{error}");
    }
}

#[test]
fn a_lost_device_ends_its_sessions_and_is_opened_again() {
    let Some(gpu) = gpu(GpuOptions::default()) else {
        return;
    };
    let file = mixed(SMALL, [Q8_0; 7]);
    let model = Arc::new(file.load(&on(&gpu)).unwrap());
    let mut before = session(&model, 50, Sampling::default());
    before.append(&tokens(5)).unwrap();
    gpu.close();
    let error = before.append(&tokens(2)).unwrap_err().to_string();
    assert!(error.contains("GPU was lost"), "{error}");
    let cpu = Arc::new(file.load(&on_cpu()).unwrap());
    assert!(logits_of(&model, &tokens(5), 5) == logits_of(&cpu, &tokens(5), 5));
    // The old session stays what it was.
    assert!(before.fork().is_err());
    assert!(before.append(&tokens(2)).is_err());
}
