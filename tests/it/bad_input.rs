//! What a job can do wrong with models, sessions, tensors and its output: one line each, and
//! what comes back. A probe guest does what its input says; the model has random weights.

mod tables;

use std::{fs, path::PathBuf};

use serde_json::Value;
use tables::{ANSWERS, ENCODER, ENDINGS, REFUSALS, TEMPLATES};

use crate::fixture::{Ended, Sandbox, missing, repository};

struct Probe {
    sandbox: Sandbox,
    manifest: String,
    gguf: Vec<u8>,
}

impl Probe {
    fn new() -> Option<Self> {
        let sandbox = Sandbox::with_wasm()?;
        let built = sandbox.build(&repository().join("tests/guests/probe"));
        let built = built.expect(0).json();
        let read = |what: &str| fs::read(built[what]["path"].as_str().unwrap()).unwrap();
        sandbox.file("module.wasm", read("module"));
        let manifest = String::from_utf8(read("manifest")).unwrap();
        let sizes = [
            "--parameters",
            "200K",
            "--quant",
            "Q8_0",
            "--seed",
            "1",
            "--context",
            "256",
        ];
        let arguments = ["model", "random", "--out", "tiny.gguf"];
        sandbox.run(&[&arguments[..], &sizes].concat()).expect(0);
        let gguf = fs::read(sandbox.work().join("tiny.gguf")).unwrap();
        Some(Self {
            sandbox,
            manifest,
            gguf,
        })
    }

    /// Puts a model file into the store; its digest.
    fn add(&self, name: &str, gguf: &[u8]) -> Result<String, Ended> {
        let file = self.sandbox.file(&format!("{name}.gguf"), gguf);
        let added = self
            .sandbox
            .run(&["model", "add", name, file.to_str().unwrap(), "--json"]);
        if added.code != 0 {
            return Err(added);
        }
        let json: Value = added.json();
        Ok(json["digest"].as_str().unwrap().to_owned())
    }

    /// A manifest that names the model `tiny` and has another limit.
    fn manifest(&self, digest: &str, limit: &str) -> PathBuf {
        let field = limit.split(' ').next().unwrap();
        let lines = self.manifest.lines().map(|line| {
            let replaced = !field.is_empty() && line.starts_with(field);
            format!("{}\n", if replaced { limit } else { line })
        });
        let model = format!("[models.tiny]\ndigest = \"{digest}\"\nformat = \"gguf\"\n");
        let text: String = lines.collect();
        self.sandbox.file("manifest.toml", format!("{text}{model}"))
    }

    fn run(&self, digest: &str, limit: &str, commands: &[&str]) -> Ended {
        let manifest = self.manifest(digest, limit);
        let input = commands.join("\n");
        let arguments = ["run", manifest.to_str().unwrap(), "--input", "-"];
        self.sandbox.run_with_input(&arguments, input.as_bytes())
    }
}

#[test]
fn each_call_says_what_is_wrong() {
    let Some(probe) = Probe::new() else {
        return;
    };
    let tiny = probe.add("tiny", &probe.gguf).unwrap();
    let mut wrong = Vec::new();
    for (commands, expected) in ANSWERS {
        let ended = probe
            .run(&tiny, "", &[&["load tiny"], *commands].concat())
            .expect(0);
        let last = ended.stdout.lines().last().unwrap_or_default();
        if last != *expected {
            wrong.push(format!(
                "{commands:?}\n  wanted {expected}\n  found  {last}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let all = ANSWERS.len() + ENDINGS.len() + REFUSALS.len() + TEMPLATES.len();
    assert!(all >= 100, "the tables of this file have {all} cases");
}

#[test]
fn each_limit_ends_the_job_and_each_misuse_is_a_trap() {
    let Some(probe) = Probe::new() else {
        return;
    };
    let tiny = probe.add("tiny", &probe.gguf).unwrap();
    for (commands, limit, code, said) in ENDINGS {
        let ended = probe.run(&tiny, limit, commands);
        assert_eq!(ended.code, *code, "{commands:?}: {ended:?}");
        assert!(ended.stderr.contains(said), "{commands:?}: {ended:?}");
    }
    for (commands, limit, code, said) in REFUSALS {
        let ended = probe.run(&tiny, limit, commands).expect(*code);
        let last = ended.stdout.lines().last().unwrap_or_default();
        assert!(last.starts_with(said), "{commands:?}: {ended:?}");
    }
    // More tensors than a job may hold, each of them small.
    let many = vec!["nn-keep t:U8:?:x1"; 1100];
    probe
        .run(&tiny, "", &many)
        .expect(1)
        .says("misused a host call");
}

/// The model file with another chat template, filled up with spaces.
fn with_template(gguf: &[u8], template: &str) -> Vec<u8> {
    let key = b"tokenizer.chat_template";
    let at = gguf
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    // After the key: the type of a text, and its length.
    let length_at = at + key.len() + 4;
    let length: [u8; 8] = gguf[length_at..length_at + 8].try_into().unwrap();
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap();
    let mut changed = gguf.to_vec();
    let place = &mut changed[length_at + 8..length_at + 8 + length];
    assert!(template.len() <= place.len(), "{template}");
    place.fill(b' ');
    place[..template.len()].copy_from_slice(template.as_bytes());
    changed
}

#[test]
fn templates_that_never_end_or_want_too_much_are_refused() {
    let Some(probe) = Probe::new() else {
        return;
    };
    for (index, (template, expected)) in TEMPLATES.iter().enumerate() {
        let gguf = with_template(&probe.gguf, template);
        let digest = probe.add(&format!("model{index}"), &gguf).unwrap();
        for commands in [
            ["load tiny", "open", "chat 0 user hi"],
            ["load tiny", "", "count-chat user hi"],
            [
                "nn-load tiny",
                "",
                "nn-compute chat:U8:?:[{\"role\":\"user\",\"content\":\"hi\"}]",
            ],
        ] {
            let commands: Vec<&str> = commands
                .into_iter()
                .filter(|line| !line.is_empty())
                .collect();
            let ended = probe.run(&digest, "", &commands).expect(0);
            let last = ended.stdout.lines().last().unwrap_or_default();
            assert!(last.starts_with(expected), "{template}: {last}");
        }
    }
}

#[test]
fn models_whose_parts_disagree_are_not_taken() {
    let Some(probe) = Probe::new() else {
        return;
    };
    let find = |name: &[u8]| {
        let found = probe
            .gguf
            .windows(name.len())
            .position(|window| window == name);
        found.unwrap() + name.len()
    };
    // One row of the embedding less than the vocabulary has tokens; then one token less than rows.
    let rows_at = find(b"token_embd.weight") + 4 + 8;
    let tokens_at = find(b"tokenizer.ggml.tokens") + 4 + 4;
    for (at, said) in [(rows_at, "token_embd.weight"), (tokens_at, "")] {
        let mut gguf = probe.gguf.clone();
        let number: [u8; 8] = gguf[at..at + 8].try_into().unwrap();
        assert_eq!(u64::from_le_bytes(number), 512);
        gguf[at..at + 8].copy_from_slice(&511_u64.to_le_bytes());
        let ended = probe.add("odd", &gguf).unwrap_err();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stdout.contains(said), "{ended:?}");
    }
    // A template that is no Jinja is found when the model is added.
    let ended = probe
        .add("odd", &with_template(&probe.gguf, "{% for %}"))
        .unwrap_err();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended.stdout.contains("chat template is not valid"),
        "{ended:?}"
    );
}

#[test]
fn a_format_that_nothing_runs_is_refused_before_the_job() {
    let Some(probe) = Probe::new() else {
        return;
    };
    let digest = format!("blake3:{}", "0".repeat(64));
    let manifest = probe.manifest(&digest, "determinism = \"tolerant\"");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"gguf\"", "\"onnx\"")).unwrap();
    let manifest = manifest.to_str().unwrap();
    let ended = probe.sandbox.run(&["run", manifest]).expect(2);
    ended.says("its format is onnx, and this build of tussah runs gguf and safetensors");
    fs::write(
        manifest,
        text.replace("\"gguf\"", "\"onnx\"")
            .replace("tolerant", "exact"),
    )
    .unwrap();
    let ended = probe.sandbox.run(&["run", manifest]).expect(2);
    ended.says("write `determinism = \"tolerant\"`");
}

#[test]
fn an_encoder_says_what_is_wrong() {
    let Some(probe) = Probe::new() else {
        return;
    };
    if !probe.sandbox.link_model_named("minilm") {
        missing("the model `minilm`", "REQUIRE_MODEL");
        return;
    }
    let record = probe.sandbox.home().join("models/minilm.toml");
    let record = fs::read_to_string(record).unwrap();
    let at = record.find("blake3:").unwrap();
    let digest = &record[at..at + "blake3:".len() + 64];
    // All in one run: it is the model that takes time.
    let commands: Vec<&str> = ENCODER
        .iter()
        .flat_map(|(commands, _)| *commands)
        .copied()
        .collect();
    let ended = probe
        .run(digest, "", &[&["load tiny"], &commands[..]].concat())
        .expect(0);
    let mut said = ended.stdout.lines().skip(1);
    for (commands, expected) in ENCODER {
        assert_eq!(
            said.nth(commands.len() - 1),
            Some(*expected),
            "{commands:?}"
        );
    }
}
