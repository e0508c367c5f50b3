//! One computation: tensors in, tensors out, stopped from outside.
//! In: inputs that were checked. Out: copies of the outputs, of a size that was looked at before.
//! It never hands memory of the library to anybody.

use std::sync::{Arc, Mutex, PoisonError};

use ort::memory::Allocator;
use ort::session::{RunOptions, Session};
use ort::value::{DynTensor, DynTensorRef, DynValueTypeMarker, Shape, ValueRef, ValueType};

use super::{element, one_line, ort_type};
use crate::cancel::CancelToken;
use crate::graph::{GraphError, GraphTensor, NamedTensors, Port, TENSOR_RANK_MAX, data_bytes};

pub(super) fn compute(
    session: &Mutex<Session>,
    outputs: &[Port],
    inputs: NamedTensors,
    output_bytes_max: u64,
    cancel: &CancelToken,
) -> Result<NamedTensors, GraphError> {
    check_room(outputs, output_bytes_max)?;
    let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
    if cancel.is_cancelled() {
        return Err(GraphError::Cancelled);
    }
    let options = Arc::new(RunOptions::new().map_err(failed)?);
    let stop = Arc::clone(&options);
    // The library looks at it before each node of the graph.
    let _watched = cancel.on_cancel(move || {
        // It fails only for a null pointer.
        let _ = stop.terminate();
    });
    let mut values = Vec::with_capacity(inputs.len());
    for (name, tensor) in inputs {
        values.push((name, input(&tensor)?));
    }
    let found = match session.run_with_options(values, &options) {
        Ok(found) => found,
        Err(_) if cancel.is_cancelled() => return Err(GraphError::Cancelled),
        Err(error) => return Err(failed(error)),
    };
    let mut taken = Vec::with_capacity(outputs.len());
    let mut free = output_bytes_max;
    for (port, value) in outputs.iter().zip(found.values()) {
        let tensor = output(port, value, free)?;
        free -= tensor.data.len() as u64;
        taken.push((port.name.clone(), tensor));
    }
    Ok(taken)
}

fn failed(error: ort::Error) -> GraphError {
    GraphError::Failed {
        reason: one_line(error.message()),
    }
}

/// Refuses what cannot fit before anything is computed, where the model says its outputs' sizes.
fn check_room(outputs: &[Port], free: u64) -> Result<(), GraphError> {
    let bytes = outputs.iter().fold(0_u64, |sum, port| {
        let fixed: Option<Vec<u32>> = port.dimensions.iter().copied().collect();
        let fixed = fixed.filter(|sizes| !sizes.is_empty());
        let bytes = fixed.map_or(Some(0), |sizes| data_bytes(port.element, &sizes));
        sum.saturating_add(bytes.unwrap_or(u64::MAX))
    });
    if bytes > free {
        return Err(GraphError::Memory { bytes, free });
    }
    Ok(())
}

/// A tensor of the library's with a copy of the data.
fn input(tensor: &GraphTensor) -> Result<DynTensor, GraphError> {
    let shape = Shape::new(tensor.dimensions.iter().map(|size| i64::from(*size)));
    // The product of the dimensions has been compared with the data's length: it does not overflow.
    let mut value =
        DynTensor::new(&Allocator::default(), ort_type(tensor.element), shape).map_err(failed)?;
    if !tensor.data.is_empty() {
        #[expect(unsafe_code, reason = "`ort` copies slices of typed numbers alone")]
        // SAFETY: the tensor was made just now for as many elements as the data are long, by
        // `check_inputs`; its memory is the library's and aligned, and nobody else has seen it.
        unsafe {
            let to = value.data_ptr_mut().cast::<u8>();
            to.copy_from_nonoverlapping(tensor.data.as_ptr(), tensor.data.len());
        }
    }
    Ok(value)
}

/// A copy of an output, if it is what the model declares and there is room for it.
fn output(
    port: &Port,
    value: ValueRef<'_, DynValueTypeMarker>,
    free: u64,
) -> Result<GraphTensor, GraphError> {
    let found = value.dtype().to_string();
    let other = || GraphError::Output {
        name: port.name.clone(),
        found: found.clone(),
    };
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(other());
    };
    let sizes = shape.iter().map(|size| u32::try_from(*size).ok());
    let dimensions: Vec<u32> = sizes.collect::<Option<_>>().ok_or_else(other)?;
    if element(*ty) != Some(port.element) || dimensions.len() > TENSOR_RANK_MAX {
        return Err(other());
    }
    let bytes = data_bytes(port.element, &dimensions).ok_or_else(other)?;
    let length = usize::try_from(bytes).map_err(|_| other())?;
    if bytes > free {
        return Err(GraphError::Memory { bytes, free });
    }
    let mut data = Vec::new();
    let reserved = data.try_reserve_exact(length);
    reserved.map_err(|_| GraphError::Memory { bytes, free: 0 })?;
    let tensor: DynTensorRef<'_> = value.downcast().map_err(failed)?;
    if length > 0 {
        #[expect(unsafe_code, reason = "`ort` lends slices of typed numbers alone")]
        // SAFETY: the library says that the tensor is of this type and shape, and its memory is the CPU's,
        // since no other device was ever asked for; it stays until the session's outputs are dropped, after this.
        let bytes = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) };
        data.extend_from_slice(bytes);
    }
    Ok(GraphTensor {
        dimensions,
        element: port.element,
        data,
    })
}
