//! ONNX models as their user sees them: `TUSSAH_TEST_ONNXRUNTIME` names the library, and `TUSSAH_BIN` is
//! built with the feature `onnx`. Without them the test says so and returns; under `REQUIRE_ONNX=1` it
//! fails.

use std::{fs, path::PathBuf};

use crate::fixture::{Ended, Sandbox, repository};

/// `y` [rows, 2] from `x` [rows, 3], in FP32; 8 weights.
fn linear() -> Vec<u8> {
    fs::read(repository().join("inference/tests/onnx/linear.onnx")).unwrap()
}

/// The same with a weight whose data lie in another file: of `b`'s message the 8 bytes of data make
/// room for that.
fn external() -> Vec<u8> {
    let mut model = linear();
    let data = [&[9_u8 << 3 | 2, 8][..], &0.5_f32.to_le_bytes()].concat();
    let at = (model.windows(data.len()).position(|bytes| bytes == data)).unwrap();
    // `external_data`, field 13: a message of 8 bytes, which is a name of 6.
    model[at..at + 10].copy_from_slice(b"\x6a\x08\x0a\x06secret");
    model
}

/// The default build has no such models: what is missing is required by a variable of its own.
#[expect(clippy::print_stdout, reason = "the test's own report")]
fn skip(why: &str) {
    let required = std::env::var_os("REQUIRE_ONNX").is_some_and(|value| value == "1");
    assert!(!required, "REQUIRE_ONNX is set, and {why}");
    println!("skipped: {why}");
}

/// The job and the library.
struct Host {
    sandbox: Sandbox,
    library: PathBuf,
    manifest: String,
}

impl Host {
    fn new() -> Option<Self> {
        let sandbox = Sandbox::with_wasm()?;
        let help = sandbox.run(&["run", "--help"]).expect(0);
        let library = std::env::var_os("TUSSAH_TEST_ONNXRUNTIME").filter(|path| !path.is_empty());
        if !help.stdout.contains("--onnxruntime") {
            skip("TUSSAH_BIN has no feature onnx");
            return None;
        }
        let Some(library) = library else {
            skip("TUSSAH_TEST_ONNXRUNTIME names no library");
            return None;
        };
        let built = sandbox.build(&repository().join("tests/guests/probe"));
        let built = built.expect(0).json();
        let read = |what: &str| fs::read(built[what]["path"].as_str().unwrap()).unwrap();
        sandbox.file("module.wasm", read("module"));
        let model = sandbox.file("linear.onnx", linear());
        let block = sandbox.run(&["model", "pull", "tiny", model.to_str().unwrap()]);
        let block = block.expect(0).stdout;
        assert!(block.contains("format = \"onnx\""), "{block}");
        let lines = String::from_utf8(read("manifest")).unwrap();
        let lines = lines.lines().map(|line| match line {
            line if line.starts_with("determinism") => "determinism = \"tolerant\"\n".to_owned(),
            line => format!("{line}\n"),
        });
        let manifest = lines.collect::<String>() + &block;
        Some(Self {
            sandbox,
            library: library.into(),
            manifest,
        })
    }

    /// Runs commands of the probe guest with this library.
    fn run(&self, library: Option<&str>, options: &[&str], commands: &[&str]) -> Ended {
        let manifest = self.sandbox.file("manifest.toml", &self.manifest);
        let mut arguments = vec!["run", manifest.to_str().unwrap(), "--input", "-"];
        if let Some(library) = library {
            arguments.extend(["--onnxruntime", library]);
        }
        arguments.extend(options);
        let input = commands.join("\n");
        self.sandbox.run_with_input(&arguments, input.as_bytes())
    }
}

#[test]
fn an_onnx_model_runs_where_its_provider_names_a_library() {
    let Some(host) = Host::new() else {
        return;
    };
    let library = host.library.to_str().unwrap();
    let rows = "nn-compute x:FP32:2,3:x24";
    let commands = [
        "nn-load tiny",
        rows,
        "nn-compute x:FP32:2,4:x32",
        "nn-compute x:I32:2,3:x24",
        "nn-compute",
        "load tiny",
    ];
    let ended = host.run(Some(library), &["--receipt", "r.cbor"], &commands);
    assert_eq!(
        ended.expect(0).stdout,
        "ok\n\
         ok y TensorType::Fp32 [2, 2]\n\
         InvalidArgument: the input `x` FP32 [?, 3] got a tensor of [2, 4]\n\
         InvalidArgument: the input `x` FP32 [?, 3] got a tensor of I32\n\
         InvalidArgument: the input `x` FP32 [?, 3] was not passed\n\
         UnsupportedOperation: model `tiny` is a graph of tensors, which has no text: compute it \
         through wasi:nn\n"
    );
    let shown = host.sandbox.run(&["receipt", "show", "r.cbor", "--json"]);
    let shown = shown.expect(0).json();
    assert_eq!(shown["consensus"]["determinism"], "tolerant");
    assert_eq!(shown["consensus"]["inference_units_used"], "22");
    let engine = shown["evidence"]["inference_engine"].as_str().unwrap();
    assert!(engine.starts_with("onnxruntime 1."), "{engine}");

    // On this machine the same library gives the same bits.
    let input = commands.join("\n");
    let audit = ["audit", "r.cbor", "--input", "-", "--onnxruntime", library];
    let audit = host.sandbox.run_with_input(&audit, input.as_bytes());
    assert!(audit.expect(0).stdout.starts_with("reproduced"));

    // Nothing is moved to another device, and no library is looked for.
    if let Some(gpu) = host.sandbox.gpu() {
        let gpu = host.run(Some(library), &["--device", &gpu], &commands);
        gpu.expect(2).says("an ONNX model runs on the CPU only");
    }
    let none = host.run(None, &[], &commands).expect(5);
    none.says("no ONNX Runtime library is named")
        .says("--onnxruntime FILE");
    let none = host.run(Some("no/such.so"), &[], &commands).expect(5);
    none.says("cannot find the ONNX Runtime library no/such.so");
    host.sandbox.file("text.so", "no library");
    let other = host.run(Some("text.so"), &[], &commands).expect(5);
    other.says("cannot load the library");

    let doctor = host.sandbox.run(&["doctor", "--onnxruntime", library]);
    assert!(doctor.stdout.contains("ONNX Runtime 1."), "{doctor:?}");
    let doctor = host.sandbox.run(&["doctor"]);
    assert!(
        doctor.stdout.contains("no ONNX Runtime library is named"),
        "{doctor:?}"
    );
}

#[test]
fn onnx_files_are_looked_at_before_they_are_kept() {
    let Some(host) = Host::new() else {
        return;
    };
    let shown = host.sandbox.run(&["model", "show", "tiny"]).expect(0);
    assert!(shown.stdout.contains("a graph of tensors"), "{shown:?}");
    for command in ["tokenize", "generate"] {
        let option = if command == "tokenize" {
            "--text"
        } else {
            "--prompt"
        };
        let ended = host
            .sandbox
            .run(&["model", command, "tiny", option, "hello"]);
        ended
            .expect(2)
            .says("a graph of tensors, which has no text");
    }
    let blobs = host.sandbox.blobs();
    let outside = host.sandbox.file("outside.onnx", external());
    let ended = host
        .sandbox
        .run(&["model", "add", "bad", outside.to_str().unwrap()]);
    ended
        .expect(2)
        .says("lie outside the file, and paths are not followed")
        .says("as one file");
    let half = &linear()[..80];
    let half = host.sandbox.file("half.onnx", half);
    let ended = host
        .sandbox
        .run(&["model", "add", "bad", half.to_str().unwrap()]);
    ended.expect(2).says("was not added");
    assert_eq!(host.sandbox.blobs(), blobs);
}
