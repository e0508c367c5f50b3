//! Language models: loading by name, tokens, and what a session shall be like.
//!
//! In: names from the manifest, text, chat messages. Out: open sessions. The arithmetic is
//! the host's; nothing here depends on how fast or where it runs.

use std::rc::Rc;

use crate::{
    Error, Session,
    bindings::tussah::job::llm::{self, SessionOptions},
    host,
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
///
/// ```
/// use tussah_sdk::{Error, Message, Model, testing::Scripted};
///
/// fn answer(question: &str) -> Result<String, Error> {
///     let model = Model::load("smollm2")?;
///     let messages = [Message::system("Answer in one word."), Message::user(question)];
///     model.session().generated_tokens_max(8).stop(".").open_chat(&messages)?.text()
/// }
///
/// let script = Scripted::model("smollm2").reply("Blue. Really.");
/// assert_eq!(script.scope(|| answer("Which colour has the sky?")).0?, "Blue");
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Model {
    pub(crate) inner: Rc<host::Model>,
}

impl Model {
    /// Loads the model that the manifest calls `name`.
    ///
    /// # Errors
    /// `UnknownModel` if the manifest has no such name, `OutOfMemory` or `ModelFailed`
    /// if the host cannot load it.
    pub fn load(name: &str) -> Result<Self, Error> {
        Ok(Self {
            inner: Rc::new(host::Model::load(name).map_err(Error::from_host)?),
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

    /// Ends the generation before this text, which is not part of the output; may be given
    /// up to 16 times, 1 to 1,024 bytes each.
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
        let opened = self.model.inner.session(&self.options);
        Ok(Session::new(
            opened.map_err(Error::from_host)?,
            &self.model.inner,
        ))
    }

    /// Opens the session and appends messages, ready for the assistant's answer.
    ///
    /// # Errors
    /// Those of [`SessionBuilder::open`] and [`Session::append_chat`].
    pub fn open_chat(self, messages: &[Message]) -> Result<Session, Error> {
        let mut session = self.open()?;
        session.append_chat(messages)?;
        Ok(session)
    }

    /// Opens the session and appends text, for the model to go on with.
    ///
    /// # Errors
    /// Those of [`SessionBuilder::open`] and [`Session::append`].
    pub fn open_text(self, text: &str) -> Result<Session, Error> {
        let mut session = self.open()?;
        session.append(text)?;
        Ok(session)
    }
}
