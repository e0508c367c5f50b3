//! `wasi:nn`: guests without the SDK, as a component and as a preview 1 module.

use std::{fs, path::PathBuf};

use crate::fixture::{Sandbox, missing, repository};

/// Short, so that three runs take seconds.
const ARTICLE: &str = "Tussah is a silk from wild cocoons. It is darker than silk from \
farmed ones, because the worms eat oak leaves. Weavers value it for its strength. Most of it \
comes from India and China, where families gather the cocoons in forests each spring.";

/// Builds a guest of `tests/guests`; its manifest, with the module beside it.
fn guest(sandbox: &Sandbox, name: &str) -> Option<PathBuf> {
    let built = sandbox.build(&repository().join("tests/guests").join(name));
    if built.code == 5 && built.stdout.contains("no standard library") {
        missing("std for wasm32-wasip1", "REQUIRE_WASM");
        return None;
    }
    let built = built.expect(0).json();
    let folder = sandbox.work().join(name);
    fs::create_dir_all(&folder).unwrap();
    for (what, file) in [("module", "module.wasm"), ("manifest", "manifest.toml")] {
        fs::copy(built[what]["path"].as_str().unwrap(), folder.join(file)).unwrap();
    }
    Some(folder.join("manifest.toml"))
}

#[test]
fn guests_without_the_sdk_give_the_jobs_text() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let text = |manifest: PathBuf, receipt: &str| {
        let arguments = ["run", manifest.to_str().unwrap(), "--input", "-"];
        let arguments = [&arguments[..], &["--receipt", receipt]].concat();
        sandbox
            .run_with_input(&arguments, ARTICLE.as_bytes())
            .expect(0)
            .stdout
    };
    let job = text(sandbox.summarize(), "job.cbor");
    assert!(job.len() > 20, "{job}");
    let Some(world) = guest(&sandbox, "nn-world") else {
        return;
    };
    assert_eq!(text(world, "world.cbor"), job);
    let Some(module) = guest(&sandbox, "nn-crate") else {
        return;
    };
    assert_eq!(text(module, "crate.cbor"), job);
    // Their receipts are as good as a component's.
    for receipt in ["world.cbor", "crate.cbor"] {
        sandbox.run(&["receipt", "verify", receipt]).expect(0);
        let arguments = ["audit", receipt, "--input", "-"];
        let audit = sandbox
            .run_with_input(&arguments, ARTICLE.as_bytes())
            .expect(0);
        assert!(audit.stdout.starts_with("reproduced"), "{audit:?}");
    }
}

#[test]
fn a_preview_1_job_ends_as_others_do() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let Some(manifest) = guest(&sandbox, "nn-crate") else {
        return;
    };
    let path = manifest.to_str().unwrap();
    // `main` returns an error: exit code 1, and what it says is in the log.
    let ended = sandbox.run_with_input(&["run", path, "--input", "-"], b"caf\xe9");
    ended
        .expect(1)
        .says("stream did not contain valid UTF-8")
        .says("code 1");
    let text = fs::read_to_string(&manifest).unwrap();
    let change = |field: &str, value: &str| {
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        text.replace(line, &format!("{field} = {value}"))
    };
    for (field, value, said) in [
        ("fuel_max", "1000", "limits.fuel_max"),
        (
            "inference_units_max",
            "1000000",
            "limits.inference_units_max",
        ),
        ("output_bytes_max", "5", "limits.output_bytes_max"),
    ] {
        fs::write(&manifest, change(field, value)).unwrap();
        let ended = sandbox.run_with_input(&["run", path, "--input", "-"], ARTICLE.as_bytes());
        ended.expect(4).says(said);
    }
    // The other ABI does not fit these bytes, and bytes that were changed fit no manifest.
    fs::write(&manifest, change("abi", "\"component\"")).unwrap();
    sandbox
        .run(&["run", path])
        .expect(2)
        .says("this is a core WebAssembly module");
    fs::write(&manifest, &text).unwrap();
    let module = manifest.with_file_name("module.wasm");
    let mut bytes = fs::read(&module).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&module, bytes).unwrap();
    sandbox
        .run(&["run", path])
        .expect(3)
        .says("the manifest names blake3:");
}
