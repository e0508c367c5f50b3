//! Bodies: bounded, timed, and taken apart field by field.
//!
//! In: a request's body. Out: JSON fields with their types, or a refusal that names the field.
//! What nobody asked for is refused by name, so that a client never believes that an option works
//! which does not.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use super::App;
use super::budget::Held;
use super::error::ApiError;
use super::single::Single;
use crate::ledger::Account;

/// How deep arrays and objects of a body may be nested: twice what a large JSON schema has.
const DEPTH_MAX: usize = 64;

/// Values and fields of a body: one takes a few bytes there and some hundred in memory.
const VALUES_MAX: usize = 200_000;

/// The JSON object of an account's request, and its place in memory: to be kept for as long as
/// anything made of it is.
pub(super) async fn json(
    app: &App,
    account: &Account,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Fields, Held), ApiError> {
    let (bytes, held) = json_bytes(app, account, headers, body).await?;
    Ok((object(&bytes)?, held))
}

/// The bytes of a request that says they are JSON, and their place in memory.
pub(super) async fn json_bytes(
    app: &App,
    account: &Account,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<u8>, Held), ApiError> {
    is_json(headers)?;
    let max = app.config.body_bytes_max;
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|text| text.to_str().ok());
    let length: Option<u64> = length.and_then(|text| text.parse().ok());
    if length.is_some_and(|length| length > u64::try_from(max).unwrap_or(u64::MAX)) {
        return Err(too_large(max));
    }
    let read = read(body, max, app.bodies.hold(account.id));
    let bytes = tokio::time::timeout(app.config.body_time_max, read);
    bytes.await.map_err(|_| too_slow())?
}

/// Refuses a body that does not say that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    if kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "the body has to be JSON, with `Content-Type: application/json`";
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(ApiError::new(status, "content_type", message))
}

async fn read(body: Body, bytes_max: usize, mut held: Held) -> Result<(Vec<u8>, Held), ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| cut_off())?;
        if bytes.len().saturating_add(piece.len()) > bytes_max {
            return Err(too_large(bytes_max));
        }
        held.grow(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, held))
}

pub(super) fn too_slow() -> ApiError {
    let message = "the body did not come in time";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
}

pub(super) fn cut_off() -> ApiError {
    ApiError::bad("body_cut_off", "the body ended early or is malformed")
}

fn too_large(max: usize) -> ApiError {
    let message = format!("a body has at most {max} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// The JSON object that these bytes are.
pub(super) fn object(bytes: &[u8]) -> Result<Fields, ApiError> {
    let (depth, values) = shape(bytes);
    if depth > DEPTH_MAX {
        let message = format!("the JSON is nested more than {DEPTH_MAX} deep");
        return Err(ApiError::bad("json_too_deep", message));
    }
    if values > VALUES_MAX {
        let message = format!("the JSON has more than {VALUES_MAX} values");
        return Err(ApiError::bad("json_too_many_values", message));
    }
    match serde_json::from_slice(bytes) {
        Ok(Single(Value::Object(map))) => Ok(Fields {
            map,
            prefix: String::new(),
        }),
        Ok(_) => Err(ApiError::bad(
            "invalid_json",
            "the body has to be a JSON object",
        )),
        Err(error) => Err(ApiError::bad("invalid_json", format!("the body: {error}"))),
    }
}

/// How deep brackets outside of strings are nested, and how many values there are at most, before
/// anything is parsed.
fn shape(bytes: &[u8]) -> (usize, usize) {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    let mut values = 1;
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
                values += 1;
            }
            b',' | b':' if !in_string => values += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (deepest, values)
}

/// The fields of an object that nobody has looked at yet. A field that is `null` is not there.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    prefix: String,
}

impl Fields {
    /// The fields of an object within a body, which errors call by its path.
    pub(super) fn within(value: Value, path: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self {
                map,
                prefix: format!("{path}."),
            }),
            _ => Err(wrong(path, "an object")),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(&self.name(key), "a string")),
        }
    }

    pub(super) fn needed_text(&mut self, key: &str) -> Result<String, ApiError> {
        let text = self.text(key)?;
        text.ok_or_else(|| missing(&self.name(key)))
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(wrong(&self.name(key), "true or false")),
        }
    }

    /// A whole number of 64 bits, also as a string of digits: JSON's own lose digits past 2^53.
    pub(super) fn whole(&mut self, key: &str) -> Result<Option<u64>, ApiError> {
        let value = match self.take(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        let expected = "a whole number from 0 to 2^64 - 1";
        value
            .map(Some)
            .ok_or_else(|| wrong(&self.name(key), expected))
    }

    pub(super) fn needed_whole(&mut self, key: &str) -> Result<u64, ApiError> {
        let whole = self.whole(key)?;
        whole.ok_or_else(|| missing(&self.name(key)))
    }

    /// A number within bounds.
    pub(super) fn number(
        &mut self,
        key: &str,
        min: f64,
        max: f64,
    ) -> Result<Option<f64>, ApiError> {
        let value = match self.take(key) {
            None => return Ok(None),
            Some(value) => value.as_f64(),
        };
        let good = value.filter(|value| (min..=max).contains(value));
        let expected = format!("a number from {min} to {max}");
        good.map(Some)
            .ok_or_else(|| wrong(&self.name(key), &expected))
    }

    /// Refuses what is left: it means nothing here.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((key, _)) => {
                let shown: String = key.chars().take(64).collect();
                let name = self.name(&shown);
                let message = format!("unknown parameter: `{name}`");
                Err(ApiError::bad("unknown_parameter", message).param(name))
            }
        }
    }
}

pub(super) fn wrong(name: &str, expected: &str) -> ApiError {
    let message = format!("`{name}` has to be {expected}");
    ApiError::bad("invalid_value", message).param(name)
}

pub(super) fn missing(name: &str) -> ApiError {
    let message = format!("`{name}` is missing");
    ApiError::bad("missing_required_parameter", message).param(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_values_are_counted_outside_of_strings() {
        for (text, depth, values) in [
            ("", 0, 1),
            ("1", 0, 1),
            ("{}", 1, 2),
            ("[[],[[]]]", 3, 6),
            (r#"{"a": "[[[[,,::"}"#, 1, 3),
            (r#"{"a\"[[": "\\"}"#, 1, 3),
            ("]]][", 1, 2),
        ] {
            assert_eq!(shape(text.as_bytes()), (depth, values), "{text}");
        }
    }
}
