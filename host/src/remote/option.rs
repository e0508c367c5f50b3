//! Which provider a command talks to: `--to`, `--key-file`, `--ca`.
//!
//! In: arguments and the environment. Out: a [`Remote`], before anything was sent.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use ureq::tls::{Certificate, PemItem, parse_pem};
use zeroize::Zeroizing;

use super::Remote;
use crate::{
    failure::Failure,
    input,
    interrupt::Interrupt,
    pull::http::{agent_for, check_url, direct_agent, system_roots, trusted},
    ui::Ui,
    wallets,
};

/// The provider of this machine.
pub(crate) const HERE: &str = "http://127.0.0.1:8899";
/// The variable with the API key.
const KEY_VARIABLE: &str = "TUSSAH_API_KEY";
/// The most bytes of a file of certificates.
const CA_BYTES_MAX: u64 = 4 << 20;

/// A provider, as arguments name it.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteOption {
    /// The provider's address, such as `https://ai.example.org`; this machine's own if not given.
    #[arg(long, value_name = "URL", env = "TUSSAH_PROVIDER")]
    to: Option<String>,
    /// The file whose first line is the API key; it may stand in TUSSAH_API_KEY instead.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file, and no others.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl RemoteOption {
    /// The provider; `usual` where none was named.
    ///
    /// # Errors
    /// A usage failure if the address or a file cannot be used.
    pub(crate) fn open(
        &self,
        usual: &str,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Result<Remote, Failure> {
        let url = self.to.as_deref().unwrap_or(usual);
        let base = url.trim_end_matches('/');
        // As OpenAI's clients are told the address.
        let base = base.strip_suffix("/v1").unwrap_or(base);
        check_url(base).map_err(|reason| {
            Failure::usage(format!("{url} is no provider's address: {reason}"))
                .help("write it as https://HOST[:PORT]")
        })?;
        if !trusted(base) {
            let message = format!("{base} is another machine and not https");
            return Err(Failure::usage(message).help(
                "whoever is in between would read the key and the input: use the provider's https \
                 address, with --ca FILE if its certificate is its own, or a tunnel",
            ));
        }
        let roots = match &self.ca {
            None => system_roots(),
            Some(file) => certificates(file)?,
        };
        Ok(Remote {
            base: base.to_owned(),
            key: self.key()?,
            agent: agent_for(base, roots),
            interrupt: interrupt.clone(),
            ui: *ui,
        })
    }

    fn key(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let key = match &self.key_file {
            Some(file) => Some(wallets::first_line(file)?),
            None => std::env::var(KEY_VARIABLE).ok().map(Zeroizing::new),
        };
        let key = key.filter(|key| !key.is_empty());
        if key
            .as_ref()
            .is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let message = "the API key holds more than letters, digits and signs";
            return Err(Failure::usage(message).help("it looks like tsk_…, alone on its line"));
        }
        Ok(key)
    }
}

fn certificates(file: &std::path::Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let bytes = input::bytes(file, CA_BYTES_MAX)?;
    let mut found = Vec::new();
    for item in parse_pem(&bytes) {
        let item = item.map_err(|error| {
            Failure::usage(error).context(format!("{} is no PEM file", file.display()))
        })?;
        if let PemItem::Certificate(certificate) = item {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        let message = format!("{} holds no certificate in PEM", file.display());
        return Err(Failure::usage(message));
    }
    Ok(found)
}

/// The port of a daemon's health and metrics, which asks for no key.
pub(crate) fn monitor(address: SocketAddr, interrupt: &Interrupt, ui: &Ui) -> Remote {
    Remote {
        base: format!("http://{address}"),
        key: None,
        agent: direct_agent(Vec::new()),
        interrupt: interrupt.clone(),
        ui: *ui,
    }
}
