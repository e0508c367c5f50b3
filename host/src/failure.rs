//! What a command returns when it cannot do what was asked.
//!
//! In: the typed errors of every stage. Out: one error with its exit code and, where
//! there is something to do, a line that says what. It never prints; `ui` does.

use std::error::Error;

use crate::exit_code::Exit;

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: Box<dyn Error + Send + Sync>,
    /// What to do about it, in the imperative.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// A failure with an exit code of the caller's choice.
    pub(crate) fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            exit,
            error: error.into(),
            help: None,
        }
    }

    /// The command line or a document cannot be used.
    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::USAGE, error)
    }

    /// This machine failed.
    pub(crate) fn host(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::HOST_FAILED, error)
    }

    /// Something does not agree with its digest or signature.
    pub(crate) fn not_verified(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::NOT_VERIFIED, error)
    }

    /// Ctrl-C, or the reader of standard output went away.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::INTERRUPTED, "interrupted")
    }

    /// Says what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what was being done: the message in front, the error before as its cause.
    pub(crate) fn context(self, message: impl Into<String>) -> Self {
        let error = Box::new(Context {
            message: message.into(),
            source: self.error,
        });
        Self { error, ..self }
    }

    /// The message and its causes, outermost first.
    pub(crate) fn chain(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let mut next: Option<&dyn Error> = Some(self.error.as_ref());
        while let Some(error) = next {
            let line = error.to_string();
            // Transparent variants would say the same thing twice.
            if lines.last() != Some(&line) {
                lines.push(line);
            }
            next = error.source();
        }
        lines
    }
}

#[derive(Debug)]
struct Context {
    message: String,
    source: Box<dyn Error + Send + Sync>,
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Context {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Errors in the user's own input and output files.
pub(crate) fn file_failure(doing: &str, path: &std::path::Path, error: std::io::Error) -> Failure {
    use std::io::ErrorKind;
    let (exit, help) = match error.kind() {
        ErrorKind::NotFound => (Exit::USAGE, None),
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => (Exit::USAGE, None),
        ErrorKind::PermissionDenied => (Exit::USAGE, Some("check the file's permissions")),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => (
            Exit::HOST_FAILED,
            Some("free some space, or write to another disk"),
        ),
        _ => (Exit::HOST_FAILED, None),
    };
    let failure = Failure::new(exit, error).context(format!("cannot {doing} {}", path.display()));
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_each_cause_once() {
        let failure = Failure::usage("the innermost")
            .context("the middle")
            .context("the outermost");
        assert_eq!(
            failure.chain(),
            ["the outermost", "the middle", "the innermost"]
        );
        assert_eq!(failure.exit, Exit::USAGE);
    }
}
