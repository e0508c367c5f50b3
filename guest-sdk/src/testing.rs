//! A scripted host, so that a job's logic runs under plain `cargo test`.
//!
//! In: a script: which models there are, and what they answer. Out: what the job emitted,
//! its progress, its log, the prompts it wrote, and its error. No model is loaded and no
//! module is built; this part of the SDK does not exist in a module.
//!
//! ```
//! use tussah_sdk::{Error, Message, Model, Session, job, testing::Scripted};
//!
//! #[job]
//! fn run(question: String) -> Result<Session, Error> {
//!     Model::load("smollm2")?.session().open_chat(&[Message::user(question)])
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let ran = Scripted::model("smollm2").reply("It is blue.").run(run, "Which colour?");
//! ran.result?;
//! assert_eq!(ran.output.text(), "It is blue.");
//! assert!(ran.output.prompts[0].contains("Which colour?"));
//! # Ok(())
//! # }
//! ```
//!
//! # How a scripted host counts
//!
//! - **Tokens.** A run of letters and digits with the space before it is a token, and so
//!   is every other character; bytes that are no characters are tokens by themselves.
//! - **Chats.** A message takes the tokens of its role and its content and 2 more; the
//!   opening of the assistant's turn takes 2.
//! - **Context.** 2,048 tokens unless [`Scripted::context_tokens_max`] says otherwise.
//!   What does not fit is `ContextFull` and changes nothing; a generation that fills the
//!   context ends with `FinishReason::Length`.
//! - **Replies.** Each session that generates takes the next reply of its model, a token a
//!   chunk, and ends with `EndOfText` behind it. Stop texts, `generated_tokens_max`, the
//!   ranges of options and of `k`, and half characters are as on the host. So is that a
//!   session generates once.
//! - **Candidates.** [`Scripted::candidates`] scripts the next one position; at a position
//!   without them the reply's next token is the likeliest, then the single bytes: those of
//!   the rest of the reply, the sooner the likelier, quotes, brackets and line ends, all others.
//! - **Units.** 1,000 a token.
//! - **Threads.** A script holds for its own thread and its own call alone.
//! - **Output.** [`Scripted::output_bytes_max`] ends the job at the byte over it, as the
//!   manifest's limit does; fuel, memory, host calls and time are not counted.
//! - **Sampling** is checked as on the host and then ignored: the reply is what is generated.
//!
//! A call for which there is no script panics, says what to script, and names the job's line.

mod captured;
pub(crate) mod host;
mod script;
mod session;
mod stream;
mod tokens;
mod unscripted;
mod words;

pub use captured::{Captured, Progress, Ran};
pub use script::{HostCall, Scripted};
