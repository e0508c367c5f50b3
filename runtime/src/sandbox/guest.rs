//! What the host keeps for one running guest, and the linker that shows it to the guest.
//!
//! In: a job's limits, nonce and models. Out: the store's data. Of WASI only what Rust's
//! standard library links by itself is here; the clocks are virtual (they step at each
//! reading, and waiting moves them at once), random bytes are ChaCha20 from the request's
//! nonce, standard output and error are kept as the job's log.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chacha20::{ChaCha20Rng, rand_core::SeedableRng as _};
use tussah_manifest::{Limits, Nonce, Salt, Transcript, TranscriptFull};
use wasmtime::{
    Engine,
    component::{HasData, HasSelf, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxView, WasiView,
    cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::{
        DynPollable, OutputStream, Pollable, StreamError,
        bindings::{
            cli,
            clocks::{monotonic_clock, wall_clock},
            filesystem, random,
        },
    },
    random::WasiRandom,
};

use super::{
    Event,
    bindings::{
        tussah::job::{llm, output, types},
        wasi::nn,
    },
    limiter::{Limiter, Stop},
    models::Models,
    preview1,
};
use crate::SharedEvents;

/// Handles that a guest may hold of the host's resources: sessions, streams, timers.
pub(crate) const RESOURCES_MAX: usize = 1024;
/// What one reading of a clock adds to it, in nanoseconds.
pub(crate) const CLOCK_STEP_NS: u64 = 1000;

/// How the guest's clocks run, as receipts say it.
pub(crate) const CLOCK_POLICY: &str = "virtual/0: from the nonce, 1000 ns a reading, waits at once";
/// How the guest's random bytes come about, as receipts say it.
pub(crate) const SEED_POLICY: &str =
    "nonce/0: ChaCha20 for wasi:random, BLAKE3 of seed and number for sessions";

/// The data of a guest's store.
pub(crate) struct Guest {
    /// Made at the guest's first WASI call: most jobs make none.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
    pub(crate) clock: Clock,
    pub(crate) seed: [u8; 32],
    /// Of every salted digest of this job.
    pub(crate) salt: Salt,
    log: Log,
    pub(crate) limiter: Limiter,
    pub(crate) transcript: Transcript,
    pub(crate) models: Models,
    pub(crate) output: Vec<u8>,
    pub(crate) events: SharedEvents,
    /// Of modules of that ABI alone.
    pub(crate) preview1: preview1::State,
}

impl Guest {
    /// `input` is what a preview 1 module reads; a component is passed its own.
    pub(crate) fn new(
        limits: &Limits,
        nonce: &Nonce,
        models: Models,
        events: SharedEvents,
        input: Vec<u8>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            wasi: None,
            table,
            clock: Clock {
                start_unix_s: nonce.derive_clock(),
                now_ns: 0,
            },
            seed: *nonce.derive_seed().as_bytes(),
            salt: nonce.derive_salt(),
            log: Log::new(limits.log_bytes_max, Arc::clone(&events)),
            limiter: Limiter::new(*limits),
            transcript: Transcript::new(nonce.derive_salt(), limits),
            models,
            output: Vec::new(),
            events,
            preview1: preview1::State::new(input),
        }
    }

    /// Writes a host call into the transcript.
    pub(crate) fn record(
        &mut self,
        call: &str,
        arguments: &[u8],
        results: &[u8],
    ) -> Result<(), Stop> {
        self.transcript
            .record(call, arguments, results)
            .map_err(|TranscriptFull { .. }| Stop::Limit(tussah_manifest::LimitHit::HostCalls))
    }

    /// The host's table of a guest's resources.
    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// The seed from which all of the guest's randomness comes.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Adds to the job's log, up to its limit.
    pub(crate) fn write_log(&self, bytes: &[u8]) {
        self.log.append(bytes);
    }

    /// What the guest wrote to its standard output and error.
    pub(crate) fn log(&self) -> Vec<u8> {
        self.log
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .kept
            .clone()
    }

    fn make_wasi(&self) -> WasiCtx {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(self.log.clone())
            .stderr(self.log.clone())
            .secure_random(wasi_random(self.seed))
            .insecure_random(random_bytes(
                &self.seed,
                "tussah 2026-11 wasi insecure random v1",
            ))
            .insecure_random_seed(u128::from_le_bytes(
                *derived(&self.seed, "tussah 2026-11 wasi insecure seed v1")
                    .first_chunk()
                    .unwrap_or(&[0; 16]),
            ))
            .allow_tcp(false)
            .allow_udp(false);
        wasi.build()
    }
}

fn derived(seed: &[u8; 32], context: &str) -> [u8; 32] {
    blake3::derive_key(context, seed)
}

/// What `wasi:random` and `random_get` draw from.
pub(crate) fn wasi_random(seed: [u8; 32]) -> ChaCha20Rng {
    random_bytes(&seed, "tussah 2026-11 wasi random v1")
}

fn random_bytes(seed: &[u8; 32], context: &str) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(derived(seed, context))
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            self.wasi = Some(self.make_wasi());
        }
        let Self { wasi, table, .. } = self;
        WasiCtxView {
            ctx: wasi.get_or_insert_with(|| WasiCtx::builder().build()),
            table,
        }
    }
}

/// The linker with everything that `imports.rs` lets through, and nothing else.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    {
        use wasmtime_wasi::p2::bindings::io::{error, poll, streams};
        error::add_to_linker::<Guest, Io>(l, |guest| guest.ctx().table)?;
        poll::add_to_linker::<Guest, Io>(l, |guest| guest.ctx().table)?;
        streams::add_to_linker::<Guest, Io>(l, |guest| guest.ctx().table)?;
    }
    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    // Nothing is preopened, and whatever opens a file needs an open folder first.
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    random::random::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    monotonic_clock::add_to_linker::<Guest, Clocks>(l, clocks)?;
    wall_clock::add_to_linker::<Guest, Clocks>(l, clocks)?;
    types::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    llm::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    output::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    nn::errors::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    nn::tensor::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    nn::graph::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    nn::inference::add_to_linker::<Guest, HasSelf<Guest>>(l, |guest| guest)?;
    Ok(linker)
}

impl types::Host for Guest {}

struct Io;
impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// The guest's time: it moves when it is looked at, and when it is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start_unix_s: u64,
    now_ns: u64,
}

impl Clock {
    pub(crate) fn read(&mut self) -> u64 {
        self.now_ns = self.now_ns.saturating_add(CLOCK_STEP_NS);
        self.now_ns
    }

    /// The time, without a reading.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The wall clock's time at the job's start, in nanoseconds since 1970.
    pub(crate) fn start_ns(&self) -> u64 {
        self.start_unix_s.saturating_mul(1_000_000_000)
    }

    /// A wait is over at once: the clock stands where it would have stood.
    pub(crate) fn wait_until(&mut self, when_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(when_ns);
        self.now_ns
    }
}

struct Clocks;
impl HasData for Clocks {
    type Data<'a> = ClocksView<'a>;
}

struct ClocksView<'a> {
    clock: &'a mut Clock,
    table: &'a mut ResourceTable,
}

fn clocks(guest: &mut Guest) -> ClocksView<'_> {
    ClocksView {
        clock: &mut guest.clock,
        table: &mut guest.table,
    }
}

impl monotonic_clock::Host for ClocksView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.clock.read())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(CLOCK_STEP_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.clock.wait_until(when);
        let due = self.table.push(Due)?;
        wasmtime_wasi::p2::subscribe(self.table, due)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let when = self.clock.now_ns.saturating_add(duration);
        self.subscribe_instant(when)
    }
}

impl wall_clock::Host for ClocksView<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = Duration::from_secs(self.clock.start_unix_s)
            .saturating_add(Duration::from_nanos(self.clock.read()));
        Ok(wall_clock::Datetime {
            seconds: now.as_secs(),
            nanoseconds: now.subsec_nanos(),
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1000,
        })
    }
}

/// A timer of a virtual clock: always due.
struct Due;

#[wasmtime_wasi::async_trait]
impl Pollable for Due {
    async fn ready(&mut self) {}
}

/// The guest's standard output and error: kept up to the limit, then dropped. The guest
/// never learns of it, so that a talkative job ends as a silent one would.
#[derive(Clone)]
struct Log(Arc<Mutex<LogState>>);

struct LogState {
    kept: Vec<u8>,
    bytes_max: u64,
    events: SharedEvents,
}

impl Log {
    fn new(bytes_max: u64, events: SharedEvents) -> Self {
        Self(Arc::new(Mutex::new(LogState {
            kept: Vec::new(),
            bytes_max,
            events,
        })))
    }

    fn append(&self, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = state.bytes_max.saturating_sub(state.kept.len() as u64);
        let taken = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        state.kept.extend_from_slice(&bytes[..taken]);
        state.events.event(Event::Log(&bytes[..taken]));
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which no guest can import.
        Box::new(tokio::io::sink())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

impl OutputStream for Log {
    fn write(&mut self, bytes: bytes::Bytes) -> Result<(), StreamError> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 * 1024)
    }
}
