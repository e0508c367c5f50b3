//! What the author of a Tussah job links: models, sessions, output, errors.
//!
//! In: the job's input, and models that its manifest names. Out: what it emits. A job
//! never sees the machine it runs on: no files, no network, no real time, and random
//! bytes that come from the request.
//!
//! A whole job:
//!
//! ```
//! use tussah_sdk::{Error, Message, Model, emit, job};
//!
//! #[job]
//! fn run(article: String) -> Result<(), Error> {
//!     let model = Model::load("smollm2")?;
//!     let mut session = model.session().generated_tokens_max(120).open()?;
//!     session.append_chat(&[Message::user(format!("Summarize in two sentences.\n\n{article}"))])?;
//!     for chunk in &mut session {
//!         emit(chunk?.text)?; // streams to the client as it is generated
//!     }
//!     Ok(())
//! }
//! # fn main() {}
//! ```

mod bindings;
mod error;
mod job;
mod json;
pub mod json_schema;
mod llm;
mod output;

pub use error::{Error, ErrorCode, ResultExt};
pub use job::{FromInput, IntoOutcome, Stream};
pub use json::{Json, JsonLines, emit_json, from_json};
pub use llm::{
    Candidate, Chunk, FinishReason, Message, Model, ModelInfo, Session, SessionBuilder, Usage,
};
pub use output::{Output, emit, log, progress};
pub use tussah_sdk_macros::job;

/// What the `#[job]` attribute's expansion refers to; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::*;
    pub use crate::job::{Ignored, call, check};
}
