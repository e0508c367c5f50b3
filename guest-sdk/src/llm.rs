//! Language models: loading by name, sessions, streaming.
//!
//! In: names from the manifest, text, chat messages. Out: text as it is generated. The
//! arithmetic is the host's; nothing here depends on how fast or where it runs.

use crate::{
    Error,
    bindings::tussah::job::llm::{self, SessionOptions},
};

pub use llm::{Candidate, Chunk, FinishReason, Message, ModelInfo, Usage};

impl Message {
    /// A message of the `system` role: what the assistant shall be.
    pub fn system(content: impl Into<String>) -> Self {
        Self {
            role: "system".into(),
            content: content.into(),
        }
    }

    /// A message of the `user` role.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: "user".into(),
            content: content.into(),
        }
    }

    /// A message of the `assistant` role: what the model answered before.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self {
            role: "assistant".into(),
            content: content.into(),
        }
    }
}

/// A loaded model; cheap to load twice.
#[derive(Debug)]
pub struct Model {
    inner: llm::Model,
}

impl Model {
    /// Loads the model that the manifest calls `name`.
    ///
    /// # Errors
    /// `UnknownModel` if the manifest has no such name, `OutOfMemory` or `ModelFailed`
    /// if the host cannot load it.
    pub fn load(name: &str) -> Result<Self, Error> {
        Ok(Self {
            inner: llm::Model::load(name).map_err(Error::from_host)?,
        })
    }

    /// What the model says of itself.
    pub fn info(&self) -> ModelInfo {
        self.inner.info()
    }

    /// Text to token ids; special tokens in the text are not interpreted.
    ///
    /// # Errors
    /// `InvalidArgument` if the vocabulary cannot express the text.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.inner.tokenize(text).map_err(Error::from_host)
    }

    /// Token ids to bytes, which need not be whole characters.
    ///
    /// # Errors
    /// `InvalidArgument` if a token is not in the vocabulary.
    pub fn detokenize(&self, tokens: &[u32]) -> Result<Vec<u8>, Error> {
        self.inner.detokenize(tokens).map_err(Error::from_host)
    }

    /// How many tokens a conversation takes, with the model's template around it.
    ///
    /// # Errors
    /// `UnsupportedOperation` if the model has no chat template or the template refuses
    /// these messages.
    pub fn count_chat_tokens(&self, messages: &[Message]) -> Result<u32, Error> {
        self.inner
            .count_chat_tokens(messages)
            .map_err(Error::from_host)
    }

    /// Starts the description of a session: greedy, without stop texts, as long as the
    /// context lasts, until told otherwise.
    pub fn session(&self) -> SessionBuilder<'_> {
        SessionBuilder {
            model: self,
            options: SessionOptions {
                context_tokens_max: None,
                sampling: llm::Sampling {
                    temperature: 0.0,
                    top_k: 0,
                    top_p: 1.0,
                    min_p: 0.0,
                    repetition_penalty: 1.0,
                    seed: 0,
                },
                generated_tokens_max: 0,
                stop: Vec::new(),
            },
        }
    }
}

/// What a session shall be like; `open` opens it.
#[derive(Debug)]
#[must_use = "nothing happens until `open`"]
pub struct SessionBuilder<'a> {
    model: &'a Model,
    options: SessionOptions,
}

impl SessionBuilder<'_> {
    /// Tokens of context to reserve, prompt and answer together.
    pub fn context_tokens_max(mut self, tokens: u32) -> Self {
        self.options.context_tokens_max = Some(tokens);
        self
    }

    /// Generates at most so many tokens; 0 means no limit but the context.
    pub fn generated_tokens_max(mut self, tokens: u32) -> Self {
        self.options.generated_tokens_max = tokens;
        self
    }

    /// 0 takes the likeliest token, larger is more random; 0 to 100.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.options.sampling.temperature = temperature;
        self
    }

    /// Considers only the k likeliest tokens; 0 means all.
    pub fn top_k(mut self, k: u32) -> Self {
        self.options.sampling.top_k = k;
        self
    }

    /// Considers only the smallest set of tokens whose probability reaches `p`; 1 means all.
    pub fn top_p(mut self, p: f32) -> Self {
        self.options.sampling.top_p = p;
        self
    }

    /// Considers only tokens at least `p` times as likely as the likeliest; 0 means all.
    pub fn min_p(mut self, p: f32) -> Self {
        self.options.sampling.min_p = p;
        self
    }

    /// Makes tokens that were seen before less likely; 1 means off.
    pub fn repetition_penalty(mut self, penalty: f32) -> Self {
        self.options.sampling.repetition_penalty = penalty;
        self
    }

    /// Mixed into the request's own seed: another number gives other tokens.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.sampling.seed = seed;
        self
    }

    /// Ends the generation before this text; may be given up to 16 times.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.options.stop.push(text.into());
        self
    }

    /// Opens the session.
    ///
    /// # Errors
    /// `InvalidArgument` for a number out of its range, `LimitExceeded` if the context
    /// does not fit the job's memory limit, `OutOfMemory` if the host has none left.
    pub fn open(self) -> Result<Session, Error> {
        Ok(Session {
            inner: self
                .model
                .inner
                .session(&self.options)
                .map_err(Error::from_host)?,
        })
    }
}

/// One sequence of tokens with its context.
///
/// It is an iterator over what it generates: `for chunk in &mut session`.
#[derive(Debug)]
pub struct Session {
    inner: llm::Session,
}

impl Session {
    /// Appends text, of which special tokens are not interpreted; returns how many
    /// tokens it took.
    ///
    /// # Errors
    /// `ContextFull` if they do not fit; nothing was appended then.
    pub fn append(&mut self, text: &str) -> Result<u32, Error> {
        self.inner.append_text(text).map_err(Error::from_host)
    }

    /// Appends token ids.
    ///
    /// # Errors
    /// `ContextFull` if they do not fit, `InvalidArgument` if one is not in the
    /// vocabulary; nothing was appended then.
    pub fn append_tokens(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.inner.append_tokens(tokens).map_err(Error::from_host)
    }

    /// Appends messages in the model's chat template, then the opening of the assistant's
    /// turn; returns how many tokens it took.
    ///
    /// # Errors
    /// `ContextFull` if they do not fit, `UnsupportedOperation` if the model has no chat
    /// template or the template refuses the messages; nothing was appended then.
    pub fn append_chat(&mut self, messages: &[Message]) -> Result<u32, Error> {
        self.inner.append_chat(messages).map_err(Error::from_host)
    }

    /// The next piece of text; `None` when the generation has ended.
    ///
    /// # Errors
    /// `ContextFull` when the context is used up, `ModelFailed` if the model's numbers went bad.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.inner.next().map_err(Error::from_host)
    }

    /// All that is left to generate, in one text.
    ///
    /// # Errors
    /// Those of [`Session::next_chunk`].
    pub fn text(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        while let Some(chunk) = self.next_chunk()? {
            text.push_str(&chunk.text);
        }
        Ok(text)
    }

    /// Why the generation ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.inner.finish_reason()
    }

    /// The `k` likeliest next tokens, likeliest first; `k` is 1 to 1024.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was appended yet or `k` is out of range.
    pub fn candidates(&self, k: u32) -> Result<Vec<Candidate>, Error> {
        self.inner.candidates(k).map_err(Error::from_host)
    }

    /// Takes a token as the next one, in place of sampling.
    ///
    /// # Errors
    /// Those of [`Session::append_tokens`].
    pub fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.inner.accept(token).map_err(Error::from_host)
    }

    /// A second session with the same tokens behind it, which costs no inference.
    ///
    /// # Errors
    /// `LimitExceeded` or `OutOfMemory` if there is no room for its context.
    pub fn fork(&self) -> Result<Self, Error> {
        Ok(Self {
            inner: self.inner.fork().map_err(Error::from_host)?,
        })
    }

    /// What the session has used so far.
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

impl Iterator for Session {
    type Item = Result<Chunk, Error>;

    /// Ends after the first error.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_chunk().transpose()
    }
}
