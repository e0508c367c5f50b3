//! `tussah status`: how this machine's daemon is, from its own port for that.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;
use tussah_manifest::Nanograms;

use crate::{
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    interrupt::Interrupt,
    pull::http::HttpError,
    remote::{Call, Remote, RemoteError, option, printable},
    serve::config::{self, Config},
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah status                        Queue, rates, device, isolation, the newest jobs
  tussah status --watch                Again every two seconds, until Ctrl-C
  tussah status --json | jq .jobs_waiting

It asks the port of health and metrics, which is for this machine alone. Exit code 0: a
daemon answered, whatever it said. Exit code 5: none runs there.";

/// The port where nobody says another.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8898);
/// Between two looks with `--watch`.
const EVERY: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(50);
/// Jobs that are listed.
const JOBS_MAX: usize = 10;

/// Show how this machine's daemon is.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where its health and metrics are; what serve.toml says if not given.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Look again and again.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let address = reached(match self.metrics {
            Some(address) => address,
            None => configured()?,
        });
        let remote = option::monitor(address, &interrupt, ui);
        loop {
            let status = ask(&remote, address)?;
            if ui.json() {
                ui.document(&status)?;
                return Ok(Exit::DONE);
            }
            if self.watch && ui.stdout_is_terminal() {
                ui.out(b"\x1b[H\x1b[2J")?;
            }
            for line in lines(&status) {
                ui.line(&line)?;
            }
            if !self.watch {
                return Ok(Exit::DONE);
            }
            let looked = Instant::now();
            while looked.elapsed() < EVERY {
                if interrupt.requested() {
                    return Ok(Exit::INTERRUPTED);
                }
                std::thread::sleep(TICK);
            }
            ui.line("")?;
        }
    }
}

/// Where this home's daemon has its port.
fn configured() -> Result<SocketAddr, Failure> {
    let path = Home::open()?.root().join(config::FILE);
    let config = Config::read(&path)?;
    let place = config.and_then(|config| config.listen.metrics);
    Ok(place.map_or(USUAL, |place| place.0))
}

/// Where something that listens at this address is reached from here: at loopback, if it listens
/// at all addresses.
fn reached(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    });
    address
}

fn ask(remote: &Remote, address: SocketAddr) -> Result<Value, Failure> {
    match remote.ask_first(&Call::get("/status")) {
        Ok(answer) => Ok(answer.json()?),
        Err(RemoteError::Http(HttpError::Interrupted)) => Err(Failure::interrupted()),
        Err(RemoteError::Http(error)) => Err(Failure::host(error)
            .context(format!("no daemon answers at {address}"))
            .help("start one with `tussah serve`, or name its port with --metrics ADDRESS:PORT")),
        Err(error) => Err(Failure::from(error).context(format!(
            "what answers at {address} is no daemon of this version"
        ))),
    }
}

fn lines(status: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(printable);
    let number = |value: &Value| ui::count(value.as_u64().unwrap_or_default());
    let duration =
        |value: &Value| ui::duration(Duration::from_millis(value.as_u64().unwrap_or_default()));
    let mut lines = Vec::new();
    let mut row = |label: &str, value: String| lines.push(format!("{label:<11}  {value}"));
    let why = text(&status["reason"]).map_or_else(String::new, |reason| format!(": {reason}"));
    let state = text(&status["state"]).unwrap_or_default();
    row(
        "state",
        format!("{state}{why}, for {}", duration(&status["uptime_ms"])),
    );
    row(
        "jobs",
        format!(
            "{} of {} running, {} of {} waiting",
            number(&status["jobs_running"]),
            number(&status["jobs_running_max"]),
            number(&status["jobs_waiting"]),
            number(&status["jobs_waiting_max"]),
        ),
    );
    let rate = |name: &str| status["rates"][name].as_f64().unwrap_or_default();
    row(
        "last minute",
        format!(
            "{:.1} jobs/s, {:.1} tokens/s read, {:.1} tokens/s generated",
            rate("jobs_per_second"),
            rate("prompt_tokens_per_second"),
            rate("generated_tokens_per_second"),
        ),
    );
    let count = &status["since_start"];
    row(
        "since start",
        format!(
            "{} done, {} failed, {} not run, {} refused; {} workers lost; earned {}",
            number(&count["done"]),
            number(&count["failed"]),
            number(&count["not_run"]),
            number(&count["refused"]),
            number(&count["workers_lost"]),
            amount(&count["earned_nanograms"]),
        ),
    );
    let worker = &status["worker"];
    match text(&worker["device"]) {
        Some(device) => {
            let memory = worker["memory_bytes"].as_u64();
            let memory = memory.map_or_else(String::new, |bytes| format!(", {}", ui::size(bytes)));
            row("device", format!("{device}{memory}"));
            row("isolation", text(&worker["isolation"]).unwrap_or_default());
        }
        None => row("device", "none: no worker runs".to_owned()),
    }
    if let Some(bytes) = status["resident_bytes"].as_u64() {
        row(
            "memory",
            format!("{} of the gateway's own", ui::size(bytes)),
        );
    }
    let now = status["now_unix_ms"].as_u64().unwrap_or_default();
    let jobs = status["recent_jobs"].as_array();
    for job in jobs.into_iter().flatten().take(JOBS_MAX) {
        let at = job["finished_unix_ms"]
            .as_u64()
            .or(job["accepted_unix_ms"].as_u64());
        let ago = Duration::from_millis(now.saturating_sub(at.unwrap_or(now)));
        row(
            "job",
            format!(
                "{}  {}  {}, {} ago, {}",
                text(&job["id"]).unwrap_or_default(),
                text(&job["model"]).unwrap_or_else(|| "-".to_owned()),
                text(&job["status"]).unwrap_or_default(),
                ui::duration(ago),
                amount(&job["price_nanograms"]),
            ),
        );
    }
    lines
}

fn amount(value: &Value) -> String {
    let amount = value.as_str().and_then(|text| text.parse().ok());
    amount
        .and_then(Nanograms::new)
        .map_or_else(|| "no price yet".to_owned(), grams)
}
