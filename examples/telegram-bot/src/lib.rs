//! A Telegram bot over a Tussah provider: summaries of a chat and drafts of replies.
//!
//! In: updates of the Bot API. Out: messages, each with the id of the job that wrote it, so that
//! anybody can ask for its receipt. It remembers only chats whose people said so, a bounded
//! number of messages each, in memory alone; it never logs what was said, nor a token.

mod answer;
mod chat;
pub mod config;
pub mod provider;
mod run;
pub mod store;
pub mod telegram;

pub use run::Bot;
