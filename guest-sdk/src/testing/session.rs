//! Sessions of a scripted model.
//!
//! In: what is appended, and the script's replies and candidates. Out: chunks, candidates,
//! usage, refusals: counted and refused as the host does.

use std::{cell::RefCell, collections::VecDeque, fmt, rc::Rc};

use super::{
    HostCall,
    host::{Answer, chat_tokens, check, refuse, stage},
    script::ScriptedModel,
    stream::Stream,
    tokens::split,
    unscripted::unscripted,
};
use crate::{
    Candidate, Chunk, FinishReason, Message, Usage,
    bindings::tussah::job::{llm::SessionOptions, types::ErrorCode},
};

/// Candidates that one call gives.
const CANDIDATES_MAX: u32 = 1024;
/// Stop texts of a session, and the bytes of each.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
/// What a token costs.
const UNITS_PER_TOKEN: u64 = 1000;
/// The logit of a reply's next token; single bytes are below 0.
const WANTED: f32 = 10.0;

/// What a model writes, token by token.
#[derive(Debug, Clone)]
pub(crate) struct Reply(pub(crate) VecDeque<Vec<u8>>);

impl Reply {
    pub(crate) fn text(text: &str) -> Self {
        Self(
            split(text)
                .into_iter()
                .map(|piece| piece.as_bytes().to_vec())
                .collect(),
        )
    }

    /// Goes on behind what the job has put in before the model was asked, where that is how
    /// the reply begins.
    fn begun(&mut self, bytes: &[u8]) {
        let whole: Vec<u8> = self.0.iter().flatten().copied().collect();
        if whole.starts_with(bytes) {
            self.skip(bytes);
        }
    }

    /// Goes on behind these bytes, if they are the ones that come next.
    fn skip(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(next) = self.0.front_mut() else {
                return;
            };
            if let Some(rest) = next.strip_prefix(bytes) {
                *next = rest.to_vec();
                if next.is_empty() {
                    self.0.pop_front();
                }
                return;
            }
            match bytes.strip_prefix(next.as_slice()) {
                Some(rest) => bytes = rest,
                None => return,
            }
            self.0.pop_front();
        }
    }
}

/// A session of a scripted model.
pub(crate) struct Session {
    name: String,
    script: Rc<RefCell<ScriptedModel>>,
    state: RefCell<State>,
}

#[derive(Clone)]
struct State {
    context_tokens_max: u32,
    tokens_left: u32,
    stream: Stream,
    prompt: String,
    shown: bool,
    generated: Vec<u8>,
    reply: Option<Reply>,
    /// The candidates of this position, once they were asked for.
    position: Option<Vec<(Vec<u8>, f32)>>,
    usage: Usage,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("model", &self.name)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn open(
        name: &str,
        script: &Rc<RefCell<ScriptedModel>>,
        options: &SessionOptions,
    ) -> Answer<Self> {
        let most = script.borrow().context_tokens_max;
        let invalid = |message: String| refuse(ErrorCode::InvalidArgument, message);
        let context_tokens_max = options.context_tokens_max.unwrap_or(most);
        if context_tokens_max == 0 {
            return invalid("a context has at least 1 token".to_owned());
        }
        if context_tokens_max > most {
            return invalid(format!(
                "a context of {context_tokens_max} tokens was asked for, the model was made for {most}"
            ));
        }
        let sampling = &options.sampling;
        let some = |value: f32| (0.001..=100.0).contains(&value);
        let (temperature, top_p) = (sampling.temperature, sampling.top_p);
        let (min_p, penalty) = (sampling.min_p, sampling.repetition_penalty);
        let temperatures = "0 for the most likely token, or 0.001 to 100";
        let min_p_fits = min_p == 0.0 || (0.000_001..=1.0).contains(&min_p);
        let top_p_fits = (0.001..=1.0).contains(&top_p);
        for (name, value, fits, wanted) in [
            (
                "temperature",
                temperature,
                temperature == 0.0 || some(temperature),
                temperatures,
            ),
            ("top-p", top_p, top_p_fits, "0.001 to 1"),
            ("min-p", min_p, min_p_fits, "0, or 0.000001 to 1"),
            ("repetition penalty", penalty, some(penalty), "0.001 to 100"),
        ] {
            if !fits {
                return invalid(format!("{name} is {value}, wanted {wanted}"));
            }
        }
        if options.stop.len() > STOPS_MAX {
            return invalid(format!(
                "{} stop strings, at most {STOPS_MAX} are allowed",
                options.stop.len()
            ));
        }
        if let Some(stop) = options
            .stop
            .iter()
            .find(|stop| !(1..=STOP_BYTES_MAX).contains(&stop.len()))
        {
            return invalid(format!(
                "a stop string has {} bytes, wanted 1 to {STOP_BYTES_MAX}",
                stop.len()
            ));
        }
        let state = State {
            context_tokens_max,
            tokens_left: match options.generated_tokens_max {
                0 => u32::MAX,
                tokens => tokens,
            },
            stream: Stream {
                stops: options.stop.clone(),
                ..Stream::default()
            },
            prompt: String::new(),
            shown: false,
            generated: Vec::new(),
            reply: None,
            position: None,
            usage: Usage {
                prompt_tokens: 0,
                generated_tokens: 0,
                inference_units: 0,
            },
        };
        Ok(Self {
            name: name.to_owned(),
            script: Rc::clone(script),
            state: RefCell::new(state),
        })
    }

    fn append(&self, tokens: u32, text: &str) -> Answer<u32> {
        check(HostCall::Append)?;
        let mut state = self.state.borrow_mut();
        state.room(tokens)?;
        state.usage.prompt_tokens += tokens;
        state.usage.inference_units += UNITS_PER_TOKEN * u64::from(tokens);
        state.prompt.push_str(text);
        state.position = None;
        Ok(tokens)
    }

    pub(crate) fn append_text(&self, text: &str) -> Answer<u32> {
        let tokens = self.script.borrow_mut().vocabulary.tokenize(text).len();
        self.append(u32::try_from(tokens).unwrap_or(u32::MAX), text)
    }

    pub(crate) fn append_tokens(&self, tokens: &[u32]) -> Answer<()> {
        let mut bytes = Vec::new();
        for token in tokens {
            bytes.extend(self.bytes(*token)?);
        }
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        self.append(count, &String::from_utf8_lossy(&bytes))
            .map(|_| ())
    }

    pub(crate) fn append_chat(&self, messages: &[Message]) -> Answer<u32> {
        let tokens = chat_tokens(&mut self.script.borrow_mut(), messages)?;
        let lines = messages
            .iter()
            .map(|message| format!("{}: {}\n", message.role, message.content));
        self.append(tokens, &lines.collect::<String>())
    }

    fn bytes(&self, token: u32) -> Answer<Vec<u8>> {
        match self.script.borrow().vocabulary.bytes(token) {
            Some(bytes) => Ok(bytes),
            None => refuse(
                ErrorCode::InvalidArgument,
                format!("token {token} is not in the model's vocabulary"),
            ),
        }
    }

    /// Before the first token: notes the prompt.
    fn settle(&self, state: &mut State) -> Answer<()> {
        if state.used() == 0 {
            return refuse(
                ErrorCode::InvalidArgument,
                "the session is empty: append a prompt first",
            );
        }
        if !std::mem::replace(&mut state.shown, true) {
            stage()
                .captured
                .borrow_mut()
                .prompts
                .push(state.prompt.clone());
        }
        Ok(())
    }

    /// The reply of this session, taken from the model's when it is first needed.
    fn reply<'a>(&self, state: &'a mut State) -> &'a mut Reply {
        if state.reply.is_none() {
            let mut script = self.script.borrow_mut();
            let reply = script.replies.pop_front();
            let asked = |reply: &mut Box<dyn FnMut(&str) -> String>| reply(&state.prompt);
            let mut reply =
                reply.or_else(|| Some(Reply::text(&script.replier.as_mut().map(asked)?)));
            if let Some(reply) = &mut reply {
                reply.begun(&state.generated);
            }
            state.reply = reply;
        }
        match &mut state.reply {
            Some(reply) => reply,
            None => unscripted(&format!(
                "the model `{0}` has no reply left: add .reply(\"...\") or .candidates(...) to Scripted::model(\"{0}\"); \
                 it was asked after the prompt:\n{1}",
                self.name, state.prompt
            )),
        }
    }

    pub(crate) fn next(&self) -> Answer<Option<Chunk>> {
        check(HostCall::Next)?;
        let mut state = self.state.borrow_mut();
        let mut chunk = Chunk {
            text: String::new(),
            tokens: Vec::new(),
        };
        while state.stream.finish.is_none() && chunk.text.is_empty() {
            if state.tokens_left == 0 || state.room(1).is_err() {
                chunk.text = state.stream.end(FinishReason::Length);
                continue;
            }
            self.settle(&mut state)?;
            match self.reply(&mut state).0.pop_front() {
                Some(token) => {
                    state.tokens_left -= 1;
                    state.take(&token);
                    chunk
                        .tokens
                        .push(self.script.borrow_mut().vocabulary.id(&token));
                    chunk.text = state.stream.push(&token);
                }
                None => chunk.text = state.stream.end(FinishReason::EndOfText),
            }
        }
        Ok((!chunk.text.is_empty() || !chunk.tokens.is_empty()).then_some(chunk))
    }

    pub(crate) fn finish_reason(&self) -> Option<FinishReason> {
        self.state.borrow().stream.finish
    }

    pub(crate) fn candidates(&self, k: u32) -> Answer<Vec<Candidate>> {
        check(HostCall::Candidates)?;
        if !(1..=CANDIDATES_MAX).contains(&k) {
            return refuse(
                ErrorCode::InvalidArgument,
                format!("{k} candidates were asked for, 1 to {CANDIDATES_MAX} can be"),
            );
        }
        let mut state = self.state.borrow_mut();
        self.settle(&mut state)?;
        if state.position.is_none() {
            let scripted = self.scripted_position(&state.generated);
            let position = scripted.unwrap_or_else(|| likely(self.reply(&mut state)));
            state.position = Some(position);
        }
        let mut script = self.script.borrow_mut();
        let position = state.position.iter().flatten();
        let mut all: Vec<Candidate> = position
            .map(|(bytes, logit)| Candidate {
                token: script.vocabulary.id(bytes),
                bytes: bytes.clone(),
                logit: *logit,
            })
            .collect();
        all.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
        all.truncate(k as usize);
        Ok(all)
    }

    fn scripted_position(&self, generated: &[u8]) -> Option<Vec<(Vec<u8>, f32)>> {
        let mut script = self.script.borrow_mut();
        let next = script.positions.pop_front();
        next.or_else(|| script.chooser.as_mut().map(|choose| choose(generated)))
    }

    pub(crate) fn accept(&self, token: u32) -> Answer<()> {
        check(HostCall::Accept)?;
        let bytes = self.bytes(token)?;
        let mut state = self.state.borrow_mut();
        state.room(1)?;
        if let Some(reply) = &mut state.reply {
            reply.skip(&bytes);
        }
        state.take(&bytes);
        Ok(())
    }

    pub(crate) fn fork(&self) -> Answer<Self> {
        check(HostCall::Fork)?;
        Ok(Self {
            name: self.name.clone(),
            script: Rc::clone(&self.script),
            state: self.state.clone(),
        })
    }

    pub(crate) fn usage(&self) -> Usage {
        self.state.borrow().usage
    }
}

impl State {
    fn used(&self) -> u32 {
        self.usage.prompt_tokens + self.usage.generated_tokens
    }

    fn room(&self, wanted: u32) -> Answer<()> {
        let (used, most) = (self.used(), self.context_tokens_max);
        if used.checked_add(wanted).is_some_and(|sum| sum <= most) {
            return Ok(());
        }
        let message = format!(
            "context is full: {used} of {most} tokens are used, {wanted} more were asked for"
        );
        refuse(ErrorCode::ContextFull, message)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.generated.extend_from_slice(bytes);
        self.position = None;
        self.usage.generated_tokens += 1;
        self.usage.inference_units += UNITS_PER_TOKEN;
    }
}

/// The reply's next token, then the single bytes: those that stand in the rest of the reply,
/// the sooner the likelier, those that close a value or a text, and all others by their number.
/// Behind the reply the end of the turn is the likeliest. So a decoder under constraints keeps to the
/// reply where it can, and comes to an end where it cannot.
fn likely(reply: &Reply) -> Vec<(Vec<u8>, f32)> {
    const AHEAD: usize = 256;
    const CLOSING: &[u8] = b"\"}].\n";
    let wanted = reply.0.front().cloned().unwrap_or_default();
    let ahead = reply.0.iter().take(AHEAD).flatten().copied();
    let mut seen = [false; 256];
    let order = ahead.chain(CLOSING.iter().copied()).chain(0..=u8::MAX);
    let order: Vec<u8> = order
        .filter(|byte| *wanted != [*byte])
        .filter(|byte| !std::mem::replace(&mut seen[usize::from(*byte)], true))
        .collect();
    let places = (0_u16..).map(|place| -1.0 - f32::from(place) / 256.0);
    let others = order.into_iter().map(|byte| vec![byte]).zip(places);
    [(wanted, WANTED)].into_iter().chain(others).collect()
}
