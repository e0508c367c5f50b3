//! The input: who said what, and what the reply shall be like.
//!
//! In: JSON, checked. Out: the prompt, as messages of the model's chat template. Names and
//! texts are only ever data: a name holds no line break, and where several people speak each
//! text is one line, so nobody can write a line that looks like another's.

use serde::Deserialize;
use tussah_sdk::{Error, Message};

/// How a reply sounds where the input does not say.
const TONE: &str = "polite";
/// Words of a reply where the input does not say.
const WORDS_DEFAULT: u32 = 60;
/// More would leave a conversation little room in the context.
const WORDS_MAX: u32 = 200;
/// Of a larger group the instruction names those who spoke last.
const NAMED_MAX: usize = 8;
/// Names, tone and language are a few words; this is longer than any of them.
const CHARACTERS_MAX: usize = 64;

/// What the job takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conversation {
    /// Oldest first.
    pub(crate) messages: Vec<Turn>,
    /// The name of the one whose reply is drafted, the `assistant` of the messages.
    me: Option<String>,
    tone: Option<String>,
    /// The conversation's own where it is not given.
    language: Option<String>,
    max_words: Option<u32>,
}

/// One message of the conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    role: Role,
    /// Who of the others wrote it.
    name: Option<String>,
    content: String,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    /// One of the others.
    User,
    /// The one whose reply is drafted.
    Assistant,
}

impl Conversation {
    /// Refuses what no reply can be drafted to; the message says where it stands.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (field, value) in [
            ("me", &self.me),
            ("tone", &self.tone),
            ("language", &self.language),
        ] {
            check_words(field, value.as_deref())?;
        }
        let words = self.max_words.unwrap_or(WORDS_DEFAULT);
        if !(1..=WORDS_MAX).contains(&words) {
            return refuse(format!("max_words is {words}: give 1 to {WORDS_MAX}"));
        }
        for (at, turn) in self.messages.iter().enumerate() {
            self.check_turn(at, turn)?;
        }
        match self.messages.last() {
            None => refuse("messages is empty: give at least the one to reply to"),
            Some(last) if last.role == Role::Assistant => refuse(
                "the last message has the role `assistant`, whose reply is to be drafted: \
                 it must be one of the role `user`",
            ),
            Some(_) => Ok(()),
        }
    }

    fn check_turn(&self, at: usize, turn: &Turn) -> Result<(), Error> {
        let field = format!("messages[{at}].name");
        check_words(&field, turn.name.as_deref())?;
        let name = turn.name.as_deref().map(str::trim);
        match (turn.role, name) {
            (Role::Assistant, Some(name)) if !same(name, self.me()) => {
                return refuse(format!(
                    "{field} is {name:?}, but messages of the role `assistant` are by {:?}; \
                     `me` says whose they are",
                    self.me()
                ));
            }
            (Role::User, Some(name)) if same(name, self.me()) => {
                return refuse(format!(
                    "{field} is {name:?}, the one whose reply is drafted: \
                     give that message the role `assistant`"
                ));
            }
            (Role::User, None) if self.names().next().is_some() => {
                return refuse(format!(
                    "{field} is missing: as soon as one message of the role `user` has a name, \
                     each of them needs one"
                ));
            }
            _ => {}
        }
        if turn.content.trim().is_empty() {
            return refuse(format!("messages[{at}].content is empty"));
        }
        Ok(())
    }

    /// Whose reply is drafted.
    pub(crate) fn me(&self) -> &str {
        self.me.as_deref().map_or("assistant", str::trim)
    }

    /// The names of the others, message by message.
    fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        let others = self.messages.iter().filter(|turn| turn.role == Role::User);
        others.filter_map(|turn| turn.name.as_deref().map(str::trim))
    }

    /// Each of the others once, who spoke last first.
    pub(crate) fn others(&self) -> Vec<&str> {
        let mut others: Vec<&str> = vec![];
        for name in self.names().rev() {
            if !others.iter().any(|known| same(known, name)) {
                others.push(name);
            }
        }
        if others.is_empty() {
            others.push("user");
        }
        others
    }

    /// How many words the reply may have.
    pub(crate) fn max_words(&self) -> usize {
        self.max_words.unwrap_or(WORDS_DEFAULT) as usize
    }

    /// Tokens to reserve for it: words of most languages take one to three, and the sentence
    /// that passes the limit is generated before it is dropped.
    pub(crate) fn reply_tokens(&self) -> u32 {
        32 + 3 * self.max_words.unwrap_or(WORDS_DEFAULT)
    }

    /// Whether more than one of the others speaks, so that lines need names.
    pub(crate) fn is_group(&self) -> bool {
        self.others().len() > 1
    }

    /// The instruction and the messages but for the oldest `left_out`, in turns that alternate.
    pub(crate) fn prompt(&self, left_out: usize) -> Vec<Message> {
        let group = self.is_group();
        let mut messages = vec![Message::system(self.instruction())];
        for turn in self.messages.iter().skip(left_out) {
            let (role, who) = match turn.role {
                Role::User => ("user", turn.name.as_deref().unwrap_or("user")),
                Role::Assistant => ("assistant", self.me()),
            };
            let content = turn.content.trim();
            let line = if group {
                format!("{}: {}", who.trim(), one_line(content))
            } else {
                content.to_owned()
            };
            match messages.last_mut().filter(|message| message.role == role) {
                Some(message) => {
                    message.content.push('\n');
                    message.content.push_str(&line);
                }
                None => messages.push(Message {
                    role: role.to_owned(),
                    content: line,
                }),
            }
        }
        messages
    }

    fn instruction(&self) -> String {
        let others = match self.names().next() {
            Some(_) => {
                let others = self.others();
                let named = &others[..others.len().min(NAMED_MAX)];
                let more = if others.len() > NAMED_MAX {
                    " and others"
                } else {
                    ""
                };
                named.join(", ") + more
            }
            None => "the user".to_owned(),
        };
        let me = self.me.as_deref().map_or("an assistant", str::trim);
        let tone = self.tone.as_deref().map_or(TONE, str::trim);
        let words = self.max_words();
        // A model answers in the language that it is spoken to in, unless it is told another.
        let language = match &self.language {
            Some(language) => format!(" in {}", language.trim()),
            None => String::new(),
        };
        format!(
            "You are {me}. Your tone is {tone}. Answer {others}{language}, in at most {words} words."
        )
    }
}

/// Whether two names are one person's.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// Names, tone and language stand within a line of the prompt, and names in stop texts.
fn check_words(field: &str, value: Option<&str>) -> Result<(), Error> {
    let Some(value) = value.map(str::trim) else {
        return Ok(());
    };
    if value.is_empty() {
        return refuse(format!("{field} is empty: leave it out or say something"));
    }
    if value.chars().count() > CHARACTERS_MAX {
        return refuse(format!(
            "{field} is longer than {CHARACTERS_MAX} characters"
        ));
    }
    if value.chars().any(char::is_control) {
        return refuse(format!(
            "{field} holds a line break or another control character"
        ));
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn refuse(message: impl Into<String>) -> Result<(), Error> {
    Err(Error::bad_input(message))
}
