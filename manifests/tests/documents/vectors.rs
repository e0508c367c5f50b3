//! Known answers: the samples' bytes, digests and views, in `tests/vectors` and in
//! `docs/formats.md`. A change here is a change of the format: it breaks every receipt made
//! before. `UPDATE_EXPECT=1 cargo test -p tussah-manifest` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tussah_manifest::{
    BuildInfo, Claim, Consensus, Digest, Document as _, Domain, Evidence, Limits, Manifest,
    Opening, Profile, Receipt, ReceiptTree, Request, RequestBody, Salt,
};

use crate::samples;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Compares a file with what it has to hold, or writes it.
#[track_caller]
fn check_file(path: &Path, expected: &[u8]) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, expected).expect("the source folder can be written");
    }
    let found = std::fs::read(path).expect("the file is there; see the head of this file");
    assert!(
        found == expected,
        "{} is not what the code makes; see the head of this file",
        path.display()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hex in lines of 64 digits.
fn block(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    let lines: Vec<&str> = (0..digits.len())
        .step_by(64)
        .map(|start| &digits[start..digits.len().min(start + 64)])
        .collect();
    format!("```text\n{}\n```\n", lines.join("\n"))
}

fn encoded() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    vec![
        ("manifest.cbor", "Manifest", samples::manifest().to_bytes()),
        (
            "request-body.cbor",
            "Request body, local",
            samples::request_body().to_bytes(),
        ),
        (
            "request.cbor",
            "Request, local",
            samples::request().to_bytes(),
        ),
        (
            "request-body-paid.cbor",
            "Request body, paid",
            samples::paid_request_body().to_bytes(),
        ),
        ("profile.cbor", "Profile", samples::profile().to_bytes()),
        (
            "consensus.cbor",
            "Consensus",
            samples::consensus().to_bytes(),
        ),
        ("evidence.cbor", "Evidence", samples::evidence().to_bytes()),
        ("receipt.cbor", "Receipt", samples::receipt().to_bytes()),
        ("opening.cbor", "Opening", samples::opening().to_bytes()),
        (
            "build-info.cbor",
            "Build info, the content of a module's section",
            samples::build_info().to_bytes(),
        ),
        (
            "manifest-built.cbor",
            "Manifest with its build",
            samples::built_manifest().to_bytes(),
        ),
        ("claim.cbor", "Claim", samples::claim().to_bytes()),
    ]
}

/// Every digest and derived value of the samples, one a line.
fn values() -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name} = {value}").expect("memory");
    };
    let nonce = samples::nonce();
    line("client secret", hex(&*samples::client().to_bytes()));
    line("client key", samples::client().public_key().to_string());
    line("provider secret", hex(&*samples::provider().to_bytes()));
    line("provider key", samples::provider().public_key().to_string());
    line("module", hex(samples::MODULE));
    line("module digest", Digest::of(samples::MODULE).to_string());
    line("model", hex(samples::MODEL));
    line("model digest", Digest::of(samples::MODEL).to_string());
    line("manifest digest", samples::manifest().digest().to_string());
    line("input", hex(samples::INPUT));
    line("output", hex(samples::OUTPUT));
    line("local secret", "03".repeat(32));
    line("nonce", hex(nonce.as_bytes()));
    line("salt", hex(nonce.derive_salt().as_bytes()));
    line("seed", hex(nonce.derive_seed().as_bytes()));
    line("clock", nonce.derive_clock().to_string());
    line("salted input", samples::request_body().input.to_string());
    line("salted output", samples::consensus().output.to_string());
    line("job id", samples::request_body().job_id().to_string());
    line(
        "request signature",
        samples::request().signature.to_string(),
    );
    for (index, call) in samples::transcript().calls().iter().enumerate() {
        line(&format!("host call {index}"), call.to_string());
    }
    line("transcript", samples::transcript().digest().to_string());
    line("profile digest", samples::profile().digest().to_string());
    line(
        "consensus digest",
        samples::consensus().digest().to_string(),
    );
    line("evidence digest", samples::evidence().digest().to_string());
    line(
        "receipt signature",
        samples::receipt().signature.to_string(),
    );
    line("receipt digest", samples::receipt().digest().to_string());
    line("claim signature", samples::claim().signature.to_string());
    let mut tree = ReceiptTree::new();
    tree.append(&samples::receipt().digest());
    line(
        "root of that receipt alone",
        tree.commitment().root.to_string(),
    );
    let salt = Salt::from_bytes([6; 32]);
    for domain in Domain::ALL {
        line(
            &format!("derive({domain:?}, \"abc\")"),
            Digest::derive(domain, b"abc").to_string(),
        );
    }
    line(
        "salted(06…06, Input, \"abc\")",
        Digest::salted(&salt, Domain::Input, b"abc").to_string(),
    );
    text
}

#[test]
fn the_samples_have_these_bytes_and_values() {
    let folder = root().join("tests/vectors");
    for (name, _, bytes) in encoded() {
        check_file(&folder.join(name), &bytes);
    }
    check_file(
        &folder.join("manifest.toml"),
        samples::manifest().to_toml().as_bytes(),
    );
    check_file(
        &folder.join("manifest-built.toml"),
        samples::built_manifest().to_toml().as_bytes(),
    );
    for (name, json) in [
        ("claim.json", samples::claim().to_json()),
        ("manifest-built.json", samples::built_manifest().to_json()),
        ("manifest.json", samples::manifest().to_json()),
        ("request.json", samples::request().to_json()),
        ("receipt.json", samples::receipt().to_json()),
        ("opening.json", samples::opening().to_json()),
    ] {
        check_file(&folder.join(name), format!("{json}\n").as_bytes());
    }
    check_file(&folder.join("values.txt"), values().as_bytes());
}

#[test]
fn the_files_decode_to_the_samples() {
    let read = |name: &str| {
        std::fs::read(root().join("tests/vectors").join(name)).expect("the file is there")
    };
    assert_eq!(
        Manifest::from_bytes(&read("manifest.cbor")),
        Ok(samples::manifest())
    );
    assert_eq!(
        Manifest::parse_bytes(&read("manifest.toml")),
        Ok(samples::manifest())
    );
    assert_eq!(
        RequestBody::from_bytes(&read("request-body.cbor")),
        Ok(samples::request_body())
    );
    let paid = RequestBody::from_bytes(&read("request-body-paid.cbor"));
    assert_eq!(paid, Ok(samples::paid_request_body()));
    assert_eq!(
        Request::from_bytes(&read("request.cbor")),
        Ok(samples::request())
    );
    assert_eq!(
        Profile::from_bytes(&read("profile.cbor")),
        Ok(samples::profile())
    );
    assert_eq!(
        Consensus::from_bytes(&read("consensus.cbor")),
        Ok(samples::consensus())
    );
    assert_eq!(
        Evidence::from_bytes(&read("evidence.cbor")),
        Ok(samples::evidence())
    );
    let receipt = Receipt::from_verified_bytes(&read("receipt.cbor"));
    assert_eq!(receipt, Ok(samples::receipt()));
    assert_eq!(
        BuildInfo::from_bytes(&read("build-info.cbor")),
        Ok(samples::build_info())
    );
    for built in [
        Manifest::from_bytes(&read("manifest-built.cbor")).expect("a manifest"),
        Manifest::parse_bytes(&read("manifest-built.toml")).expect("a manifest"),
    ] {
        assert_eq!(built, samples::built_manifest());
    }
    let claim = Claim::from_verified_bytes(&read("claim.cbor"));
    assert_eq!(claim, Ok(samples::claim()));
    let opening = Opening::from_bytes(&read("opening.cbor")).expect("an opening");
    assert_eq!(opening, samples::opening());
    opening.matches(&samples::receipt()).expect("of one run");
}

fn generated(name: &str, content: &str) -> (String, String, String) {
    (
        format!("<!-- {name}: begin -->\n"),
        content.to_owned(),
        format!("<!-- {name}: end -->\n"),
    )
}

/// The parts of the documentation that the code knows better.
fn sections() -> Vec<(String, String, String)> {
    let mut contexts = "| domain | context string |\n|---|---|\n".to_owned();
    for domain in Domain::ALL {
        writeln!(contexts, "| {domain:?} | `{}` |", domain.context()).expect("memory");
    }
    let mut limits =
        "| key | field | counts | least | most | default |\n|---|---|---|---|---|---|\n".to_owned();
    for (key, field) in Limits::FIELDS.iter().enumerate() {
        let default = (field.get)(&Limits::DEFAULT);
        let counts = field.unit.plural();
        writeln!(
            limits,
            "| {key} | `{}` | {counts} | {} | {} | {} |",
            field.name, field.min, field.max, default
        )
        .expect("memory");
    }
    let mut vectors = String::new();
    for (file, title, bytes) in encoded() {
        writeln!(
            vectors,
            "{title} (`{file}`, {} bytes):\n\n{}",
            bytes.len(),
            block(&bytes)
        )
        .expect("memory");
    }
    writeln!(
        vectors,
        "Values (`values.txt`):\n\n```text\n{}```",
        values()
    )
    .expect("memory");
    vec![
        generated("contexts", &contexts),
        generated("limits", &limits),
        generated("vectors", &vectors),
    ]
}

#[test]
fn the_documentation_prints_them() {
    let path = root().join("../docs/formats.md");
    let mut text = std::fs::read_to_string(&path).expect("docs/formats.md is there");
    for (begin, content, end) in sections() {
        let start = text.find(&begin).expect("the section begins") + begin.len();
        let length = text[start..].find(&end).expect("the section ends");
        text.replace_range(start..start + length, &content);
    }
    check_file(&path, text.as_bytes());
}
