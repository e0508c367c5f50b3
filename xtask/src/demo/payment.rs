//! The demo's second half: the same job, paid through a channel on a chain of this machine.
//!
//! In: the job and its input. Out: a deposit, a paid run, the root on chain, the payout, and the
//! receipt found in the root. The chain is embedded: a TVM in the process of each command, kept in
//! a folder, so nothing has to be started and nothing is worth anything.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Demo, path, step};

/// Wallets in TUSSAH_HOME.
const CLIENT: &str = "demo-client";
const PAYOUT: &str = "demo-payout";

/// Grams, as commands take them.
const FUNDS: &str = "20";
const DEPOSIT: &str = "5";
const PRICE_MAX: &str = "0.4";

/// Prices of a channel's jobs, so that the sample costs an amount that can be seen: GRAM for 10^9
/// units of fuel, and for 10^9 inference units.
const FUEL_PRICE: &str = "10";
const INFERENCE_PRICE: &str = "0.002";

/// Opens a channel, pays for the job, redeems with the root, withdraws, and verifies the receipt
/// against the chain. Says what it came to.
///
/// # Errors
/// A command did not end as it should, or an amount is not what it has to be.
pub(super) fn run(demo: &Demo<'_>, folder: &Path, job: &str, input: &str) -> Result<String> {
    let net = folder.join("chain");
    fs::create_dir_all(&net).with_context(|| format!("cannot create {}", net.display()))?;
    let chain = format!("embedded:{}", path(&net)?);
    let passphrase = folder.join("passphrase");
    fs::write(&passphrase, "demo\n")?;
    let passphrase = path(&passphrase)?;
    let on_chain = ["--chain", &chain];
    let by_wallet = ["--chain", &chain, "--passphrase-file", &passphrase];

    step("Make a wallet for the client and one for the payout, on a chain of this machine");
    let wallet = |name: &str| -> Result<String> {
        // A demo before this one made them; their key is worth nothing anywhere else.
        let made = demo.asked(&["wallet", "address", name]).or_else(|_| {
            let new = ["wallet", "new", name, "--network", "localnet"];
            demo.asked(&[&new[..], &["--passphrase-file", &passphrase]].concat())
        });
        text(&made?, "address")
    };
    let (client_address, payout_address) = (wallet(CLIENT)?, wallet(PAYOUT)?);
    let balance = || -> Result<u64> {
        let balance = ["wallet", "balance", PAYOUT];
        amount(
            &demo.asked(&[&balance[..], &on_chain].concat())?,
            "nanograms",
        )
    };
    let faucet = ["chain", "faucet", &client_address, FUNDS];
    demo.tussah(&[&faucet[..], &on_chain].concat(), 0)?;

    step("Open a payment channel with a deposit");
    let open = ["channel", "open", CLIENT, "--deposit", DEPOSIT];
    let terms = ["--payout", &payout_address, "--fuel-price", FUEL_PRICE];
    let terms = [&terms[..], &["--inference-price", INFERENCE_PRICE]].concat();
    let opened = demo.asked(&[&open[..], &terms, &by_wallet].concat())?;
    let channel = text(&opened, "address")?;

    step("Run the job once more, and pay for it: a receipt with a price, and a voucher");
    let receipt = path(&folder.join("paid.cbor"))?;
    let run = ["run", job, "--input", input, "--receipt", &receipt];
    let pay = ["--channel", &channel, "--price-max", PRICE_MAX];
    demo.tussah(&[&run[..], &pay, &on_chain].concat(), 0)?;

    step("Redeem the voucher: the root over the channel's receipts goes on chain");
    let redeem = ["channel", "redeem", &channel];
    let redeemed = demo.asked(&[&redeem[..], &on_chain].concat())?;
    let earned = amount(&redeemed, "redeemed_nanograms")?;
    ensure!(earned > 0, "nothing was redeemed");
    ensure!(
        text(&redeemed, "posted_receipts")? == "1",
        "the posted root is not over one receipt"
    );

    step("Withdraw what was earned to the payout account");
    let before = balance()?;
    let withdraw = ["channel", "withdraw", &channel, "--wallet", CLIENT];
    demo.asked(&[&withdraw[..], &["--undeployed"], &by_wallet].concat())?;
    let paid = balance()?.saturating_sub(before);
    ensure!(
        0 < paid && paid <= earned,
        "{paid} of {earned} were paid out"
    );

    step("Verify the receipt against the chain: its signature, and its place in the root");
    let verify = ["receipt", "verify", &receipt];
    demo.tussah(&[&verify[..], &on_chain].concat(), 0)?;
    Ok(format!(
        "{earned} nanograms were redeemed with the root over its receipt, {paid} of them arrived, \
         the rest was gas"
    ))
}

fn text(document: &Value, field: &str) -> Result<String> {
    let text = document[field].as_str();
    let text = text.with_context(|| format!("the answer has no `{field}`"))?;
    Ok(text.to_owned())
}

fn amount(document: &Value, field: &str) -> Result<u64> {
    let amount = text(document, field)?;
    let amount = amount.parse();
    amount.with_context(|| format!("`{field}` is no amount"))
}
