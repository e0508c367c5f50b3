//! What a scripted host answers.
//!
//! In: a builder's calls, then a job. Out: how it ran. A script is used up by its run.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use super::{Captured, Ran, host, session::Reply, tokens::Vocabulary, unscripted::Ended, words};
use crate::{Error, ErrorCode, FromInput, IntoOutcome, nn::Tensor};

/// Tokens of context where the script does not say.
const CONTEXT_TOKENS: u32 = 2048;

/// A host call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HostCall {
    /// [`Model::load`](crate::Model::load) and [`Graph::load`](crate::nn::Graph::load).
    Load,
    /// [`SessionBuilder::open`](crate::SessionBuilder::open).
    Open,
    /// Everything that appends to a session.
    Append,
    /// The next chunk of a session.
    Next,
    /// [`Session::candidates`](crate::Session::candidates).
    Candidates,
    /// [`Session::accept`](crate::Session::accept).
    Accept,
    /// [`Session::fork`](crate::Session::fork).
    Fork,
    /// [`Model::embed`](crate::Model::embed).
    Embed,
    /// [`Graph::compute`](crate::nn::Graph::compute).
    Compute,
    /// [`emit`](crate::emit).
    Emit,
}

/// Candidates of one position: bytes and logits.
pub(crate) type Position = Vec<(Vec<u8>, f32)>;
type Replier = dyn FnMut(&str) -> String;
type Chooser = dyn FnMut(&[u8]) -> Position;
type Embedder = dyn FnMut(&str) -> Vec<f32>;
type Computer = dyn FnMut(&[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Error>;

/// One scripted model.
pub(crate) struct ScriptedModel {
    pub(crate) context_tokens_max: u32,
    pub(crate) chat: bool,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) replier: Option<Box<Replier>>,
    pub(crate) positions: VecDeque<Position>,
    pub(crate) chooser: Option<Box<Chooser>>,
    pub(crate) embeddings: BTreeMap<String, Vec<f32>>,
    pub(crate) embedding_length: u32,
    pub(crate) embedder: Option<Box<Embedder>>,
    pub(crate) computer: Option<Box<Computer>>,
    pub(crate) vocabulary: Vocabulary,
}

/// A call that is to fail, once.
pub(crate) struct Failure {
    pub(crate) call: HostCall,
    /// Which of its kind, from 1; the next if it does not matter.
    pub(crate) nth: Option<u32>,
    pub(crate) error: Error,
}

/// What happens on this thread while a script runs.
pub(crate) struct Stage {
    pub(crate) models: BTreeMap<String, Rc<RefCell<ScriptedModel>>>,
    pub(crate) failures: RefCell<Vec<Failure>>,
    /// How often each call was made.
    pub(crate) calls: RefCell<BTreeMap<HostCall, u32>>,
    pub(crate) output_bytes_max: usize,
    pub(crate) captured: RefCell<Captured>,
}

/// A host with scripted models; see [`testing`](super) for how it counts.
///
/// Each call concerns the model that was named last.
#[must_use = "nothing happens until `run` or `scope`"]
pub struct Scripted {
    stage: Stage,
    current: String,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.stage.models.keys().collect();
        formatter
            .debug_struct("Scripted")
            .field("models", &names)
            .finish_non_exhaustive()
    }
}

impl Scripted {
    /// A host without any model.
    pub fn nothing() -> Self {
        let stage = Stage {
            models: BTreeMap::new(),
            failures: RefCell::default(),
            calls: RefCell::default(),
            output_bytes_max: usize::MAX,
            captured: RefCell::default(),
        };
        Self {
            stage,
            current: String::new(),
        }
    }

    /// A host with one model of this name.
    pub fn model(name: &str) -> Self {
        Self::nothing().and_model(name)
    }

    /// One more model; what follows concerns it.
    pub fn and_model(mut self, name: &str) -> Self {
        let model = ScriptedModel {
            context_tokens_max: CONTEXT_TOKENS,
            chat: true,
            replies: VecDeque::new(),
            replier: None,
            positions: VecDeque::new(),
            chooser: None,
            embeddings: BTreeMap::new(),
            embedding_length: 0,
            embedder: None,
            computer: None,
            vocabulary: Vocabulary::default(),
        };
        self.stage
            .models
            .insert(name.to_owned(), Rc::new(RefCell::new(model)));
        name.clone_into(&mut self.current);
        self
    }

    fn with(self, change: impl FnOnce(&mut ScriptedModel)) -> Self {
        match self.stage.models.get(&self.current) {
            Some(model) => change(&mut model.borrow_mut()),
            None => panic!("name a model first: Scripted::model(\"NAME\")"),
        }
        self
    }

    /// The tokens of context that the model was made for.
    pub fn context_tokens_max(self, tokens: u32) -> Self {
        self.with(|model| model.context_tokens_max = tokens)
    }

    /// The model has no chat template.
    pub fn without_chat(self) -> Self {
        self.with(|model| model.chat = false)
    }

    /// What the next session that generates writes.
    pub fn reply(self, text: &str) -> Self {
        self.with(|model| model.replies.push_back(Reply::text(text)))
    }

    /// What every session writes that has no [`Scripted::reply`] left, from the prompt as
    /// [`Captured::prompts`] shows it.
    ///
    /// ```
    /// use tussah_sdk::{Error, Model, testing::Scripted};
    ///
    /// let script = Scripted::model("m").reply("first").replies_with(|prompt| prompt.to_uppercase());
    /// let (texts, _) = script.scope(|| {
    ///     let model = Model::load("m")?;
    ///     let ask = |prompt| model.session().open_text(prompt)?.text();
    ///     Ok::<_, Error>([ask("one")?, ask("two")?])
    /// });
    /// assert_eq!(texts?, ["first", "TWO"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn replies_with(self, reply: impl FnMut(&str) -> String + 'static) -> Self {
        self.with(|model| model.replier = Some(Box::new(reply)))
    }

    /// The same, token by token; tokens need not be whole characters.
    pub fn reply_tokens<T: AsRef<[u8]>>(self, tokens: impl IntoIterator<Item = T>) -> Self {
        let tokens = tokens
            .into_iter()
            .map(|token| token.as_ref().to_vec())
            .collect();
        self.with(|model| model.replies.push_back(Reply(tokens)))
    }

    /// The candidates of the next position that is asked for any: bytes and logits, in any
    /// order. Empty bytes stand for the end of the model's turn.
    pub fn candidates<T: AsRef<[u8]>>(self, list: impl IntoIterator<Item = (T, f32)>) -> Self {
        let list = list
            .into_iter()
            .map(|(bytes, logit)| (bytes.as_ref().to_vec(), logit))
            .collect();
        self.with(|model| model.positions.push_back(list))
    }

    /// The candidates of every position, from the bytes that the session has generated.
    pub fn candidates_with(
        self,
        choose: impl FnMut(&[u8]) -> Vec<(Vec<u8>, f32)> + 'static,
    ) -> Self {
        self.with(|model| model.chooser = Some(Box::new(choose)))
    }

    /// The embedding of a text; it is scaled to length 1.
    pub fn embedding(self, text: &str, vector: &[f32]) -> Self {
        self.with(|model| {
            model.embedding_length = length(vector);
            model.embeddings.insert(text.to_owned(), vector.to_vec());
        })
    }

    /// The embedding of every text that has none yet; scaled to length 1.
    pub fn embeddings_with(
        self,
        length: u32,
        embed: impl FnMut(&str) -> Vec<f32> + 'static,
    ) -> Self {
        self.with(|model| {
            model.embedding_length = length;
            model.embedder = Some(Box::new(embed));
        })
    }

    /// Embeds every text that has no embedding yet by the words that it has: 256 values, in
    /// which texts with words in common are close to each other, and no others.
    pub fn embeds_words(self) -> Self {
        self.embeddings_with(words::LENGTH, words::of)
    }

    /// What the model computes as a graph of `wasi:nn`.
    pub fn computes(
        self,
        compute: impl FnMut(&[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Error> + 'static,
    ) -> Self {
        self.with(|model| model.computer = Some(Box::new(compute)))
    }

    /// Makes the next such call fail, once.
    pub fn fails(self, call: HostCall, code: ErrorCode, message: &str) -> Self {
        self.failure(call, None, Error::with_code(code, message))
    }

    /// Makes the `nth` such call fail, counted from 1 over all models and sessions.
    pub fn fails_at(self, call: HostCall, nth: u32, code: ErrorCode, message: &str) -> Self {
        self.failure(call, Some(nth), Error::with_code(code, message))
    }

    fn failure(self, call: HostCall, nth: Option<u32>, error: Error) -> Self {
        let failure = Failure { call, nth, error };
        self.stage.failures.borrow_mut().push(failure);
        self
    }

    /// The manifest's `output_bytes_max`: the byte over it ends the job. The run's result is
    /// an error with [`ErrorCode::LimitExceeded`] then, which the job itself never sees.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.stage.output_bytes_max = bytes;
        self
    }

    /// Runs a job on an input, as the host does.
    ///
    /// # Panics
    /// If the job calls what is not scripted; the message says what to script.
    pub fn run<I: FromInput, O: IntoOutcome>(
        self,
        job: impl FnOnce(I) -> O,
        input: impl AsRef<[u8]>,
    ) -> Ran {
        let input = input.as_ref().to_vec();
        let (result, output) = self.scope(|| {
            let ended = catch_unwind(AssertUnwindSafe(|| crate::job::run(job, input)));
            ended.unwrap_or_else(|thrown| match thrown.downcast::<Ended>() {
                Ok(ended) => Err(Error::with_code(ErrorCode::LimitExceeded, ended.0)),
                Err(thrown) => resume_unwind(thrown),
            })
        });
        Ran { result, output }
    }

    /// Runs anything that makes host calls; returns its value and what was emitted.
    ///
    /// # Panics
    /// As [`Scripted::run`].
    pub fn scope<T>(self, body: impl FnOnce() -> T) -> (T, Captured) {
        let stage = Rc::new(self.stage);
        let guard = host::enter(&stage);
        let ended = catch_unwind(AssertUnwindSafe(body));
        drop(guard);
        let value = ended.unwrap_or_else(|thrown| match thrown.downcast::<Ended>() {
            Ok(ended) => panic!("{}", ended.0),
            Err(thrown) => resume_unwind(thrown),
        });
        let captured = stage.captured.borrow().clone();
        (value, captured)
    }
}

fn length(vector: &[f32]) -> u32 {
    u32::try_from(vector.len()).unwrap_or(u32::MAX)
}
