//! What is refused before anything is compiled.

use std::sync::{Arc, Mutex, mpsc};

use expect_test::{Expect, expect};
use tussah_manifest::{Limits, ModelName, ModelRef, ModuleRef};
use tussah_runtime::{
    Events, LoadedModel, ModelSource, ModelSourceError, Run, SubmittedJob, run_job,
};

use crate::fixture::{self, LIMITS};

const NULL: &str = "(func $run (param i32 i32) (result i32) (i32.const 0))";

#[track_caller]
fn check(change: impl FnOnce(&mut SubmittedJob), expected: Expect) {
    let mut job = fixture::submit(fixture::component(NULL), LIMITS, b"input");
    change(&mut job);
    expected.assert_eq(&fixture::ended(fixture::run(&fixture::runtime(), job)));
}

/// Signs the request anew, for changes that shall get past it.
fn sign_again(job: &mut SubmittedJob) {
    job.manifest.module = ModuleRef::of(&job.module);
    job.request = fixture::request(&job.manifest, &job.input);
}

#[test]
fn a_module_with_one_bit_changed_is_refused() {
    check(
        |job| job.module[100] ^= 1,
        expect![
            "Developer: the module's digest is blake3:a151633eae8742e8a8b52802f070f82744de3c42cf5bef55ca8e707c6e60bc4a, its manifest says blake3:10e89d31628081523dd01aa717289a8397fd0024e241b28b843820737b76c6ea: the bytes were changed"
        ],
    );
}

#[test]
fn a_module_that_was_cut_is_refused() {
    check(
        |job| job.module.truncate(100),
        expect![
            "Developer: the module has 100 bytes, its manifest says 1292: it was cut or changed"
        ],
    );
    check(
        |job| {
            job.module.truncate(100);
            sign_again(job);
        },
        expect![
            "Developer: the module is damaged or uses a feature of WebAssembly that is off here: unexpected end-of-file (at offset 0x30)"
        ],
    );
}

#[test]
fn what_is_no_component_is_refused() {
    check(
        |job| {
            job.module = b"\x7fELF is no wasm".to_vec();
            sign_again(job);
        },
        expect![[r#"Developer: this is not a WebAssembly module: it does not begin with `\0asm`"#]],
    );
    check(
        |job| {
            job.module = wat::parse_str("(module (func (export \"run\")))").expect("wasm");
            sign_again(job);
        },
        expect![
            "Developer: this is a core WebAssembly module, and the manifest asks for a component: build it for the target wasm32-wasip2, or write `abi = \"preview1\"`"
        ],
    );
    check(
        |job| {
            job.module = wat::parse_str("(component)").expect("wasm");
            sign_again(job);
        },
        expect![
            "Developer: the module is no job: it must export `run: func(input: list<u8>) -> result<_, job-error>` of the world tussah:job/job: no export `run` found"
        ],
    );
    check(
        |job| {
            let text = r#"(component (import "wasi:sockets/tcp@0.2.6" (instance)))"#;
            job.module = wat::parse_str(text).expect("wasm");
            sign_again(job);
        },
        expect![
            "Developer: the module imports `wasi:sockets/tcp@0.2.6`, which jobs do not get: there is no network in the sandbox; take data from the job's input instead"
        ],
    );
}

#[test]
fn documents_that_do_not_belong_together_are_refused() {
    check(
        |job| job.input.push(b'!'),
        expect!["Client: the input is not the one that the request was made for"],
    );
    check(
        |job| {
            job.manifest.job.limits.fuel_max += 1;
        },
        expect![
            "Client: the request is for manifest blake3:0b0804facfdfad17bade87146366daf36bf103433bf5080d7cd329caf14b926b, but the manifest is blake3:c7436662cbb3c91c07997bbfc064fe42e38da37e2ea22173a3989f1206919fd9"
        ],
    );
    check(
        |job| job.request.body.price_nanograms_max = tussah_manifest::Nanograms::MAX,
        expect![
            "Client: the request is not valid: the signature is not ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c's over this document: it was changed, or another key signed it"
        ],
    );
}

#[test]
fn sizes_are_checked_at_their_edges() {
    let with_input = |bytes: usize| {
        move |job: &mut SubmittedJob| {
            job.input = vec![b'x'; bytes];
            sign_again(job);
        }
    };
    check(with_input(1024), expect![[r#"done [exact] """#]]);
    check(
        with_input(1025),
        expect![
            "Client: the input has 1025 bytes, the manifest allows 1024 (limits.input_bytes_max)"
        ],
    );
    let with_memory = |bytes: u64| {
        move |job: &mut SubmittedJob| {
            job.manifest.job.limits = Limits {
                memory_bytes_max: bytes,
                ..LIMITS
            };
            sign_again(job);
        }
    };
    check(with_memory(64 << 20), expect![[r#"done [exact] """#]]);
    check(
        with_memory((64 << 20) + 1),
        expect![
            "Developer: the manifest asks for limits.memory_bytes_max = 67108865, this host gives at most 67108864"
        ],
    );
}

#[test]
fn a_model_that_is_not_here_is_named() {
    check(
        |job| {
            let digest = tussah_manifest::Digest::of(b"some model");
            let model = ModelRef {
                digest,
                format: tussah_manifest::ModelFormat::Gguf,
            };
            job.manifest
                .job
                .models
                .insert(ModelName::new("tiny").expect("a name"), model);
            sign_again(job);
        },
        expect![
            "Provider: the manifest's model `tiny` is missing: model blake3:57f93c1570ad6f41a1a8ea92b14d7ba32c7e91f0cd8acfdcbc0ac8500daee363 cannot be used: there are no models here"
        ],
    );
}

/// Says that a model is here once somebody else has gone on meanwhile.
struct Slow {
    others: Mutex<mpsc::Receiver<()>>,
}

impl ModelSource for Slow {
    fn check(&self, model: &ModelRef) -> Result<(), ModelSourceError> {
        let others = self.others.lock().expect("one looks at a time");
        let went_on = others.recv_timeout(std::time::Duration::from_secs(20));
        went_on.map_err(|_| ModelSourceError {
            digest: model.digest,
            reason: "everybody waits for this".into(),
        })
    }

    fn threads(&self) -> u32 {
        1
    }

    fn load(&self, model: &ModelRef, _: &dyn Events) -> Result<LoadedModel, ModelSourceError> {
        Err(ModelSourceError {
            digest: model.digest,
            reason: "no guest asks for it".into(),
        })
    }
}

#[test]
fn a_look_for_models_that_takes_its_time_keeps_nobody_waiting() {
    let mut job = fixture::submit(fixture::component(NULL), LIMITS, b"input");
    fixture::RandomModels::new().name_in(&mut job, "tiny");
    let (sender, others) = mpsc::channel();
    let others = Mutex::new(others);
    let run = Run {
        models: Arc::new(Slow { others }),
        ..fixture::run_with(Arc::new(tussah_runtime::NoEvents))
    };
    let (runtime, key) = (fixture::runtime(), fixture::key(2));
    let result = fixture::block_on(async {
        // Both on one thread: the job is polled first, and has to let the other have its turn.
        let (result, ()) = tokio::join!(run_job(&runtime, job, run, &key), async {
            sender.send(()).expect("the look is not over");
        });
        result
    });
    expect![[r#"done [exact] """#]].assert_eq(&fixture::ended(result));
}
