//! The daemon: the gateway's process, which starts the signer and the worker and looks after them.
//!
//! In: settings, the home folder. Out: an HTTP service until a signal ends it. This process runs
//! no module and signs nothing; what it starts gets a socket, a short list of the environment and
//! nothing else of it. A worker that dies is started again, after a while that grows; without its
//! signer the daemon ends, since nothing could be finished.

mod admission;
mod books;
mod child;
pub(crate) mod config;
mod link;
pub(crate) mod log;
mod notify;
mod retold;
mod tls;
pub(crate) mod verified;

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tussah_manifest::{Limits, ModuleRef, Nanograms};
use tussah_provider::{
    blobs::{BlobRules, Uploads},
    gateway::{Admission, Gateway, GatewayConfig, Paymaster, PriceSheet, SignerLink, Supervision},
    http::{self, HttpConfig},
    ledger::Ledger,
    queue::QueueLimits,
    wire::Secret,
};

use books::Books;
use child::Process;
pub(crate) use child::child_socket;
use config::{Amount, Config, Place, Whole};
pub(crate) use link::Link;
pub(crate) use tls::Certificate;

use crate::{
    chain_option::{ApiKeyOption, ChainOption},
    channels::BY_ITSELF,
    exit_code::Exit,
    failure::Failure,
    home::Home,
    keys::{self, KeyName},
    ui::Ui,
};

/// The daemon's folder below the home folder.
pub(crate) const FOLDER: &str = "serve";
/// The ledger, in that folder.
pub(crate) const LEDGER: &str = "ledger.sqlite";
/// Held by the one daemon that a home can have.
const LOCK: &str = "lock";
/// How long a worker that died waits for the next one: twice as long each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// A worker that lived so long did not die of how it was started.
const SETTLED: Duration = Duration::from_secs(60);
/// The largest blob that can be uploaded: as large as a module may be.
const UPLOAD_BYTES_MAX: u64 = ModuleRef::SIZE_BYTES_MAX;
/// How long clients may take to read their last answers, and then a look at the chain for a name server.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(10);

/// What a daemon is told before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// Where health and metrics are.
    pub(crate) metrics_listen: SocketAddr,
    /// Which clients are served, and how patiently.
    pub(crate) http: HttpConfig,
    /// By what clients know it; without one there is no TLS.
    pub(crate) certificate: Option<Certificate>,
    /// How much is said on standard error, and for whom.
    pub(crate) log: log::Level,
    pub(crate) log_format: log::Format,
    /// What work costs.
    pub(crate) prices: PriceSheet,
    /// How much at a time.
    pub(crate) queue: QueueLimits,
    /// Jobs that one account may bring in a minute.
    pub(crate) account_per_minute_max: Option<u32>,
    /// How long contents of jobs that ended are kept; `None` is for ever.
    pub(crate) keep: Option<Duration>,
    /// Bytes of blobs from which on uploads are refused.
    pub(crate) blobs_bytes_max: u64,
    /// The most that manifests may ask for.
    pub(crate) limits_max: Limits,
    /// The models that jobs may use, by name or digest; `None` is any.
    pub(crate) models: Option<Vec<String>>,
    /// Whose claim a module needs: keys, and files of them; `None` is nobody's.
    pub(crate) require_verified: Option<Vec<String>>,
    /// How long what runs may take to end once the daemon is told to.
    pub(crate) drain: Duration,
    /// How long a worker may leave a question unanswered.
    pub(crate) silence: Duration,
    /// The chain of the channels through which jobs are taken.
    pub(crate) chain: Option<String>,
    /// The file with the key for its server.
    pub(crate) chain_key_file: Option<PathBuf>,
    /// From how much on a voucher is posted at once.
    pub(crate) redeem_from: Nanograms,
    /// What the worker's command is given.
    pub(crate) worker: Vec<OsString>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

impl Settings {
    /// What was set, and the defaults of what was not.
    pub(crate) fn of(config: &Config) -> Self {
        let any = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let place = |set: Option<Place>, port| set.map_or(any(port), |Place(place)| place);
        let amount = |set: Option<Amount>| set.map_or(Nanograms::ZERO, |Amount(amount)| amount);
        let (listen, prices) = (&config.listen, &config.prices);
        let seconds = |time: u32| Duration::from_secs(time.into());
        let keep_days = config.limits.keep_days.map_or(30, |Whole(days)| days);
        let blobs_gb = config.models.blobs_max_gb.map_or(100, |Whole(gb)| gb);
        Self {
            listen: place(listen.address, 8899),
            metrics_listen: place(listen.metrics, 8898),
            http: http_config(listen, &config.connections),
            certificate: config.tls.certificate(),
            log: config.log.level.unwrap_or_default(),
            log_format: config.log.format.unwrap_or_default(),
            prices: PriceSheet {
                base: amount(prices.base_nanograms),
                fuel: amount(prices.nanograms_per_billion_fuel),
                inference: amount(prices.nanograms_per_trillion_inference_units),
            },
            queue: queue_limits(&config.limits),
            account_per_minute_max: (config.limits.account_per_minute_max)
                .map(|Whole(max)| max)
                .filter(|max| *max > 0),
            keep: (keep_days > 0).then(|| Duration::from_hours(24 * u64::from(keep_days))),
            blobs_bytes_max: u64::from(blobs_gb) * 1_000_000_000,
            limits_max: admission::limits_max(&config.limits),
            models: config.models.allow.clone(),
            require_verified: config.modules.require_verified.clone(),
            drain: seconds(config.worker.drain_s.map_or(60, |Whole(time)| time)),
            silence: seconds(config.worker.hung_s.map_or(30, |Whole(time)| time)),
            chain: config.channels.chain.clone(),
            chain_key_file: config.channels.api_key_file.clone(),
            redeem_from: (config.channels.redeem_nanograms)
                .map_or(BY_ITSELF.value_min, |Amount(amount)| amount),
            worker: config.worker_arguments(),
        }
    }
}

fn http_config(listen: &config::Listen, connections: &config::Connections) -> HttpConfig {
    let defaults = HttpConfig::default();
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let seconds = |number: u32| Duration::from_secs(number.into());
    let named = listen.hosts.iter().flatten().cloned();
    let connections_max = (connections.max).map_or(defaults.connections_max, |max| count(max.0));
    HttpConfig {
        hosts: defaults.hosts.iter().cloned().chain(named).collect(),
        anonymous: listen.anonymous.clone(),
        cors_origin: listen.cors_origin.clone().map(|origin| origin.0),
        connections_max,
        connections_per_address_max: (connections.per_address_max)
            .map_or(defaults.connections_per_address_max, |max| count(max.0))
            .min(connections_max),
        head_time_max: (connections.head_seconds_max)
            .map_or(defaults.head_time_max, |max| seconds(max.0)),
        body_time_max: (connections.body_seconds_max)
            .map_or(defaults.body_time_max, |max| seconds(max.0)),
        write_time_max: (connections.write_seconds_max)
            .map_or(defaults.write_time_max, |max| seconds(max.0)),
        ..defaults
    }
}

fn queue_limits(limits: &config::Limits) -> QueueLimits {
    // Every bound of these numbers is below what any machine counts with.
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let defaults = QueueLimits::default();
    let running_max = (limits.jobs_max).map_or(defaults.running_max, |max| count(max.0));
    QueueLimits {
        running_max,
        queued_max: (limits.queued_max).map_or(defaults.queued_max, |max| count(max.0)),
        // One account alone never has all places, unless the provider says so.
        account_running_max: (limits.account_jobs_max)
            .map_or(running_max.saturating_sub(1).max(1), |max| count(max.0)),
        account_queued_max: (limits.account_queued_max)
            .map_or(defaults.account_queued_max, |max| count(max.0)),
        ..defaults
    }
}

/// Opens the ledger of this home; makes it if there is none.
///
/// # Errors
/// A host failure if it cannot be used.
pub(crate) fn open_ledger(home: &Home) -> Result<Ledger, Failure> {
    let path = home.folder(FOLDER)?.join(LEDGER);
    Ledger::open(&path).map_err(|error| {
        Failure::host(error).context(format!("cannot use the ledger {}", path.display()))
    })
}

/// Serves until SIGTERM or Ctrl-C, then lets what runs end.
///
/// # Errors
/// A failure if a port is taken, another daemon has this home, or a process cannot be started.
pub(crate) fn run(settings: &Settings, ui: &Ui) -> Result<Exit, Failure> {
    tussah_provider::memory::keep_small();
    log::install(settings.log, settings.log_format)?;
    let home = Home::open()?;
    let admission = admission::admission(settings, &home)?;
    let _lock = lock(&home.folder(FOLDER)?)?;
    let ledger = Arc::new(open_ledger(&home)?);
    if let Some(account) = &settings.http.anonymous {
        let now = crate::clock::milliseconds();
        let made = ledger.account_or_new(account, now);
        made.map_err(Failure::usage)?;
    }
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::host)?;
    let served = executor.block_on(serve(settings, admission, &home, ledger, ui));
    executor.shutdown_timeout(ANSWERS_TIME_MAX);
    served
}

async fn serve(
    settings: &Settings,
    admission: Admission,
    home: &Home,
    ledger: Arc<Ledger>,
    ui: &Ui,
) -> Result<Exit, Failure> {
    let mut signals = Signals::install()?;
    let hangups = taken_over(SignalKind::hangup())?;
    let certificate = match &settings.certificate {
        None => None,
        Some(certificate) => Some(certificate.load(home, &settings.http.hosts, ui)?),
    };
    let clients = bind(settings.listen).await?;
    let monitors = bind(settings.metrics_listen).await?;
    let (mut signer, link) = start_signer(*ui).await?;
    let channels = open_books(settings, home, &link)?;
    let blobs = home.folder("blobs")?;
    let cache_key = Secret(*keys::load_or_create(home, KeyName::ServeCache)?);
    let config = GatewayConfig {
        prices: settings.prices,
        queue: settings.queue,
        account_per_minute_max: settings.account_per_minute_max,
        admission,
        supervision: Supervision::silent(settings.silence),
        keep: settings.keep,
        paymaster: (channels.as_ref()).map(|(books, _)| Arc::clone(books) as Arc<dyn Paymaster>),
        ..GatewayConfig::new(blobs.clone(), cache_key)
    };
    let gateway = Gateway::new(config, ledger, link).map_err(Failure::host)?;
    let mut chain = channels.map(|(books, chain)| {
        let signer = gateway.clone();
        tokio::spawn(books.watch(chain, signer, *ui))
    });
    let uploads = Uploads::new(
        blobs,
        BlobRules {
            blob_bytes_max: UPLOAD_BYTES_MAX,
            quota_bytes: settings.blobs_bytes_max,
            allowed: None,
        },
    );
    let (stop, stopped) = watch::channel(false);
    let (address, monitored) = (local(&clients)?, local(&monitors)?);
    let mut answering = tokio::spawn(http::serve(
        gateway.clone(),
        uploads,
        settings.http.clone(),
        certificate.as_ref().map(|loaded| loaded.tls.clone()),
        clients,
        until(stopped.clone()),
    ));
    // What watches this machine calls it by its own names, not by those that clients have.
    let hosts = HttpConfig::default().hosts;
    let watched = gateway.clone();
    let health = async move { http::serve_health(watched, &hosts, monitors, until(stopped)).await };
    let mut watching = tokio::spawn(health);
    let mut worker = tokio::spawn(look_after_worker(
        gateway.clone(),
        settings.worker.clone(),
        *ui,
    ));
    let scheme = if certificate.is_some() {
        "https"
    } else {
        "http"
    };
    let _renewing = renew_on_hangup(hangups, certificate, *ui);
    ui.note(&format!(
        "serving on {scheme}://{address}, health on http://{monitored}"
    ));
    notify::notify(notify::READY);
    let ended = tokio::select! {
        () = signals.next() => None,
        ended = &mut answering => Some(port_lost(address, ended)),
        ended = &mut watching => Some(port_lost(monitored, ended)),
        ended = &mut worker => Some(worker_unusable(ended)),
        failure = unwatched(&mut chain) => Some(failure),
        () = signer.gone() => Some(Failure::host("the signer has ended")),
    };
    if let Some(failure) = ended {
        return Err(failure);
    }
    notify::notify(notify::STOPPING);
    ui.note("no more jobs are taken; those that run are waited for");
    let drained = async {
        let in_time = drain(&gateway, settings.drain, ui).await;
        // Nobody is left to tell if the tasks have ended already.
        let _ = stop.send(true);
        let answers = async { drop(tokio::join!(&mut answering, &mut watching, &mut worker)) };
        if tokio::time::timeout(ANSWERS_TIME_MAX, answers)
            .await
            .is_err()
        {
            ui.warn("a client did not read its last answer");
        }
        match in_time {
            true => Exit::DONE,
            false => Exit::LIMIT,
        }
    };
    tokio::select! {
        exit = drained => Ok(exit),
        // Jobs that run are in the ledger, and run again at the next start.
        () = signals.next() => Ok(Exit::INTERRUPTED),
        () = signer.gone() => Err(Failure::host("the signer has ended")),
    }
}

/// Waits for what runs, for so long; whether that was enough. What it was not enough for has ended
/// with a receipt that says so.
async fn drain(gateway: &Gateway, time_max: Duration, ui: &Ui) -> bool {
    let draining = gateway.drain();
    tokio::pin!(draining);
    if tokio::time::timeout(time_max, &mut draining).await.is_ok() {
        return true;
    }
    let (_, running) = gateway.load();
    ui.warn(&format!(
        "{running} jobs did not end within {} s; they end with a receipt that says so",
        time_max.as_secs()
    ));
    gateway.give_up_runs();
    draining.await;
    false
}

/// A task that ends where nothing more can be done of it.
type Watch = tokio::task::JoinHandle<Failure>;

/// The book of channels, and their chain, where one was named. It is not waited for: jobs on credit
/// do not need it.
fn open_books(
    settings: &Settings,
    home: &Home,
    signer: &SignerLink,
) -> Result<Option<(Arc<Books>, ChainOption)>, Failure> {
    let Some(chain) = &settings.chain else {
        return Ok(None);
    };
    let key = ApiKeyOption::of_file(settings.chain_key_file.clone());
    let chain = ChainOption::new(chain.clone(), key);
    chain.check()?;
    let books = Books::open(home, signer.provider_key, settings.redeem_from)?;
    Ok(Some((Arc::new(books), chain)))
}

/// Why the chain can be watched no more; never, where there is none.
async fn unwatched(watch: &mut Option<Watch>) -> Failure {
    match watch {
        None => std::future::pending().await,
        Some(watch) => watch.await.unwrap_or_else(Failure::host),
    }
}

/// Reads the certificate again at each SIGHUP, for as long as what this gives is kept. Without one
/// SIGHUP changes nothing.
fn renew_on_hangup(mut hangups: Signal, loaded: Option<tls::Loaded>, ui: Ui) -> AbortOnDrop {
    let task = tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let Some(loaded) = &loaded else {
                ui.note("SIGHUP: there is no certificate to read again");
                continue;
            };
            match loaded.renew() {
                Ok(()) => ui.note("the certificate was read again"),
                Err(failure) => {
                    let reason = failure.chain().join(": ");
                    ui.warn(&format!("{reason}; the certificate stays as it was"));
                }
            }
        }
    });
    AbortOnDrop(task)
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        Ok(Self {
            terminate: taken_over(SignalKind::terminate())?,
            interrupt: taken_over(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn taken_over(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::host(error).context("cannot take over signals"))
}

/// A home has one daemon: two would run each other's jobs a second time.
fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(LOCK);
    let failed = |error: std::io::Error| crate::failure::file_failure("use", &path, error);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::host(format!(
            "another `tussah serve` has {}",
            folder.display()
        ))
        .help("stop it, or give this one a home of its own by TUSSAH_HOME")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::host(error)
            .context(format!("cannot listen on {address}"))
            .help("name a free port of this machine; 0 takes any")
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(Failure::host)
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // If whoever would say it is gone, it is time too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn start_signer(ui: Ui) -> Result<(Process, SignerLink), Failure> {
    let started = child::start("signer", &["serve-signer".into()], ui)?;
    let socket = Link::new(started.socket).map_err(Failure::host)?;
    match SignerLink::connect(socket).await {
        Ok(link) => Ok((started.process, link)),
        Err(error) => {
            // It is gone, or closed its socket to go.
            started.process.ended().await;
            Err(Failure::host(error).context("the signer did not start; its error stands above"))
        }
    }
}

/// Has a worker at all times, until the gateway drains or none has ever been ready.
async fn look_after_worker(
    gateway: Gateway,
    arguments: Vec<OsString>,
    ui: Ui,
) -> Result<(), Failure> {
    let mut pause = PAUSE.0;
    loop {
        let begun = Instant::now();
        let mut command = vec![OsString::from("serve-worker")];
        command.extend(arguments.iter().cloned());
        let started = match child::start("worker", &command, ui) {
            Ok(started) => started,
            Err(failure) if gateway.has_had_worker() => {
                let reason = failure.chain().join(": ");
                ui.warn(&format!("{reason}; it is tried again in {pause:?}"));
                tokio::time::sleep(pause).await;
                pause = PAUSE.1.min(pause * 2);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let socket = Link::new(started.socket).map_err(Failure::host)?;
        let ended = gateway.attach_worker(socket).await;
        let status = started.process.ended().await;
        if gateway.is_draining() {
            return Ok(());
        }
        // What a worker says before it is ready is wrong with this machine or the options.
        let refused = status.and_then(|status| status.code()).is_some();
        if !gateway.has_had_worker() && refused {
            return Err(Failure::host(
                "the worker cannot start; its error stands above",
            ));
        }
        if begun.elapsed() >= SETTLED {
            pause = PAUSE.0;
        }
        let reason = ended.err().map_or_else(
            || "it ended".to_owned(),
            |error| Failure::host(error).chain().join(": "),
        );
        ui.warn(&format!("{reason}; another worker starts in {pause:?}"));
        tokio::time::sleep(pause).await;
        pause = PAUSE.1.min(pause * 2);
    }
}

type Joined<T> = Result<T, tokio::task::JoinError>;

fn port_lost(address: SocketAddr, ended: Joined<std::io::Result<()>>) -> Failure {
    let failure = match ended {
        Ok(Ok(())) => Failure::host("it ended by itself"),
        Ok(Err(error)) => Failure::host(error),
        Err(error) => Failure::host(error),
    };
    failure.context(format!("the service on {address} failed"))
}

fn worker_unusable(ended: Joined<Result<(), Failure>>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::host("the worker ended by itself"),
        Ok(Err(failure)) => failure,
        Err(error) => Failure::host(error),
    }
}
