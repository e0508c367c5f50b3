//! Memory, table, model-memory and inference ceilings of one job.
//!
//! In: what the guest asks for. Out: yes, or the limit that it reached. A limit that is
//! reached ends the job, with one exception: model memory is refused with an error that
//! the guest can answer by asking for less.

use tussah_manifest::{LimitHit, Limits};
use wasmtime::ResourceLimiter;

/// Ends a guest from inside a host call; the sandbox reads it back from the trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the job reached its limit {}", .0.name())]
    Limit(LimitHit),
    #[error("the job was cancelled")]
    Cancelled,
    #[error("the GPU was lost")]
    DeviceLost,
    #[error("the host failed")]
    HostFailure,
}

/// Counts what one job holds and has used.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    memory_bytes: u64,
    table_elements: u64,
    model_memory_bytes: u64,
    model_memory_bytes_peak: u64,
    inference_units: u64,
    output_bytes: u64,
}

/// What a job used of its limits, for people who choose limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Wasm fuel.
    pub fuel: u64,
    /// The largest linear memory it had, in bytes.
    pub memory_bytes: u64,
    /// The most elements its tables had.
    pub table_elements: u64,
    /// The most that its sessions held at once, in bytes.
    pub model_memory_bytes: u64,
    /// Multiply-accumulates of inference.
    pub inference_units: u64,
    /// Bytes of output.
    pub output_bytes: u64,
    /// Host calls it made.
    pub host_calls: u64,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            memory_bytes: 0,
            table_elements: 0,
            model_memory_bytes: 0,
            model_memory_bytes_peak: 0,
            inference_units: 0,
            output_bytes: 0,
        }
    }

    /// Charges the memory of a session; the guest learns of a refusal as an error.
    pub(crate) fn hold_model_memory(&mut self, bytes: u64) -> Result<(), u64> {
        let free = self.model_memory_free();
        if bytes > free {
            return Err(free);
        }
        self.model_memory_bytes += bytes;
        self.model_memory_bytes_peak = self.model_memory_bytes_peak.max(self.model_memory_bytes);
        Ok(())
    }

    pub(crate) fn release_model_memory(&mut self, bytes: u64) {
        self.model_memory_bytes = self.model_memory_bytes.saturating_sub(bytes);
    }

    pub(crate) fn model_memory_free(&self) -> u64 {
        self.limits
            .model_memory_bytes_max
            .saturating_sub(self.model_memory_bytes)
    }

    /// Ends the job before work that its limit does not cover; nothing is counted yet.
    pub(crate) fn check_inference_units(&self, units: u64) -> Result<(), Stop> {
        if units > self.inference_units_left() {
            return Err(Stop::Limit(LimitHit::InferenceUnits));
        }
        Ok(())
    }

    pub(crate) fn inference_units_left(&self) -> u64 {
        let max = self.limits.inference_units_max;
        max.saturating_sub(self.inference_units)
    }

    pub(crate) fn add_inference_units(&mut self, units: u64) -> Result<(), Stop> {
        self.inference_units = self.inference_units.saturating_add(units);
        if self.inference_units > self.limits.inference_units_max {
            return Err(Stop::Limit(LimitHit::InferenceUnits));
        }
        Ok(())
    }

    pub(crate) fn add_output_bytes(&mut self, bytes: usize) -> Result<(), Stop> {
        let total = self.output_bytes.saturating_add(bytes as u64);
        if total > self.limits.output_bytes_max {
            return Err(Stop::Limit(LimitHit::Output));
        }
        self.output_bytes = total;
        Ok(())
    }

    /// All but fuel and host calls, which are counted elsewhere.
    pub(crate) fn used(&self) -> Used {
        Used {
            fuel: 0,
            memory_bytes: self.memory_bytes,
            table_elements: self.table_elements,
            model_memory_bytes: self.model_memory_bytes_peak,
            inference_units: self.inference_units,
            output_bytes: self.output_bytes,
            host_calls: 0,
        }
    }
}

/// Adds a growth to a total that several memories or tables share.
///
/// The job's limit is looked at before the module's own declared maximum, so that the
/// answer does not depend on how this host reserves memory.
fn grow(
    total: &mut u64,
    limit: u64,
    hit: LimitHit,
    (current, desired, maximum): (usize, usize, Option<usize>),
) -> Result<bool, Stop> {
    let grown = (desired as u64).saturating_sub(current as u64);
    match total.checked_add(grown) {
        Some(sum) if sum <= limit => {
            if maximum.is_some_and(|maximum| desired > maximum) {
                return Ok(false);
            }
            *total = sum;
            Ok(true)
        }
        // A refusal that the guest sees as -1 would let its result depend on a limit
        // without a word in the receipt: reaching the limit ends the job.
        _ => Err(Stop::Limit(hit)),
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.limits.memory_bytes_max;
        Ok(grow(
            &mut self.memory_bytes,
            limit,
            LimitHit::Memory,
            (current, desired, maximum),
        )?)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.limits.table_elements_max;
        Ok(grow(
            &mut self.table_elements,
            limit,
            LimitHit::Table,
            (current, desired, maximum),
        )?)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The machine refused what the limits allow: not the guest's doing.
        Err(error.context(Stop::HostFailure))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context(Stop::HostFailure))
    }
}
