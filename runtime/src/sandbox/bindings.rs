//! The WIT world of jobs as host traits, generated from the SDK's single copy of it.
//!
//! In: `guest-sdk/wit/world.wit`. Out: traits that `llm.rs` and `output.rs` implement and
//! the typed export `run`. Every import is asynchronous, so that a job that waits for
//! inference never holds a thread of the executor.

wasmtime::component::bindgen!({
    path: "../guest-sdk/wit",
    world: "job",
    imports: {
        "tussah:job/output.progress": trappable,
        "tussah:job/llm.[method]model.info": trappable,
        "tussah:job/llm.[method]session.finish-reason": trappable,
        "tussah:job/llm.[method]session.usage": trappable,
        default: async | trappable,
    },
    exports: { default: async },
    with: {
        "tussah:job/llm.model": crate::sandbox::llm::model::ModelEntry,
        "tussah:job/llm.session": crate::sandbox::sessions::SessionEntry,
        "wasi:nn/tensor@0.2.0-rc-2024-10-28.tensor": crate::sandbox::nn::tensor::Tensor,
        "wasi:nn/graph@0.2.0-rc-2024-10-28.graph": crate::sandbox::nn::host::GraphEntry,
        "wasi:nn/inference@0.2.0-rc-2024-10-28.graph-execution-context": crate::sandbox::nn::host::ContextEntry,
        "wasi:nn/errors@0.2.0-rc-2024-10-28.error": crate::sandbox::nn::host::ErrorEntry,
    },
});
