//! From the host's bytes to the job's function and back.
//!
//! In: the input as bytes. Out: an emitted return value, or the job's error. What
//! `#[job]` accepts is what implements [`FromInput`] and [`IntoOutcome`].

use crate::{Error, ErrorCode, bindings::JobError, emit};

/// A type that a job can take as its input.
pub trait FromInput: Sized {
    /// Converts the input's bytes.
    ///
    /// # Errors
    /// [`ErrorCode::BadInput`] if they are not what the type holds.
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
            Error::with_code(
                ErrorCode::BadInput,
                format!("the input is not UTF-8 text: byte {at} begins no character"),
            )
        })
    }
}

/// A type that a job can return.
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

impl IntoOutcome for Vec<u8> {
    fn into_outcome(self) -> Result<(), Error> {
        emit(self)
    }
}

impl<T: IntoOutcome, E: Into<Error>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Result<(), Error> {
        self.map_err(Into::into)?.into_outcome()
    }
}

/// Runs a job's function on the host's bytes.
///
/// # Errors
/// The job's error, in the form in which it crosses the sandbox.
#[doc(hidden)]
pub fn call<I: FromInput, O: IntoOutcome>(
    job: impl FnOnce(I) -> O,
    input: Vec<u8>,
) -> Result<(), JobError> {
    let outcome = I::from_input(input).and_then(|input| job(input).into_outcome());
    outcome.map_err(JobError::from)
}

/// Holds a job's function against what `#[job]` accepts, where there is no host to call it.
#[doc(hidden)]
pub const fn check<I: FromInput, O: IntoOutcome, F: Fn(I) -> O>(_: &F) {}
