//! `tussah:job/llm`: models and sessions as guests of the job world see them.
//!
//! In: names, text, tokens, options from the guest, none of it trusted. Out: tokens, text
//! and vectors. What is asked for is checked here and done by `models.rs`, `sessions.rs`
//! and `embeddings.rs`; each call goes into the transcript.

pub(crate) mod model;
mod session;

use tussah_inference::TokenId;

use super::{
    bindings::tussah::job::{
        llm::{self, Message},
        types::Error,
    },
    guest::Guest,
    limiter::Stop,
};

impl Guest {
    /// Writes a call into the transcript with what the guest got of it.
    fn record_answer<T>(
        &mut self,
        call: &str,
        arguments: &[u8],
        answer: &Result<T, Error>,
        results: impl FnOnce(&T) -> Vec<u8>,
    ) -> Result<(), Stop> {
        let results = match answer {
            Ok(value) => results(value),
            Err(error) => vec![0xff, error.code as u8],
        };
        self.record(call, arguments, &results)
    }
}

fn token_bytes(tokens: &[TokenId]) -> Vec<u8> {
    tokens
        .iter()
        .flat_map(|token| token.0.to_le_bytes())
        .collect()
}

fn chat_bytes(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in messages
        .iter()
        .flat_map(|message| [&message.role, &message.content])
    {
        text_bytes(&mut bytes, text);
    }
    bytes
}

/// A text after its length, so that no two lists of texts are the same bytes.
fn text_bytes(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

impl llm::Host for Guest {}
