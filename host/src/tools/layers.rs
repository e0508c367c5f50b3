//! What this kernel lets an ordinary user enforce on a build: tried, not guessed.
//!
//! In: what is asked for. Out: what is in force, in words and as a choice. Never: less than
//! [`Confine::Required`] promises, silently.

use super::Confine;

/// What a build is confined by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Whether it gets namespaces of its own: files, processes, network.
    pub(crate) namespaces: bool,
    /// Whether it is confined at all.
    pub(crate) confined: bool,
    /// For people and claims.
    pub(crate) said: String,
}

impl Layers {
    /// Tries what is asked for.
    ///
    /// # Errors
    /// What is missing for [`Confine::Required`], as one line.
    pub(crate) fn of(confine: Confine) -> Result<Self, String> {
        if confine == Confine::None {
            return Ok(Self {
                namespaces: false,
                confined: false,
                said: "none was asked for".to_owned(),
            });
        }
        let whole = try_it(true);
        match (whole, confine) {
            (Ok(files), _) => Ok(Self {
                namespaces: true,
                confined: true,
                said: format!("namespaces of its own, {files}, no sockets"),
            }),
            (Err(missing), Confine::Required) => Err(missing),
            (Err(missing), _) => match try_it(false) {
                Ok(files) => Ok(Self {
                    namespaces: false,
                    confined: true,
                    said: format!("{files}, no sockets; not in force: {missing}"),
                }),
                Err(nothing) => Ok(Self {
                    namespaces: false,
                    confined: false,
                    said: format!("none: {missing}; {nothing}"),
                }),
            },
        }
    }
}

/// Confines a process that does nothing: what Landlock enforces there, or what is missing.
#[cfg(unix)]
fn try_it(namespaces: bool) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("a confined process cannot be tried: {error}");
    let this = std::env::current_exe().map_err(failed)?;
    let root = tempfile::tempdir().map_err(failed)?;
    let mut command = std::process::Command::new(this);
    command.args(["build-confined", "--probe"]);
    if namespaces {
        command.arg("--required").arg("--root").arg(root.path());
    }
    // A folder that is seen in every view.
    command.current_dir("/");
    command.env_clear().stdin(std::process::Stdio::null());
    let output = command.output().map_err(failed)?;
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ")
    };
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)
            .trim_start_matches("error: ")
            .to_owned()),
    }
}

#[cfg(not(unix))]
fn try_it(_: bool) -> Result<String, String> {
    Err("this operating system has neither namespaces nor Landlock".to_owned())
}
