//! Errors of host calls and of jobs.
//!
//! In: what a host call answered, or a job's own words. Out: one error type with a code
//! to branch on and a message for people. It never carries the job's input.

use std::fmt;

use crate::bindings::{JobError, tussah::job::types};

/// Why a host call, or the job itself, failed.
///
/// A job that returns it ends with its `code` in the receipt and its message shown to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

/// What kind of error it is. The numbers in a receipt are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The job's own error, with a number of its choice; 1 where it chose none.
    Job(u32),
    /// The input is not what the job takes, for example not UTF-8.
    BadInput,
    /// An argument of a host call is out of its documented range.
    InvalidArgument,
    /// The manifest maps no model to this name.
    UnknownModel,
    /// This model or this host cannot do what was asked.
    UnsupportedOperation,
    /// The tokens do not fit into what is left of the session's context.
    ContextFull,
    /// The host has no memory for this now.
    OutOfMemory,
    /// The call would pass a limit of the job's manifest.
    LimitExceeded,
    /// The model produced a value that is not a number, or its file is damaged.
    ModelFailed,
}

impl ErrorCode {
    /// The number that the receipt shows: host errors from 65,536 on, a job's own below.
    pub fn number(self) -> u32 {
        const HOST: u32 = 0x1_0000;
        match self {
            Self::Job(code) => code,
            Self::BadInput => HOST,
            Self::InvalidArgument => HOST + 1,
            Self::UnknownModel => HOST + 2,
            Self::UnsupportedOperation => HOST + 3,
            Self::ContextFull => HOST + 4,
            Self::OutOfMemory => HOST + 5,
            Self::LimitExceeded => HOST + 6,
            Self::ModelFailed => HOST + 7,
        }
    }
}

impl Error {
    /// A job's own error, with code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_code(ErrorCode::Job(1), message)
    }

    /// An error of a given kind.
    pub fn with_code(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What kind of error it is.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message, for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        let code = match error.code {
            types::ErrorCode::InvalidArgument => ErrorCode::InvalidArgument,
            types::ErrorCode::UnknownModel => ErrorCode::UnknownModel,
            types::ErrorCode::UnsupportedOperation => ErrorCode::UnsupportedOperation,
            types::ErrorCode::ContextFull => ErrorCode::ContextFull,
            types::ErrorCode::OutOfMemory => ErrorCode::OutOfMemory,
            types::ErrorCode::LimitExceeded => ErrorCode::LimitExceeded,
            types::ErrorCode::ModelFailed => ErrorCode::ModelFailed,
        };
        Self {
            code,
            message: error.message,
        }
    }
}

impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        Self {
            code: error.code.number(),
            message: error.message,
        }
    }
}
