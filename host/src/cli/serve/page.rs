//! `tussah serve page`: the password of the owner's page. It is shown once, and only its hash is
//! kept.

use clap::Args;
use serde::Serialize;

use crate::{exit_code::Exit, failure::Failure, home::Home, serve::open_ledger, ui::Ui};

const EXAMPLES: &str = "\
Examples:
  tussah serve page                    Shows a new password, once
  tussah serve page --off              Nobody logs in any more

The page is at /page of the address that `tussah serve` listens on, such as
http://127.0.0.1:8899/page: queue, rates, device, earnings and newest receipts. A daemon that
runs goes by the new password at once, and whoever had logged in is out.";

/// Make a new password for the owner's web page and show it, once.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Take the password away, so that nobody logs in.
    #[arg(long)]
    off: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    password: Option<&'a str>,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let ledger = open_ledger(&Home::open()?)?;
        if self.off {
            let was_on = ledger.remove_page_password().map_err(Failure::host)?;
            if ui.json() {
                ui.document(&View { password: None })?;
            } else if was_on {
                ui.note("the page has no password any more, and whoever was logged in is out");
            } else {
                ui.note("the page had no password");
            }
            return Ok(Exit::DONE);
        }
        let password = ledger.new_page_password().map_err(Failure::host)?;
        let shown = password.reveal();
        if ui.json() {
            let password = Some(shown);
            ui.document(&View { password })?;
        } else {
            ui.line(shown)?;
            ui.note(
                "this is shown once; it opens /page of `tussah serve`, and replaces the last one",
            );
        }
        Ok(Exit::DONE)
    }
}
