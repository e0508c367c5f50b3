//! `wasi_ephemeral_nn`: wasi-nn as the crate `wasi-nn` 0.6 and its WITX file have it.
//!
//! In: handles, indices, pointers. Out: error numbers; the message that goes with one is
//! written to the job's log, since this ABI has no place for it. An index stands for a name:
//! `docs/wasi-nn.md` lists them for decoders and encoders, a graph of tensors has its own. Inputs stay set for the next
//! `compute` until they are replaced.

use std::collections::BTreeMap;

use wasmtime::{Caller, Linker};

use super::memory::{self, Buffer, Pointer};
use crate::sandbox::{
    bindings::wasi::nn::{errors::ErrorCode as NnCode, tensor::TensorType},
    guest::{Guest, RESOURCES_MAX},
    models::LoadedModel,
    nn::{
        self, Refusal, input_names, no_index, output_names,
        tensor::{RANK_MAX, Tensor},
    },
};

const MODULE: &str = "wasi_ephemeral_nn";
/// The longest name of a model that is looked at; none in a manifest is longer.
const NAME_BYTES_MAX: u32 = 256;

/// Graphs and contexts of one guest; a handle is an index.
#[derive(Default)]
pub(super) struct State {
    graphs: Vec<LoadedModel>,
    contexts: Vec<Context>,
}

struct Context {
    model: LoadedModel,
    inputs: BTreeMap<usize, Tensor>,
    /// By index; none for what was not asked for.
    outputs: Vec<Option<Tensor>>,
}

/// What a function gives to the guest, or why not.
type Answer<T> = wasmtime::Result<Result<T, Refusal>>;

/// The error numbers of the WITX file.
fn errno(code: NnCode) -> i32 {
    match code {
        NnCode::InvalidArgument => 1,
        NnCode::InvalidEncoding => 2,
        NnCode::Timeout => 4,
        NnCode::RuntimeError | NnCode::Unknown => 5,
        NnCode::UnsupportedOperation => 6,
        NnCode::TooLarge => 7,
        // It has no number for what is forbidden: such a model is not there for the guest.
        NnCode::NotFound | NnCode::Security => 8,
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "load", load)?;
    linker.func_wrap_async(MODULE, "load_by_name", |mut caller, arguments| {
        Box::new(async move {
            let answer = load_by_name(&mut caller, arguments).await?;
            Ok(finish(&mut caller, answer))
        })
    })?;
    linker.func_wrap(MODULE, "init_execution_context", init_execution_context)?;
    linker.func_wrap(MODULE, "set_input", set_input)?;
    linker.func_wrap_async(MODULE, "compute", |mut caller, (context,): (i32,)| {
        Box::new(async move {
            let answer = compute(&mut caller, context).await?;
            Ok(finish(&mut caller, answer))
        })
    })?;
    linker.func_wrap(MODULE, "get_output", get_output)?;
    Ok(())
}

/// The error number, with the message in the job's log.
fn finish(caller: &mut Caller<'_, Guest>, answer: Result<(), Refusal>) -> i32 {
    match answer {
        Ok(()) => 0,
        Err(refusal) => {
            let line = format!("wasi-nn: {}\n", refusal.message);
            caller.data().write_log(line.as_bytes());
            errno(refusal.code)
        }
    }
}

fn no_handle<T>(what: &str, handle: i32) -> Result<T, Refusal> {
    let message = format!("{} is no {what} of this job", handle.cast_unsigned());
    Err(Refusal::new(NnCode::InvalidArgument, message))
}

fn index(handle: i32) -> usize {
    handle.cast_unsigned() as usize
}

/// Writes a number where the guest wants it.
fn write(caller: &mut Caller<'_, Guest>, at: i32, number: usize) -> wasmtime::Result<()> {
    let memory = memory::memory(caller)?;
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    memory::write(
        memory.data_mut(caller),
        Pointer::new(at),
        &number.to_le_bytes(),
    )
}

fn load(
    mut caller: Caller<'_, Guest>,
    _: i32,
    parts: i32,
    _: i32,
    _: i32,
    _: i32,
) -> wasmtime::Result<i32> {
    caller
        .data_mut()
        .record("nn#load", &parts.to_le_bytes(), &[0xff])?;
    Ok(finish(&mut caller, Err(nn::load_refused())))
}

async fn load_by_name(
    caller: &mut Caller<'_, Guest>,
    (at, length, graph_at): (i32, i32, i32),
) -> Answer<()> {
    let (at, length) = (Pointer::new(at), length.cast_unsigned());
    if length > NAME_BYTES_MAX {
        let message = format!("a name of {length} bytes is longer than any model's");
        return Ok(Err(Refusal::new(NnCode::InvalidArgument, message)));
    }
    let memory = memory::memory(caller)?;
    let name = memory::bytes(memory.data(&*caller), Buffer { at, length })?;
    let Ok(name) = String::from_utf8(name.to_vec()) else {
        let message = "the model's name is not UTF-8";
        return Ok(Err(Refusal::new(NnCode::InvalidArgument, message)));
    };
    if caller.data().preview1.nn.graphs.len() >= RESOURCES_MAX {
        return Ok(Err(too_many("graphs")));
    }
    let model = match caller.data_mut().nn_load(&name).await? {
        Ok(model) => model,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let graphs = &mut caller.data_mut().preview1.nn.graphs;
    graphs.push(model);
    let handle = graphs.len() - 1;
    write(caller, graph_at, handle).map(Ok)
}

fn too_many(what: &str) -> Refusal {
    let message = format!("a job has at most {RESOURCES_MAX} {what}");
    Refusal::new(NnCode::TooLarge, message)
}

fn init_execution_context(
    mut caller: Caller<'_, Guest>,
    graph: i32,
    context_at: i32,
) -> wasmtime::Result<i32> {
    let state = &mut caller.data_mut().preview1.nn;
    let answer = match state.graphs.get(index(graph)) {
        None => no_handle("graph", graph),
        Some(_) if state.contexts.len() >= RESOURCES_MAX => Err(too_many("contexts")),
        Some(model) => {
            state.contexts.push(Context {
                model: model.clone(),
                inputs: BTreeMap::new(),
                outputs: Vec::new(),
            });
            Ok(state.contexts.len() - 1)
        }
    };
    let answer = match answer {
        Ok(handle) => Ok(write(&mut caller, context_at, handle)?),
        Err(refusal) => Err(refusal),
    };
    Ok(finish(&mut caller, answer))
}

fn set_input(
    mut caller: Caller<'_, Guest>,
    context: i32,
    input: i32,
    tensor_at: i32,
) -> wasmtime::Result<i32> {
    let memory = memory::memory(&mut caller)?;
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    let answer = take_input(data, guest, context, index(input), Pointer::new(tensor_at))?;
    Ok(finish(&mut caller, answer))
}

fn take_input(
    data: &[u8],
    guest: &mut Guest,
    handle: i32,
    input: usize,
    tensor_at: Pointer,
) -> Answer<()> {
    let Some(context) = guest.preview1.nn.contexts.get(index(handle)) else {
        return Ok(no_handle("context", handle));
    };
    let names = input_names(&context.model);
    if input >= names.len() {
        return Ok(Err(no_index("input", input, &names)));
    }
    // The old one goes first: its memory may be what the new one needs.
    let old = (guest.preview1.nn.contexts.get_mut(index(handle)))
        .and_then(|context| context.inputs.remove(&input));
    if let Some(old) = old {
        guest.release_tensor(&old);
    }
    let tensor = match read_tensor(data, guest, tensor_at)? {
        Ok(tensor) => tensor,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = guest.hold_tensor(&tensor) {
        return Ok(Err(refusal));
    }
    if let Some(context) = guest.preview1.nn.contexts.get_mut(index(handle)) {
        context.inputs.insert(input, tensor);
    }
    Ok(Ok(()))
}

/// A tensor in the layout of the WITX file: dimensions, type, data.
fn read_tensor(data: &[u8], guest: &Guest, at: Pointer) -> Answer<Tensor> {
    let dimensions = memory::read_buffer(data, at)?;
    let ty = match memory::array::<1>(data, at.offset(8)?)?[0] {
        0 => TensorType::Fp16,
        1 => TensorType::Fp32,
        2 => TensorType::Fp64,
        3 => TensorType::U8,
        4 => TensorType::I32,
        5 => TensorType::I64,
        other => {
            let message = format!("{other} is no type of a tensor; there is 0 to 5");
            return Ok(Err(Refusal::new(NnCode::InvalidArgument, message)));
        }
    };
    if dimensions.length as usize > RANK_MAX {
        let message = format!("a tensor has at most {RANK_MAX} dimensions");
        return Ok(Err(Refusal::new(NnCode::InvalidArgument, message)));
    }
    let sizes = (0..dimensions.length)
        .map(|index| memory::read_u32(data, dimensions.at.offset(4 * index)?))
        .collect::<wasmtime::Result<Vec<u32>>>()?;
    let content = memory::bytes(data, memory::read_buffer(data, at.offset(12)?)?)?;
    // Before it is copied.
    let free = guest.limiter.model_memory_free();
    if content.len() as u64 > free {
        let message = format!(
            "a tensor of {} bytes, {free} are left of limits.model_memory_bytes_max",
            content.len()
        );
        return Ok(Err(Refusal::new(NnCode::TooLarge, message)));
    }
    Ok(Ok(Tensor {
        dimensions: sizes,
        ty,
        data: content.to_vec(),
    }))
}

async fn compute(caller: &mut Caller<'_, Guest>, handle: i32) -> Answer<()> {
    let guest = caller.data_mut();
    let Some(context) = guest.preview1.nn.contexts.get_mut(index(handle)) else {
        return Ok(no_handle("context", handle));
    };
    let model = context.model.clone();
    let old = std::mem::take(&mut context.outputs);
    // The inputs stay; for as long as the call takes there are two of each.
    let names = input_names(&model);
    let inputs: Vec<(String, Tensor)> = (context.inputs.iter())
        .map(|(input, tensor)| (names[*input].to_owned(), tensor.clone()))
        .collect();
    for tensor in old.iter().flatten() {
        guest.release_tensor(tensor);
    }
    let held_bytes = inputs.iter().map(|(_, tensor)| tensor.memory_bytes()).sum();
    if let Err(free) = guest.limiter.hold_model_memory(held_bytes) {
        let message = format!(
            "the inputs take {held_bytes} bytes again, {free} are left of limits.model_memory_bytes_max"
        );
        return Ok(Err(Refusal::new(NnCode::TooLarge, message)));
    }
    let answer = guest.nn_compute(&model, inputs).await?;
    guest.limiter.release_model_memory(held_bytes);
    let mut given = match answer {
        Ok(given) => given,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut outputs: Vec<Option<Tensor>> = Vec::new();
    for name in output_names(&model) {
        let found = given.iter().position(|(output, _)| output == name);
        let tensor = found.map(|at| given.swap_remove(at).1);
        if let Some(tensor) = &tensor
            && let Err(refusal) = guest.hold_tensor(tensor)
        {
            for tensor in outputs.iter().flatten() {
                guest.release_tensor(tensor);
            }
            return Ok(Err(refusal));
        }
        outputs.push(tensor);
    }
    if let Some(context) = guest.preview1.nn.contexts.get_mut(index(handle)) {
        context.outputs = outputs;
    }
    Ok(Ok(()))
}

fn get_output(
    mut caller: Caller<'_, Guest>,
    context: i32,
    output: i32,
    at: i32,
    length: i32,
    written_at: i32,
) -> wasmtime::Result<i32> {
    let memory = memory::memory(&mut caller)?;
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    let found = find_output(guest, context, index(output), length.cast_unsigned());
    let answer = match found {
        Ok(tensor) => {
            let written = u32::try_from(tensor.data.len()).unwrap_or(u32::MAX);
            memory::write(data, Pointer::new(at), &tensor.data)?;
            memory::write(data, Pointer::new(written_at), &written.to_le_bytes())?;
            Ok(())
        }
        Err(refusal) => Err(refusal),
    };
    Ok(finish(&mut caller, answer))
}

fn find_output(guest: &Guest, handle: i32, output: usize, room: u32) -> Result<&Tensor, Refusal> {
    let Some(context) = guest.preview1.nn.contexts.get(index(handle)) else {
        return no_handle("context", handle);
    };
    let names = output_names(&context.model);
    let Some(name) = names.get(output) else {
        return Err(no_index("output", output, &names));
    };
    let Some(tensor) = context.outputs.get(output).and_then(Option::as_ref) else {
        let message =
            format!("output `{name}` is not there: compute it first, and ask for it by `outputs`");
        return Err(Refusal::new(NnCode::NotFound, message));
    };
    if tensor.data.len() as u64 > u64::from(room) {
        let message = format!(
            "output `{name}` has {} bytes, the buffer has {room}",
            tensor.data.len()
        );
        return Err(Refusal::new(NnCode::TooLarge, message));
    }
    Ok(tensor)
}
