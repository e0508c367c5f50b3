//! One sequence of tokens: what is appended, and what the model makes of it.
//!
//! In: text, chat messages, tokens. Out: text as it is generated, or the likeliest tokens
//! for a job that chooses by itself. A session that was closed answers with an error.

use std::{fmt, rc::Rc};

use crate::{Candidate, Chunk, Error, ErrorCode, FinishReason, Message, Output, Usage, host};

/// One sequence of tokens with its context.
///
/// It is an iterator over what it generates (`for chunk in &mut session`), and a job may
/// return it to stream it. A session generates once: after its end it stays ended, so a
/// further turn of a conversation takes a session of its own, or a fork made before.
///
/// ```
/// use tussah_sdk::{Error, FinishReason, Message, Model, testing::Scripted};
///
/// fn two_drafts(question: &str) -> Result<[String; 2], Error> {
///     let model = Model::load("smollm2")?;
///     let mut first = model.session().generated_tokens_max(50).open_chat(&[Message::user(question)])?;
///     let mut second = first.fork()?; // the prompt is not read again
///     let shown = first.generate_with(|chunk| {
///         tussah_sdk::log(format_args!("{} tokens", chunk.tokens.len()));
///         Ok(())
///     })?;
///     assert_eq!(shown.finish_reason, FinishReason::EndOfText);
///     Ok([shown.text, second.text()?])
/// }
///
/// let script = Scripted::model("smollm2").reply("One.").reply("Another.");
/// assert_eq!(script.scope(|| two_drafts("Hm?")).0?, ["One.", "Another."]);
/// # Ok::<(), Error>(())
/// ```
pub struct Session {
    /// None once it was closed.
    inner: Option<host::Session>,
    model: Rc<host::Model>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("open", &self.inner.is_some())
            .finish_non_exhaustive()
    }
}

/// What a session generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// All of it.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

impl Session {
    pub(crate) fn new(inner: host::Session, model: &Rc<host::Model>) -> Self {
        Self {
            inner: Some(inner),
            model: Rc::clone(model),
        }
    }

    fn open(&self) -> Result<&host::Session, Error> {
        self.inner.as_ref().ok_or_else(|| {
            Error::with_code(
                ErrorCode::InvalidArgument,
                "the session was closed: open another one",
            )
        })
    }

    /// Appends text, of which special tokens are not interpreted; returns how many
    /// tokens it took.
    ///
    /// # Errors
    /// `ContextFull` if they do not fit; nothing was appended then.
    pub fn append(&mut self, text: &str) -> Result<u32, Error> {
        self.open()?.append_text(text).map_err(Error::from_host)
    }

    /// Appends token ids.
    ///
    /// # Errors
    /// `ContextFull` if they do not fit, `InvalidArgument` if one is not in the
    /// vocabulary; nothing was appended then.
    pub fn append_tokens(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.open()?.append_tokens(tokens).map_err(Error::from_host)
    }

    /// Appends messages in the model's chat template, then the opening of the assistant's
    /// turn; returns how many tokens it took.
    ///
    /// # Errors
    /// `ContextFull` if they do not fit, `UnsupportedOperation` if the model has no chat
    /// template or the template refuses the messages; nothing was appended then.
    pub fn append_chat(&mut self, messages: &[Message]) -> Result<u32, Error> {
        self.open()?.append_chat(messages).map_err(Error::from_host)
    }

    /// The next piece of text, whole characters; `None` when the generation has ended. A
    /// full context is an end ([`FinishReason::Length`]), not an error.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was appended yet, `ModelFailed` if the model's numbers
    /// went bad.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.open()?.next().map_err(Error::from_host)
    }

    /// Generates to the end and hands over each chunk.
    ///
    /// # Errors
    /// Those of [`Session::next_chunk`], and what the function returns.
    pub fn generate_with(
        &mut self,
        mut with: impl FnMut(&Chunk) -> Result<(), Error>,
    ) -> Result<Generated, Error> {
        let mut text = String::new();
        while let Some(chunk) = self.next_chunk()? {
            with(&chunk)?;
            text.push_str(&chunk.text);
        }
        let finish_reason = self.finish_reason().unwrap_or(FinishReason::Length);
        Ok(Generated {
            text,
            finish_reason,
        })
    }

    /// Generates to the end, emits each chunk as it comes, and returns it all.
    ///
    /// # Errors
    /// Those of [`Session::next_chunk`] and [`emit`](crate::emit).
    pub fn stream(&mut self) -> Result<Generated, Error> {
        self.stream_to(&mut Output)
    }

    /// Generates to the end and writes each chunk as it comes.
    ///
    /// # Errors
    /// Those of [`Session::next_chunk`] and of the writer.
    pub fn stream_to(&mut self, writer: &mut impl std::io::Write) -> Result<Generated, Error> {
        self.generate_with(|chunk| Ok(writer.write_all(chunk.text.as_bytes())?))
    }

    /// All that is left to generate, in one text.
    ///
    /// # Errors
    /// Those of [`Session::next_chunk`].
    pub fn text(&mut self) -> Result<String, Error> {
        Ok(self.generate_with(|_| Ok(()))?.text)
    }

    /// Why the generation ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.inner.as_ref()?.finish_reason()
    }

    /// The `k` likeliest next tokens, likeliest first, lower id first on ties; `k` is 1 to 1024.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was appended yet or `k` is out of range.
    pub fn candidates(&self, k: u32) -> Result<Vec<Candidate>, Error> {
        self.open()?.candidates(k).map_err(Error::from_host)
    }

    /// Takes a token as the next one, in place of sampling.
    ///
    /// # Errors
    /// Those of [`Session::append_tokens`].
    pub fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.open()?.accept(token).map_err(Error::from_host)
    }

    /// Text to token ids of the session's model.
    ///
    /// # Errors
    /// `InvalidArgument` if the vocabulary cannot express the text.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.model.tokenize(text).map_err(Error::from_host)
    }

    /// A second session with the same tokens behind it, which costs memory and no inference.
    ///
    /// # Errors
    /// `LimitExceeded` or `OutOfMemory` if there is no room for its context.
    pub fn fork(&self) -> Result<Self, Error> {
        let forked = self.open()?.fork().map_err(Error::from_host)?;
        Ok(Self::new(forked, &self.model))
    }

    /// Gives the session's context back before the session is dropped; whatever is asked of
    /// it later is `InvalidArgument`.
    pub fn close(&mut self) {
        self.inner = None;
    }

    /// What the session has used so far; zeros once it was closed.
    pub fn usage(&self) -> Usage {
        let nothing = Usage {
            prompt_tokens: 0,
            generated_tokens: 0,
            inference_units: 0,
        };
        self.inner.as_ref().map_or(nothing, host::Session::usage)
    }
}

impl Iterator for Session {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_chunk().transpose()
    }
}
