//! `verify`: a job is built again from its source, a stranger's build reaches nothing of ours, and
//! whatever differs is named.

mod hostile;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::fixture::{Ended, Sandbox, repository};

/// A job that builds in seconds: nothing but std and a package of its own.
pub(crate) struct Tiny {
    pub(crate) sandbox: Sandbox,
}

const MAIN: &str = r#"use std::io::Write as _;

#[inline(never)]
fn greeting(name: &str) -> String {
    format!("hello {name}, {}", dep::number(name.len()))
}

fn main() {
    let name = std::env::args().next().unwrap_or_default();
    let _ = std::io::stdout().write_all(greeting(&name).as_bytes());
}
"#;

impl Tiny {
    pub(crate) fn new() -> Option<Self> {
        let sandbox = Sandbox::with_wasm()?;
        for (path, content) in [
            (
                "tiny/Cargo.toml",
                "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                 [dependencies]\ndep = { path = \"dep\" }\n[workspace]\n",
            ),
            (
                "tiny/tussah.toml",
                "version = 1\nname = \"tiny\"\nabi = \"preview1\"\n",
            ),
            (
                "tiny/dep/Cargo.toml",
                "[package]\nname = \"dep\"\nversion = \"1.0.0\"\nedition = \"2024\"\n",
            ),
            (
                "tiny/dep/src/lib.rs",
                "#[inline(never)]\npub fn number(of: usize) -> usize {\n    of * 7\n}\n",
            ),
            ("tiny/dep/build.rs", "fn main() {}\n"),
            ("tiny/src/main.rs", MAIN),
        ] {
            fs::create_dir_all(sandbox.work().join(path).parent().unwrap()).unwrap();
            sandbox.file(path, content);
        }
        let tiny = Self { sandbox };
        tiny.build("tiny").expect(0);
        fs::create_dir(tiny.at("out")).unwrap();
        for file in ["manifest.toml", "module.wasm"] {
            fs::copy(
                tiny.at("tiny/target/tussah/tiny").join(file),
                tiny.at("out").join(file),
            )
            .unwrap();
        }
        Some(tiny)
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.sandbox.work().join(path)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        command.env_remove("CARGO_TARGET_DIR");
        command
    }

    fn build(&self, folder: &str) -> Ended {
        Ended::from(self.command(&["build", folder, "--json"]).output().unwrap())
    }

    fn verify(&self, given: &str, more: &[&str]) -> Ended {
        let mut arguments = vec!["verify", given, "--offline", "--json"];
        arguments.extend(more);
        if !more.contains(&"--source") {
            arguments.extend(["--source", "tiny"]);
        }
        Ended::from(self.command(&arguments).output().unwrap())
    }

    /// Verifies and holds the verdict, the exit code and a cause against what is expected.
    #[track_caller]
    pub(crate) fn check(&self, given: &str, more: &[&str], verdict: &str, cause: &str) -> Value {
        let code = match verdict {
            "match" => 0,
            "mismatch" => 3,
            "match-code" => 6,
            _ => 7,
        };
        let report = self.verify(given, more).expect(code).json();
        assert_eq!(report["verdict"], verdict, "{report:#}");
        let causes = report["causes"].to_string();
        assert!(causes.contains(cause), "no {cause:?} in {report:#}");
        report
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.at(path)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.at(path), text.replace(from, to)).unwrap();
    }

    /// The module with other bytes, under another name.
    pub(crate) fn module(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = fs::read(self.at("out/module.wasm")).unwrap();
        change(&mut bytes);
        fs::write(self.at(name), bytes).unwrap();
        name.to_owned()
    }
}

fn position(bytes: &[u8], needle: &[u8]) -> usize {
    let found = bytes
        .windows(needle.len())
        .position(|window| window == needle);
    found.expect("it is there")
}

#[test]
fn a_module_is_built_again_from_its_source() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let report = tiny.check("out/manifest.toml", &["--jobs", "1"], "match", "");
    assert_eq!(report["ran"][0]["package"], "dep 1.0.0");
    assert_eq!(report["ran"][0]["what"], "build script");
    assert_eq!(report["source"]["blobs"], serde_json::json!([]));
    assert_eq!(report["recorded"]["rustc"], report["toolchain"]["rustc"]);
    let confinement = report["confinement"].as_str().unwrap();
    assert!(confinement.contains("no sockets"), "{confinement}");
    // The same of a manifest alone, of a module alone, and from an archive.
    fs::copy(tiny.at("out/manifest.toml"), tiny.at("alone.toml")).unwrap();
    tiny.check("alone.toml", &["--jobs", "2"], "match", "");
    // A manifest that names another module as code of the same source: nobody has seen its code.
    let manifest = fs::read_to_string(tiny.at("alone.toml")).unwrap();
    let (_, digest) = manifest.split_once("\ndigest = \"").unwrap();
    let (digest, _) = digest.split_once('"').unwrap();
    let forged = manifest.replace(digest, &format!("blake3:{}", "1".repeat(64)));
    assert_ne!(forged, manifest);
    fs::write(tiny.at("forged.toml"), forged).unwrap();
    tiny.check("forged.toml", &[], "mismatch", "without the module");
    // The module is the source's, and the manifest asks for more than the source does.
    let greedy = manifest.replace("device = \"any\"", "device = \"cpu\"");
    assert_ne!(greedy, manifest);
    fs::write(tiny.at("greedy.toml"), greedy).unwrap();
    let says = "the manifest is not the one that the source gives: device differ";
    let report = tiny.check("greedy.toml", &["--sign", "none.cbor"], "mismatch", says);
    assert_eq!(report["manifest_differs"][0]["field"], "device");
    assert!(!tiny.at("none.cbor").exists());
    fs::write(tiny.at("tiny/prebuilt.wasm"), b"\0asm").unwrap();
    let tar = Command::new("tar")
        .args(["-czf", "tiny.tar.gz", "--exclude", "target", "tiny"])
        .current_dir(tiny.sandbox.work())
        .status();
    assert!(tar.unwrap().success());
    let report = tiny.check("out/module.wasm", &["--source", "tiny.tar.gz"], "match", "");
    assert_eq!(
        report["source"]["blobs"],
        serde_json::json!(["prebuilt.wasm"])
    );
}

#[test]
fn what_differs_is_named() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let flipped = tiny.module("flipped.wasm", |bytes| {
        // A constant of the greeting, in the data.
        let at = position(bytes, b"hello ");
        bytes[at] ^= 1;
    });
    tiny.check(&flipped, &[], "mismatch", "data section of the module");
    let section = |bytes: &[u8]| {
        let name = position(bytes, b"tussah-build");
        // Its head: the id, a length of two bytes, the name's length.
        name - 4
    };
    let stripped = tiny.module("stripped.wasm", |bytes| bytes.truncate(section(bytes)));
    let says = "the module has no section `tussah-build`";
    tiny.check(&stripped, &[], "match-code", says);
    let twice = tiny.module("twice.wasm", |bytes| {
        let again = bytes[section(bytes)..].to_vec();
        bytes.extend(again);
    });
    tiny.check(&twice, &[], "match-code", "the module has 2 sections");
    let damaged = tiny.module("damaged.wasm", |bytes| {
        let at = position(bytes, b"tussah-build") + 12;
        bytes[at] ^= 0x40;
    });
    tiny.check(&damaged, &[], "match-code", "cannot be read");
    let cut = tiny.module("cut.wasm", |bytes| bytes.truncate(bytes.len() / 2));
    tiny.check(&cut, &[], "mismatch", "do not make sense");
    // What a future version of the build would write.
    let other = tiny.module("other.wasm", |bytes| {
        let at = position(bytes, b"--profile=tussah-1");
        bytes[at + 17] = b'9';
    });
    tiny.check(
        &other,
        &[],
        "match-code",
        "another version of `tussah build`",
    );

    // The source: a character, and a dependency.
    tiny.replace("tiny/src/main.rs", "hello", "hallo");
    tiny.check(
        "out/module.wasm",
        &[],
        "mismatch",
        "data section of the module",
    );
    tiny.replace("tiny/src/main.rs", "hallo", "hello");
    tiny.replace("tiny/src/main.rs", "name.len())", "name.len() + 1)");
    let report = tiny.check(
        "out/module.wasm",
        &[],
        "mismatch",
        "the job's own source differs",
    );
    assert_eq!(report["first_difference"]["krate"], "tiny");
    tiny.replace("tiny/src/main.rs", "name.len() + 1)", "name.len())");
    tiny.replace("tiny/dep/Cargo.toml", "1.0.0", "1.0.1");
    tiny.replace("tiny/dep/src/lib.rs", "of * 7", "of * 9");
    tiny.replace("tiny/Cargo.lock", "1.0.0", "1.0.1");
    let says = "Cargo.lock has dep 1.0.1: it was built of another version";
    let report = tiny.check("out/module.wasm", &[], "mismatch", says);
    let function = report["first_difference"]["function"].as_str().unwrap();
    assert_eq!(function, "dep::number");
    fs::remove_file(tiny.at("tiny/Cargo.lock")).unwrap();
    tiny.check("out/module.wasm", &[], "cannot-build", "no Cargo.lock");
    fs::remove_file(tiny.at("tiny/tussah.toml")).unwrap();
    tiny.check(
        "out/module.wasm",
        &[],
        "cannot-build",
        "the source has no tussah.toml",
    );
}

#[test]
fn another_toolchain_is_the_cause() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let manifest = fs::read_to_string(tiny.at("out/manifest.toml")).unwrap();
    let field = |name: &str| {
        let (_, rest) = manifest.split_once(&format!("\n{name} = \"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let commit = field("rustc_commit");
    let other = tiny.module("rustc.wasm", |bytes| {
        // The code's own paths have it too.
        let section = position(bytes, b"tussah-build");
        let at = section + position(&bytes[section..], commit.as_bytes());
        bytes[at..at + 4].copy_from_slice(b"0000");
    });
    tiny.check(&other, &[], "cannot-build", "it was built with rustc");
    let says = "it was built with rustc";
    tiny.check(&other, &["--any-toolchain"], "match-code", says);
    let std = field("std_digest");
    let changed = manifest.replace(&std, &format!("blake3:{}", "0".repeat(64)));
    fs::write(tiny.at("std.toml"), changed).unwrap();
    let says = format!("the std for wasm of this machine is {std}");
    tiny.check("std.toml", &[], "cannot-build", &says);
}

#[test]
fn a_strangers_build_reaches_nothing_of_ours() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let secret = tiny.sandbox.file("secret", "a key");
    let script = format!(
        r#"fn main() {{
    let reached = [
        ("a file", std::fs::read({secret:?}).is_ok()),
        ("a folder", std::fs::read_dir({:?}).is_ok()),
        ("a place to write", std::fs::write({:?}, "x").is_ok()),
        ("a socket", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        ("a datagram", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("a variable", std::env::var("SECRET_TOKEN").is_ok()),
        ("a home", std::env::var("HOME").unwrap() == {:?}),
    ];
    let reached: Vec<_> = reached.iter().filter(|(_, reached)| *reached).collect();
    assert!(reached.is_empty(), "reached {{reached:?}}");
}}
"#,
        tiny.sandbox.work(),
        tiny.at("written"),
        std::env::var("HOME").unwrap_or_default(),
    );
    fs::write(tiny.at("tiny/dep/build.rs"), script).unwrap();
    let verify = |more: &[&str]| {
        let mut arguments = vec!["verify", "out/module.wasm", "--source", "tiny", "--json"];
        arguments.extend(more);
        let mut command = tiny.command(&arguments);
        Ended::from(command.env("SECRET_TOKEN", "x").output().unwrap())
    };
    assert_eq!(verify(&[]).expect(0).json()["verdict"], "match");
    // It does try: unconfined it finds what it looks for.
    let free = verify(&["--confine", "none"]).expect(7).json();
    let causes = free["causes"].to_string();
    assert!(
        causes.contains("reached") && causes.contains("a file"),
        "{free:#}"
    );
    assert!(!causes.contains("a variable"), "{free:#}");
    assert_eq!(free["confinement"], "none was asked for");
    // A build without an end has one.
    fs::write(tiny.at("tiny/dep/build.rs"), "fn main() { loop {} }").unwrap();
    let late = verify(&["--timeout-s", "2"]).expect(7).json();
    assert!(
        late["causes"].to_string().contains("longer than it may"),
        "{late:#}"
    );
}

#[test]
fn a_claim_is_signed_and_checked() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    tiny.check("out/manifest.toml", &["--sign", "claim.cbor"], "match", "");
    let key = tiny
        .sandbox
        .run(&["provider", "key", "--json"])
        .expect(0)
        .json();
    let key = key["provider_key"]
        .as_str()
        .or(key["key"].as_str())
        .unwrap()
        .to_owned();
    let check = |more: &[&str]| {
        let mut arguments = vec!["verify", "--claim", "claim.cbor"];
        arguments.extend(more);
        tiny.sandbox.run(&arguments)
    };
    let shown = check(&["out/manifest.toml", "--key", &key, "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["claim"]["verdict"], "match");
    assert_eq!(shown["claim"]["key"], key.as_str());
    let trusted = ["--key", &key];
    let check_by = |more: &[&str]| check(&[more, &trusted].concat());
    check_by(&["out/module.wasm"]).expect(0);
    // Anybody can sign: without a key that is trusted there is nothing to check.
    check(&["out/module.wasm"])
        .expect(2)
        .says("name the key with --key");
    check_by(&["--source", "tiny"])
        .expect(2)
        .says("cannot be used with");
    check_by(&["--job", "."])
        .expect(2)
        .says("cannot be used with");
    let stranger = format!(
        "ed25519:{}",
        "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29"
    );
    check(&["--key", &stranger])
        .expect(3)
        .says("which is not asked for");
    let other = tiny.module("other.wasm", |bytes| bytes.push(0));
    check_by(&[&other])
        .expect(3)
        .says("the claim is of the module");
    let mut bytes = fs::read(tiny.at("claim.cbor")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(tiny.at("claim.cbor"), bytes).unwrap();
    check_by(&[]).expect(3).says("is no good claim");
}

#[test]
fn a_verifiable_build_is_of_a_commit() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let mut command = Command::new("git");
        command.args(identity).args(arguments);
        let output = command.current_dir(tiny.at("tiny")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let uri = "https://example.org/tiny.tar.gz";
    let build = |code: i32| {
        let arguments = [
            "build",
            "tiny",
            "--verifiable",
            "--source-uri",
            uri,
            "--json",
        ];
        Ended::from(tiny.command(&arguments).output().unwrap()).expect(code)
    };
    let refused = |says: &str| {
        let ended = build(2);
        assert!(
            ended.stdout.contains(says),
            "no {says:?} in {}",
            ended.stdout
        );
    };
    refused("the job's commit cannot be read");
    git(&["init", "--quiet"]);
    fs::write(tiny.at("tiny/.gitignore"), "target\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "tiny"]);
    let built = build(0).json();
    assert_eq!(built["commit"].as_str().unwrap().len(), 40);

    let module = tiny.at("tiny/target/tussah/tiny/module.wasm");
    fs::copy(module, tiny.at("verifiable.wasm")).unwrap();
    git(&[
        "archive",
        "--format=tar.gz",
        "--output=../tiny.tar.gz",
        "HEAD",
    ]);
    let from = ["--source", "tiny.tar.gz"];
    let report = tiny.check("verifiable.wasm", &from, "match", "");
    assert_eq!(report["recorded"]["source_uri"], uri);
    assert_eq!(
        report["recorded"]["source_sha256"],
        report["source"]["sha256"]
    );

    // A comment gives the same code, and is another source all the same.
    tiny.replace("tiny/dep/src/lib.rs", "of * 7", "of * 7 // seven");
    refused("no commit holds what is here: M dep/src/lib.rs");
    let says = "this is another source than it was built of";
    tiny.check("verifiable.wasm", &[], "match-code", says);
    git(&["checkout", "--quiet", "."]);

    // The toolchain of a manifest that was committed with the job.
    let manifest = fs::read_to_string(tiny.at("out/manifest.toml")).unwrap();
    let other = manifest.replace("rustc = \"1.", "rustc = \"0.");
    fs::write(tiny.at("tiny/manifest.toml"), other).unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "another toolchain"]);
    refused("the job's manifest.toml records rustc 0.");
    git(&["rm", "--quiet", "manifest.toml", "Cargo.lock"]);
    git(&["commit", "--quiet", "-m", "no lock file"]);
    refused("the commit does not say by itself what the job is made of");
    fs::create_dir_all(tiny.at("outside/src")).unwrap();
    let outside = "[package]\nname = \"outside\"\nversion = \"1.0.0\"\n";
    fs::write(tiny.at("outside/Cargo.toml"), outside).unwrap();
    fs::write(tiny.at("outside/src/lib.rs"), "").unwrap();
    let path = format!(
        "outside = {{ path = {:?} }}\n[workspace]",
        tiny.at("outside")
    );
    tiny.replace("tiny/Cargo.toml", "[workspace]", &path);
    tiny.build("tiny").expect(0);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "a package of this machine"]);
    refused("the job depends on `outside` outside its tree");
}

#[test]
#[cfg(unix)]
fn surroundings_do_not_show_in_a_module() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let digest = |built: &Value| built["module"]["digest"].as_str().unwrap().to_owned();
    let first = digest(&tiny.build("tiny").expect(0).json());
    let other = tiny.at("else where/än der");
    fs::create_dir_all(&other).unwrap();
    let copied = Command::new("cp")
        .args([
            "-r",
            "tiny/Cargo.toml",
            "tiny/Cargo.lock",
            "tiny/tussah.toml",
            "tiny/src",
            "tiny/dep",
        ])
        .arg(&other)
        .current_dir(tiny.sandbox.work())
        .status();
    assert!(copied.unwrap().success());
    // Files of another time, another umask, user, language, time zone and clock.
    let program = crate::fixture::tussah();
    let script = "find . -type f -exec touch -d '2001-02-03 04:05:06' {} +; umask 077; \
                  exec \"$0\" build . --jobs 1 --json";
    let mut build = tiny.command(&[]);
    let home = build
        .get_envs()
        .find(|(name, _)| *name == "TUSSAH_HOME")
        .and_then(|(_, value)| Some(value?.to_owned()))
        .unwrap();
    build = Command::new("sh");
    build.args(["-c", script]).arg(program).current_dir(&other);
    build.env("TUSSAH_HOME", home);
    build.env("CARGO_HOME", tiny.at("another cargo home"));
    build.env_remove("CARGO_TARGET_DIR");
    build.env("USER", "somebody").env("LOGNAME", "somebody");
    build
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TZ", "Pacific/Chatham");
    build.env("SOURCE_DATE_EPOCH", "1");
    let second = Ended::from(build.output().unwrap()).expect(0).json();
    assert_eq!(digest(&second), first);
}

/// The smallest job of ours from the source as it is, in another folder, with another CARGO_HOME,
/// user and environment: what anyone does who has nothing but the repository.
#[test]
fn a_reference_manifest_is_what_its_source_gives() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = repository().join("manifests/summarize.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let root = repository();
    let ended = sandbox.run(&[
        "verify",
        manifest.to_str().unwrap(),
        "--source",
        Path::to_str(&root).unwrap(),
        "--json",
    ]);
    if sandbox.std_digest().is_some_and(|std| text.contains(&std)) {
        assert_eq!(ended.expect(0).json()["verdict"], "match");
        return;
    }
    println!(
        "std for wasm is not the one that {} names",
        manifest.display()
    );
    let report = ended.expect(7).json();
    assert!(report["causes"].to_string().contains("std"), "{report:#}");
}
