//! The checks of `tussah doctor`. None of them changes anything but the home folder, which
//! is made if it is not there.

use std::path::Path;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tussah_inference::{Gpu, GpuInfo, GpuKind, SimdLevel};
use tussah_manifest::Abi;
#[cfg(unix)]
use tussah_provider::{isolation::IsolationError, wire::Isolation};
use tussah_settlement::{Chain as _, voucher::NetworkId};

use super::{AdapterView, Check};
#[cfg(feature = "onnx")]
use crate::onnx::{Graphs, OnnxUnusable};
use crate::{
    blobs::Blobs,
    chain_option::{ApiKeyOption, ChainOption, block_on, chain_failure},
    clock, device,
    failure::Failure,
    home::{self, Home},
    keys::{self, KeyName},
    models::Models,
    onnx::OnnxArguments,
    toolchain::{Toolchain, ToolchainError, WasmStd, wasm_target},
    ui,
};

/// A small model and its blobs fit; less is worth a warning.
const DISK_FREE_BYTES_MIN: u64 = 2_000_000_000;
/// A small model and its sessions fit.
const MEMORY_FREE_BYTES_MIN: u64 = 1_000_000_000;
/// A chain's newest block is some seconds old.
const CLOCK_SECONDS_MAX: u64 = 60;

#[cfg_attr(
    not(feature = "onnx"),
    expect(unused_variables, reason = "this build has no library to name")
)]
pub(super) fn all(onnx: &OnnxArguments) -> Vec<Check> {
    let mut checks = vec![];
    let home = match Home::open() {
        Ok(home) => home,
        Err(error) => return vec![Check::fail("home", &error.into())],
    };
    checks.push(writable(&home));
    checks.push(disk(home.root()));
    checks.push(keys(&home));
    checks.push(models(&home));
    checks.extend(toolchain(&home));
    checks.push(cpu());
    checks.push(memory());
    #[cfg(feature = "onnx")]
    checks.push(graphs(onnx));
    checks.push(gpus(&Gpu::list()));
    #[cfg(unix)]
    checks.push(isolation(tussah_provider::isolation::probe()));
    checks
}

/// A machine that serves nobody needs no isolation.
#[cfg(unix)]
fn isolation(found: Result<Isolation, IsolationError>) -> Check {
    let help = "`tussah serve` then keeps strangers' jobs from this machine's files by the sandbox \
                alone; use Linux 6.12 or later with Landlock turned on, on a machine without \
                anything else of worth until then";
    match found {
        Ok(isolation @ Isolation::Full { .. }) => Check::ok("isolation", isolation.to_string()),
        Ok(isolation) => Check::warn("isolation", isolation.to_string(), help),
        Err(error) => Check::warn("isolation", Failure::host(error).chain().join(": "), help),
    }
}

/// Whether a chain answers, and whether this machine's clock is that of the chain.
pub(super) fn chain(chain: Option<String>, key: ApiKeyOption) -> Check {
    const NAME: &str = "chain";
    let Some(named) = chain else {
        return Check::ok(NAME, "not asked").note(
            "jobs on credit need none; for payment channels name one: `--chain testnet`, or \
             TUSSAH_CHAIN",
        );
    };
    let option = ChainOption::new(named.clone(), key);
    let answer = block_on(async {
        let chain = option.open().await?;
        Ok((chain.network(), chain.time().await.map_err(chain_failure)?))
    });
    match answer {
        Ok((network, time)) => clock_of(&named, network, time.into(), clock::seconds().into()),
        Err(failure) => Check::fail(NAME, &failure.context(format!("{named} does not answer"))),
    }
}

/// Deadlines of vouchers and of challenges count in the chain's time.
fn clock_of(named: &str, network: NetworkId, time: u64, here: u64) -> Check {
    let network = match network {
        NetworkId::MAINNET => "the main network".to_owned(),
        NetworkId::TESTNET => "the test network".to_owned(),
        NetworkId::LOCALNET => "a local network".to_owned(),
        NetworkId(other) => format!("network {other}"),
    };
    let apart = time.abs_diff(here);
    let found = format!("{named} answers: {network}, {apart} s from this machine's clock");
    match apart <= CLOCK_SECONDS_MAX {
        true => Check::ok("chain", found),
        false => Check::warn(
            "chain",
            found,
            "set this machine's clock: deadlines count in seconds",
        ),
    }
}

/// A machine without a GPU runs jobs on its CPU: what is missing is said, and is no fault.
fn gpus(found: &[GpuInfo]) -> Check {
    let hardware = found.iter().any(|gpu| gpu.kind != GpuKind::Software);
    let lines: Vec<String> = found.iter().map(device::describe).collect();
    let check = match (hardware, lines.is_empty()) {
        (_, true) => Check::ok("gpu", "none, models run on the CPU")
            .note("for a GPU, install its driver: docs/gpu.md; jobs that ask for one are refused"),
        (true, false) => Check::ok("gpu", lines.join("; ")),
        (false, false) => {
            let found = format!("none, models run on the CPU; by name: {}", lines.join("; "));
            Check::ok("gpu", found).note(
                "these adapters compute on the CPU, for tests: `--device NAME` takes one; for a GPU, \
                 install its driver: docs/gpu.md",
            )
        }
    };
    check.adapters(found.iter().map(AdapterView::from).collect())
}

/// A machine without ONNX models needs no library.
#[cfg(feature = "onnx")]
fn graphs(arguments: &OnnxArguments) -> Check {
    let graphs = Graphs::new(arguments.clone());
    match (graphs.runtime(), &arguments.onnxruntime) {
        (Ok(runtime), Some(path)) => Check::ok(
            "onnx",
            format!("ONNX Runtime {} in {}", runtime.version(), path.display()),
        ),
        (Err(error), Some(_)) => {
            let help = error.help();
            Check::warn("onnx", Failure::usage(error).chain().join(": "), help)
        }
        (_, None) => Check::warn(
            "onnx",
            "no ONNX Runtime library is named",
            OnnxUnusable::NoLibrary.help(),
        ),
    }
}

fn writable(home: &Home) -> Check {
    let shown = home.root().display();
    match tempfile::tempfile_in(home.root()) {
        Ok(_) => Check::ok("home", format!("{shown}, writable")),
        Err(error) => {
            let failure = Failure::host(error).context(format!("cannot write to {shown}"));
            Check::fail(
                "home",
                &failure.help("set TUSSAH_HOME to a folder that you can write to"),
            )
        }
    }
}

fn disk(folder: &Path) -> Check {
    match home::disk_free(folder) {
        Some(free) if free >= DISK_FREE_BYTES_MIN => {
            Check::ok("disk", format!("{} free", ui::size(free)))
        }
        Some(free) => Check::warn(
            "disk",
            format!("{} free", ui::size(free)),
            "free some space, or set TUSSAH_HOME to a folder on another disk",
        ),
        None => Check::warn(
            "disk",
            "free space is not known",
            "see that models will fit",
        ),
    }
}

fn keys(home: &Home) -> Check {
    let mut present = 0;
    for name in KeyName::ALL {
        match keys::load(home, name) {
            Ok(Some(_)) => present += 1,
            Ok(None) => {}
            Err(error) => return Check::fail("keys", &error.into()),
        }
    }
    let all = KeyName::ALL.len();
    match present {
        0 => Check::ok("keys", "none yet; they are made on first use"),
        _ => Check::ok("keys", format!("{present} of {all}, for their owner alone")),
    }
}

fn models(home: &Home) -> Check {
    let help =
        "run `tussah model add NAME FILE.gguf`, or `cargo xtask setup` in a checkout of Tussah";
    let look = || -> Result<(usize, Vec<String>), Failure> {
        let (models, blobs) = (Models::open(home)?.list()?, Blobs::open(home)?);
        let missing = models
            .iter()
            .filter(|(_, record)| !blobs.contains(&record.digest));
        Ok((
            models.len(),
            missing.map(|(name, _)| name.to_string()).collect(),
        ))
    };
    match look() {
        Ok((0, _)) => Check::warn("models", "none", help),
        Ok((count, missing)) if missing.is_empty() => Check::ok("models", count.to_string()),
        Ok((_, missing)) => Check::warn(
            "models",
            format!("without their file: {}", missing.join(", ")),
            help,
        ),
        Err(failure) => Check::fail("models", &failure),
    }
}

/// A machine that runs jobs needs no compiler: what is missing there is a warning.
fn toolchain(home: &Home) -> Vec<Check> {
    match Toolchain::of(Path::new(".")) {
        Ok(toolchain) => vec![
            Check::ok("rust", toolchain.version.clone()),
            wasm_std(&toolchain, home, Abi::Component),
            wasm_std(&toolchain, home, Abi::Preview1),
        ],
        Err(error) => vec![warn("rust", error, "")],
    }
}

/// Std for what jobs of an ABI are compiled to.
fn wasm_std(toolchain: &Toolchain, home: &Home, abi: Abi) -> Check {
    let target = wasm_target(abi);
    let (name, who) = match abi {
        Abi::Component => ("wasm", ""),
        Abi::Preview1 => (
            "preview1",
            "; only jobs of `abi = \"preview1\"` are built with it",
        ),
    };
    match toolchain.wasm_std(home, target) {
        Ok(WasmStd::Installed) => Check::ok(name, format!("{target} is installed")),
        Ok(WasmStd::Private(path)) => Check::ok(name, format!("{target} in {}", path.display())),
        Err(error) => warn(name, error, who),
    }
}

/// What cannot be built here, what to do, and whom it concerns.
fn warn(name: &'static str, error: ToolchainError, who: &str) -> Check {
    let failure = Failure::from(error);
    let help = failure.help.clone().unwrap_or_default();
    Check::warn(name, failure.chain().join(": "), help + who)
}

fn cpu() -> Check {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let levels: Vec<&str> = SimdLevel::available()
        .into_iter()
        .map(SimdLevel::name)
        .collect();
    let found = format!("{threads} threads; kernels {}", levels.join(", "));
    if levels.len() > 1 {
        return Check::ok("cpu", found);
    }
    Check::warn(
        "cpu",
        found,
        "inference is slow on a CPU without AVX2 or NEON; results are the same",
    )
}

fn memory() -> Check {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(kind) else {
        return Check::warn(
            "memory",
            "not known",
            "see that models and sessions will fit",
        );
    };
    let (free, all) = (system.available_memory(), system.total_memory());
    let found = format!("{} free of {}", ui::size(free), ui::size(all));
    if free >= MEMORY_FREE_BYTES_MIN {
        return Check::ok("memory", found);
    }
    Check::warn(
        "memory",
        found,
        "close other programs: models and sessions have to fit",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::State;

    fn adapter(name: &str, kind: GpuKind) -> GpuInfo {
        GpuInfo {
            name: name.to_owned(),
            kind,
            interface: "vulkan".to_owned(),
            driver: "a driver 1.0".to_owned(),
            binding_bytes_max: 1 << 30,
            memory_bytes: None,
            int64: true,
            subgroups: true,
            timestamps: true,
        }
    }

    #[test]
    fn a_machine_without_a_gpu_is_told_what_to_do_and_is_well() {
        let software = adapter("a program", GpuKind::Software);
        for found in [&[][..], std::slice::from_ref(&software)] {
            let check = gpus(found);
            assert_eq!(check.state, State::Ok);
            assert!(check.found.starts_with("none"), "{check:?}");
            assert!(check.help.unwrap().contains("docs/gpu.md"));
        }
        let check = gpus(&[adapter("a card", GpuKind::Discrete), software]);
        assert_eq!((check.state, check.help), (State::Ok, None));
        let line = "a card (discrete, vulkan, a driver 1.0, bindings of ";
        assert!(check.found.starts_with(line), "{}", check.found);
        let names: Vec<&str> = check.adapters.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a card", "a program"]);
    }

    #[test]
    fn a_chain_that_is_elsewhere_in_time_is_told_and_one_that_is_none_fails() {
        for (here, state) in [
            (1000, State::Ok),
            (1060, State::Ok),
            (940, State::Ok),
            (1061, State::Warn),
            (0, State::Warn),
        ] {
            let check = clock_of("testnet", NetworkId::TESTNET, 1000, here);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.found.contains("the test network"), "{check:?}");
        }
        let none = chain(None, ApiKeyOption::default());
        assert_eq!(none.state, State::Ok);
        let wrong = chain(Some("no-chain".to_owned()), ApiKeyOption::default());
        assert_eq!(wrong.state, State::Fail);
        assert!(wrong.help.is_some(), "{wrong:?}");
    }

    #[cfg(unix)]
    #[test]
    fn what_isolation_lacks_is_said() {
        assert_eq!(isolation(Ok(Isolation::Full { abi: 6 })).state, State::Ok);
        let missing = "this kernel has version 1".to_owned();
        let partly = isolation(Ok(Isolation::Partial { missing }));
        assert_eq!(partly.state, State::Warn);
        assert!(partly.found.contains("version 1"), "{partly:?}");
        assert!(partly.help.unwrap().contains("Linux 6.12"));
    }

    #[test]
    fn std_is_looked_for_by_abi() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home")).unwrap();
        let toolchain = Toolchain {
            release: "1.95.0".to_owned(),
            version: "rustc 1.95.0".to_owned(),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            commit: "59807616e".to_owned(),
            sysroot: temporary.path().join("toolchain"),
        };
        let look = |abi| wasm_std(&toolchain, &home, abi);
        for (abi, target) in [
            (Abi::Component, "wasm32-wasip2"),
            (Abi::Preview1, "wasm32-wasip1"),
        ] {
            let check = look(abi);
            assert_eq!(check.state, State::Warn);
            let help = check.help.unwrap();
            assert!(
                help.contains(&format!("`rustup target add {target}`")),
                "{help}"
            );
            assert!(help.contains("`cargo xtask setup`"), "{help}");
            // Most people need only one of them.
            assert_eq!(
                help.contains("only jobs of"),
                abi == Abi::Preview1,
                "{help}"
            );
        }
        let private = home.root().join("sysroots/1.95.0-59807616e");
        let lib = private.join("lib/rustlib/wasm32-wasip1/lib");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join("libstd-0.rlib"), b"").unwrap();
        assert_eq!(look(Abi::Component).state, State::Warn);
        let found = look(Abi::Preview1);
        assert_eq!((found.name, found.state), ("preview1", State::Ok));
        assert!(found.found.starts_with("wasm32-wasip1 in "), "{found:?}");
    }
}
