//! Receipts: any damage is seen, and so is another input.

use std::fs;

use tussah_manifest::Receipt;

use crate::fixture::Sandbox;

/// Where `plain_job` puts its manifest.
const PLAIN: &str = "built/manifest.toml";

/// A receipt of the plain job on `input.txt`.
fn with_receipt() -> Option<Sandbox> {
    let sandbox = Sandbox::with_wasm()?;
    sandbox.plain_job();
    sandbox.file("input.txt", "silk from wild cocoons");
    sandbox
        .run(&["run", PLAIN, "--input", "input.txt", "--receipt", "r.cbor"])
        .expect(0);
    Some(sandbox)
}

#[test]
fn any_byte_flipped_is_3() {
    let Some(sandbox) = with_receipt() else {
        return;
    };
    let good = fs::read(sandbox.work().join("r.cbor")).unwrap();
    Receipt::from_verified_bytes(&good).unwrap();
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            assert!(
                Receipt::from_verified_bytes(&bad).is_err(),
                "byte {at} ^ {flip:#04x}"
            );
        }
    }
    // The binary reads through the same function; a sample through all of it.
    for at in (0..good.len()).step_by(good.len() / 12) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        sandbox.file("bad.cbor", &bad);
        sandbox
            .run(&["receipt", "verify", "bad.cbor"])
            .expect(3)
            .says("bad.cbor");
        sandbox.run(&["receipt", "show", "bad.cbor"]).expect(3);
    }
    for (what, bad) in [
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("longer", [&good[..], b"\0"].concat()),
        ("huge", vec![0xa4; 1 << 20]),
    ] {
        sandbox.file("bad.cbor", &bad);
        let ended = sandbox.run(&["receipt", "verify", "bad.cbor"]);
        assert_eq!(ended.code, 3, "{what}: {ended:?}");
    }
    sandbox
        .run(&["receipt", "verify", "missing.cbor"])
        .expect(2);
}

#[test]
fn another_key_is_3() {
    let Some(sandbox) = with_receipt() else {
        return;
    };
    let verified = sandbox
        .run(&["receipt", "verify", "r.cbor", "--json"])
        .expect(0)
        .json();
    assert_eq!(verified["signed_here"], true);
    let own = verified["provider_key"].as_str().unwrap();
    sandbox
        .run(&["receipt", "verify", "r.cbor", "--key", own])
        .expect(0);
    let other = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let ended = sandbox
        .run(&["receipt", "verify", "r.cbor", "--key", other])
        .expect(3);
    ended.says("not by ed25519:d75a");
}

#[test]
fn the_opening_is_for_its_owner_alone() {
    let Some(sandbox) = with_receipt() else {
        return;
    };
    let opening = sandbox.work().join("r.cbor.opening");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(&opening).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let good = fs::read(&opening).unwrap();
    // Any byte of it changed is seen, too.
    for at in (0..good.len()).step_by(good.len() / 12) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&opening, bad).unwrap();
        let ended = sandbox.run(&["audit", "r.cbor", "--input", "input.txt"]);
        assert_eq!(ended.code, 3, "byte {at}: {ended:?}");
    }
    fs::remove_file(&opening).unwrap();
    sandbox
        .run(&["audit", "r.cbor", "--input", "input.txt"])
        .expect(2)
        .says("--opening");
}

#[test]
fn another_input_is_3_and_named() {
    let Some(sandbox) = with_receipt() else {
        return;
    };
    sandbox.file("other.txt", "silk from wild cocoon");
    let ended = sandbox
        .run(&["audit", "r.cbor", "--input", "other.txt"])
        .expect(3);
    assert!(ended.stdout.contains("input differs"), "{ended:?}");
    let json = sandbox
        .run(&["audit", "r.cbor", "--input", "other.txt", "--json"])
        .expect(3)
        .json();
    assert_eq!(json["reproduced"], false);
    assert_eq!(json["differences"][0]["field"], "input");
    // Without the module in the store there is nothing to run.
    let receipt = sandbox
        .run(&["receipt", "show", "r.cbor", "--json"])
        .expect(0)
        .json();
    let digest = receipt["consensus"]["module"].as_str().unwrap();
    let blob = sandbox
        .home()
        .join("blobs")
        .join(&digest[7..9])
        .join(&digest[7..]);
    fs::remove_file(blob).unwrap();
    let ended = sandbox.run(&["audit", "r.cbor", "--input", "input.txt"]);
    ended.expect(2).says("the receipt's module cannot be had");
}

#[test]
fn the_same_run_gives_the_same_consensus() {
    let Some(sandbox) = with_receipt() else {
        return;
    };
    let run = |home: Option<&str>| {
        let mut command = sandbox.command(&["run", PLAIN, "--input", "input.txt", "--json"]);
        if let Some(home) = home {
            command.env("TUSSAH_HOME", sandbox.work().join(home));
            fs::create_dir_all(sandbox.work().join(home)).unwrap();
            #[cfg(unix)]
            let _ = std::os::unix::fs::symlink(
                sandbox.home().join("sysroots"),
                sandbox.work().join(home).join("sysroots"),
            );
        }
        crate::fixture::Ended::from(command.output().unwrap())
            .expect(0)
            .json()
    };
    let (first, second) = (run(None), run(None));
    assert_eq!(first["consensus_digest"], second["consensus_digest"]);
    // Another host has another secret: nobody there can guess our salt.
    let elsewhere = run(Some("elsewhere"));
    assert_ne!(first["output_digest"], elsewhere["output_digest"]);
    assert_eq!(
        first["receipt"]["consensus"]["module"],
        elsewhere["receipt"]["consensus"]["module"]
    );
}
