//! How a run ended → the receipt's exit status, and what to tell people about it.
//!
//! In: what the executor saw. Out: one of the receipt's statuses, with a message that says
//! which limit to raise or where the guest trapped. It decides nothing about the machine.

use tussah_manifest::{Digest, Domain, ExitStatus, LimitHit, Limits, Trap};

use super::{GuestError, JobError, bindings, guest::Guest, limiter::Stop};

/// How a run came to an end, as the executor sees it.
pub(crate) enum End {
    Returned(wasmtime::Result<Result<(), bindings::JobError>>),
    Cancelled,
    TimeUp,
}

/// The exit status of an end, and what to tell people about it.
pub(crate) fn exit_of(
    end: End,
    guest: &Guest,
    limits: &Limits,
) -> (ExitStatus, Option<GuestError>) {
    match end {
        End::Returned(Ok(Ok(()))) => (ExitStatus::Done, None),
        End::Returned(Ok(Err(error))) => {
            let message = Digest::salted(&guest.salt, Domain::JobError, error.message.as_bytes());
            let exit = ExitStatus::JobError {
                code: error.code,
                message,
            };
            let told = GuestError {
                message: format!("the job failed: {} (code {})", error.message, error.code),
                returned: Some(JobError {
                    code: error.code,
                    message: error.message,
                }),
            };
            (exit, Some(told))
        }
        End::Returned(Err(error)) => exit_of_trap(&error, limits),
        End::Cancelled => told(ExitStatus::Cancelled, "the job was cancelled".into()),
        End::TimeUp => told(
            ExitStatus::DeadlineExceeded,
            format!(
                "the job ran for {} ms, all that limits.wall_ms_max allows",
                limits.wall_ms_max
            ),
        ),
    }
}

fn exit_of_trap(error: &wasmtime::Error, limits: &Limits) -> (ExitStatus, Option<GuestError>) {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Limit(limit) => told(
                ExitStatus::LimitHit { limit: *limit },
                limit_message(*limit, limits),
            ),
            Stop::Cancelled => told(ExitStatus::Cancelled, "the job was cancelled".into()),
            // The root says that it was lost, and why.
            Stop::DeviceLost => told(ExitStatus::DeviceLost, error.root_cause().to_string()),
            Stop::HostFailure => told(
                ExitStatus::HostFailure,
                format!("the host failed: {error:#}"),
            ),
        };
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return match exit.0 {
            0 => (ExitStatus::Done, None),
            code => told(
                ExitStatus::Trapped { trap: Trap::Exited },
                format!("the job ended its process with code {code} instead of returning"),
            ),
        };
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::OutOfFuel) => {
            let limit = LimitHit::Fuel;
            told(ExitStatus::LimitHit { limit }, limit_message(limit, limits))
        }
        Some(trap) => told(
            ExitStatus::Trapped {
                trap: trap_code(*trap),
            },
            format!("the job trapped: {trap}\n{error}"),
        ),
        None => told(
            ExitStatus::Trapped {
                trap: Trap::HostCallMisused,
            },
            format!(
                "the job misused a host call: {}\n{error}",
                error.root_cause()
            ),
        ),
    }
}

/// An end that is not the job's own word.
fn told(exit: ExitStatus, message: String) -> (ExitStatus, Option<GuestError>) {
    let returned = None;
    (exit, Some(GuestError { message, returned }))
}

fn limit_message(limit: LimitHit, limits: &Limits) -> String {
    let name = limit.name();
    let allowed = tussah_manifest::Limits::FIELDS
        .iter()
        .find(|field| field.name == name)
        .map_or_else(String::new, |field| {
            format!(" of {} {}", (field.get)(limits), field.unit.plural())
        });
    format!(
        "the job reached its limit{allowed} (limits.{name}); raise it in the job's tussah.toml, or do less"
    )
}

/// Wasmtime's traps in the receipt's words.
fn trap_code(trap: wasmtime::Trap) -> Trap {
    use wasmtime::Trap as W;
    match trap {
        W::UnreachableCodeReached => Trap::Unreachable,
        W::MemoryOutOfBounds | W::HeapMisaligned => Trap::MemoryOutOfBounds,
        W::TableOutOfBounds => Trap::TableOutOfBounds,
        W::IndirectCallToNull => Trap::IndirectCallToNull,
        W::BadSignature => Trap::BadSignature,
        W::IntegerOverflow => Trap::IntegerOverflow,
        W::IntegerDivisionByZero => Trap::DivisionByZero,
        W::BadConversionToInteger => Trap::BadConversionToInteger,
        W::StackOverflow => Trap::StackOverflow,
        _ => Trap::Other,
    }
}

#[cfg(test)]
mod tests {
    use tussah_inference::{BackendError, SessionError};

    use super::*;
    use crate::sandbox::models::guest_error;

    #[test]
    fn what_happens_to_a_gpu_is_no_answer_to_a_guest() {
        let reason = || "the bus was reset".to_owned();
        for (error, expected) in [
            (
                BackendError::DeviceLost { reason: reason() },
                ExitStatus::DeviceLost,
            ),
            (
                BackendError::Device { reason: reason() },
                ExitStatus::HostFailure,
            ),
        ] {
            let error = guest_error(SessionError::Backend(error)).unwrap_err();
            let (exit, told) = exit_of_trap(&error, &Limits::default());
            assert_eq!(exit, expected);
            let message = told.unwrap().message;
            assert!(message.contains("the bus was reset"), "{message}");
        }
    }
}
