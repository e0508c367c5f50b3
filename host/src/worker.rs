//! The worker's process: it compiles and runs strangers' modules, and owns the GPU.
//!
//! In: jobs over a socket from the gateway, modules and models from the blob store. Out: what the
//! jobs say, in order, and unsigned accounts of them. It has no keys, no ledger and no network,
//! and cannot open them: before it reads its first message it is confined to what it needs. It
//! waits where the gateway does not read, and ends when the gateway does.

mod drivers;
mod run;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::{
    io::{BufReader, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tussah_inference::{Device, exact_profile};
use tussah_manifest::Document as _;
use tussah_provider::{
    isolation::{self, Reach},
    wire::{
        FrameReader, FrameWriter, FromWorker, Hello, Isolation, Ready, RunRefused, RunRequest,
        ToWorker, WhoseFault, WireError,
    },
};
use tussah_runtime::{Allocation, CACHE_BYTES_MAX, Cancel, Runtime, RuntimeConfig};
use zeroize::Zeroizing;

use crate::{
    blobs::Blobs,
    device::{self, Caches, DeviceArgument, Devices, Need},
    engine::{Room, StoredModels, WeightsCache},
    exit_code::Exit,
    failure::Failure,
    home::Home,
    onnx::OnnxArguments,
    road::{HOST_BUILD, MEMORY_BYTES_MAX},
    serve::{self, Link},
    ui::Ui,
};

/// Messages that wait for the socket before who sends them waits: at most 16 MiB of output.
const OUTBOX_MAX: usize = 64;
/// Messages of the gateway that were read and not looked at.
const INBOX_MAX: usize = 16;
/// The most runs at a time, whatever the gateway asks for: each reserves address space.
const RUNS_MAX: u32 = 1024;
/// Threads that a run may block at a time, besides those that all share.
const BLOCKING_PER_RUN: usize = 4;

/// How a worker was started.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) device: DeviceArgument,
    /// 0 is one a CPU.
    pub(crate) threads: u32,
    pub(crate) onnx: OnnxArguments,
    /// GB of models that are loaded at a time; three quarters of this machine's memory if it does not
    /// say.
    pub(crate) model_memory_gb: Option<u32>,
    /// GB of compiled code that are kept; 4 if it does not say.
    pub(crate) code_cache_gb: Option<u32>,
    /// GB of packed weights that are kept.
    pub(crate) weights_cache_gb: u32,
    /// Refuse to work where the kernel does not enforce everything.
    pub(crate) require_isolation: bool,
}

/// What all runs share.
struct Shared {
    runtime: Runtime,
    devices: Devices,
    models: StoredModels,
    blobs: Blobs,
    modules: run::Modules,
    ui: Ui,
    outbox: mpsc::Sender<FromWorker>,
}

impl Shared {
    async fn say(&self, message: FromWorker) {
        // If the writer is gone, so is the gateway.
        let _ = self.outbox.send(message).await;
    }
}

/// Runs jobs until the gateway is gone, or wants no more of them.
///
/// # Errors
/// A failure if this process is none that a gateway started, cannot be confined, or has no device.
pub(crate) fn serve(settings: Settings, ui: &Ui) -> Result<Exit, Failure> {
    let socket = serve::child_socket()?;
    let place = Place::find()?;
    let isolation = isolation::confine(&place.reach(&settings)).map_err(Failure::host)?;
    if settings.require_isolation && !matches!(isolation, Isolation::Full { .. }) {
        return Err(Failure::host(isolation.to_string())
            .context("the worker cannot be isolated on this machine")
            .help("leave --require-isolation out if this machine has nothing else of worth"));
    }
    if !matches!(isolation, Isolation::Full { .. }) {
        ui.warn(&format!("jobs run {isolation}"));
    }
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Failure::host)?;
    executor.block_on(async {
        let socket = Link::new(socket).map_err(Failure::host)?;
        let (reader, writer) = tokio::io::split(socket);
        let mut reader = FrameReader::new(BufReader::new(reader));
        let hello = match reader.read().await.map_err(Failure::host)? {
            Some(ToWorker::Hello(hello)) => hello,
            Some(_) => return Err(Failure::host("the gateway did not say hello")),
            None => return Ok(Exit::DONE),
        };
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let (outbox, waiting) = mpsc::channel(OUTBOX_MAX);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let writing = tokio::spawn(write(FrameWriter::new(writer), waiting, stopped));
        tokio::spawn(read(reader, inbox));
        let worker = Worker::start(&hello, settings, place, isolation, outbox, ui)?;
        worker.work(messages).await?;
        // The outbox is drained, then closed, though a run that was given up may still hold it.
        drop(stop);
        match writing.await {
            Ok(Ok(()) | Err(_)) => Ok(Exit::DONE), // It is the gateway that would be told.
            Err(error) => Err(Failure::host(error)),
        }
    })
}

/// The folders of a worker.
struct Place {
    home: PathBuf,
    blobs: Blobs,
    blobs_folder: PathBuf,
    code: PathBuf,
    kernels: PathBuf,
    weights: PathBuf,
}

impl Place {
    fn find() -> Result<Self, Failure> {
        let home = Home::open()?;
        Ok(Self {
            home: home.root().to_owned(),
            blobs: Blobs::open(&home)?,
            blobs_folder: home.folder("blobs")?,
            code: home.folder("cache/serve/code")?,
            kernels: home.folder("cache/serve/gpu")?,
            weights: home.folder("cache/serve/weights")?,
        })
    }

    fn reach(&self, settings: &Settings) -> Reach {
        let mut reach = Reach::of_system();
        reach.read.push(self.blobs_folder.clone());
        reach.read.extend(settings.onnx.library());
        let drivers = drivers::reach(|name| std::env::var_os(name), &self.home);
        reach.read.extend(drivers);
        let caches = [&self.code, &self.kernels, &self.weights];
        reach.write.extend(caches.map(PathBuf::clone));
        reach
    }
}

async fn read(
    mut reader: FrameReader<BufReader<ReadHalf<Link>>, ToWorker>,
    inbox: mpsc::Sender<Result<ToWorker, WireError>>,
) {
    loop {
        let message = match reader.read().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let is_over = message.is_err();
        if inbox.send(message).await.is_err() || is_over {
            return;
        }
    }
}

async fn write(
    mut writer: FrameWriter<WriteHalf<Link>, FromWorker>,
    mut waiting: mpsc::Receiver<FromWorker>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) -> Result<(), WireError> {
    let mut closing = false;
    loop {
        let message = tokio::select! {
            biased;
            _ = &mut stopped, if !closing => {
                closing = true;
                waiting.close();
                continue;
            }
            message = waiting.recv() => message,
        };
        let Some(message) = message else {
            return writer.close().await;
        };
        let mut room = put(&mut writer, message)?;
        // What waits already goes with it.
        while room && let Ok(message) = waiting.try_recv() {
            room = put(&mut writer, message)?;
        }
        writer.send().await?;
    }
}

/// Adds a message; whether there is room for another.
fn put(
    writer: &mut FrameWriter<WriteHalf<Link>, FromWorker>,
    message: FromWorker,
) -> Result<bool, WireError> {
    match (writer.put(&message), message) {
        (Err(WireError::TooLong { found }), FromWorker::Done(done)) => {
            let message = format!("its account has {found} bytes, too many for one message");
            let run = done.run;
            writer.put(&FromWorker::Lost { run, message })
        }
        (put, _) => put,
    }
}

/// A worker at work.
struct Worker {
    shared: Arc<Shared>,
    /// Where runs are run; dropped without waiting for what cannot be stopped.
    executor: Option<tokio::runtime::Runtime>,
    runs_max: usize,
    /// What ends each run from outside.
    runs: BTreeMap<u64, Cancel>,
}

impl Worker {
    /// Opens the device and the engine, and says what they are.
    fn start(
        hello: &Hello,
        settings: Settings,
        place: Place,
        isolation: Isolation,
        outbox: mpsc::Sender<FromWorker>,
        ui: &Ui,
    ) -> Result<Self, Failure> {
        let jobs_max = hello.runs_max.clamp(1, RUNS_MAX);
        let runs_max = usize::try_from(jobs_max).map_err(Failure::host)?;
        let cache_key = Zeroizing::new(hello.cache_key.0);
        let runtime = Runtime::new(RuntimeConfig {
            allocation: Allocation::Pooled { jobs_max },
            memory_bytes_max: MEMORY_BYTES_MAX,
            cache_dir: Some(place.code),
            cache_bytes_max: code_cache(settings.code_cache_gb),
            cache_key: *cache_key,
            host_build: HOST_BUILD.to_owned(),
            arithmetic: exact_profile().to_owned(),
        })
        .map_err(Failure::host)?;
        let caches = Caches::Given {
            kernels: place.kernels,
            weights: WeightsCache {
                folder: place.weights,
                key: cache_key,
                bytes_max: bytes(settings.weights_cache_gb),
                ui: *ui,
            },
        };
        let devices = Devices::new(settings.device, caches);
        let placement = devices.place(Need::anywhere(true), ui)?;
        let asked = settings.model_memory_gb.map(bytes);
        let (device, room) = match placement.device() {
            Device::Cpu => ("cpu".to_owned(), Room::of(asked, memory_bytes(), None)),
            Device::Gpu(gpu) => (
                device::describe(gpu.info()),
                Room::of(asked, memory_bytes(), Some(gpu.info())),
            ),
        };
        let (profile, evidence) = runtime.blank_account().map_err(Failure::host)?;
        let ready = FromWorker::Ready(Ready {
            device,
            memory_bytes: memory_bytes(),
            isolation,
            profile: profile.to_bytes().into(),
            evidence: evidence.to_bytes().into(),
        });
        // Nothing is in the outbox yet.
        outbox.try_send(ready).map_err(Failure::host)?;
        let executor = tokio::runtime::Builder::new_multi_thread()
            .enable_time()
            .max_blocking_threads(64 + BLOCKING_PER_RUN * runs_max)
            .build()
            .map_err(Failure::host)?;
        let models = StoredModels::new(
            place.blobs.clone(),
            placement,
            settings.threads,
            settings.onnx,
            room,
        );
        Ok(Self {
            shared: Arc::new(Shared {
                runtime,
                devices,
                models,
                blobs: place.blobs,
                modules: run::Modules::default(),
                ui: *ui,
                outbox,
            }),
            executor: Some(executor),
            runs_max,
            runs: BTreeMap::new(),
        })
    }

    /// Until the gateway is gone, or has asked to drain and nothing runs.
    async fn work(
        mut self,
        mut messages: mpsc::Receiver<Result<ToWorker, WireError>>,
    ) -> Result<(), Failure> {
        // As many as there are runs: a run that ends never waits for us.
        let (ended, mut ends) = mpsc::channel(self.runs_max);
        let mut draining = false;
        while !(draining && self.runs.is_empty()) {
            tokio::select! {
                // Ends first: what the gateway sends after an end counts on it.
                biased;
                Some(run) = ends.recv() => {
                    self.runs.remove(&run);
                }
                message = messages.recv() => match message {
                    Some(Ok(ToWorker::Run(request))) => self.begin(request, &ended, draining).await,
                    Some(Ok(ToWorker::Cancel { run })) => {
                        if let Some(cancel) = self.runs.get(&run) {
                            cancel.cancel();
                        }
                    }
                    Some(Ok(ToWorker::Drain)) => draining = true,
                    Some(Ok(ToWorker::Ping)) => self.shared.say(FromWorker::Pong).await,
                    Some(Ok(ToWorker::Hello(_))) => {
                        return Err(Failure::host("the gateway said hello twice"));
                    }
                    Some(Err(error)) => return Err(Failure::host(error)),
                    // Nobody is left to work for.
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    async fn begin(&mut self, request: RunRequest, ended: &mpsc::Sender<u64>, draining: bool) {
        let run = request.run;
        let refuse = match &self.executor {
            _ if draining => "this worker takes no more jobs",
            _ if self.runs.len() >= self.runs_max => "as many jobs run as can at a time",
            _ if self.runs.contains_key(&run) => "a job of this number runs",
            None => "this worker has ended",
            Some(executor) => {
                let cancel = Cancel::new();
                self.runs.insert(run, cancel.clone());
                let shared = Arc::clone(&self.shared);
                executor.spawn(run::to_its_end(shared, request, cancel, ended.clone()));
                return;
            }
        };
        let refused = FromWorker::Refused(RunRefused {
            run,
            fault: WhoseFault::Provider,
            exit_code: Exit::HOST_FAILED.number(),
            message: refuse.to_owned(),
        });
        self.shared.say(refused).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for cancel in self.runs.values() {
            cancel.cancel();
        }
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }
}

/// The most bytes of compiled code that are kept.
fn code_cache(gb: Option<u32>) -> u64 {
    gb.map_or(CACHE_BYTES_MAX, bytes)
}

fn bytes(gb: u32) -> u64 {
    u64::from(gb) * 1_000_000_000
}

/// Memory of this machine that this process may have, for models on the CPU.
fn memory_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let group = system.cgroup_limits().map(|limits| limits.total_memory);
    let machine = Some(system.total_memory()).filter(|bytes| *bytes > 0);
    let least = machine.into_iter().chain(group).min();
    least.filter(|bytes| *bytes > 0)
}
