//! One `compute` of a graph of tensors: the model's own names, types and shapes.
//!
//! In: a loaded graph and the tensors that a guest passed, none of them trusted. Out: the
//! graph's outputs, or a refusal. Inference units are known from the shapes and charged before
//! anything is computed; the deadline and cancellation stop a computation between two of the
//! graph's operators.

use std::sync::Arc;

use tussah_inference::graph::{
    ElementType, GraphError, GraphTensor, TensorGraph, check_inputs, inference_units,
};

use super::{Answer, Refusal, compute::NamedTensors, tensor::Tensor};
use crate::sandbox::{
    bindings::wasi::nn::{errors::ErrorCode as NnCode, tensor::TensorType},
    guest::Guest,
    limiter::Stop,
    models::blocking,
};

impl Guest {
    /// Runs a graph on its inputs.
    pub(super) async fn nn_graph(
        &mut self,
        graph: &Arc<dyn TensorGraph>,
        inputs: NamedTensors,
    ) -> Answer<NamedTensors> {
        let inputs = match checked(graph.as_ref(), inputs) {
            Ok(inputs) => inputs,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let units = inference_units(graph.inputs(), graph.parameters(), &inputs);
        self.limiter.check_inference_units(units)?;
        self.limiter.add_inference_units(units)?;
        let (graph, cancel) = (Arc::clone(graph), self.models.cancel.clone());
        let free = self.limiter.model_memory_free();
        let computed = blocking(move || graph.compute(inputs, free, &cancel)).await?;
        match computed {
            Ok(outputs) => Ok(Ok(outputs
                .into_iter()
                .map(|(name, tensor)| (name, from_graph(tensor)))
                .collect())),
            Err(error) => refusal(&error).map(Err),
        }
    }
}

/// Tensors that are the graph's inputs.
fn checked(
    graph: &dyn TensorGraph,
    inputs: NamedTensors,
) -> Result<Vec<(String, GraphTensor)>, Refusal> {
    let mut checked = Vec::with_capacity(inputs.len());
    for (name, tensor) in inputs {
        tensor.elements(&name)?;
        checked.push((name, into_graph(tensor)));
    }
    check_inputs(graph.inputs(), &checked).map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(checked)
}

/// What the guest is told, or that the job ends.
fn refusal(error: &GraphError) -> wasmtime::Result<Refusal> {
    let code = match error {
        GraphError::Cancelled => return Err(Stop::Cancelled.into()),
        GraphError::Memory { bytes, free } => {
            let message = format!(
                "the outputs take {bytes} bytes, {free} are left of \
                 limits.model_memory_bytes_max: drop other tensors or raise the limit"
            );
            return Ok(Refusal::new(NnCode::TooLarge, message));
        }
        GraphError::Failed { .. } | GraphError::Output { .. } => NnCode::RuntimeError,
        GraphError::UnknownInput { .. }
        | GraphError::MissingInput { .. }
        | GraphError::Twice { .. }
        | GraphError::Element { .. }
        | GraphError::Shape { .. }
        | GraphError::Data { .. } => NnCode::InvalidArgument,
    };
    Ok(Refusal::new(code, error.to_string()))
}

fn into_graph(tensor: Tensor) -> GraphTensor {
    let element = match tensor.ty {
        TensorType::Fp16 => ElementType::Fp16,
        TensorType::Fp32 => ElementType::Fp32,
        TensorType::Fp64 => ElementType::Fp64,
        TensorType::Bf16 => ElementType::Bf16,
        TensorType::U8 => ElementType::U8,
        TensorType::I32 => ElementType::I32,
        TensorType::I64 => ElementType::I64,
    };
    GraphTensor {
        dimensions: tensor.dimensions,
        element,
        data: tensor.data,
    }
}

fn from_graph(tensor: GraphTensor) -> Tensor {
    let ty = match tensor.element {
        ElementType::Fp16 => TensorType::Fp16,
        ElementType::Fp32 => TensorType::Fp32,
        ElementType::Fp64 => TensorType::Fp64,
        ElementType::Bf16 => TensorType::Bf16,
        ElementType::U8 => TensorType::U8,
        ElementType::I32 => TensorType::I32,
        ElementType::I64 => TensorType::I64,
    };
    Tensor {
        dimensions: tensor.dimensions,
        ty,
        data: tensor.data,
    }
}
