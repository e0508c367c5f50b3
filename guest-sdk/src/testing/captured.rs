//! What a job did while its script ran.

use crate::Error;

/// How a job ended, and what it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// The job's error, if it failed.
    pub result: Result<(), Error>,
    /// What it emitted and said; also of a job that failed later.
    pub output: Captured,
}

/// What was emitted and said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Captured {
    /// The job's output.
    pub bytes: Vec<u8>,
    /// The length of each piece that was emitted, in order.
    pub pieces: Vec<usize>,
    /// Each call of [`progress`](crate::progress).
    pub progress: Vec<Progress>,
    /// The lines of [`log`](crate::log).
    pub log: Vec<String>,
    /// What was in a session when it first generated or gave candidates, in order; the
    /// messages of a chat as `role: content` on lines of their own.
    pub prompts: Vec<String>,
}

/// One call of [`progress`](crate::progress).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// Of how much; 0 if it is not known.
    pub total: u64,
    /// A word about it.
    pub note: String,
}

impl Captured {
    /// The output as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text,
            Err(error) => panic!("the job's output is not UTF-8 text: {error}"),
        }
    }

    /// The output as JSON.
    ///
    /// # Panics
    /// If it is not JSON of that type.
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        match crate::from_json(&self.bytes) {
            Ok(value) => value,
            Err(error) => panic!("the job's output is not the JSON that was expected: {error}"),
        }
    }
}
