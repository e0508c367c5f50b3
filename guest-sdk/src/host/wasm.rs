//! The host that runs the module, through the WIT world.
//!
//! In: calls of the SDK. Out: the host's answers; graphs of `wasi:nn` in plain tensors.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    io::Write,
};

pub(crate) use crate::bindings::tussah::job::llm::{Model, Session};
pub(crate) use crate::bindings::tussah::job::output::{emit, progress};
use crate::{
    Error,
    bindings::wasi::nn::{errors, graph, inference, tensor},
    nn::{Tensor, TensorType},
};

/// A line of standard error, which is the job's log.
pub(crate) fn log(line: fmt::Arguments<'_>) {
    // A log that cannot be written must not change what the job does.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A number that follows from the request: std seeds its maps from `wasi:random`.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A graph that is ready to compute.
#[derive(Debug)]
pub(crate) struct Graph {
    context: inference::GraphExecutionContext,
}

impl Graph {
    pub(crate) fn load(name: &str) -> Result<Self, Error> {
        let graph = graph::load_by_name(name).map_err(failed)?;
        let context = graph.init_execution_context().map_err(failed)?;
        Ok(Self { context })
    }

    pub(crate) fn compute(
        &self,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let inputs = inputs.into_iter().map(|(name, input)| {
            let (dimensions, kind, data) = input.into_parts();
            (name, tensor::Tensor::new(&dimensions, to_wit(kind), &data))
        });
        let inputs: Vec<_> = inputs.collect();
        let outputs = self.context.compute(inputs).map_err(failed)?;
        let outputs = outputs.into_iter().map(|(name, output)| {
            let tensor = Tensor::new(&output.dimensions(), from_wit(output.ty()), output.data())?;
            Ok((name, tensor))
        });
        outputs.collect()
    }
}

fn to_wit(kind: TensorType) -> tensor::TensorType {
    match kind {
        TensorType::F16 => tensor::TensorType::Fp16,
        TensorType::F32 => tensor::TensorType::Fp32,
        TensorType::F64 => tensor::TensorType::Fp64,
        TensorType::Bf16 => tensor::TensorType::Bf16,
        TensorType::U8 => tensor::TensorType::U8,
        TensorType::I32 => tensor::TensorType::I32,
        TensorType::I64 => tensor::TensorType::I64,
    }
}

fn from_wit(kind: tensor::TensorType) -> TensorType {
    match kind {
        tensor::TensorType::Fp16 => TensorType::F16,
        tensor::TensorType::Fp32 => TensorType::F32,
        tensor::TensorType::Fp64 => TensorType::F64,
        tensor::TensorType::Bf16 => TensorType::Bf16,
        tensor::TensorType::U8 => TensorType::U8,
        tensor::TensorType::I32 => TensorType::I32,
        tensor::TensorType::I64 => TensorType::I64,
    }
}

fn failed(error: errors::Error) -> Error {
    use crate::ErrorCode;
    let code = match error.code() {
        errors::ErrorCode::InvalidArgument => ErrorCode::InvalidArgument,
        errors::ErrorCode::InvalidEncoding => ErrorCode::InvalidEncoding,
        errors::ErrorCode::Timeout => ErrorCode::Timeout,
        errors::ErrorCode::RuntimeError => ErrorCode::ModelFailed,
        errors::ErrorCode::UnsupportedOperation => ErrorCode::UnsupportedOperation,
        errors::ErrorCode::TooLarge => ErrorCode::LimitExceeded,
        errors::ErrorCode::NotFound => ErrorCode::UnknownModel,
        errors::ErrorCode::Security => ErrorCode::Security,
        errors::ErrorCode::Unknown => ErrorCode::Unknown,
    };
    Error::with_code(code, error.data())
}
