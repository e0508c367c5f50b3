//! Models: what is added, what is refused, and that nothing stays of what was refused.

use crate::fixture::{MODEL, Sandbox};

/// A GGUF header: version 3, so many tensors and metadata entries.
fn header(tensors: u64, entries: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes
}

#[test]
fn files_that_are_no_models_leave_nothing() {
    let sandbox = Sandbox::new();
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("foreign", b"PK\x03\x04 this is a zip archive".to_vec()),
        ("only a header", header(0, 0)),
        ("absurd tensor count", header(u64::MAX, 0)),
        ("absurd metadata count", header(1, u64::MAX / 2)),
    ];
    for (what, bytes) in cases {
        let file = sandbox.file("model.gguf", bytes);
        let ended = sandbox.run(&["model", "add", "m", file.to_str().unwrap()]);
        assert_eq!(ended.code, 2, "{what}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{what}: {ended:?}");
        assert!(ended.stderr.contains("help: "), "{what}: {ended:?}");
        assert_eq!(sandbox.blobs(), 0, "{what}");
    }
    assert_eq!(
        sandbox.run(&["model", "list", "--json"]).expect(0).json(),
        serde_json::json!([])
    );
    sandbox
        .run(&["model", "add", "m", "missing.gguf"])
        .expect(2)
        .says("missing.gguf");
}

#[test]
fn a_wrong_sha256_is_3_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("model.gguf", header(0, 0));
    let zeros = "0".repeat(64);
    sandbox
        .run(&[
            "model",
            "add",
            "m",
            file.to_str().unwrap(),
            "--sha256",
            &zeros,
        ])
        .expect(3)
        .says("has the SHA-256");
    assert_eq!(sandbox.blobs(), 0);
}

#[test]
fn the_model_is_shown_and_shared_and_removed() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let shown = sandbox
        .run(&["model", "show", MODEL, "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["architecture"], "llama");
    assert_eq!(shown["quantization"], "Q4_1");
    assert_eq!(shown["has_chat_template"], true);
    assert!(shown["parameters"].as_u64().unwrap() > 100_000_000);
    let digest = shown["digest"].as_str().unwrap();
    let blob = sandbox
        .home()
        .join("blobs")
        .join(&digest[7..9])
        .join(&digest[7..]);

    // A whole file is taken under a second name, one cut short is not.
    let copy = sandbox.work().join("copy.gguf");
    std::fs::copy(&blob, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    sandbox.run(&["model", "add", "second", copy]).expect(0);
    let file = std::fs::File::options().write(true).open(copy).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    sandbox
        .run(&["model", "add", "third", copy])
        .expect(2)
        .says("was not added");
    sandbox
        .run(&["model", "add", MODEL, copy])
        .expect(2)
        .says("belongs to another model");
    assert_eq!(sandbox.leftovers(), Vec::<std::path::PathBuf>::new());

    sandbox
        .run(&["model", "remove", MODEL])
        .expect(0)
        .says("other names have it");
    assert!(blob.exists());
    sandbox.run(&["model", "remove", "second"]).expect(0);
    assert!(!blob.exists());
    sandbox.run(&["model", "remove", "second"]).expect(2);
}

#[test]
fn a_changed_blob_is_not_used() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let shown = sandbox.run(&["model", "list", "--json"]).expect(0).json();
    let digest = shown[0]["digest"].as_str().unwrap();
    let blob = sandbox
        .home()
        .join("blobs")
        .join(&digest[7..9])
        .join(&digest[7..]);
    let bytes = std::fs::read(&blob).unwrap();
    std::fs::remove_file(&blob).unwrap(); // The link, not what it points to.
    let mut changed = bytes;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    std::fs::write(&blob, changed).unwrap();
    let arguments = [
        "model",
        "generate",
        MODEL,
        "--prompt",
        "hi",
        "--max-tokens",
        "1",
    ];
    sandbox.run(&arguments).expect(3).says("is damaged");
}

#[test]
fn a_random_model_is_the_same_everywhere_and_runs() {
    let sandbox = Sandbox::new();
    let arguments = ["model", "random", "tiny", "--parameters", "1M", "--json"];
    let made = sandbox.run(&arguments).expect(0).json();
    // Another digest means another file for the same options: say so in the changelog.
    let expected = "blake3:690cf6bbf76d8f4a9226f798032583c57f59d93acc265e3a3296048104cdea57";
    assert_eq!(made["digest"], expected);
    let size = made["size_bytes"].as_u64().unwrap();
    assert_eq!(sandbox.run(&arguments).expect(0).json(), made);
    let shown = sandbox.run(&["model", "show", "tiny", "--json"]).expect(0);
    assert_eq!(shown.json()["parameters"], made["parameters"]);
    let prompt = ["model", "generate", "tiny", "--prompt", "hi", "--json"];
    let [once, again] = [(); 2].map(|()| sandbox.run(&prompt).expect(0).json());
    assert!(!once["token_ids"].as_array().unwrap().is_empty());
    assert_eq!(once["token_ids"], again["token_ids"]);

    // The same bytes as a file; another seed gives others.
    let file = ["model", "random", "--out", "r.gguf", "--json"];
    let written = sandbox.run(&file).expect(0).json();
    assert_eq!(written["digest"], expected);
    let path = sandbox.work().join("r.gguf");
    assert_eq!(path.metadata().unwrap().len(), size);
    let seeded = sandbox
        .run(&[&file[..], &["--seed", "1"]].concat())
        .expect(0);
    assert_ne!(seeded.json()["digest"], expected);
    assert_eq!(sandbox.leftovers(), Vec::<std::path::PathBuf>::new());

    for (wrong, says) in [
        (&["--parameters", "1X"][..], "wanted a number such as 500K"),
        (&["--parameters", "5"], "the number of parameters is 5"),
        (&["--quant", "Q3_K"], "wanted one of F32"),
        (&["--heads", "7"], "the head size is 27"),
        (&["--feed-forward", "33"], "Q4_0 has blocks of 32"),
        (
            &["--heads", "6", "--kv-heads", "4"],
            "a divisor of the 6 heads",
        ),
        (&["--vocabulary", "0"], "the vocabulary is 0"),
        (&["--out", "no/such/folder/r.gguf"], "no/such/folder/r.gguf"),
    ] {
        let start = ["model", "random"];
        let name = if wrong[0] == "--out" {
            &[][..]
        } else {
            &["wrong"]
        };
        let ended = sandbox.run(&[&start, name, wrong].concat()).expect(2);
        assert!(ended.stderr.contains(says), "{wrong:?}: {ended:?}");
    }
    // The name has a model, and keeps it.
    let taken = ["model", "random", "tiny", "--seed", "1"];
    sandbox
        .run(&taken)
        .expect(2)
        .says("belongs to another model");
    assert_eq!(sandbox.blobs(), 1);
    assert_eq!(sandbox.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn damaged_files_are_refused_from_end_to_end() {
    let sandbox = Sandbox::new();
    let make = ["model", "random", "--out", "whole.gguf"];
    sandbox.run(&make).expect(0);
    let whole = std::fs::read(sandbox.work().join("whole.gguf")).unwrap();
    let at = |text: &str| {
        let text = text.as_bytes();
        whole
            .windows(text.len())
            .position(|window| window == text)
            .unwrap()
    };
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    // After a tensor's name: its rank, two dimensions, its type, its offset.
    let query = at("blk.0.attn_q.weight") + "blk.0.attn_q.weight".len();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a tensor that begins past the end",
            changed(query + 24, &(1u64 << 40).to_le_bytes()),
            "past the end of the file",
        ),
        (
            "a tensor that ends past the end",
            changed(query + 12, &(1u64 << 30).to_le_bytes()),
            "`blk.0.attn_q.weight`",
        ),
        (
            "a tensor within another",
            changed(query + 24, &0u64.to_le_bytes()),
            "overlap",
        ),
        (
            "an unknown storage type",
            changed(query + 20, &99u32.to_le_bytes()),
            "type 99",
        ),
        (
            "another architecture",
            changed(at("llama"), b"mamba"),
            "`mamba` is not supported",
        ),
        (
            "cut by one byte",
            whole[..whole.len() - 1].to_vec(),
            "past the end",
        ),
        (
            "cut in half",
            whole[..whole.len() / 2].to_vec(),
            "past the end",
        ),
        ("cut in the header", whole[..query].to_vec(), "truncated"),
        (
            "cut in the magic number",
            whole[..3].to_vec(),
            "not a GGUF file",
        ),
        (
            "safetensors alone",
            b"\x08\0\0\0\0\0\0\0{\"a\":{}}".to_vec(),
            "not a GGUF file",
        ),
        (
            "ONNX",
            b"\x08\x07\x12\x07pytorch".to_vec(),
            "not a GGUF file",
        ),
        ("a page", b"<!doctype html>".to_vec(), "not a GGUF file"),
    ];
    for (what, bytes, says) in cases {
        let file = sandbox.file("bad.gguf", bytes);
        for command in ["add", "pull"] {
            let ended = sandbox.run(&["model", command, "m", file.to_str().unwrap()]);
            assert_eq!(ended.code, 2, "{what}: {ended:?}");
            assert!(ended.stderr.contains(says), "{what}: {ended:?}");
        }
    }
    assert_eq!(sandbox.blobs(), 0);
    assert_eq!(sandbox.leftovers(), Vec::<std::path::PathBuf>::new());
    // A folder without a model's files.
    std::fs::create_dir(sandbox.work().join("folder")).unwrap();
    sandbox.file("folder/config.json", b"{}");
    let ended = sandbox.run(&["model", "add", "m", "folder"]).expect(2);
    ended
        .says("a model folder needs")
        .says("help: it needs config.json");
}

#[test]
fn a_model_is_shown_with_what_it_needs() {
    let sandbox = Sandbox::new();
    let make = [
        "model",
        "random",
        "m",
        "--architecture",
        "gemma3",
        "--quant",
        "Q4_K_M",
    ];
    let sizes = [
        "--embedding",
        "256",
        "--feed-forward",
        "512",
        "--context",
        "1024",
    ];
    sandbox.run(&[&make[..], &sizes].concat()).expect(0);
    let show = |more: &[&str]| sandbox.run(&[&["model", "show", "m"], more].concat());
    let text = show(&[]).expect(0).stdout;
    for line in [
        "licence        cc0-1.0",
        "tokenizer      SPM, cut as `default`",
        "stored as      Q",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let whole = show(&["--json"]).expect(0).json();
    assert_eq!(whole["context_tokens"], 1024);
    assert!(
        whole["chat_template"]
            .as_str()
            .unwrap()
            .contains("<start_of_turn>")
    );
    let storage = whole["storage"].as_array().unwrap();
    let parameters: u64 = storage
        .iter()
        .map(|it| it["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(whole["parameters"], parameters);
    let short = show(&["--context", "100", "--json"]).expect(0).json();
    assert!(short["session_bytes"].as_u64() < whole["session_bytes"].as_u64());
    show(&["--context", "1025"])
        .expect(2)
        .says("the model takes 1024 tokens");
    show(&["--context", "0"]).expect(2);
    // The list says sizes, and of two names of one file the size once.
    let blob = sandbox.home().join("blobs");
    let digest = whole["digest"].as_str().unwrap();
    let file = blob.join(&digest[7..9]).join(&digest[7..]);
    sandbox
        .run(&["model", "add", "n", file.to_str().unwrap()])
        .expect(0);
    let list = sandbox.run(&["model", "list"]).expect(0);
    assert_eq!(list.stdout.lines().count(), 2);
    assert!(list.stdout.contains("  gguf  "), "{list:?}");
    list.says("in 1 file");
}
