//! From the host's bytes to the job's function and back.
//!
//! In: the input as bytes. Out: an emitted return value, or the job's error. What
//! `#[job]` accepts is what implements [`FromInput`] and [`IntoOutcome`].

use crate::{Chunk, Error, Session, bindings::JobError, emit};

/// A type that a job can take as its input.
///
/// `Vec<u8>` takes any bytes, `String` UTF-8 text, [`Json<T>`](crate::Json) what `T` can be
/// read from; implement it for a format of your own.
#[diagnostic::on_unimplemented(
    message = "a job cannot take `{Self}` as its input",
    note = "it can take `String`, `Vec<u8>`, `Json<T>` where `T: serde::Deserialize`, or nothing"
)]
pub trait FromInput: Sized {
    /// Converts the input's bytes.
    ///
    /// # Errors
    /// [`ErrorCode::BadInput`](crate::ErrorCode::BadInput) if they are not what the type holds.
    fn from_input(input: Vec<u8>) -> Result<Self, Error>;
}

impl FromInput for Vec<u8> {
    fn from_input(input: Vec<u8>) -> Result<Self, Error> {
        Ok(input)
    }
}

impl FromInput for String {
    fn from_input(input: Vec<u8>) -> Result<Self, Error> {
        String::from_utf8(input).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::bad_input(format!(
                "the input is not UTF-8 text: byte {at} begins no character"
            ))
        })
    }
}

/// A type that a job can return: what it emits when the function has ended.
///
/// Text and bytes are emitted, [`Json`](crate::Json) is emitted as JSON, a [`Session`] is
/// streamed as it generates, and [`Stream`] and [`JsonLines`](crate::JsonLines) take an
/// iterator. A `Result` of any of them fails the job with its error.
#[diagnostic::on_unimplemented(
    message = "a job cannot return `{Self}`",
    note = "it can return `()`, `String`, `&'static str`, `Vec<u8>`, `Json<T>`, `Session`, `Stream<I>`, \
            `JsonLines<I>`, or a `Result` of one of them whose error converts into `tussah_sdk::Error`"
)]
pub trait IntoOutcome {
    /// Emits what there is to emit.
    ///
    /// # Errors
    /// The job's own error, or that of emitting.
    fn into_outcome(self) -> Result<(), Error>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<(), Error> {
        Ok(())
    }
}

impl IntoOutcome for String {
    fn into_outcome(self) -> Result<(), Error> {
        emit(self)
    }
}

impl IntoOutcome for &'static str {
    fn into_outcome(self) -> Result<(), Error> {
        emit(self)
    }
}

impl IntoOutcome for Vec<u8> {
    fn into_outcome(self) -> Result<(), Error> {
        emit(self)
    }
}

impl IntoOutcome for Chunk {
    fn into_outcome(self) -> Result<(), Error> {
        emit(self.text)
    }
}

impl IntoOutcome for Session {
    /// Generates to the end and emits each chunk at once.
    fn into_outcome(self) -> Result<(), Error> {
        Stream(self).into_outcome()
    }
}

impl<T: IntoOutcome, E: Into<Error>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Result<(), Error> {
        self.map_err(Into::into)?.into_outcome()
    }
}

/// A job's answer piece by piece: each is emitted when the iterator gives it, and the first
/// error ends the job.
///
/// ```
/// use tussah_sdk::{Stream, job};
///
/// #[job]
/// fn run(text: String) -> Stream<impl Iterator<Item = String>> {
///     let lines: Vec<String> = text.lines().map(str::to_uppercase).collect();
///     Stream(lines.into_iter())
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone)]
pub struct Stream<I>(pub I);

impl<I: Iterator<Item: IntoOutcome>> IntoOutcome for Stream<I> {
    fn into_outcome(mut self) -> Result<(), Error> {
        self.0.try_for_each(IntoOutcome::into_outcome)
    }
}

/// Runs a job's function on the host's bytes.
///
/// # Errors
/// The job's error.
pub(crate) fn run<I: FromInput, O: IntoOutcome>(
    job: impl FnOnce(I) -> O,
    input: Vec<u8>,
) -> Result<(), Error> {
    I::from_input(input).and_then(|input| job(input).into_outcome())
}

/// As [`run`], with the error in the form in which it crosses the sandbox.
///
/// # Errors
/// The job's error.
#[doc(hidden)]
pub fn call<I: FromInput, O: IntoOutcome>(
    job: impl FnOnce(I) -> O,
    input: Vec<u8>,
) -> Result<(), JobError> {
    run(job, input).map_err(JobError::from)
}

/// The input of a job that takes none: whatever it is, it is not looked at.
#[doc(hidden)]
#[derive(Debug)]
pub struct Ignored;

impl FromInput for Ignored {
    fn from_input(_: Vec<u8>) -> Result<Self, Error> {
        Ok(Self)
    }
}

/// Holds a job's function against what `#[job]` accepts, where there is no host to call it.
#[doc(hidden)]
pub const fn check<I: FromInput, O: IntoOutcome, F: Fn(I) -> O>(_: &F) {}
