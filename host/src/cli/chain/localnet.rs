//! `tussah chain localnet`: a real TON network in this process, until it is told to stop.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tussah_localnet::{LocalnetError, Network, Server, ServerConfig, StoreError};
use tussah_settlement::FriendlyAddress;
use tussah_settlement::wallet::Wallet;

use crate::{clock, exit_code::Exit, failure::Failure, home::Home, ui::Ui};

const EXAMPLES: &str = "\
Examples:
  tussah chain localnet
  tussah chain localnet --dir ./net --port 0 --json
  tussah chain faucet 0QAB… 10            Money from the network's giver
  tussah chain advance 86400              A day later

It answers what toncenter's API v2 answers, on this machine alone. Everything that it has
answered is on disk; Ctrl-C stops it, and the same command goes on.";

/// Run a real TON network in one process, for development and tests.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The port on 127.0.0.1; 0 lets the system choose.
    #[arg(long, default_value_t = 8081)]
    port: u16,
    /// The folder that it is kept in; a folder of its own in TUSSAH_HOME if not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// An origin whose pages may use it, such as http://localhost:3000; can be given again.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What a program needs to know to use it.
#[derive(Serialize)]
struct Running {
    /// toncenter's v2 root.
    url: String,
    /// What `@ton/ton`'s client takes.
    json_rpc: String,
    folder: PathBuf,
    giver: String,
    developer: Developer,
}

/// A wallet with money, whose key is no secret.
#[derive(Serialize)]
struct Developer {
    address: String,
    wallet: &'static str,
    seed: String,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let folder = match self.dir {
            Some(folder) => {
                fs::create_dir_all(&folder).map_err(|error| {
                    Failure::host(error).context(format!("cannot use {}", folder.display()))
                })?;
                folder
            }
            None => Home::open()?.folder("localnet")?,
        };
        let network = Network::open(&folder, Box::new(clock::seconds)).map_err(failure)?;
        let runtime = tokio::runtime::Runtime::new()
            .map_err(|error| Failure::host(error).context("cannot start threads"))?;
        let config = ServerConfig {
            port: self.port,
            cors: self.cors,
        };
        runtime.block_on(async {
            let server = Server::bind(network, &config).await.map_err(|error| {
                Failure::host(error)
                    .context(format!("cannot listen on 127.0.0.1:{}", config.port))
                    .help("choose another port, or --port 0 for one that is free")
            })?;
            show(&running(&server, folder), ui)?;
            let served = server.serve(stop_requested()?).await;
            served.map_err(|error| Failure::host(error).context("the port was lost"))
        })?;
        ui.note("stopped");
        Ok(Exit::DONE)
    }
}

fn running(server: &Server, folder: PathBuf) -> Running {
    let (developer, key) = tussah_localnet::developer();
    let (giver, _) = tussah_localnet::giver();
    let seed: String = key.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    Running {
        url: server.url(),
        json_rpc: format!("{}/jsonRPC", server.url()),
        folder,
        giver: wallet_address(&giver),
        developer: Developer {
            address: wallet_address(&developer),
            wallet: "V5R1",
            seed,
        },
    }
}

fn wallet_address(wallet: &Wallet) -> String {
    FriendlyAddress::wallet(wallet.address(), wallet.network).to_string()
}

fn show(running: &Running, ui: &Ui) -> Result<(), Failure> {
    if ui.json() {
        return ui.document(running);
    }
    let Developer { address, seed, .. } = &running.developer;
    for (label, value) in [
        ("API v2", running.url.as_str()),
        ("@ton/ton", &running.json_rpc),
        ("folder", &running.folder.display().to_string()),
        ("funded wallet", &format!("{address} (V5R1)")),
        ("its seed", seed),
    ] {
        ui.line(&format!("{label:<13}  {value}"))?;
    }
    ui.note(&format!(
        "try: curl '{}/getAddressInformation?address={address}'\nCtrl-C stops it",
        running.url
    ));
    Ok(())
}

/// Done when Ctrl-C or SIGTERM came.
fn stop_requested() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())
            .map_err(|error| Failure::host(error).context("cannot wait for SIGTERM"))?
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}

fn failure(error: LocalnetError) -> Failure {
    let help = match &error {
        LocalnetError::Store(StoreError::Taken { .. }) => {
            "use the network that runs already, or give another folder with --dir"
        }
        LocalnetError::Store(StoreError::Content { .. }) => {
            "give another folder with --dir, or delete the file to start anew"
        }
        _ => return Failure::host(error),
    };
    Failure::host(error).help(help)
}
