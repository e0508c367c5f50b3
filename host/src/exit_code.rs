//! The exit codes of `tussah`, all of them. `docs/exit-codes.md` says the same for users.
//!
//! In: nothing. Out: constants. A changed meaning is a breaking change.

use std::process::ExitCode;

/// What the process tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// What was asked for was done.
    pub(crate) const DONE: Self = Self(0);
    /// The job ran and ended with its own error, or trapped.
    pub(crate) const JOB_FAILED: Self = Self(1);
    /// The command line, a document (manifest, receipt's file, model, module) or a job's
    /// source cannot be used as it is.
    pub(crate) const USAGE: Self = Self(2);
    /// A digest, a signature or a re-run does not agree with what it was compared to.
    pub(crate) const NOT_VERIFIED: Self = Self(3);
    /// A limit of the job's manifest, or of a payment channel, was hit.
    pub(crate) const LIMIT: Self = Self(4);
    /// This machine failed: disk, memory, permissions, a missing toolchain, a defect.
    pub(crate) const HOST_FAILED: Self = Self(5);
    /// `tussah verify` built the same code; custom sections differ.
    pub(crate) const CODE_MATCHES: Self = Self(6);
    /// `tussah verify` could not build the source with the recorded toolchain.
    pub(crate) const CANNOT_BUILD: Self = Self(7);
    /// Ended by Ctrl-C, after cleaning up; 128 + SIGINT, as shells say it.
    pub(crate) const INTERRUPTED: Self = Self(130);

    /// What a program ended with that this one stands for.
    #[cfg(unix)]
    pub(crate) fn of(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        // As shells say it.
        let code = (status.code()).unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Self(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// The number that the caller sees.
    pub(crate) const fn number(self) -> u8 {
        self.0
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented() {
        let document = include_str!("../../docs/exit-codes.md");
        for exit in [
            Exit::DONE,
            Exit::JOB_FAILED,
            Exit::USAGE,
            Exit::NOT_VERIFIED,
            Exit::LIMIT,
            Exit::HOST_FAILED,
            Exit::CODE_MATCHES,
            Exit::CANNOT_BUILD,
            Exit::INTERRUPTED,
        ] {
            let row = format!("| {} |", exit.number());
            assert!(
                document.contains(&row),
                "docs/exit-codes.md lacks a row `{row}`"
            );
        }
    }
}
