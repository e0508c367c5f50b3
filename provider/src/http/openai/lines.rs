//! A job's output as the lines that OpenAI's shapes are made of.
//!
//! In: output as it comes, cut anywhere. Out: whole lines, typed; or what is wrong with one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::logprobs::TokenProb;

/// The most bytes of one line: a vector of 65,536 numbers in base64, and some room.
const LINE_BYTES_MAX: usize = 512 << 10;

/// One line of output.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// A piece of the answer, and its tokens where they were asked for.
    Text(String, Vec<TokenProb>),
    /// A piece of a call of a function.
    Call(CallPiece),
    /// One text's vector, as base64 of little-endian 32-bit floats.
    Embedding(String),
    /// The last.
    Finish(Finish),
}

/// A piece of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallPiece {
    /// The function's name, with which a call begins.
    Name(String),
    /// The next piece of its arguments, which are JSON together.
    Arguments(String),
}

/// Why an answer ended, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finish {
    pub(super) reason: String,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
}

/// Bytes that are no whole line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that `bytes` completes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Vec<Line>, String> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.rest[start..start + length];
            if !line.is_empty() {
                lines.push(parse(line)?);
            }
            start += length + 1;
        }
        self.rest.drain(..start);
        if self.rest.len() > LINE_BYTES_MAX {
            return Err(format!("a line has more than {LINE_BYTES_MAX} bytes"));
        }
        Ok(lines)
    }
}

fn parse(line: &[u8]) -> Result<Line, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("a line has more than {LINE_BYTES_MAX} bytes"));
    }
    // The line itself is the client's, and stays out of errors.
    let value: Value = serde_json::from_slice(line).map_err(|_| "a line is no JSON".to_owned())?;
    let Value::Object(mut object) = value else {
        return Err("a line is no JSON object".to_owned());
    };
    if let Some(text) = object.remove("text") {
        return match text {
            Value::String(text) => Ok(Line::Text(text, tokens(object.remove("logprobs"))?)),
            _ => Err("`text` is no string".to_owned()),
        };
    }
    if let Some(call) = object.remove("tool_call") {
        return call_piece(call);
    }
    if let Some(embedding) = object.remove("embedding") {
        return match embedding {
            Value::String(text) if floats(&text).is_some() => Ok(Line::Embedding(text)),
            _ => Err("`embedding` is no base64 of 32-bit floats".to_owned()),
        };
    }
    match object.remove("finish") {
        Some(Value::String(reason))
            if ["stop", "length", "tool_calls"].contains(&reason.as_str()) =>
        {
            Ok(Line::Finish(Finish {
                reason,
                prompt_tokens: count(&object, "prompt_tokens")?,
                completion_tokens: count(&object, "completion_tokens")?,
            }))
        }
        _ => Err(
            "a line has neither `text`, `tool_call`, `embedding` nor a known `finish`".to_owned(),
        ),
    }
}

fn tokens(logprobs: Option<Value>) -> Result<Vec<TokenProb>, String> {
    match logprobs {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => {
            let wrong = |_| "`logprobs` is no list of tokens with `token` and `logprob`".to_owned();
            serde_json::from_value(list).map_err(wrong)
        }
    }
}

fn call_piece(call: Value) -> Result<Line, String> {
    let piece = match call {
        Value::Object(mut call) if call.len() == 1 => {
            let name = call.remove("name");
            name.map_or_else(
                || Some(CallPiece::Arguments(text(call.remove("arguments")?)?)),
                |name| Some(CallPiece::Name(text(name)?)),
            )
        }
        _ => None,
    };
    let wrong = || "`tool_call` has neither a `name` nor `arguments`".to_owned();
    piece.map(Line::Call).ok_or_else(wrong)
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn count(object: &Map<String, Value>, name: &str) -> Result<u64, String> {
    match object.get(name) {
        None => Ok(0),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| format!("`{name}` is no count")),
    }
}

/// The numbers of a vector.
pub(super) fn floats(text: &str) -> Option<Vec<f32>> {
    let bytes = BASE64.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| {
        numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_the_output_is_cut() {
        let output = "{\"text\":\"wörld\"}\n\n\
                      {\"tool_call\":{\"name\":\"f\"}}\n{\"tool_call\":{\"arguments\":\"{}\"}}\n{\"embedding\":\"AACAPw==\"}\n\
                      {\"finish\":\"length\",\"prompt_tokens\":2,\"completion_tokens\":1}\n";
        let expected = [
            Line::Text("wörld".to_owned(), vec![]),
            Line::Call(CallPiece::Name("f".to_owned())),
            Line::Call(CallPiece::Arguments("{}".to_owned())),
            Line::Embedding("AACAPw==".to_owned()),
            Line::Finish(Finish {
                reason: "length".to_owned(),
                prompt_tokens: 2,
                completion_tokens: 1,
            }),
        ];
        for size in 1..output.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in output.as_bytes().chunks(size) {
                found.extend(lines.add(piece).unwrap());
            }
            assert_eq!(found, expected, "pieces of {size}");
        }
        assert_eq!(floats("AACAPw=="), Some(vec![1.0]));
    }

    #[test]
    fn what_follows_no_shape_is_refused_without_its_content() {
        for (line, expected) in [
            ("secret", "a line is no JSON"),
            ("[1]", "no JSON object"),
            ("{\"text\":1}", "`text` is no string"),
            ("{\"text\":\"\",\"logprobs\":[{}]}", "`logprobs` is no list"),
            ("{\"tool_call\":{}}", "neither a `name` nor"),
            ("{\"tool_call\":{\"name\":1}}", "neither a `name` nor"),
            ("{\"embedding\":\"AAA=\"}", "32-bit floats"),
            ("{\"finish\":\"secret\"}", "known `finish`"),
            ("{\"finish\":\"stop\",\"prompt_tokens\":-1}", "no count"),
            ("{}", "neither"),
        ] {
            let error = Lines::default()
                .add(format!("{line}\n").as_bytes())
                .unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let long = vec![b' '; LINE_BYTES_MAX + 1];
        assert!(Lines::default().add(&long).is_err());
    }
}
