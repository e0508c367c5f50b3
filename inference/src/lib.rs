//! Models to tokens and texts to vectors: model files, tokenizers, chat templates, sessions, embeddings.
//! No wasm, no network.
//!
//! ```text
//! file ─ gguf ─┬─ tokenizer ── text ↔ tokens
//!              ├─ chat ─────── messages → prompt
//!              └─ model ────── plan ── backend ── session ── text_stream ── text
//!                             scheduler ── cpu::exact │ sampler
//!                                      └── gpu (exact)
//!                             cpu::oracle
//! folder ─ archive ─ safetensors ─ model ── plan ── encoder ── embed ── vectors
//! file ─ onnx_file ─ onnx (feature `onnx`) ─ graph ── tensors ↔ tensors
//! generate ── a file with random weights, of any size
//! ```
//!
//! A model file is untrusted input: everything in it is checked before use, and nothing in it can make
//! this crate panic or allocate without bound. The exact engine's results are the same bits on every
//! device, width of SIMD and number of threads; `docs/exact-arithmetic.md` is its contract.

pub mod archive;
mod arithmetic;
mod backend;
mod cancel;
mod chat;
mod cpu;
mod embed;
mod exact;
pub mod generate;
mod gguf;
mod gpu;
pub mod graph;
mod model;
#[cfg(feature = "onnx")]
pub mod onnx;
mod onnx_file;
mod quant;
mod safetensors;
mod sampler;
mod scheduler;
mod session;
mod text_stream;
mod tokenizer;
mod weights;

pub use arithmetic::PROFILE_VERSION;
pub use backend::BackendError;
pub use cancel::{CancelToken, OnCancel};
pub use chat::{
    ChatError, ChatMessage, PROMPT_BYTES_MAX, RENDER_BYTES_MAX as TEMPLATE_RENDER_BYTES_MAX,
    TEMPLATE_BYTES_MAX,
};
pub use cpu::exact::PackedCache;
pub use cpu::simd::{SimdLevel, SimdUnavailable};
pub use embed::{EMBED_TEXTS_MAX, EmbedError, Embeddings, OverLong};
pub use gguf::{
    ALLOCATION_FACTOR, Gguf, GgufError, GgufSummary, KEY_BYTES_MAX, METADATA_KEYS_MAX,
    StorageShare, TENSOR_NAME_BYTES_MAX, TENSORS_MAX,
};
pub use gpu::{
    Gpu, GpuCache, GpuChoice, GpuError, GpuInfo, GpuKind, GpuLayout, GpuOptions, GpuSubgroups,
    GpuTiles,
};
pub use model::{
    Device, Engine, LoadOptions, LoadProgress, Model, ModelError, ModelInfo, THREADS_MAX,
};
pub use onnx_file::{ONNX_FILE_BYTES_MAX, OnnxFile, OnnxFileError};
pub use quant::QuantType;
pub use safetensors::{SAFETENSORS_HEADER_BYTES_MAX, SafetensorsError};
pub use sampler::{Sampling, SamplingError};
pub use scheduler::{ContextMemory, Scope};
pub use session::{Candidate, Session, SessionError, SessionOptions, Usage};
pub use text_stream::{
    Chunk, FinishReason, STOP_STRING_BYTES_MAX, STOP_STRINGS_MAX, StopStrings, StopStringsError,
    TextStream,
};
pub use tokenizer::{
    AddBos, Casing, EncodeOptions, TOKENIZER_ALLOCATION_FACTOR, TokenId, TokenizeError, Tokenizer,
    TokenizerError, VOCABULARY_MAX, WordPieceSpecials,
};

/// The name and version of the exact engine's arithmetic, as receipts state it.
pub fn exact_profile() -> &'static str {
    "exact/0"
}
