//! The command line itself: help, errors, exit codes, doctor.

use crate::fixture::Sandbox;

#[test]
fn help_teaches_by_example() {
    let sandbox = Sandbox::new();
    for command in [
        &["--help"][..],
        &["new", "--help"],
        &["build", "--help"],
        &["run", "--help"],
        &["audit", "--help"],
        &["submit", "--help"],
        &["earnings", "--help"],
        &["status", "--help"],
        &["ledger", "check", "--help"],
        &["ledger", "export", "--help"],
        &["logs", "--help"],
        &["doctor", "--help"],
        &["receipt", "show", "--help"],
        &["receipt", "verify", "--help"],
        &["model", "add", "--help"],
        &["model", "pull", "--help"],
        &["model", "random", "--help"],
        &["model", "generate", "--help"],
        &["model", "tokenize", "--help"],
        &["wallet", "new", "--help"],
        &["wallet", "import", "--help"],
        &["wallet", "address", "--help"],
        &["wallet", "balance", "--help"],
        &["provider", "key", "--help"],
        &["provider", "register", "--help"],
        &["provider", "show", "--help"],
        &["channel", "open", "--help"],
        &["channel", "close", "--help"],
        &["channel", "status", "--help"],
        &["init", "--help"],
        &["serve", "--help"],
        &["serve", "key", "add", "--help"],
        &["serve", "credit", "--help"],
        &["serve", "channel", "add", "--help"],
        &["chain", "localnet", "--help"],
        &["chain", "faucet", "--help"],
        &["chain", "advance", "--help"],
        &["chain", "show", "--help"],
    ] {
        let help = sandbox.run(command).expect(0);
        assert!(
            help.stdout.contains("Examples:\n  tussah "),
            "{command:?}: {}",
            help.stdout
        );
    }
}

#[test]
fn wrong_usage_is_2_in_words_and_in_json() {
    let sandbox = Sandbox::new();
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["run"],
        &["run", ".", "--no-such-option"],
        &["model", "show", "Not A Name"],
        &["model", "generate", "m"],
        &[
            "model",
            "generate",
            "m",
            "--prompt",
            "a",
            "--prompt-file",
            "b",
        ],
        &["receipt", "verify", "r", "--key", "ed25519:00"],
    ] {
        let ended = sandbox.run(arguments).expect(2);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    let ended = sandbox
        .run(&["model", "list", "--json", "--no-such-option"])
        .expect(2);
    assert_eq!(ended.json()["error"]["exit_code"], 2);
    assert_eq!(ended.stderr, "");
}

#[test]
fn an_unknown_model_says_what_to_do() {
    let sandbox = Sandbox::new();
    let arguments = ["model", "generate", "nobody", "--prompt", "hi"];
    sandbox
        .run(&arguments)
        .expect(2)
        .says("error: there is no model `nobody`; none was added yet")
        .says("help: run `tussah model add nobody FILE.gguf`");
    let json = sandbox
        .run(&[&arguments[..], &["--json"]].concat())
        .expect(2)
        .json();
    assert!(
        json["error"]["help"]
            .as_str()
            .unwrap()
            .contains("model add")
    );
}

#[test]
fn doctor_names_each_check() {
    let sandbox = Sandbox::new();
    let json = sandbox.run(&["doctor", "--json"]).expect(0).json();
    let checks = json["checks"].as_array().unwrap();
    // Whatever adapters there are: they are told apart, and none of them is a fault.
    let gpu = checks.iter().find(|check| check["name"] == "gpu").unwrap();
    assert_eq!(gpu["state"], "ok", "{gpu}");
    for adapter in gpu["adapters"].as_array().into_iter().flatten() {
        let name = adapter["name"].as_str().unwrap();
        assert!(gpu["found"].as_str().unwrap().contains(name), "{gpu}");
        assert!(adapter["binding_bytes_max"].as_u64().unwrap() > 0, "{gpu}");
    }
    let names: Vec<&str> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    let expected = [
        "home",
        "disk",
        "keys",
        "models",
        "rust",
        "wasm",
        "preview1",
        "cpu",
        "memory",
        "gpu",
        #[cfg(unix)]
        "isolation",
        "chain",
    ];
    assert_eq!(names, expected);
}

#[test]
#[cfg(unix)]
fn doctor_finds_an_exposed_key() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.home().join("keys")).unwrap();
    let key = sandbox.home().join("keys/provider.key");
    std::fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ended = sandbox.run(&["doctor"]).expect(5);
    assert!(ended.stdout.contains("chmod 600"), "{}", ended.stdout);
}
