//! Bad input to `run`: each gets a clear error and its exit code, and nothing is run.

use std::fs;

use crate::fixture::Sandbox;

/// A component with one import, in wasm's text format.
fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn modules_that_are_none() {
    let sandbox = Sandbox::new();
    let whole = component("(component)");
    let socket = component(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("empty.wasm", Vec::new(), "not WebAssembly"),
        (
            "foreign.wasm",
            b"\x7fELF\x02\x01\x01\0\0".to_vec(),
            "not WebAssembly",
        ),
        (
            "core.wasm",
            b"\0asm\x01\0\0\0".to_vec(),
            "it has no export `_start`",
        ),
        (
            "truncated.wasm",
            socket[..socket.len() - 3].to_vec(),
            "truncated.wasm",
        ),
        ("socket.wasm", socket.clone(), "wasi:sockets/tcp@0.2.0"),
        ("nothing.wasm", whole, "it must export `run"),
    ];
    for (name, bytes, expected) in cases {
        sandbox.file(name, bytes);
        let ended = sandbox.run(&["run", name]);
        assert_eq!(ended.code, 2, "{name}: {ended:?}");
        if name != "truncated.wasm" {
            assert!(ended.stderr.contains(expected), "{name}: {ended:?}");
        }
    }
}

#[test]
fn manifests_that_are_none() {
    let sandbox = Sandbox::new();
    let digest = format!("blake3:{}", "0".repeat(64));
    let module = format!("[module]\ndigest = \"{digest}\"\nsize_bytes = 8\n");
    let cases = [
        (
            format!("version = 1\nname = \"x\"\nlimit = 1\n{module}"),
            "unknown field `limit`",
        ),
        (
            format!("version = 1\nname = \"x\"\n{module}[limits]\nmemory_bytes_max = \"64 MB\"\n"),
            "memory_bytes_max",
        ),
        (format!("version = 9\nname = \"x\"\n{module}"), "version"),
        ("version = 1\nname = \"x\"\n".to_owned(), "module"),
        ("this is no TOML".to_owned(), "line 1"),
    ];
    for (text, expected) in cases {
        sandbox.file("m.toml", &text);
        sandbox
            .run(&["run", "m.toml"])
            .expect(2)
            .says("m.toml is no manifest")
            .says(expected);
    }
    sandbox.file("m.toml", format!("version = 1\nname = \"x\"\n{module}"));
    sandbox
        .run(&["run", "m.toml"])
        .expect(2)
        .says("was not found; looked in the blob store")
        .says("module.wasm");
    sandbox.file("m.toml", b"\xff\xfe");
    sandbox.run(&["run", "m.toml"]).expect(2).says("UTF-8");
}

#[test]
fn a_module_with_one_bit_changed_is_3() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = sandbox.plain_job();
    let module = manifest.with_file_name("module.wasm");
    let mut bytes = fs::read(&module).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&module, bytes).unwrap();
    let ended = sandbox.run(&["run", manifest.to_str().unwrap()]);
    ended.expect(3).says("the manifest names blake3:");
}

#[test]
fn inputs_over_their_size_or_not_utf8() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = sandbox.plain_job();
    let manifest = manifest.to_str().unwrap();
    let large = [&b"a ".repeat(1 << 19)[..], b"a"].concat();
    sandbox
        .run_with_input(&["run", manifest, "--input", "-"], &large[..1 << 20])
        .expect(0);
    sandbox.file("large.txt", large);
    sandbox
        .run(&["run", manifest, "--input", "large.txt"])
        .expect(4)
        .says("input_bytes_max");
    sandbox.file("latin1.txt", b"caf\xe9");
    let arguments = [
        "run",
        manifest,
        "--input",
        "latin1.txt",
        "--receipt",
        "r.cbor",
    ];
    sandbox
        .run(&arguments)
        .expect(1)
        .says("not UTF-8 text: byte 3");
    // A job that fails has a receipt like any other.
    sandbox
        .run(&["audit", "r.cbor", "--input", "latin1.txt"])
        .expect(0);
}

#[test]
fn a_missing_model_is_named() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = sandbox.summarize();
    sandbox
        .run(&["run", manifest.to_str().unwrap()])
        .expect(2)
        .says("the manifest's model `smollm2` is missing")
        .says("tussah model add smollm2");
}

#[test]
fn limits_that_are_hit_are_4_and_have_a_receipt() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = sandbox.plain_job();
    let text = fs::read_to_string(&manifest).unwrap();
    let limited: String = text
        .lines()
        .map(|line| {
            if line.starts_with("fuel_max") {
                "fuel_max = 1000"
            } else {
                line
            }
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(limited.contains("fuel_max = 1000"), "{text}");
    let limited_path = manifest.with_file_name("limited.toml");
    fs::write(&limited_path, limited).unwrap();
    let limited = limited_path.to_str().unwrap();
    sandbox
        .run(&["run", limited, "--receipt", "r.cbor"])
        .expect(4)
        .says("limits.fuel_max");
    let shown = sandbox
        .run(&["receipt", "show", "r.cbor", "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["consensus"]["exit"]["kind"], "limit-hit");
    sandbox.run(&["audit", "r.cbor"]).expect(0);
    // A dry run needs no guess, and what it prints is enough.
    let dry = sandbox.run(&["run", limited, "--dry-run"]).expect(0);
    let (comment, table) = dry.stdout.split_once('\n').unwrap();
    let expected = "# Measured with an input of 0 bytes: what it used and 25 % more, rounded up.";
    assert_eq!(comment, expected);
    assert!(table.starts_with("[limits]\nfuel_max = "), "{table}");
}
