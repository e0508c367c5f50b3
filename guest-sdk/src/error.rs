//! Errors of host calls and of jobs.
//!
//! In: what a host call answered, an error of another crate, or a job's own words. Out:
//! one error type with a code to branch on and a message for people.

use std::{any::Any, fmt, io};

use crate::bindings::{JobError, tussah::job::types};

/// Why a host call, or the job itself, failed.
///
/// A job that returns it ends with its code in the receipt and its message shown to the
/// client. `?` makes one of every type that implements [`std::error::Error`]: the errors of
/// `std` and `serde_json`, and a job's own enums. That is why this type does not implement
/// the trait itself; it converts into `Box<dyn std::error::Error>`.
///
/// ```
/// use tussah_sdk::{Error, ErrorCode, ResultExt};
///
/// fn year(text: &str) -> Result<u16, Error> {
///     let year = text.trim().parse::<u16>()?; // any std error
///     if year < 1582 {
///         return Err(Error::with_code(ErrorCode::Job(7), format!("{year} is too early")));
///     }
///     Ok(year)
/// }
///
/// let error = year("silk").context("reading the year").unwrap_err();
/// assert_eq!(error.message(), "reading the year: invalid digit found in string");
/// assert_eq!(year("1066").unwrap_err().code(), ErrorCode::Job(7));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

/// What kind of error it is.
///
/// The numbers stand in receipts and are stable; new ones are added at the end.
///
/// | number | code | means |
/// |---|---|---|
/// | 0–65,535 | `Job` | the job's own error; 1 where it chose no number |
/// | 65,536 | `BadInput` | the input is not what the job takes: not UTF-8, not its JSON |
/// | 65,537 | `InvalidArgument` | an argument of a host call is out of its documented range |
/// | 65,538 | `UnknownModel` | the manifest maps no model to this name |
/// | 65,539 | `UnsupportedOperation` | this model or this host cannot do what was asked |
/// | 65,540 | `ContextFull` | the tokens do not fit into what is left of the context |
/// | 65,541 | `OutOfMemory` | the host has no memory for this now |
/// | 65,542 | `LimitExceeded` | the call would pass a limit of the job's manifest |
/// | 65,543 | `ModelFailed` | the model's numbers went bad, or its file is damaged |
/// | 65,544 | `InvalidJson` | JSON inside the job could not be read or written |
/// | 65,545 | `Schema` | a JSON schema that cannot be decoded with |
/// | 65,546 | `InvalidEncoding` | `wasi:nn`: the graph is not of the encoding that was stated |
/// | 65,547 | `Timeout` | `wasi:nn`: the call took too long |
/// | 65,548 | `Security` | `wasi:nn`: the host does not allow the call |
/// | 65,549 | `Unknown` | an error that this SDK has no name for |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The job's own error, with a number of its choice; 1 where it chose none.
    Job(u16),
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
    /// JSON inside the job, such as a model's answer, could not be read or written.
    InvalidJson,
    /// A JSON schema that cannot be decoded with; the message has the JSON pointer.
    Schema,
    /// `wasi:nn`: the graph is not of the encoding that was stated.
    InvalidEncoding,
    /// `wasi:nn`: the call took too long.
    Timeout,
    /// `wasi:nn`: the host does not allow the call.
    Security,
    /// An error that this SDK has no name for.
    Unknown,
}

impl ErrorCode {
    /// The number that the receipt shows: those of host and SDK from 65,536 on, a job's own below.
    pub fn number(self) -> u32 {
        const HOST: u32 = 0x1_0000;
        match self {
            Self::Job(code) => u32::from(code),
            Self::BadInput => HOST,
            Self::InvalidArgument => HOST + 1,
            Self::UnknownModel => HOST + 2,
            Self::UnsupportedOperation => HOST + 3,
            Self::ContextFull => HOST + 4,
            Self::OutOfMemory => HOST + 5,
            Self::LimitExceeded => HOST + 6,
            Self::ModelFailed => HOST + 7,
            Self::InvalidJson => HOST + 8,
            Self::Schema => HOST + 9,
            Self::InvalidEncoding => HOST + 10,
            Self::Timeout => HOST + 11,
            Self::Security => HOST + 12,
            Self::Unknown => HOST + 13,
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

    /// An input that the job does not take.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::with_code(ErrorCode::BadInput, message)
    }

    /// What kind of error it is.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, after what was being done.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Self {
            code: self.code,
            message: format!("{doing}: {}", self.message),
        }
    }

    /// As an error that `std::io` can carry; `?` takes it out again.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(Carried(self))
    }

    /// What a host call answered.
    pub(crate) fn from_host(error: types::Error) -> Self {
        let code = match error.code {
            types::ErrorCode::InvalidArgument => ErrorCode::InvalidArgument,
            types::ErrorCode::UnknownModel => ErrorCode::UnknownModel,
            types::ErrorCode::UnsupportedOperation => ErrorCode::UnsupportedOperation,
            types::ErrorCode::ContextFull => ErrorCode::ContextFull,
            types::ErrorCode::OutOfMemory => ErrorCode::OutOfMemory,
            types::ErrorCode::LimitExceeded => ErrorCode::LimitExceeded,
            types::ErrorCode::ModelFailed => ErrorCode::ModelFailed,
        };
        Self::with_code(code, error.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        // Which type it is, is known when this is compiled: no job carries the others.
        let any: &dyn Any = &error;
        if let Some(Carried(error)) = carried(any) {
            return error.clone();
        }
        let code = if any.is::<serde_json::Error>() {
            ErrorCode::InvalidJson
        } else if any.is::<crate::json_schema::SchemaError>() {
            ErrorCode::Schema
        } else if any.is::<std::str::Utf8Error>() || any.is::<std::string::FromUtf8Error>() {
            ErrorCode::BadInput
        } else {
            ErrorCode::Job(1)
        };
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::with_code(code, message)
    }
}

fn carried(any: &dyn Any) -> Option<&Carried> {
    match any.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref()?.downcast_ref(),
        None => any.downcast_ref(),
    }
}

/// An [`Error`] where a [`std::error::Error`] is wanted.
#[derive(Debug)]
struct Carried(Error);

impl fmt::Display for Carried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Carried {}

impl From<Error> for Box<dyn std::error::Error> {
    fn from(error: Error) -> Self {
        Box::new(Carried(error))
    }
}

impl From<Error> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: Error) -> Self {
        Box::new(Carried(error))
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

/// Says more about the error of a result.
pub trait ResultExt<T> {
    /// Says what was being done.
    ///
    /// # Errors
    /// The same error, with `doing` and a colon before its message.
    fn context(self, doing: impl fmt::Display) -> Result<T, Error>;

    /// Gives the error a number of the job's own.
    ///
    /// # Errors
    /// The same message with [`ErrorCode::Job`] of this number.
    fn code(self, number: u16) -> Result<T, Error>;
}

impl<T, E: Into<Error>> ResultExt<T> for Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| error.into().context(doing))
    }

    fn code(self, number: u16) -> Result<T, Error> {
        self.map_err(|error| Error::with_code(ErrorCode::Job(number), error.into().message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl fmt::Display for Outer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("no number")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    fn question_mark<E: Into<Error>>(error: E) -> Error {
        let ask = || -> Result<(), Error> { Err(error.into()) };
        ask().unwrap_err()
    }

    #[test]
    fn any_error_converts_with_its_causes_and_a_code() {
        let parse = "x".parse::<u8>().unwrap_err();
        let error = question_mark(Outer(parse));
        assert_eq!(error.message(), "no number: invalid digit found in string");
        assert_eq!(error.code(), ErrorCode::Job(1));
        let json = serde_json::from_str::<u8>("{}").unwrap_err();
        let error = question_mark(json);
        assert_eq!(error.code(), ErrorCode::InvalidJson);
        assert!(error.message().contains("at line 1 column"), "{error}");
        let utf8 = String::from_utf8(vec![0xff]).unwrap_err();
        assert_eq!(question_mark(utf8).code(), ErrorCode::BadInput);
    }

    #[test]
    fn a_host_error_keeps_its_code_through_io() {
        let full = Error::with_code(ErrorCode::LimitExceeded, "too much");
        assert_eq!(question_mark(full.clone().into_io()), full);
        let boxed: Box<dyn std::error::Error> = full.into();
        assert_eq!(boxed.to_string(), "too much");
        let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(question_mark(ended).code(), ErrorCode::Job(1));
    }

    #[test]
    fn context_and_numbers_are_put_on_any_result() {
        let failed = || "x".parse::<u8>();
        let error = failed().context("reading a byte").unwrap_err();
        assert_eq!(
            error.message(),
            "reading a byte: invalid digit found in string"
        );
        assert_eq!(failed().code(9).unwrap_err().code().number(), 9);
    }
}
