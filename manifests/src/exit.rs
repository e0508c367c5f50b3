//! `ExitStatus`: how a run ended, with stable codes and names, and `Determinism`: how closely a
//! re-run has to match. Codes are part of signed documents; none is ever reused.

use minicbor::decode::{Decode, Decoder};
use minicbor::encode::{Encode, Encoder, Write};
use serde::Serialize;

use crate::codes::codes;
use crate::digest::Digest;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitStatus {
    /// The job returned without an error.
    Done,
    /// The job returned its own error.
    JobError {
        /// The job's code for it.
        code: u32,
        /// Salted digest of its message ([`crate::Domain::JobError`]).
        message: Digest,
    },
    /// The guest trapped.
    Trapped {
        /// Why.
        trap: Trap,
    },
    /// The guest reached one of its manifest's limits.
    LimitHit {
        /// Which.
        limit: LimitHit,
    },
    /// The client cancelled the run.
    Cancelled,
    /// `limits.wall_ms_max` or the request's deadline passed.
    DeadlineExceeded,
    /// The GPU went away.
    DeviceLost,
    /// The provider's own fault.
    HostFailure,
}

impl ExitStatus {
    /// The number in the document.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::JobError { .. } => 1,
            Self::Trapped { .. } => 2,
            Self::LimitHit { .. } => 3,
            Self::Cancelled => 4,
            Self::DeadlineExceeded => 5,
            Self::DeviceLost => 6,
            Self::HostFailure => 7,
        }
    }

    /// The name in views and messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::JobError { .. } => "job-error",
            Self::Trapped { .. } => "trapped",
            Self::LimitHit { .. } => "limit-hit",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::DeviceLost => "device-lost",
            Self::HostFailure => "host-failure",
        }
    }

    /// Whether another run can be expected to end the same way.
    pub const fn is_rerunnable(&self) -> bool {
        match self {
            Self::Done | Self::JobError { .. } | Self::Trapped { .. } | Self::LimitHit { .. } => {
                true
            }
            Self::Cancelled | Self::DeadlineExceeded | Self::DeviceLost | Self::HostFailure => {
                false
            }
        }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::JobError { code, .. } => write!(f, "{} {code}", self.name()),
            Self::Trapped { trap } => write!(f, "{} ({})", self.name(), trap.name()),
            Self::LimitHit { limit } => write!(f, "{} ({})", self.name(), limit.name()),
            _ => f.write_str(self.name()),
        }
    }
}

// `[code]`, `[1, job's code, message]`, `[2, trap]` or `[3, limit]`.
impl<C> Encode<C> for ExitStatus {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::JobError { code, message } => {
                encoder.array(3)?.u8(self.code())?.u32(*code)?;
                message.encode(encoder, context)
            }
            Self::Trapped { trap } => {
                encoder.array(2)?.u8(self.code())?;
                trap.encode(encoder, context)
            }
            Self::LimitHit { limit } => {
                encoder.array(2)?.u8(self.code())?;
                limit.encode(encoder, context)
            }
            _ => encoder.array(1)?.u8(self.code())?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for ExitStatus {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = decoder.position();
        let length = decoder.array()?;
        match (length, decoder.u64()?) {
            (Some(1), 0) => Ok(Self::Done),
            (Some(3), 1) => Ok(Self::JobError {
                code: decoder.u32()?,
                message: Digest::decode(decoder, context)?,
            }),
            (Some(2), 2) => Ok(Self::Trapped {
                trap: Trap::decode(decoder, context)?,
            }),
            (Some(2), 3) => Ok(Self::LimitHit {
                limit: LimitHit::decode(decoder, context)?,
            }),
            (Some(1), 4) => Ok(Self::Cancelled),
            (Some(1), 5) => Ok(Self::DeadlineExceeded),
            (Some(1), 6) => Ok(Self::DeviceLost),
            (Some(1), 7) => Ok(Self::HostFailure),
            _ => Err(minicbor::decode::Error::message("no known exit status").at(at)),
        }
    }
}

codes! {
    /// Why a guest trapped.
    Trap("trap") {
        /// `unreachable` was executed: in Rust, a panic or an abort.
        Unreachable = 0 "unreachable",
        /// A load or store outside linear memory.
        MemoryOutOfBounds = 1 "memory-out-of-bounds",
        /// A table access outside the table.
        TableOutOfBounds = 2 "table-out-of-bounds",
        /// An indirect call through an empty table element.
        IndirectCallToNull = 3 "indirect-call-to-null",
        /// An indirect call to a function of another type.
        BadSignature = 4 "bad-signature",
        /// An integer operation overflowed.
        IntegerOverflow = 5 "integer-overflow",
        /// An integer was divided by zero.
        DivisionByZero = 6 "division-by-zero",
        /// A float outside the integer's range, or NaN, was converted.
        BadConversionToInteger = 7 "bad-conversion-to-integer",
        /// The wasm stack is full.
        StackOverflow = 8 "stack-overflow",
        /// The guest ended itself with a failure instead of returning.
        Exited = 9 "exited",
        /// A host call was misused: a bad handle, a pointer outside memory, a bad string.
        HostCallMisused = 10 "host-call-misused",
        /// Any other trap of the engine.
        Other = 255 "other",
    }
}

codes! {
    /// Which of the manifest's limits a run reached. The codes are the keys of `limits`.
    LimitHit("limit") {
        /// `fuel_max`.
        Fuel = 0 "fuel_max",
        /// `memory_bytes_max`.
        Memory = 1 "memory_bytes_max",
        /// `table_elements_max`.
        Table = 2 "table_elements_max",
        /// `model_memory_bytes_max`.
        ModelMemory = 3 "model_memory_bytes_max",
        /// `input_bytes_max`.
        Input = 4 "input_bytes_max",
        /// `output_bytes_max`.
        Output = 5 "output_bytes_max",
        /// `log_bytes_max`.
        Log = 6 "log_bytes_max",
        /// `inference_units_max`.
        InferenceUnits = 7 "inference_units_max",
        /// `host_calls_max`.
        HostCalls = 8 "host_calls_max",
    }
}

codes! {
    /// How closely a re-run of a job has to match.
    Determinism("determinism class") {
        /// To the bit.
        Exact = 0 "exact",
        /// The same up to the rounding of another inference profile.
        Tolerant = 1 "tolerant",
        /// Not at all: it was cancelled, ran out of time, lost its device, or ended at
        /// something that differs from machine to machine, such as the size of a stack frame.
        NotRerunnable = 2 "not-rerunnable",
    }
}
