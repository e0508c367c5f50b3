//! What the author of a Tussah job links: models, sessions, output, errors.
//!
//! In: the job's input, and models that its manifest names. Out: what it emits. A job
//! never sees the machine it runs on: no files, no network, no real time, and random
//! bytes that come from the request.
//!
//! | to | look at |
//! |---|---|
//! | take and return text, bytes, JSON, streams | [`job`](macro@job), [`FromInput`], [`IntoOutcome`], [`Json`], [`Stream`], [`Output`] |
//! | generate text | [`Model`], [`Session`] |
//! | get JSON that satisfies a schema | [`json_schema::Schema`], [`Session::json`] |
//! | choose one of several labels | [`Session::choose`] |
//! | choose each token | [`Session::candidates`], [`Sampler`], [`log_probabilities`] |
//! | compare texts | [`Model::embed`], [`rank`], [`cosine`] |
//! | use tensors | [`nn`] |
//! | fail with a number | [`Error`], [`ErrorCode`], [`ResultExt`] |
//! | test a job natively, without a model | [`testing`] (not in wasm) |
//!
//! A whole job:
//!
//! ```
//! use tussah_sdk::{Error, Message, Model, emit, job};
//!
//! #[job]
//! fn run(article: String) -> Result<(), Error> {
//!     let model = Model::load("smollm2")?;
//!     let question = Message::user(format!("Summarize in two sentences.\n\n{article}"));
//!     let mut session = model.session().generated_tokens_max(120).open_chat(&[question])?;
//!     for chunk in &mut session {
//!         emit(chunk?.text)?; // streams to the client as it is generated
//!     }
//!     Ok(())
//! }
//! # fn main() {}
//! ```

mod bindings;
mod choose;
mod constrained;
mod embed;
mod error;
mod host;
mod job;
mod json;
pub mod json_schema;
mod llm;
pub mod nn;
mod output;
mod sampler;
mod session;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use choose::Choice;
pub use constrained::{Constrained, Ended};
pub use embed::{Embedding, Ranked, cosine, rank};
pub use error::{Error, ErrorCode, ResultExt};
pub use job::{FromInput, IntoOutcome, Stream};
pub use json::{Json, JsonLines, emit_json, from_json};
pub use llm::{Candidate, Chunk, FinishReason, Message, Model, ModelInfo, SessionBuilder, Usage};
pub use output::{Output, emit, log, progress};
pub use sampler::{Sampler, log_probabilities};
pub use session::{Generated, Session};
pub use tussah_sdk_macros::job;

/// What the `#[job]` attribute's expansion refers to; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::*;
    pub use crate::job::{Ignored, call, check};
}
