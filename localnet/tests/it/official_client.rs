//! The official client for JavaScript, npm `@ton/ton`, opens, redeems and closes channels here.
//!
//! Needs node, and `TUSSAH_NODE_MODULES` with the packages in it: `cargo xtask contracts` sets both
//! up. Without them the test says so and returns; with `REQUIRE_NODE=1` it fails.

use std::process::Command;

use crate::fixture::*;

#[test]
fn the_official_client_opens_redeems_and_closes() {
    let Some(modules) = std::env::var_os("TUSSAH_NODE_MODULES") else {
        assert!(
            std::env::var_os("REQUIRE_NODE").is_none(),
            "TUSSAH_NODE_MODULES is not set; run `cargo xtask contracts`"
        );
        println!("skipped: TUSSAH_NODE_MODULES is not set; `cargo xtask contracts` sets it up");
        return;
    };
    let server = Running::in_memory();
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("node")
        .arg(format!("{folder}/tests/it/official_client.cjs"))
        .arg(format!("http://{}/api/v2", server.address))
        .arg(format!("{folder}/../contracts/compiled/Channel.boc"))
        .env("NODE_PATH", modules)
        .output()
        .unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.ends_with("money conserved\n"), "{said}");
    println!("{said}");
}
