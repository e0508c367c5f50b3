//! `cargo xtask aarch64`: the NEON kernels on an emulated CPU.
//!
//! In: a cross compiler, QEMU's user-mode emulation, std's sources, the tests' models.
//! Out: the verdict of the inference crate's tests that run the kernels at each level, the committed
//! bits of real models among them, on a CPU with dot products and on one without.
//! Never: measures; an emulated CPU says nothing of a real one's speed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::setup::SetupArgs;
use crate::test::{self, Counts};
use crate::workspace::Workspace;
use crate::{command, home, model, ui, wasm_std};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Where Debian puts libc for the target.
const LIBC: &str = "/usr/aarch64-linux-gnu";
/// Under it the step fails where it would be skipped.
const REQUIRED: &str = "REQUIRE_AARCH64";

/// Those whose bits are committed.
static MODELS: [&model::TestModel; 2] = [&model::SMOLLM2, &model::GEMMA3];

/// A CPU that is emulated, and what runs on it.
struct Cpu {
    name: &'static str,
    /// The fastest level that it has to have.
    level: &'static str,
    tests: &'static [&'static str],
}

/// Kernels and whole models, those of random weights in every format and the real ones.
const WITH_DOT_PRODUCTS: Cpu = Cpu {
    name: "neoverse-n1",
    level: "neon-dotprod",
    tests: &[
        "cpu::",
        "arithmetic::",
        "exact::bits_do_not_depend",
        "fast::every_format",
        "batches::what_a_session_gives",
        "encoders::",
        "committed_bits_at_every_level",
    ],
};

/// The kernels again, where an instruction of the extension is an illegal one.
const WITHOUT: Cpu = Cpu {
    name: "cortex-a72",
    level: "neon",
    tests: &["cpu::", "fast::every_format"],
};

/// The task of the command line.
///
/// # Errors
/// A test failed, or under `REQUIRE_AARCH64=1` something is missing.
pub(crate) fn task() -> Result<()> {
    let mut counts = Counts::default();
    let skipped = run(&Workspace::ask()?, &mut counts)?;
    ui::say(&match skipped {
        Some(why) => format!("skipped: {why}"),
        None => counts.to_string(),
    });
    Ok(())
}

/// Builds the tests and runs them; says why where that cannot be done.
///
/// # Errors
/// There is no std or no model, a test failed or does not compile, or under `REQUIRE_AARCH64=1`
/// something is missing.
pub(crate) fn run(workspace: &Workspace, counts: &mut Counts) -> Result<Option<String>> {
    if let Some(missing) = missing() {
        let required = std::env::var_os(REQUIRED).is_some_and(|value| value == "1");
        ensure!(!required, "{REQUIRED}=1, but {missing}");
        return Ok(Some(missing));
    }
    let home = home::tussah_home()?;
    let models: Vec<_> = MODELS
        .iter()
        .map(|model| Ok((model.variable, stored(model, &home)?)))
        .collect::<Result<_>>()?;
    wasm_std::ensure(&home, TARGET, SetupArgs::from_environment()?.wasm_std)?;
    for cpu in [WITH_DOT_PRODUCTS, WITHOUT] {
        ui::say(&format!("the kernels on an emulated {}", cpu.name));
        tests(workspace, &home, &models, &cpu, counts)?;
    }
    Ok(None)
}

/// What this machine lacks, in a line.
fn missing() -> Option<String> {
    if cfg!(target_arch = "aarch64") {
        let line = "this CPU is an aarch64 itself; `cargo xtask test` runs the kernels on it";
        return Some(line.to_owned());
    }
    let mut packages = Vec::new();
    for (program, package) in [(LINKER, "gcc-aarch64-linux-gnu"), (EMULATOR, "qemu-user")] {
        if !command::exists(program) {
            packages.push(package);
        }
    }
    if !Path::new(LIBC).join("lib/libc.so.6").is_file() {
        packages.push("libc6-dev-arm64-cross");
    }
    let packages = packages.join(" ");
    let line = format!("something is missing; on Debian: apt-get install {packages}");
    (!packages.is_empty()).then_some(line)
}

fn tests(
    workspace: &Workspace,
    home: &Path,
    models: &[(&str, PathBuf)],
    cpu: &Cpu,
    counts: &mut Counts,
) -> Result<()> {
    let mut run = workspace.cargo();
    run.args(["test", "--package", "tussah-inference", "--locked"]);
    run.args(["--target", TARGET, "--no-fail-fast"]);
    run.args(["--lib", "--test", "it", "--"]);
    run.args(cpu.tests);
    // Two minutes of plain Rust, without a kernel in it.
    run.args(["--skip", "steps_whose_flush_is_left_out"]);
    let of_target = |name: &str| format!("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_{name}");
    let emulator = format!("{EMULATOR} -cpu {} -L {LIBC}", cpu.name);
    run.env(of_target("LINKER"), LINKER)
        .env(of_target("RUNNER"), emulator)
        .env("REQUIRE_SIMD", cpu.level)
        .env("REQUIRE_MODEL", "1")
        .envs(models.iter().map(|(variable, file)| (variable, file)));
    if let Some(sysroot) = wasm_std::sysroot(home, TARGET)? {
        // The encoded form alone takes a path with spaces. With `--target` it is not for build scripts.
        let shown = sysroot.display();
        run.env("CARGO_ENCODED_RUSTFLAGS", format!("--sysroot\x1f{shown}"));
    }
    let (passed, lines) = command::relay(&mut run)?;
    let nothing = without_a_test(cpu.tests, &lines);
    test::finish((passed, lines), "aarch64", counts)?;
    ensure!(
        nothing.is_empty(),
        "no test is called {}; mend the list in xtask/src/aarch64.rs",
        nothing.join(", ")
    );
    Ok(())
}

/// The filters that no test passed under: a test that is renamed is not to drop out unseen.
fn without_a_test<'a>(filters: &[&'a str], lines: &[String]) -> Vec<&'a str> {
    let passed = |filter: &str| {
        let mut names = lines.iter().filter_map(|line| {
            let line = line.strip_prefix("test ")?;
            line.strip_suffix(" ... ok")
        });
        names.any(|name| name.contains(filter))
    };
    let mut filters = filters.to_vec();
    filters.retain(|filter| !passed(filter));
    filters
}

fn stored(model: &model::TestModel, home: &Path) -> Result<PathBuf> {
    let missing = || {
        format!(
            "there is no {}; run `cargo xtask setup --all-models`",
            model.name
        )
    };
    model.stored(home).with_context(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_without_a_test_is_named() {
        let lines = [
            "running 2 tests",
            "test cpu::pool::tests::two_callers_share_a_pool ... ok",
            "test exact::old_name ... FAILED",
            "new_name",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(
            without_a_test(&["cpu::", "exact::old_name", "new_name"], &lines),
            ["exact::old_name", "new_name"]
        );
    }
}
