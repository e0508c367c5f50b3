//! JSON as the input and the output of a job.
//!
//! In: the input's bytes, or a value. Out: a typed value, or JSON that is emitted. What is
//! wrong with an input is said by field, line and column.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, FromInput, IntoOutcome, Output};

/// A value that a job reads from JSON, or that it returns and that is emitted as JSON.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tussah_sdk::{Json, job};
///
/// #[derive(Deserialize)]
/// struct Question {
///     text: String,
/// }
///
/// #[derive(Serialize)]
/// struct Answer {
///     words: usize,
/// }
///
/// #[job]
/// fn run(Json(question): Json<Question>) -> Json<Answer> {
///     Json(Answer { words: question.text.split_whitespace().count() })
/// }
/// # fn main() {}
/// ```
///
/// An input that does not fit ends the job with [`ErrorCode::BadInput`](crate::ErrorCode::BadInput) and a message such
/// as ``the input is not the JSON that this job takes: `messages[1].role`: missing field
/// `content` at line 3 column 20``.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromInput for Json<T> {
    fn from_input(input: Vec<u8>) -> Result<Self, Error> {
        match parse(&input) {
            Ok(value) => Ok(Self(value)),
            Err(problem) => Err(Error::bad_input(format!(
                "the input is not the JSON that this job takes: {problem}"
            ))),
        }
    }
}

impl<T: Serialize> IntoOutcome for Json<T> {
    /// Emits the value as one line of JSON.
    fn into_outcome(self) -> Result<(), Error> {
        let mut line = serde_json::to_vec(&self.0)?;
        line.push(b'\n');
        line.into_outcome()
    }
}

/// Reads JSON; the error names the field, the line and the column.
///
/// # Errors
/// [`ErrorCode::InvalidJson`](crate::ErrorCode::InvalidJson).
pub fn from_json<T: DeserializeOwned>(text: impl AsRef<[u8]>) -> Result<T, Error> {
    parse(text.as_ref()).map_err(|problem| Error::with_code(crate::ErrorCode::InvalidJson, problem))
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => error.inner().to_string(),
            path => format!("`{path}`: {}", error.inner()),
        }
    })?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// A job's answer as JSON Lines: each value is emitted when the iterator gives it.
///
/// ```
/// use tussah_sdk::{JsonLines, job};
///
/// #[job]
/// fn run(text: String) -> JsonLines<impl Iterator<Item = usize>> {
///     let lengths: Vec<usize> = text.lines().map(str::len).collect();
///     JsonLines(lengths.into_iter())
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone)]
pub struct JsonLines<I>(pub I);

impl<I: Iterator<Item: Serialize>> IntoOutcome for JsonLines<I> {
    fn into_outcome(self) -> Result<(), Error> {
        self.0.map(Json).try_for_each(IntoOutcome::into_outcome)
    }
}

/// Emits a value as JSON while it is written, without a copy of it in memory.
///
/// # Errors
/// [`ErrorCode::InvalidJson`](crate::ErrorCode::InvalidJson) if the value has no form in JSON, such as a map whose keys are
/// not texts.
pub fn emit_json(value: &impl Serialize) -> Result<(), Error> {
    let mut output = std::io::BufWriter::new(Output);
    serde_json::to_writer(&mut output, value)?;
    std::io::Write::flush(&mut output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Chat {
        messages: Vec<Turn>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Turn {
        role: String,
        age: u8,
    }

    #[track_caller]
    fn refused(input: &str, expected: &str) {
        let error = Json::<Chat>::from_input(input.into()).unwrap_err();
        assert_eq!(error.code(), crate::ErrorCode::BadInput);
        let problem = error.message().split_once("takes: ").unwrap().1;
        assert_eq!(problem, expected, "{input}");
    }

    #[test]
    fn what_is_wrong_is_named_by_field_line_and_column() {
        refused("", "EOF while parsing a value at line 1 column 0");
        refused(
            "{\"messages\": [\n {\"role\": \"a\", \"age\": 1},\n {\"role\": 7}]}",
            "`messages[1].role`: invalid type: integer `7`, expected a string at line 3 column 11",
        );
        refused(
            "{\"messages\": [{\"role\": \"a\", \"age\": 300}]}",
            "`messages[0].age`: invalid value: integer `300`, expected u8 at line 1 column 38",
        );
        refused(
            "{\"messages\": [{\"role\": \"a\"}]}",
            "`messages[0]`: missing field `age` at line 1 column 27",
        );
        refused(
            "{\"message\": []}",
            "`message`: unknown field `message`, expected `messages` at line 1 column 10",
        );
        refused(
            "{\"messages\": []} {}",
            "trailing characters at line 1 column 18",
        );
    }

    #[test]
    fn json_that_fits_is_read() {
        let read = Json::<Chat>::from_input(b" {\"messages\": []}\n".to_vec()).unwrap();
        assert_eq!(read.0, Chat { messages: vec![] });
        let deep = "[".repeat(100_000);
        assert!(from_json::<serde_json::Value>(deep).is_err());
    }
}
