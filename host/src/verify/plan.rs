//! What a build would be made of and would run, asked of cargo before anything of the source has
//! run: nothing of it can have a say in the answer.
//!
//! In: a job's folder whose packages are here. Out: the packages whose code would run on this
//! machine, and the SDK. Cargo's messages during a build are for progress alone: code of the source
//! could write there.

use std::path::Path;

use serde_json::Value;

use super::step::{self, Bounds};
use crate::{
    build::package,
    failure::Failure,
    interrupt::Interrupt,
    tools::{Fresh, Step},
};

/// The package of the SDK.
const SDK: &str = "tussah-sdk";
/// The version of the list that cargo writes.
const LIST_VERSION: u64 = 1;

/// What a build would run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// `NAME VERSION` of packages whose code would run here, and what of them would.
    pub(super) ran: Vec<(String, &'static str)>,
    /// The SDK's version, where the job uses it.
    pub(super) sdk: Option<String>,
}

/// Why there is no plan.
pub(super) enum NoPlan {
    /// Cargo says why: a package is missing, most of the time.
    Cargo(Failure),
    /// Anything else.
    Failed(Failure),
}

/// Asks cargo, without a network.
pub(super) fn plan(
    fresh: &Fresh,
    folder: &Path,
    (target, kind): (&str, &str),
    bounds: &Bounds<'_>,
    interrupt: &Interrupt,
) -> Result<Plan, NoPlan> {
    let mut command = fresh.command("cargo", folder, Step::Plan);
    // The list is not among what cargo promises to keep; this call alone may ask for it.
    command.env("RUSTC_BOOTSTRAP", "1");
    // Set, and empty: no flag of a configuration file counts.
    command.env("CARGO_ENCODED_RUSTFLAGS", "");
    command.env("CARGO_NET_OFFLINE", "true");
    command.args(["build", kind, "--locked", "--release", "--target", target]);
    command.args(["-Zunstable-options", "--unit-graph", "--manifest-path"]);
    command.arg(folder.join("Cargo.toml"));
    let ended = step::run(fresh, command, bounds, interrupt).map_err(NoPlan::Failed)?;
    if !ended.status.success() {
        let failure = Failure::usage(ended.said);
        let context = "cargo cannot say what the source is built of";
        return Err(NoPlan::Cargo(failure.context(context)));
    }
    read(&ended.answer).map_err(NoPlan::Failed)
}

fn read(answer: &[u8]) -> Result<Plan, Failure> {
    let list: Value = serde_json::from_slice(answer).map_err(|error| {
        Failure::host(error).context("cargo's list of what it builds cannot be read")
    })?;
    let units = list["units"].as_array();
    let Some(units) = units.filter(|_| list["version"] == LIST_VERSION) else {
        let message = "this version of cargo lists what it builds in another way";
        return Err(Failure::host(message));
    };
    let mut plan = Plan::default();
    for unit in units {
        let id = unit["pkg_id"].as_str();
        let Some((name, version)) = id.and_then(package) else {
            let message = format!("cargo names a package in another way: {}", unit["pkg_id"]);
            return Err(Failure::host(message));
        };
        if name == SDK {
            plan.sdk = Some(version.clone());
        }
        let what = match unit["target"]["kind"][0].as_str() {
            Some("custom-build") => "build script",
            Some("proc-macro") => "proc macro",
            _ => continue,
        };
        let ran = (format!("{name} {version}"), what);
        if !plan.ran.contains(&ran) {
            plan.ran.push(ran);
        }
    }
    plan.ran.sort();
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_what_would_run() {
        let list = r#"{"version":1,"units":[
            {"pkg_id":"path+file:///w/job#0.1.0","target":{"kind":["cdylib","rlib"]}},
            {"pkg_id":"registry+https://x#serde@1.0.9","target":{"kind":["custom-build"]},"mode":"build"},
            {"pkg_id":"registry+https://x#serde@1.0.9","target":{"kind":["custom-build"]},"mode":"run-custom-build"},
            {"pkg_id":"path+file:///w/macros#0.2.0","target":{"kind":["proc-macro"]}},
            {"pkg_id":"path+file:///w/guest-sdk#tussah-sdk@0.1.0","target":{"kind":["lib"]}}]}"#;
        let plan = read(list.as_bytes()).unwrap();
        let ran = [
            ("macros 0.2.0", "proc macro"),
            ("serde 1.0.9", "build script"),
        ];
        assert_eq!(plan.ran, ran.map(|(name, what)| (name.to_owned(), what)));
        assert_eq!(plan.sdk.as_deref(), Some("0.1.0"));
        for other in [
            "{",
            "{}",
            r#"{"version":2,"units":[]}"#,
            r#"{"version":1,"units":[{}]}"#,
        ] {
            assert!(read(other.as_bytes()).is_err(), "{other}");
        }
    }
}
