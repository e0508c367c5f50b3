//! Commands on sessions.
//!
//! In: words. Out: what the host said. Sessions are named by the order in which they were
//! opened; texts of a command are the rest of its line.

use crate::{
    Probe, Said,
    bindings::tussah::job::llm::{self, Message, Sampling, SessionOptions},
    number, refused,
};

/// A session, and what it generated.
pub(crate) struct Open {
    session: llm::Session,
    text: String,
    chunks: Vec<String>,
    tokens: Vec<u32>,
}

impl Open {
    fn new(session: llm::Session) -> Option<Self> {
        Some(Self {
            session,
            text: String::new(),
            chunks: Vec::new(),
            tokens: Vec::new(),
        })
    }

    /// Generates to the end.
    fn generate(&mut self) -> Said {
        while let Some(chunk) = self.session.next().map_err(refused)? {
            self.text.push_str(&chunk.text);
            self.chunks.push(chunk.text);
            self.tokens.extend(chunk.tokens);
        }
        Ok(format!(
            "{} tokens, {:?}",
            self.tokens.len(),
            self.session.finish_reason()
        ))
    }
}

/// `role text…`, or nothing.
pub(crate) fn messages(words: &[&str]) -> Vec<Message> {
    let Some((role, content)) = words.split_first() else {
        return Vec::new();
    };
    vec![Message {
        role: (*role).to_owned(),
        content: content.join(" "),
    }]
}

fn options(words: &[&str]) -> Result<SessionOptions, String> {
    let mut options = SessionOptions {
        context_tokens_max: Some(64),
        sampling: Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        },
        generated_tokens_max: 0,
        stop: Vec::new(),
    };
    let sampling = &mut options.sampling;
    for word in words {
        let (key, value) = word.split_once('=').ok_or("write key=value")?;
        let value = &[value][..];
        match key {
            "ctx" => options.context_tokens_max = Some(number(value, 0)?),
            "max-ctx" => options.context_tokens_max = None,
            "temp" => sampling.temperature = number(value, 0)?,
            "topk" => sampling.top_k = number(value, 0)?,
            "topp" => sampling.top_p = number(value, 0)?,
            "minp" => sampling.min_p = number(value, 0)?,
            "pen" => sampling.repetition_penalty = number(value, 0)?,
            "seed" => sampling.seed = number(value, 0)?,
            "gen" => options.generated_tokens_max = number(value, 0)?,
            "stop" => options.stop.push(value[0].to_owned()),
            "stops" => options.stop = vec!["§".to_owned(); number(value, 0)?],
            "longstop" => options.stop.push("x".repeat(number(value, 0)?)),
            _ => return Err(format!("{key} is no option")),
        }
    }
    Ok(options)
}

impl Probe {
    pub(crate) fn session_command(&mut self, words: &[&str]) -> Said {
        if words[0] == "open" {
            let session = self.model()?.session(&options(&words[1..])?);
            self.sessions.push(Open::new(session.map_err(refused)?));
            return Ok(String::new());
        }
        let at: usize = number(words, 1)?;
        let rest = words.get(2..).unwrap_or_default();
        match words[0] {
            "same" => {
                let (one, two) = (self.open(at)?.text.clone(), number(words, 2)?);
                return Ok((one == self.open(two)?.text).to_string());
            }
            "close" => {
                self.sessions[at] = None;
                return Ok(String::new());
            }
            "close-and-use" => return self.use_after_close(at),
            "fork" => {
                let forked = self.open(at)?.session.fork().map_err(refused)?;
                self.sessions.push(Open::new(forked));
                return Ok(String::new());
            }
            "stop-at-a-border" => return self.stop_at_a_border(at),
            _ => {}
        }
        let open = self.open(at)?;
        let session = &open.session;
        match words[0] {
            "text" => Ok(session
                .append_text(&rest.join(" "))
                .map_err(refused)?
                .to_string()),
            "tokens" => {
                let id = rest.get(1).map_or(Ok(100), |_| number(rest, 1))?;
                let tokens = vec![id; number(rest, 0)?];
                session.append_tokens(&tokens).map_err(refused)?;
                Ok(String::new())
            }
            "chat" => session
                .append_chat(&messages(rest))
                .map(|_| String::new())
                .map_err(refused),
            "next" => match session.next().map_err(refused)? {
                Some(chunk) => Ok(format!("{} tokens", chunk.tokens.len())),
                None => Ok("none".to_owned()),
            },
            "all" => open.generate(),
            "candidates" => {
                let found = session.candidates(number(rest, 0)?).map_err(refused)?;
                let ordered = found.windows(2).all(|pair| pair[0].logit >= pair[1].logit);
                Ok(format!("{} in order: {ordered}", found.len()))
            }
            "accept" => session
                .accept(number(rest, 0)?)
                .map(|()| String::new())
                .map_err(refused),
            "usage" => {
                let usage = session.usage();
                Ok(format!(
                    "{} and {} tokens",
                    usage.prompt_tokens, usage.generated_tokens
                ))
            }
            "is-its-tokens" => self.is_its_tokens(at),
            other => Err(format!("{other} is no command")),
        }
    }

    fn open(&mut self, at: usize) -> Result<&mut Open, String> {
        let found = self.sessions.get_mut(at).and_then(Option::as_mut);
        found.ok_or_else(|| format!("there is no session {at}"))
    }

    /// Whether the text that was streamed is that of its tokens, whole characters only.
    fn is_its_tokens(&mut self, at: usize) -> Said {
        let text = self.open(at)?.text.clone();
        let mut tokens = self.open(at)?.tokens.clone();
        // Of random models, 0 to 2 are special: they are generated, and not shown.
        tokens.retain(|token| *token > 2);
        let bytes = self.model()?.detokenize(&tokens).map_err(refused)?;
        Ok((text == String::from_utf8_lossy(&bytes)).to_string())
    }

    /// Keeps the number of a handle that was given back.
    fn use_after_close(&mut self, at: usize) -> Said {
        let number = self.open(at)?.session.handle();
        self.sessions[at] = None;
        #[expect(unsafe_code, reason = "what no safe guest can do is what is tried")]
        // SAFETY: it is not: the handle is closed, and the host has to notice.
        let ghost = unsafe { llm::Session::from_handle(number) };
        let said = ghost.usage().prompt_tokens.to_string();
        std::mem::forget(ghost);
        Ok(said)
    }

    /// Generates again with a stop text that lies across the border of two chunks of session
    /// `at`, and compares with what that one said.
    fn stop_at_a_border(&mut self, at: usize) -> Said {
        let open = self.open(at)?;
        let whole = open.text.clone();
        let border = open.chunks.windows(2).find_map(|pair| {
            let (last, first) = (pair[0].chars().last()?, pair[1].chars().next()?);
            Some(format!("{last}{first}"))
        });
        let stop = border.ok_or("there are no two chunks")?;
        let mut again = options(&["gen=24"])?;
        again.stop.push(stop.clone());
        let session = self.model()?.session(&again).map_err(refused)?;
        session.append_text("hello").map_err(refused)?;
        let mut open = Open::new(session).ok_or("opened")?;
        open.generate()?;
        let expected = whole.find(&stop).map(|end| &whole[..end]);
        Ok(format!(
            "{:?}, and the text up to it: {}",
            open.session.finish_reason(),
            expected == Some(open.text.as_str())
        ))
    }
}
