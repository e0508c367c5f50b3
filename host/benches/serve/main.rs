//! What the daemon takes: jobs a second, how long each waits, syncs of the disk, memory.
//!
//! In: the `tussah` binary that cargo built beside this, and a folder on the disk to measure. Out:
//! figures on stdout as text or JSON. It starts `tussah serve` in a home of its own with a job that
//! does nothing, and loads it over loopback from this process: first one client, then many as
//! fast as they can, then many at a stated rate. It judges nothing.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod client;
mod daemon;
mod figures;
mod in_process;

use std::{
    error::Error,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::json;

use client::{Load, Pace};
use daemon::Daemon;
use figures::{Figures, Spread};

/// The job that does nothing, in the world's smallest component.
const NULL: &str = "(func $run (param i32 i32) (result i32) (i32.const 0))";
/// What a commit of one small job appends to the ledger's log: five pages of 4 KiB, as the writes of
/// its thread are counted (`perf trace -e pwrite64`).
const COMMIT_BYTES: usize = 5 * 4096;

/// Jobs after which the daemon's memory is looked at for the first time.
const WARMING_MAX: u32 = 2000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Loads a daemon with jobs that do nothing, and says what came of it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Jobs a second of the part at a stated rate; 0 leaves that part out
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u32,
    /// Jobs of each of the parts with many clients
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    jobs: u32,
    /// Clients in parallel, each with a connection that it keeps
    #[arg(long, value_name = "N", default_value_t = 200)]
    clients: u32,
    /// Jobs of the part with one client
    #[arg(long, value_name = "N", default_value_t = 500)]
    single: u32,
    /// Jobs that the daemon runs at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    jobs_max: u32,
    /// The folder whose disk is measured; one beside the binary, if not given
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The binary to measure; the one that was built with this program, if not given
    #[arg(long, value_name = "FILE")]
    tussah: Option<PathBuf>,
    /// Write the figures here too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tussah = match &arguments.tussah {
        Some(path) => path.clone(),
        None => PathBuf::from(env!("CARGO_BIN_EXE_tussah")),
    };
    let beside = tussah.parent().unwrap_or(&tussah).to_owned();
    let folder = arguments.folder.clone().unwrap_or(beside);
    let folder = tempfile::Builder::new()
        .prefix("tussah-bench-")
        .tempdir_in(folder)?;
    let module = in_process::component(NULL)?;
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut figures = Figures::default();
    figures.add("cpus", json!(std::thread::available_parallelism()?.get()));

    let sync = sync_times(folder.path())?;
    figures.spread("sync of the disk after a small write, µs", &sync);
    let in_process = in_process::road_times(&module, arguments.single)?;
    figures.spread("run_job in process, µs", &in_process);

    let daemon = Daemon::start(&tussah, folder.path(), &module, arguments.jobs_max)?;
    // The first job compiles the module.
    executor.block_on(client::load(&daemon, 1, 1, Pace::Fastest))?;
    figures.add("resident at start, KiB", daemon.resident()?);

    let before = daemon.counts()?;
    let single = executor.block_on(client::load(&daemon, 1, arguments.single, Pace::Fastest))?;
    let single_counts = daemon.counts()?.since(&before);
    figures.spread("one client over HTTP, µs", &single.spread());
    let syncs = single_counts.syncs_per_job();
    let overhead = single.spread().median - in_process.median;
    figures.add("one client, syncs a job at most", json!(syncs));
    figures.add("HTTP over run_job, median, µs", json!(overhead));
    figures.add(
        "HTTP over run_job less two syncs, median, µs",
        json!(overhead - 2.0 * sync.median),
    );

    many(&arguments, &daemon, &executor, &mut figures)?;
    daemon.stop()?;
    println!("{figures}");
    if let Some(path) = &arguments.json {
        fs::write(path, figures.to_json().to_string())?;
    }
    Ok(())
}

/// The parts with many clients.
fn many(
    arguments: &Arguments,
    daemon: &Daemon,
    executor: &tokio::runtime::Runtime,
    figures: &mut Figures,
) -> Result<()> {
    let clients = arguments.clients;
    // Memory is compared within one load: what 200 connections and the caches take is taken before
    // the first look.
    let first = arguments.jobs.min(WARMING_MAX);
    executor.block_on(client::load(daemon, clients, first, Pace::Fastest))?;
    let early = daemon.resident()?;
    let before = daemon.counts()?;
    let begun = daemon.cpu_seconds()?;
    let jobs = arguments.jobs;
    let fastest = executor.block_on(client::load(daemon, clients, jobs, Pace::Fastest))?;
    let cpu = daemon.cpu_seconds()?;
    let counts = daemon.counts()?.since(&before);
    figures.add(&format!("resident after {first} jobs, KiB"), early);
    let label = format!("resident after {jobs} more, KiB");
    figures.add(&label, daemon.resident()?);
    report(figures, "as fast as can be", &fastest);
    figures.add(
        "as fast as can be, syncs a job at most",
        json!(counts.syncs_per_job()),
    );
    figures.add(
        "as fast as can be, jobs a commit",
        json!(counts.jobs_per_commit()),
    );
    let per_job = cpu.since(&begun, jobs);
    figures.add("as fast as can be, CPU a job, µs", per_job);
    if arguments.rate > 0 {
        let pace = Pace::Rate(f64::from(arguments.rate));
        let paced = executor.block_on(client::load(daemon, clients, arguments.jobs, pace))?;
        report(figures, &format!("at {} a second", arguments.rate), &paced);
    }
    Ok(())
}

fn report(figures: &mut Figures, part: &str, load: &Load) {
    figures.add(&format!("{part}, jobs a second"), json!(load.rate()));
    figures.add(
        &format!("{part}, accepted and done, share"),
        json!(load.accepted_share()),
    );
    figures.add(&format!("{part}, answers 429"), json!(load.refused));
    figures.add(&format!("{part}, other answers"), json!(load.failed));
    figures.spread(&format!("{part}, µs"), &load.spread());
}

/// How long the disk takes to make a small write durable, in microseconds.
fn sync_times(folder: &std::path::Path) -> Result<Spread> {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let mut file = fs::File::create(folder.join("sync"))?;
    let bytes = vec![1; COMMIT_BYTES];
    let mut took = Vec::new();
    // The second time over, the file does not grow, as a log that is used again.
    for round in 0..2 {
        file.seek(SeekFrom::Start(0))?;
        for _ in 0..100 {
            let begun = Instant::now();
            file.write_all(&bytes)?;
            file.sync_data()?;
            if round > 0 {
                took.push(begun.elapsed());
            }
        }
    }
    Ok(Spread::of(&mut took))
}

/// Microseconds.
fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
