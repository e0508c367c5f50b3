//! Devices: the same result on GPU and CPU, and no GPU replaced in silence.

use std::fs;

use serde_json::Value;

use crate::fixture::{Ended, Sandbox};

/// Every adapter that computes on the CPU hidden, and no GPU in a machine that runs tests.
fn without_drivers(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    let mut command = sandbox.command(arguments);
    // Vulkan's loader then reads no manifest but this one, which is not there.
    command.env("VK_DRIVER_FILES", "no-such-driver.json");
    command.env("VK_ICD_FILENAMES", "no-such-driver.json");
    command.output().unwrap().into()
}

/// The plain job's manifest with another word for its device.
fn asks_for(sandbox: &Sandbox, device: &str) {
    let manifest = sandbox.plain_job();
    let text = fs::read_to_string(&manifest).unwrap();
    let line = format!("device = \"{device}\"");
    let asking = text.replace("device = \"any\"", &line);
    assert!(asking.contains(&line), "{text}");
    fs::write(manifest, asking).unwrap();
}

const PLAIN: &str = "built/manifest.toml";

#[test]
fn a_summary_is_the_same_on_gpu_and_cpu() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let Some(gpu) = sandbox.gpu() else { return };
    let manifest = sandbox.summarize();
    // A software adapter makes a few tokens a second: a short article with a short summary.
    let article = sandbox.file(
        "article.txt",
        "The ferry to the island leaves at nine. It is blue.",
    );
    let (manifest, article) = (manifest.to_str().unwrap(), article.to_str().unwrap());
    let run = |device: &str, receipt: &str| -> Value {
        let options = [
            "--input",
            article,
            "--device",
            device,
            "--receipt",
            receipt,
            "--json",
        ];
        let ended = sandbox.run(&[&["run", manifest][..], &options].concat());
        let ended = ended.expect(0);
        assert_eq!(ended.stderr, "");
        ended.json()
    };
    let (on_cpu, on_gpu) = (run("cpu", "cpu.cbor"), run(&gpu, "gpu.cbor"));
    assert_eq!(on_gpu["output"], on_cpu["output"]);
    assert_eq!(on_gpu["consensus_digest"], on_cpu["consensus_digest"]);

    let evidence = &on_gpu["receipt"]["evidence"];
    let adapter = evidence["adapter"].as_str().unwrap();
    assert!(
        adapter.to_lowercase().contains(&gpu.to_lowercase()),
        "{adapter}"
    );
    assert!(evidence["driver"].as_str().unwrap().len() > "vulkan ".len());
    assert_eq!(on_cpu["receipt"]["evidence"]["adapter"], Value::Null);
    assert_eq!(on_cpu["receipt"]["evidence"]["gpu_ns"], Value::Null);
    let counts_time = sandbox.adapter(&gpu).unwrap()["timestamps"] == true;
    let gpu_ns: Option<u64> = evidence["gpu_ns"].as_str().map(|ns| ns.parse().unwrap());
    assert_eq!(gpu_ns.is_some_and(|ns| ns > 0), counts_time, "{evidence}");
    let shown = sandbox.run(&["receipt", "show", "gpu.cbor"]).expect(0);
    assert!(shown.stdout.contains(adapter), "{shown:?}");

    let audit = ["audit", "gpu.cbor", "--input", article, "--device", "cpu"];
    let audit = sandbox.run(&audit).expect(0);
    assert!(audit.stdout.starts_with("reproduced"), "{audit:?}");
}

#[test]
fn generated_text_is_the_same_on_gpu_and_cpu() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let Some(gpu) = sandbox.gpu() else { return };
    let generate = |device: &str| {
        let arguments = [
            "model",
            "generate",
            "smollm2",
            "--raw",
            "--prompt",
            "A river of",
        ];
        let most = ["--max-tokens", "3", "--device", device, "--json"];
        let generated = sandbox.run(&[&arguments[..], &most].concat());
        generated.expect(0).json()
    };
    let (on_cpu, on_gpu) = (generate("cpu"), generate(&gpu));
    assert_eq!(on_gpu["token_ids"], on_cpu["token_ids"]);
    let engine = on_gpu["engine"].as_str().unwrap().to_lowercase();
    assert!(engine.contains(&gpu.to_lowercase()), "{engine}");
    let auto = [
        "model",
        "generate",
        "smollm2",
        "--prompt",
        "A",
        "--max-tokens",
        "1",
    ];
    if cfg!(target_os = "linux") {
        // Without a word about the device and without a GPU.
        let ended = without_drivers(&sandbox, &auto).expect(0);
        ended.says("device: cpu");
    }
    let oracle = ["--engine", "oracle", "--device", gpu.as_str()];
    let oracle = sandbox.run(&[&auto[..], &oracle].concat());
    oracle.expect(2).says("the oracle runs on the CPU only");
}

#[test]
fn encoders_run_on_the_cpu_unless_a_gpu_is_asked_for() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let Some(gpu) = sandbox.gpu() else { return };
    if !sandbox.link_model_named("minilm") {
        crate::fixture::missing("the model minilm", "REQUIRE_MODEL");
        return;
    }
    let folder = crate::fixture::repository().join("jobs/embed-search");
    let built = sandbox.build(&folder).expect(0).json();
    let manifest = built["manifest"]["path"].as_str().unwrap();
    let input = br#"{"query": "silk", "documents": ["a moth", "a ship"]}"#;
    let on = |device: &str| {
        sandbox.run_with_input(
            &["run", manifest, "--input", "-", "--device", device],
            input,
        )
    };
    assert_eq!(on("auto").expect(0).stdout, on("cpu").expect(0).stdout);
    on(&gpu)
        .expect(2)
        .says("an encoder runs on the CPU only")
        .says("--device cpu");
}

#[test]
#[cfg(target_os = "linux")]
fn a_gpu_is_never_replaced_in_silence() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_job();
    sandbox.file("input.txt", "silk");
    let run = ["run", PLAIN, "--input", "input.txt"];
    let on = |device: &str| without_drivers(&sandbox, &[&run[..], &["--device", device]].concat());
    on("gpu")
        .expect(5)
        .says("no GPU was found")
        .says("docs/gpu.md");
    on("llvmpipe").expect(5);
    // A job without models needs no device, and nothing is said of any.
    assert!(!on("auto").expect(0).stderr.contains("device"));

    asks_for(&sandbox, "gpu");
    on("auto")
        .expect(5)
        .says("says `device = \"gpu\"`")
        .says("no GPU was found");
    on("cpu").expect(2).says("--device says `cpu`");
    asks_for(&sandbox, "cpu");
    on("auto").expect(0);
}

#[test]
fn a_software_adapter_is_taken_by_name_alone() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let Some(gpu) = sandbox.gpu() else { return };
    sandbox.plain_job();
    sandbox.file("input.txt", "silk");
    asks_for(&sandbox, "gpu");
    let run = ["run", PLAIN, "--input", "input.txt", "--device"];
    let on = |device: &str| sandbox.run(&[&run[..], &[device]].concat());
    on(&gpu).expect(0);
    on("no such adapter")
        .expect(5)
        .says("no GPU has `no such adapter` in its name");
    let doctor = sandbox.run(&["doctor"]).expect(0);
    if doctor.stdout.contains("gpu         none") {
        on("gpu")
            .expect(5)
            .says("only software adapters")
            .says("--device llvmpipe");
    }
}
