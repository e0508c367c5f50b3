//! What the daemon posts by itself.

use std::fs;

use super::{Client, PRICE, open, post, wait_until_seen};
use crate::{
    bank::Bank,
    fixture::Sandbox,
    serve::Daemon,
    worker::{ECHO, component},
};

#[test]
fn what_is_owed_is_posted_when_it_comes_to_enough_and_before_a_close_is_over() {
    let (ours, theirs) = (Sandbox::new(), Sandbox::new());
    let bank = Bank::localnet(&theirs);
    let our_bank = bank.for_home(&ours);
    let module = ours.file("echo.wasm", component(ECHO));
    let module = module.to_str().unwrap();
    let deploy = ["deploy", module, "--as", "echo", "--shape", "raw", "--json"];
    let echo = ours.run(&deploy).expect(0).json();
    let opened = open(&bank, &our_bank);
    let add = ["serve", "channel", "add", &opened.terms];
    our_bank.json(&[&add[..], &["--owner", &opened.owner]].concat());
    let settings = format!("[channels]\nredeem_nanograms = {}\n", 2 * PRICE);
    fs::write(ours.home().join("serve.toml"), settings).unwrap();

    let options = ["--chain", &bank.chain, "--price-base", "100000000"];
    let daemon = Daemon::start_with(&ours, "one", &options);
    wait_until_seen(&daemon, &opened.address);
    let mut client = Client::new(&theirs, &opened.provider, &opened.address, &daemon);
    let vouchers = format!("/v1/channels/{}/vouchers", opened.address);
    let mut pay = |index| {
        let job = daemon.submit(&client.body(&echo, index, "paid"));
        daemon.wait_for(&job);
        client.take(&daemon, &job, index);
        post(&daemon, &vouchers, &client.voucher()).expect(200);
    };
    let status = || bank.json(&["channel", "status", &opened.address]);
    let wait_for = |nanograms: u64| {
        let awaited = nanograms.to_string();
        while status()["redeemed_nanograms"] != awaited.as_str() {}
    };
    pay(0);
    pay(1);
    wait_for(2 * PRICE);
    // Less than that waits, until the client starts to close.
    pay(2);
    assert_eq!(status()["redeemed_nanograms"], (2 * PRICE).to_string());
    let close = ["channel", "close", &opened.address, "--wallet", "main"];
    let closing = bank.json(&[&close[..], &["--one-sided"]].concat());
    assert_eq!(closing["status"], "closing");
    wait_for(3 * PRICE);
    daemon
        .terminate()
        .expect(0)
        .says("posted the voucher for")
        .says("is being closed");
}
