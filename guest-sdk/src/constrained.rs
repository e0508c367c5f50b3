//! Answers under a JSON schema, token by token.
//!
//! In: a session with a prompt, a schema. Out: JSON that parses and satisfies the schema,
//! whatever the model wants and however little room there is. The likeliest token that the
//! schema allows is taken; where the schema allows only one way to go on, or none of the 1,024
//! likeliest tokens fits, the schema's own bytes are put in, as the tokens that the model
//! would read them in. Before each step it is asked what the shortest ending behind it takes,
//! so that an answer ends, valid, within its tokens.

use serde::de::DeserializeOwned;

use crate::{
    Candidate, Error, ErrorCode, Sampler, Session, from_json,
    json_schema::{Matcher, Schema},
};

/// How many candidates are looked at, one number after the other until one fits.
const CANDIDATES: [u32; 3] = [16, 128, 1024];
/// Bytes that can only come so, from which on the model is not asked. A single one, such as the
/// quote that opens a text, is better left to it: it may be the beginning of a longer token.
const FORCED_MIN: usize = 2;
/// Tokens of an answer where nothing else was said.
const TOKENS_MAX: u32 = 512;

/// An answer under a schema, not generated yet; made by [`Session::json`].
///
/// ```
/// use serde::Deserialize;
/// use tussah_sdk::{Error, Message, Model, json_schema::Schema, testing::Scripted};
///
/// #[derive(Debug, Deserialize, PartialEq)]
/// struct Person {
///     name: String,
///     age: u8,
/// }
///
/// fn person(text: &str) -> Result<Person, Error> {
///     let schema = Schema::parse(
///         r#"{
///             "type": "object",
///             "properties": {
///                 "name": {"type": "string", "maxLength": 40},
///                 "age": {"type": "integer", "minimum": 0, "maximum": 150}
///             },
///             "required": ["name", "age"]
///         }"#,
///     )?;
///     let mut session = Model::load("smollm2")?.session().open_chat(&[Message::user(text)])?;
///     session.json(&schema).tokens_max(100).read()
/// }
///
/// // The scripted model wants to chat; what comes out is the schema's JSON all the same.
/// let script = Scripted::model("smollm2").reply(r#"{"name": "Ada", "age": 1815}"#);
/// let found = script.scope(|| person("Who was Ada?")).0?;
/// assert_eq!(found, Person { name: "Ada".into(), age: 18 });
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is generated until `text`, `read` or `generate_with`"]
pub struct Constrained<'a> {
    session: &'a mut Session,
    matcher: Matcher,
    tokens_max: u32,
    temperature: f32,
    top_p: f32,
    seed: u64,
}

/// Why an answer under a schema ended. It is valid in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The model brought it to its end.
    Complete,
    /// The model's next token would have left too few for an end; the shortest one was put in.
    TokensMax,
    /// The session's context was full; the shortest ending was put in.
    ContextFull,
}

impl Session {
    /// Prepares an answer under a schema: at most 512 tokens, the likeliest ones, until told
    /// otherwise.
    pub fn json(&mut self, schema: &Schema) -> Constrained<'_> {
        Constrained {
            session: self,
            matcher: schema.matcher(),
            tokens_max: TOKENS_MAX,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
        }
    }
}

impl Constrained<'_> {
    /// Ends the answer within so many tokens: where the next one would leave too few for an
    /// end, the shortest end is put in instead. Only where the schema's shortest answer, that
    /// of [`Matcher::completion`] at the beginning, has more tokens does the answer have as
    /// many as that one.
    pub fn tokens_max(mut self, tokens: u32) -> Self {
        self.tokens_max = tokens;
        self
    }

    /// 0, the default, takes the likeliest token that fits; larger draws among those of the
    /// 16 likeliest that fit (of more where none of them does). 0 to 100.
    ///
    /// The draws follow from the request and from [`Constrained::seed`]: the same request
    /// gives the same answer.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Draws only among the smallest set of those tokens whose probability together reaches
    /// `p`; 1, the default, means all of them. 0 to 1, where 0 leaves the likeliest.
    pub fn top_p(mut self, p: f32) -> Self {
        self.top_p = p;
        self
    }

    /// Mixed into the request's own seed: another number gives another answer.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Generates the answer.
    ///
    /// # Errors
    /// Those of [`Session::candidates`] and [`Session::accept`], but for a full context,
    /// which only ends the answer; `InvalidArgument` for a temperature or a `top_p` out of
    /// its range.
    pub fn text(self) -> Result<String, Error> {
        let mut text = String::new();
        self.generate_with(|piece| {
            text.push_str(piece);
            Ok(())
        })?;
        Ok(text)
    }

    /// Generates the answer and reads it.
    ///
    /// # Errors
    /// As [`Constrained::text`]; `InvalidJson` if the schema allows what the type does not.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Error> {
        from_json(self.text()?)
    }

    /// Generates the answer and hands it over piece by piece, whole characters each.
    ///
    /// # Errors
    /// As [`Constrained::text`], and what the function returns.
    pub fn generate_with(
        mut self,
        mut piece: impl FnMut(&str) -> Result<(), Error>,
    ) -> Result<Ended, Error> {
        for (name, value, most) in [
            ("temperature", self.temperature, 100.0),
            ("top_p", self.top_p, 1.0),
        ] {
            if !(0.0..=most).contains(&value) {
                let message = format!("a {name} of {value}, 0 to {most} can be");
                return Err(Error::with_code(ErrorCode::InvalidArgument, message));
            }
        }
        let mut draws = Sampler::new(self.temperature, self.top_p, self.seed);
        let mut held = Held::default();
        let mut ended = Ended::TokensMax;
        let mut left = self.tokens_max as usize;
        while !self.matcher.is_closed() && left > 0 {
            let (bytes, tokens) = match self.pick(&mut draws)? {
                Pick::End => {
                    ended = Ended::Complete;
                    break;
                }
                Pick::Token(candidate) => (candidate.bytes, vec![candidate.token]),
                Pick::Bytes(bytes) => {
                    let tokens = self.tokens(&bytes)?;
                    (bytes, tokens)
                }
            };
            let Some(behind) = left.checked_sub(tokens.len()) else {
                break;
            };
            if !self.ends_within(&bytes, behind)? {
                break;
            }
            match self.accept(&tokens) {
                Ok(()) => self.advance(&bytes)?,
                Err(error) if error.code() == ErrorCode::ContextFull => {
                    ended = Ended::ContextFull;
                    break;
                }
                Err(error) => return Err(error),
            }
            held.add(&bytes, &mut piece)?;
            left = behind;
        }
        if !self.matcher.is_complete() {
            let rest = self.matcher.completion();
            self.advance(&rest)?;
            held.add(&rest, &mut piece)?;
            let tokens = self.tokens(&rest)?;
            match self.accept(&tokens) {
                Err(error) if error.code() != ErrorCode::ContextFull => return Err(error),
                _ => {}
            }
        } else if self.matcher.is_closed() {
            ended = Ended::Complete;
        }
        Ok(ended)
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.matcher.advance(bytes) {
            return Ok(());
        }
        // A mistake of ours; better no answer than one that breaks the schema.
        Err(Error::with_code(
            ErrorCode::Unknown,
            "the schema's automaton contradicts itself",
        ))
    }

    fn pick(&self, draws: &mut Sampler) -> Result<Pick, Error> {
        let forced = self.only();
        if forced.len() >= FORCED_MIN {
            return Ok(Pick::Bytes(forced));
        }
        for count in CANDIDATES {
            let candidates = self.session.candidates(count)?;
            let all = candidates.len() < count as usize;
            // Tokens without bytes are structure, such as the end of a turn.
            let fits = |candidate: &Candidate| {
                !candidate.bytes.is_empty() && self.matcher.allows(&candidate.bytes)
            };
            if self.matcher.is_complete() && !candidates.first().is_some_and(fits) {
                return Ok(Pick::End);
            }
            let fitting = candidates.into_iter().filter(fits);
            match draws.pick(fitting.collect()) {
                Some(candidate) => return Ok(Pick::Token(candidate)),
                None if all => break,
                None => {}
            }
        }
        // The first character of the shortest ending.
        let mut rest = self.matcher.completion();
        let end = (1..rest.len()).find(|end| rest[*end] & 0xc0 != 0x80);
        rest.truncate(end.unwrap_or(rest.len()));
        Ok(Pick::Bytes(rest))
    }

    /// The bytes that can only come so, such as the rest of a key.
    fn only(&self) -> Vec<u8> {
        let mut ahead = self.matcher.clone();
        let mut bytes = Vec::new();
        while !ahead.is_complete()
            && let Some(byte) = ahead.only_byte()
            && ahead.advance(&[byte])
        {
            bytes.push(byte);
        }
        // Where characters part in their middle, the model chooses between them.
        if let Err(error) = std::str::from_utf8(characters(&bytes)) {
            let begun = bytes.len() - characters(&bytes).len();
            bytes.truncate(begun + error.valid_up_to());
        }
        bytes
    }

    /// Whether the answer can be ended within so many tokens behind these bytes.
    fn ends_within(&self, bytes: &[u8], tokens_left: usize) -> Result<bool, Error> {
        let mut ahead = self.matcher.clone();
        if !ahead.advance(bytes) || ahead.is_complete() {
            return Ok(true);
        }
        let rest = ahead.completion();
        // A token has a byte at least, and some vocabularies put a space before a text.
        Ok(rest.len() < tokens_left || self.tokens(&rest)?.len() <= tokens_left)
    }

    /// The tokens of what is put in.
    fn tokens(&self, bytes: &[u8]) -> Result<Vec<u32>, Error> {
        match std::str::from_utf8(characters(bytes)) {
            Ok(text) if !text.is_empty() => self.session.tokenize(text),
            _ => Ok(Vec::new()),
        }
    }

    /// Lets the model know what comes next.
    fn accept(&mut self, tokens: &[u32]) -> Result<(), Error> {
        tokens
            .iter()
            .try_for_each(|token| self.session.accept(*token))
    }
}

enum Pick {
    Token(Candidate),
    /// The answer is complete and the model wants something else.
    End,
    /// What the schema puts in.
    Bytes(Vec<u8>),
}

/// Bytes without the end of a character that a token began, which has no text of its own.
fn characters(bytes: &[u8]) -> &[u8] {
    let begins = bytes.iter().position(|byte| byte & 0xc0 != 0x80);
    &bytes[begins.unwrap_or(bytes.len())..]
}

/// Bytes of a character that is not complete yet.
#[derive(Default)]
struct Held(Vec<u8>);

impl Held {
    fn add(
        &mut self,
        bytes: &[u8],
        piece: &mut impl FnMut(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.0.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.0) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.0.split_off(whole);
        let text = std::mem::replace(&mut self.0, rest);
        match std::str::from_utf8(&text) {
            Ok(text) if !text.is_empty() => piece(text),
            _ => Ok(()),
        }
    }
}
