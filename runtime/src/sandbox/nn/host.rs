//! `wasi:nn` as components see it: resources and the standard's functions.
//!
//! In: handles, names and tensors of a guest. Out: what `compute.rs` makes of them, errors as
//! the standard's resource. A tensor that does not fit the job's memory ends the job, since a
//! constructor cannot fail.

use tussah_manifest::LimitHit;
use wasmtime::component::Resource;

use super::{Refusal, compute, load_refused, tensor::Tensor};
use crate::sandbox::{
    bindings::wasi::nn::{
        errors::{self, ErrorCode as NnCode},
        graph::{self, ExecutionTarget, GraphEncoding},
        inference,
        tensor::{self, TensorType},
    },
    guest::Guest,
    limiter::Stop,
    models::LoadedModel,
};

/// A guest's handle of a loaded model.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GraphEntry {
    model: LoadedModel,
}

/// A guest's handle of an execution context: every `compute` on it starts from nothing.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct ContextEntry {
    model: LoadedModel,
}

/// A guest's handle of an error.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct ErrorEntry {
    code: NnCode,
    message: String,
}

/// What a component is told, or why its job ends.
type Answer<T> = wasmtime::Result<Result<T, Resource<ErrorEntry>>>;

impl Guest {
    fn refused<T>(&mut self, refusal: Refusal) -> Answer<T> {
        let Refusal { code, message } = refusal;
        Ok(Err(self.table().push(ErrorEntry { code, message })?))
    }

    /// Puts an output where the guest can get it.
    fn give_tensor(
        &mut self,
        tensor: Tensor,
    ) -> wasmtime::Result<Result<Resource<Tensor>, Refusal>> {
        if let Err(refusal) = self.hold_tensor(&tensor) {
            return Ok(Err(refusal));
        }
        Ok(Ok(self.table().push(tensor)?))
    }

    fn take_tensor(&mut self, handle: Resource<Tensor>) -> wasmtime::Result<Tensor> {
        let tensor = self.table().delete(handle)?;
        self.release_tensor(&tensor);
        Ok(tensor)
    }
}

impl tensor::HostTensor for Guest {
    async fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        let dimensions = compute::bounded_dimensions(dimensions);
        let tensor = Tensor {
            dimensions,
            ty,
            data,
        };
        match self.give_tensor(tensor)? {
            Ok(handle) => Ok(handle),
            Err(_) => Err(Stop::Limit(LimitHit::ModelMemory).into()),
        }
    }

    async fn dimensions(&mut self, handle: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table().get(&handle)?.dimensions.clone())
    }

    async fn ty(&mut self, handle: Resource<Tensor>) -> wasmtime::Result<TensorType> {
        Ok(self.table().get(&handle)?.ty)
    }

    async fn data(&mut self, handle: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table().get(&handle)?.data.clone())
    }

    async fn drop(&mut self, handle: Resource<Tensor>) -> wasmtime::Result<()> {
        self.take_tensor(handle).map(drop)
    }
}

impl graph::HostGraph for Guest {
    async fn init_execution_context(
        &mut self,
        handle: Resource<GraphEntry>,
    ) -> Answer<Resource<ContextEntry>> {
        let model = self.table().get(&handle)?.model.clone();
        Ok(Ok(self.table().push(ContextEntry { model })?))
    }

    async fn drop(&mut self, handle: Resource<GraphEntry>) -> wasmtime::Result<()> {
        self.table().delete(handle)?;
        Ok(())
    }
}

impl graph::Host for Guest {
    async fn load(
        &mut self,
        builder: Vec<Vec<u8>>,
        _: GraphEncoding,
        _: ExecutionTarget,
    ) -> Answer<Resource<GraphEntry>> {
        let bytes: u64 = builder.iter().map(|part| part.len() as u64).sum();
        self.record("nn#load", &bytes.to_le_bytes(), &[0xff])?;
        self.refused(load_refused())
    }

    async fn load_by_name(&mut self, name: String) -> Answer<Resource<GraphEntry>> {
        match self.nn_load(&name).await? {
            Ok(model) => Ok(Ok(self.table().push(GraphEntry { model })?)),
            Err(refusal) => self.refused(refusal),
        }
    }
}

impl inference::HostGraphExecutionContext for Guest {
    async fn compute(
        &mut self,
        handle: Resource<ContextEntry>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> Answer<Vec<(String, Resource<Tensor>)>> {
        let model = self.table().get(&handle)?.model.clone();
        let mut tensors = Vec::with_capacity(inputs.len());
        let mut held_bytes = 0;
        for (name, handle) in inputs {
            // The guest has given it away; its memory is held until the call is over.
            let tensor = self.table().delete(handle)?;
            held_bytes += tensor.memory_bytes();
            tensors.push((name, tensor));
        }
        let answer = self.nn_compute(&model, tensors).await?;
        self.limiter.release_model_memory(held_bytes);
        let outputs = match answer {
            Ok(outputs) => outputs,
            Err(refusal) => return self.refused(refusal),
        };
        let mut given = Vec::with_capacity(outputs.len());
        for (name, tensor) in outputs {
            match self.give_tensor(tensor)? {
                Ok(handle) => given.push((name, handle)),
                Err(refusal) => {
                    for (_, handle) in given {
                        self.take_tensor(handle)?;
                    }
                    return self.refused(refusal);
                }
            }
        }
        Ok(Ok(given))
    }

    async fn drop(&mut self, handle: Resource<ContextEntry>) -> wasmtime::Result<()> {
        self.table().delete(handle)?;
        Ok(())
    }
}

impl errors::HostError for Guest {
    async fn code(&mut self, handle: Resource<ErrorEntry>) -> wasmtime::Result<NnCode> {
        Ok(self.table().get(&handle)?.code)
    }

    async fn data(&mut self, handle: Resource<ErrorEntry>) -> wasmtime::Result<String> {
        Ok(self.table().get(&handle)?.message.clone())
    }

    async fn drop(&mut self, handle: Resource<ErrorEntry>) -> wasmtime::Result<()> {
        self.table().delete(handle)?;
        Ok(())
    }
}

impl tensor::Host for Guest {}
impl inference::Host for Guest {}
impl errors::Host for Guest {}
