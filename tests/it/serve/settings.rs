//! `tussah init`, and `serve.toml`: what it sets, what is refused, and that options win.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::{Daemon, deploy};
use crate::{fixture::Sandbox, worker::ECHO};

#[test]
fn init_makes_a_home_and_keeps_what_is_there() {
    let sandbox = Sandbox::new();
    let made = sandbox.run(&["init", "--json"]).expect(0).json();
    assert_eq!(made["config_written"], true);
    let settings = sandbox.home().join("serve.toml");
    assert_eq!(made["config"], settings.to_str().unwrap());
    let mode = fs::metadata(&settings).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for path in [
        "keys/provider.key",
        "keys/client.key",
        "serve/ledger.sqlite",
    ] {
        assert!(sandbox.home().join(path).is_file(), "{path}");
    }
    let key = sandbox.run(&["provider", "key", "--json"]).expect(0).json();
    assert_eq!(made["provider_key"], key["key"]);

    let own = "[limits]\njobs_max = 3\n";
    fs::write(&settings, own).unwrap();
    let again = sandbox.run(&["init", "--json"]).expect(0).json();
    assert_eq!(again["config_written"], false);
    assert_eq!(again["provider_key"], made["provider_key"]);
    assert_eq!(fs::read_to_string(&settings).unwrap(), own);

    fs::write(&settings, "[limits]\njobs = 3\n").unwrap();
    for command in ["init", "serve"] {
        sandbox
            .run(&[command])
            .expect(2)
            .says("serve.toml")
            .says("line 2: unknown field `jobs`, expected one of `jobs_max`");
    }
    let forced = sandbox.run(&["init", "--force", "--json"]).expect(0).json();
    assert_eq!(forced["config_written"], true);
    assert!(fs::read_to_string(&settings).unwrap().contains("#jobs_max"));
    sandbox
        .run(&["serve", "--config", "none.toml"])
        .expect(2)
        .says("none.toml");
}

#[test]
fn the_file_sets_and_an_option_wins() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let text = "[prices]\nbase_nanograms = 7\nnanograms_per_billion_fuel = 11\n";
    fs::write(sandbox.home().join("serve.toml"), text).unwrap();
    let prices = |daemon: &Daemon| -> Value {
        let body = json!({"model": "echo"}).to_string();
        let quote = daemon.ask("POST", "/v1/quote", &body, "*/*").expect(200);
        quote.json()["prices"].clone()
    };
    let daemon = Daemon::start(&sandbox, "one");
    let set = prices(&daemon);
    assert_eq!(set["base_nanograms"], "7");
    assert_eq!(set["nanograms_per_billion_fuel"], "11");
    daemon.terminate().expect(0);
    let daemon = Daemon::start_with(&sandbox, "two", &["--price-base", "8"]);
    let set = prices(&daemon);
    assert_eq!(set["base_nanograms"], "8");
    assert_eq!(set["nanograms_per_billion_fuel"], "11");
    assert_eq!(set["nanograms_per_trillion_inference_units"], "0");
    daemon.terminate().expect(0);
}
