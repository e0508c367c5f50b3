//! `Limits`: what a job may use at most. The developer writes them, the provider enforces them.
//!
//! In: numbers. Out: limits within the bounds that any provider can be asked for.
//! Every limit but `wall_ms_max` is met at the same point on every machine, so a run that ends
//! at one can be repeated; one that ends by the clock cannot.

use serde::Serialize;

/// 2^10, 2^20, 2^30, 2^40 bytes.
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What a job may use at most. Bounds and defaults of each field are in [`Limits::FIELDS`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, minicbor::Encode, minicbor::Decode,
)]
#[cbor(map)]
pub struct Limits {
    /// Wasm fuel, about one unit an instruction.
    #[n(0)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub fuel_max: u64,
    /// Bytes of wasm linear memory, all memories of the job together.
    #[n(1)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub memory_bytes_max: u64,
    /// Elements of wasm tables, all tables of the job together.
    #[n(2)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub table_elements_max: u64,
    /// Bytes the job makes the models use: KV caches of its sessions, its tensors. The weights
    /// are shared between jobs and do not count.
    #[n(3)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub model_memory_bytes_max: u64,
    /// Bytes of the job's input.
    #[n(4)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub input_bytes_max: u64,
    /// Bytes of the job's output.
    #[n(5)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub output_bytes_max: u64,
    /// Bytes the guest may write to its log (standard output and error). 0 allows none.
    #[n(6)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub log_bytes_max: u64,
    /// Multiply-accumulates of inference, counted from shapes. 0 allows no inference.
    #[n(7)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub inference_units_max: u64,
    /// Host calls that the transcript records.
    #[n(8)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub host_calls_max: u64,
    /// Milliseconds from the start of the run to its end, by the provider's clock.
    #[n(9)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub wall_ms_max: u64,
}

impl Limits {
    /// What a manifest that says nothing gets: a model of 135 million parameters summarises
    /// some pages within it. Such a model takes 1.35 × 10^8 units a token, so the default is
    /// about 150,000 tokens.
    pub const DEFAULT: Self = Self {
        fuel_max: 10_000_000_000,
        memory_bytes_max: 128 * MIB,
        table_elements_max: 20_000,
        model_memory_bytes_max: GIB,
        input_bytes_max: MIB,
        output_bytes_max: MIB,
        log_bytes_max: 64 * KIB,
        inference_units_max: 20_000_000_000_000,
        host_calls_max: 100_000,
        wall_ms_max: 10 * 60 * 1000,
    };

    /// Every field, in the order of the encoding.
    pub const FIELDS: [LimitField; 10] = [
        LimitField {
            name: "fuel_max",
            unit: Unit::Fuel,
            min: 1,
            max: 1_000_000_000_000_000,
            get: |l| l.fuel_max,
            get_mut: |l| &mut l.fuel_max,
        },
        LimitField {
            name: "memory_bytes_max",
            unit: Unit::Bytes,
            // One page of wasm, and all that 32-bit addresses reach.
            min: 64 * KIB,
            max: 4 * GIB,
            get: |l| l.memory_bytes_max,
            get_mut: |l| &mut l.memory_bytes_max,
        },
        LimitField {
            name: "table_elements_max",
            unit: Unit::Elements,
            min: 1,
            max: 10_000_000,
            get: |l| l.table_elements_max,
            get_mut: |l| &mut l.table_elements_max,
        },
        LimitField {
            name: "model_memory_bytes_max",
            unit: Unit::Bytes,
            min: 0,
            max: 16 * TIB,
            get: |l| l.model_memory_bytes_max,
            get_mut: |l| &mut l.model_memory_bytes_max,
        },
        LimitField {
            name: "input_bytes_max",
            unit: Unit::Bytes,
            min: 1,
            max: GIB,
            get: |l| l.input_bytes_max,
            get_mut: |l| &mut l.input_bytes_max,
        },
        LimitField {
            name: "output_bytes_max",
            unit: Unit::Bytes,
            min: 1,
            max: GIB,
            get: |l| l.output_bytes_max,
            get_mut: |l| &mut l.output_bytes_max,
        },
        LimitField {
            name: "log_bytes_max",
            unit: Unit::Bytes,
            min: 0,
            max: 16 * MIB,
            get: |l| l.log_bytes_max,
            get_mut: |l| &mut l.log_bytes_max,
        },
        LimitField {
            name: "inference_units_max",
            unit: Unit::InferenceUnits,
            min: 0,
            max: 1_000_000_000_000_000_000,
            get: |l| l.inference_units_max,
            get_mut: |l| &mut l.inference_units_max,
        },
        LimitField {
            name: "host_calls_max",
            unit: Unit::Calls,
            min: 1,
            // 34 bytes each in an opening, which has to stay a file one can send.
            max: 1_000_000,
            get: |l| l.host_calls_max,
            get_mut: |l| &mut l.host_calls_max,
        },
        LimitField {
            name: "wall_ms_max",
            unit: Unit::Milliseconds,
            min: 1,
            // A week.
            max: 7 * 24 * 3600 * 1000,
            get: |l| l.wall_ms_max,
            get_mut: |l| &mut l.wall_ms_max,
        },
    ];

    /// Whether every limit lies within its bounds.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), LimitError> {
        Self::FIELDS
            .iter()
            .try_for_each(|field| field.check((field.get)(self)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One field of [`Limits`]: how it is written and what it may be.
#[derive(Debug, Clone, Copy)]
pub struct LimitField {
    /// The field's name in manifests and views.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The least it may be.
    pub min: u64,
    /// The most it may be.
    pub max: u64,
    /// Reads it.
    pub get: fn(&Limits) -> u64,
    /// Where it stands, to be written.
    pub get_mut: fn(&mut Limits) -> &mut u64,
}

impl LimitField {
    /// Whether `value` lies within the field's bounds.
    ///
    /// # Errors
    /// [`LimitError`] with the bounds.
    pub const fn check(&self, value: u64) -> Result<(), LimitError> {
        if value < self.min || value > self.max {
            return Err(LimitError {
                field: self.name,
                unit: self.unit,
                value,
                min: self.min,
                max: self.max,
            });
        }
        Ok(())
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Units of wasmtime's fuel.
    Fuel,
    /// Table elements.
    Elements,
    /// Multiply-accumulates of inference.
    InferenceUnits,
    /// Host calls.
    Calls,
    /// Milliseconds.
    Milliseconds,
    /// Nanograms.
    Nanograms,
}

impl Unit {
    /// A number of them as people write it: `64 KiB`, `10_000_000_000 units of fuel`.
    pub fn show(self, value: u64) -> String {
        match self {
            Self::Bytes => size(value).unwrap_or_else(|| format!("{} bytes", grouped(value))),
            other => format!("{} {}", grouped(value), other.plural()),
        }
    }

    /// A range as people write it: `64 KiB to 4 GiB`, `1 to 1_000_000 calls`.
    pub fn show_range(self, min: u64, max: u64) -> String {
        match self {
            Self::Bytes => format!("{} to {}", self.show(min), self.show(max)),
            other => format!("{} to {}", grouped(min), other.show(max)),
        }
    }

    /// The word for several of them.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Fuel => "units of fuel",
            Self::Elements => "elements",
            Self::InferenceUnits => "inference units",
            Self::Calls => "calls",
            Self::Milliseconds => "milliseconds",
            Self::Nanograms => "nanograms",
        }
    }
}

/// Bytes in the largest binary unit that leaves no fraction, if there is one above the byte.
pub(crate) fn size(bytes: u64) -> Option<String> {
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map(|(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// Digits in groups of three, as TOML takes them.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// A limit outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("limits.{field} is {}; it can be {}", unit.show(*value), unit.show_range(*min, *max))]
pub struct LimitError {
    /// The field's name.
    pub field: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it was set to.
    pub value: u64,
    /// The least it may be.
    pub min: u64,
    /// The most it may be.
    pub max: u64,
}
