//! Named tensors → what a model is asked for.
//!
//! In: the tensors of one `compute`. Out: a completion or texts to embed, every name known,
//! every type and size right. The order of the names is part of the interface: modules of
//! `abi = "preview1"` say an index where components say a name.

use serde::Deserialize;
use tussah_inference::{OverLong, Sampling};

use super::{Refusal, tensor::Tensor};
use crate::sandbox::bindings::{tussah::job::llm::Message, wasi::nn::errors::ErrorCode as NnCode};

/// What goes into a decoder, by index.
pub(crate) const DECODER_INPUTS: &[&str] = &[
    "text",
    "tokens",
    "chat",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "outputs",
];
/// What comes out of a decoder, by index.
pub(crate) const DECODER_OUTPUTS: &[&str] = &["text", "tokens", "logits"];
/// What goes into an encoder, by index.
pub(crate) const ENCODER_INPUTS: &[&str] = &["text", "texts", "cut"];
/// What comes out of an encoder, by index.
pub(crate) const ENCODER_OUTPUTS: &[&str] = &["embedding"];

/// How a prompt is given.
#[derive(Debug, PartialEq)]
pub(crate) enum Prompt {
    /// The whole prompt as text; special tokens in it count.
    Text(String),
    /// Its tokens.
    Tokens(Vec<u32>),
    /// Messages for the model's chat template.
    Chat(Vec<(String, String)>),
}

impl Prompt {
    /// The messages in the shape that the job world has.
    pub(crate) fn messages(messages: Vec<(String, String)>) -> Vec<Message> {
        let turn = |(role, content)| Message { role, content };
        messages.into_iter().map(turn).collect()
    }
}

/// Which outputs are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) text: bool,
    pub(crate) tokens: bool,
    pub(crate) logits: bool,
}

/// One completion.
#[derive(Debug, PartialEq)]
pub(crate) struct Completion {
    pub(crate) prompt: Prompt,
    /// None is as many as the context holds.
    pub(crate) tokens_max: Option<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    pub(crate) wanted: Wanted,
}

/// Texts to embed.
#[derive(Debug, PartialEq)]
pub(crate) struct Texts {
    pub(crate) texts: Vec<String>,
    pub(crate) over_long: OverLong,
}

/// Named tensors, each taken once.
struct Inputs(Vec<(String, Tensor)>);

impl Inputs {
    fn new(inputs: Vec<(String, Tensor)>, known: &[&str]) -> Result<Self, Refusal> {
        for (at, (name, _)) in inputs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(Refusal::invalid(format!(
                    "this model has no input `{}`; it has: {known}",
                    shortened(name)
                )));
            }
            if inputs[..at].iter().any(|(other, _)| other == name) {
                return Err(Refusal::invalid(format!("input `{name}` is given twice")));
            }
        }
        Ok(Self(inputs))
    }

    fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.take(name).map(|tensor| tensor.text(name)).transpose()
    }

    fn float(&mut self, name: &str, default: f32) -> Result<f32, Refusal> {
        self.take(name)
            .map_or(Ok(default), |tensor| tensor.float(name))
    }

    /// A whole number of at least 0.
    fn count(&mut self, name: &str) -> Result<Option<u32>, Refusal> {
        let Some(tensor) = self.take(name) else {
            return Ok(None);
        };
        let number = tensor.integer(name)?;
        u32::try_from(number).map(Some).map_err(|_| {
            Refusal::invalid(format!(
                "input `{name}` is {number}, wanted 0 to {}",
                u32::MAX
            ))
        })
    }

    fn json<T: for<'a> Deserialize<'a>>(
        &mut self,
        name: &str,
        wanted: &str,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            let message = format!("input `{name}` is not {wanted}: {error}");
            Refusal::new(NnCode::InvalidEncoding, message)
        })
    }
}

/// A name as long as fits a message.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(64)]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: String,
}

impl Completion {
    /// Reads the inputs of a decoder.
    ///
    /// # Errors
    /// What is wrong with the first input that is.
    pub(crate) fn read(inputs: Vec<(String, Tensor)>) -> Result<Self, Refusal> {
        let mut inputs = Inputs::new(inputs, DECODER_INPUTS)?;
        let prompt = prompt(&mut inputs)?;
        let wanted = wanted(inputs.text("outputs")?.as_deref())?;
        let tokens_max = inputs.count("max_tokens")?;
        let neutral = Sampling::default();
        let sampling = Sampling {
            temperature: inputs.float("temperature", 0.0)?,
            top_k: inputs.count("top_k")?.unwrap_or(0),
            top_p: inputs.float("top_p", neutral.top_p)?,
            min_p: inputs.float("min_p", neutral.min_p)?,
            repetition_penalty: inputs.float("repetition_penalty", neutral.repetition_penalty)?,
        };
        let seed = inputs.take("seed").map(|tensor| tensor.integer("seed"));
        let stop = inputs.json("stop", "a JSON array of texts")?;
        Ok(Self {
            prompt,
            // Logits alone need no token after the prompt.
            tokens_max: if wanted.text || wanted.tokens {
                tokens_max
            } else {
                Some(0)
            },
            sampling,
            seed: seed.transpose()?.unwrap_or(0).cast_unsigned(),
            stop: stop.unwrap_or_default(),
            wanted,
        })
    }
}

fn prompt(inputs: &mut Inputs) -> Result<Prompt, Refusal> {
    let text = inputs.text("text")?;
    let tokens = inputs.take("tokens");
    let chat: Option<Vec<Turn>> =
        inputs.json("chat", "a JSON array of {\"role\": …, \"content\": …}")?;
    match (text, tokens, chat) {
        (Some(text), None, None) => Ok(Prompt::Text(text)),
        (None, Some(tokens), None) => {
            let tokens = tokens.integers("tokens")?;
            let token = |id: i64| {
                u32::try_from(id)
                    .map_err(|_| Refusal::invalid(format!("input `tokens`: {id} is no token")))
            };
            Ok(Prompt::Tokens(
                tokens.into_iter().map(token).collect::<Result<_, _>>()?,
            ))
        }
        (None, None, Some(turns)) => {
            let turn = |turn: Turn| (turn.role, turn.content);
            Ok(Prompt::Chat(turns.into_iter().map(turn).collect()))
        }
        _ => Err(Refusal::invalid(
            "exactly one of the inputs `text`, `tokens` and `chat` is needed: it is the prompt",
        )),
    }
}

fn wanted(names: Option<&str>) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted {
        text: false,
        tokens: false,
        logits: false,
    };
    for name in names.unwrap_or("text,tokens").split(',') {
        match name.trim() {
            "text" => wanted.text = true,
            "tokens" => wanted.tokens = true,
            "logits" => wanted.logits = true,
            other => {
                return Err(Refusal::invalid(format!(
                    "input `outputs` names `{}`; there is: {}",
                    shortened(other),
                    DECODER_OUTPUTS.join(", ")
                )));
            }
        }
    }
    Ok(wanted)
}

impl Texts {
    /// Reads the inputs of an encoder.
    ///
    /// # Errors
    /// What is wrong with the first input that is.
    pub(crate) fn read(inputs: Vec<(String, Tensor)>) -> Result<Self, Refusal> {
        let mut inputs = Inputs::new(inputs, ENCODER_INPUTS)?;
        let (text, texts) = (
            inputs.text("text")?,
            inputs.json("texts", "a JSON array of texts")?,
        );
        let texts = match (text, texts) {
            (Some(text), None) => vec![text],
            (None, Some(texts)) => texts,
            _ => {
                return Err(Refusal::invalid(
                    "exactly one of the inputs `text` and `texts` is needed",
                ));
            }
        };
        let over_long = match inputs.count("cut")? {
            None | Some(0) => OverLong::Refuse,
            Some(_) => OverLong::Cut,
        };
        Ok(Self { texts, over_long })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::bindings::wasi::nn::tensor::TensorType;

    fn text(text: &str) -> Tensor {
        Tensor::row(TensorType::U8, text.as_bytes().to_vec())
    }

    fn float(value: f32) -> Tensor {
        Tensor::row(TensorType::Fp32, value.to_le_bytes().to_vec())
    }

    fn integer(value: i64) -> Tensor {
        Tensor::row(TensorType::I64, value.to_le_bytes().to_vec())
    }

    fn read(inputs: Vec<(&str, Tensor)>) -> Result<Completion, String> {
        let named = |(name, tensor): (&str, Tensor)| (name.to_owned(), tensor);
        let inputs = inputs.into_iter().map(named).collect();
        Completion::read(inputs).map_err(|refusal| {
            format!("{:?}: {}", refusal.code, refusal.message).replacen("ErrorCode::", "", 1)
        })
    }

    #[test]
    fn prompts_and_options_are_read() {
        let found = read(vec![("text", text("hi"))]).unwrap();
        assert_eq!(found.prompt, Prompt::Text("hi".to_owned()));
        assert_eq!((found.tokens_max, found.seed), (None, 0));
        assert_eq!(found.sampling.temperature, 0.0);
        let found = read(vec![
            ("outputs", text("logits, text")),
            ("chat", text(r#"[{"role": "user", "content": "hi"}]"#)),
            ("max_tokens", integer(7)),
            ("temperature", float(0.5)),
            ("seed", integer(-1)),
            ("stop", text(r#"["\n"]"#)),
        ])
        .unwrap();
        assert_eq!(
            found.prompt,
            Prompt::Chat(vec![("user".into(), "hi".into())])
        );
        assert_eq!((found.tokens_max, found.seed), (Some(7), u64::MAX));
        assert_eq!(found.stop, ["\n"]);
        assert!(found.wanted.text && found.wanted.logits && !found.wanted.tokens);
        let found = read(vec![("tokens", integer(9)), ("outputs", text("logits"))]).unwrap();
        assert_eq!(found.prompt, Prompt::Tokens(vec![9]));
        assert_eq!(found.tokens_max, Some(0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let prompt = || ("text", text("hi"));
        for (inputs, expected) in [
            (
                vec![],
                "InvalidArgument: exactly one of the inputs `text`, `tokens` and `chat` is needed: it is the prompt",
            ),
            (
                vec![prompt(), ("tokens", integer(1))],
                "InvalidArgument: exactly one of the inputs `text`, `tokens` and `chat` is needed: it is the prompt",
            ),
            (
                vec![prompt(), prompt()],
                "InvalidArgument: input `text` is given twice",
            ),
            (
                vec![("image", text(""))],
                "InvalidArgument: this model has no input `image`; it has: text, tokens, chat, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, outputs",
            ),
            (
                vec![("text", float(1.0))],
                "InvalidArgument: tensor `text` is FP32, wanted U8, the bytes of a text",
            ),
            (
                vec![("tokens", integer(-1))],
                "InvalidArgument: input `tokens`: -1 is no token",
            ),
            (
                vec![("tokens", integer(1 << 32))],
                "InvalidArgument: input `tokens`: 4294967296 is no token",
            ),
            (
                vec![("chat", text("[{}]"))],
                "InvalidEncoding: input `chat` is not a JSON array of {\"role\": …, \"content\": …}: missing field `role` at line 1 column 3",
            ),
            (
                vec![("chat", text(&"[".repeat(100_000)))],
                "InvalidEncoding: input `chat` is not a JSON array of {\"role\": …, \"content\": …}: invalid type: sequence, expected a string at line 1 column 2",
            ),
            (
                vec![prompt(), ("max_tokens", integer(-1))],
                "InvalidArgument: input `max_tokens` is -1, wanted 0 to 4294967295",
            ),
            (
                vec![prompt(), ("max_tokens", float(1.0))],
                "InvalidArgument: tensor `max_tokens` is FP32, wanted I32, I64 or U8",
            ),
            (
                vec![prompt(), ("temperature", integer(1))],
                "InvalidArgument: tensor `temperature` is I64, wanted FP32, FP64, FP16 or BF16",
            ),
            (
                vec![prompt(), ("stop", text("x"))],
                "InvalidEncoding: input `stop` is not a JSON array of texts: expected value at line 1 column 1",
            ),
            (
                vec![prompt(), ("outputs", text("text,scores"))],
                "InvalidArgument: input `outputs` names `scores`; there is: text, tokens, logits",
            ),
            (
                vec![prompt(), ("outputs", text(""))],
                "InvalidArgument: input `outputs` names ``; there is: text, tokens, logits",
            ),
        ] {
            assert_eq!(read(inputs), Err(expected.to_owned()));
        }
    }

    #[test]
    fn texts_to_embed_are_read() {
        let read = |inputs: Vec<(&str, Tensor)>| {
            let named = |(name, tensor): (&str, Tensor)| (name.to_owned(), tensor);
            Texts::read(inputs.into_iter().map(named).collect()).map_err(|refusal| refusal.message)
        };
        let found = read(vec![("texts", text(r#"["a", ""]"#)), ("cut", integer(1))]).unwrap();
        assert_eq!(found.texts, ["a", ""]);
        assert_eq!(found.over_long, OverLong::Cut);
        let found = read(vec![("text", text("a"))]).unwrap();
        assert_eq!((found.texts.len(), found.over_long), (1, OverLong::Refuse));
        assert!(read(vec![]).is_err());
        assert!(read(vec![("text", text("a")), ("max_tokens", integer(1))]).is_err());
    }
}
