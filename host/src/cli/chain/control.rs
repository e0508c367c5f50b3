//! `tussah chain faucet` and `chain advance`: money and time of a localnet that runs, or of an
//! embedded chain in a folder.
//!
//! In: an address and an amount, or seconds. Out: what the network says that it did. Neither is
//! to be had on a network of other people.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tussah_localnet::{LocalnetError, Network};
use tussah_manifest::Nanograms;
use tussah_settlement::FriendlyAddress;
use tussah_settlement::voucher::NetworkId;

use crate::{
    chain_option::{self, IfNone, address, chain_failure},
    exit_code::Exit,
    failure::Failure,
    grams,
    ui::Ui,
};

/// Where a localnet is unless told otherwise.
const DEFAULT: &str = "http://127.0.0.1:8081/api/v2";
/// A localnet answers at once, or is not there.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The localnet.
#[derive(Debug, Args)]
struct Where {
    /// The localnet's API v2, as `tussah chain localnet` prints it, or `embedded:FOLDER`.
    #[arg(long, value_name = "CHAIN", env = "TUSSAH_CHAIN", default_value = DEFAULT)]
    chain: String,
}

const FAUCET_EXAMPLES: &str = "\
Examples:
  tussah chain faucet 0QABc… 10
  tussah chain faucet 0:83df… 0.5 --json
  tussah chain faucet 0QABc… 10 --chain embedded:./net

The giver's wallet sends it, a million GRAM at most at once.";

/// Have a localnet's giver send money.
#[derive(Debug, Args)]
#[command(after_long_help = FAUCET_EXAMPLES)]
pub(crate) struct FaucetArguments {
    /// Whom it is for, in any form.
    address: String,
    /// How much, in GRAM.
    #[arg(value_parser = grams::parse)]
    amount: Nanograms,
    #[command(flatten)]
    place: Where,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

const ADVANCE_EXAMPLES: &str = "\
Examples:
  tussah chain advance 3600               An hour: a challenge window is over
  tussah chain advance 31536000           A year: rent is due

The clock goes on from there, also after a restart, and never back.";

/// Move a localnet's clock ahead.
#[derive(Debug, Args)]
#[command(after_long_help = ADVANCE_EXAMPLES)]
pub(crate) struct AdvanceArguments {
    /// By how much.
    seconds: u32,
    #[command(flatten)]
    place: Where,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl FaucetArguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let given = match self.place.embedded(IfNone::Make)? {
            Some(network) => self.give(network)?,
            None => {
                let amount = self.amount.get().to_string();
                let wish = json!({ "address": self.address, "amount": amount });
                self.place.ask("faucet", &wish)?
            }
        };
        if ui.json() {
            ui.document(&given)?;
            return Ok(Exit::DONE);
        }
        let balance = given.get("balance").and_then(Value::as_str);
        let balance = balance.and_then(|text| text.parse().ok());
        let balance = balance.and_then(Nanograms::new).unwrap_or(Nanograms::ZERO);
        let (amount, balance) = (grams::grams(self.amount), grams::grams(balance));
        ui.line(&format!("sent {amount}; {} holds {balance}", self.address))?;
        Ok(Exit::DONE)
    }

    /// What a localnet answers, without one.
    fn give(&self, mut network: Network) -> Result<Value, Failure> {
        let to = address(&self.address).map_err(Failure::usage)?;
        let given = network.faucet(&to, self.amount.get()).map_err(refused)?;
        let account = network.chain().account_now(&to).map_err(chain_failure)?;
        let last = given.last();
        Ok(json!({
            "ok": true,
            "address": FriendlyAddress::wallet(to, NetworkId::LOCALNET).to_string(),
            "amount": self.amount,
            "balance": account.balance,
            "lt": last.map_or(0, |transaction| transaction.lt).to_string(),
        }))
    }
}

impl AdvanceArguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let moved = match self.place.embedded(IfNone::Refuse)? {
            Some(mut network) => {
                let now = network.advance(self.seconds).map_err(refused)?;
                json!({ "ok": true, "now": now })
            }
            None => self
                .place
                .ask("advance", &json!({ "seconds": self.seconds }))?,
        };
        if ui.json() {
            ui.document(&moved)?;
        } else {
            let now = moved.get("now").and_then(Value::as_u64).unwrap_or_default();
            ui.line(&format!("it is second {now} now"))?;
        }
        Ok(Exit::DONE)
    }
}

/// What a network of this process refuses.
fn refused(error: LocalnetError) -> Failure {
    match error {
        LocalnetError::Amount { .. } | LocalnetError::Poor { .. } | LocalnetError::Clock { .. } => {
            Failure::usage(error)
        }
        error => Failure::host(error),
    }
}

impl Where {
    /// The chain in a folder, if that is what was named.
    fn embedded(&self, if_none: IfNone) -> Result<Option<Network>, Failure> {
        let folder = self.chain.strip_prefix("embedded:");
        folder
            .map(|folder| chain_option::embedded(Path::new(folder), if_none))
            .transpose()
    }

    /// Asks for what only a localnet does.
    fn ask(&self, what: &str, wish: &Value) -> Result<Value, Failure> {
        let url = self.chain.trim_end_matches('/');
        let Some(root) = url.strip_suffix("/api/v2").filter(|_| url.contains("://")) else {
            let message = format!("`{}` is not a localnet's URL", self.chain);
            return Err(Failure::usage(message).help(format!("give one such as {DEFAULT}")));
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // It is on this machine.
            .proxy(None);
        let agent = ureq::Agent::new_with_config(config.build());
        let no_answer = |error: ureq::Error| {
            Failure::host(error)
                .context(format!("no localnet answers at {root}"))
                .help("start one with `tussah chain localnet`")
        };
        let mut answer = agent
            .post(format!("{root}/localnet/{what}"))
            .content_type("application/json")
            .send(wish.to_string())
            .map_err(no_answer)?;
        let text = answer.body_mut().read_to_string().map_err(no_answer)?;
        let body: Value = serde_json::from_str(&text).map_err(|error| {
            Failure::host(error).context(format!("what answers at {root} is no localnet"))
        })?;
        if answer.status().is_success() {
            return Ok(body);
        }
        let words = body.get("error").and_then(Value::as_str);
        let words = words.unwrap_or("it did not say why").to_owned();
        let failure = if answer.status().is_client_error() {
            Failure::usage(words)
        } else {
            Failure::host(words)
        };
        Err(failure.context(format!("the localnet at {root} refused")))
    }
}
