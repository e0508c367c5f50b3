//! The methods of Python's `str` and `dict` that published chat templates call.
//! In: a value and a method's arguments. Out: what Python would give.
//! What would be made is paid for in fuel before it is made.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::bounds::{BYTES_PER_FUEL, parts_bytes, weigh};

/// The methods of Python's `str` and `dict` that published templates call.
pub(super) fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            // Before anything is made: how much it would be.
            let bytes = string_method_bytes(text, method, arguments);
            state.consume_fuel((bytes / BYTES_PER_FUEL) as u64 + 1)?;
            string_method(text, method, arguments)
        }
        ValueKind::Map => {
            state.consume_fuel(value.len().unwrap_or(0) as u64 + 1)?;
            // The key, which is compared with others.
            arguments.first().map(|key| weigh(state, key)).transpose()?;
            map_method(value, method, arguments)
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

/// At least the bytes that a method reads and makes.
fn string_method_bytes(text: &str, method: &str, arguments: &[Value]) -> usize {
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or("");
    let made = match method {
        "replace" => text
            .matches(argument(0))
            .count()
            .saturating_mul(argument(1).len()),
        "split" => parts_bytes(text, argument(0)),
        "strip" | "lstrip" | "rstrip" => argument(0).len().saturating_mul(4),
        // Letters may become three.
        _ => text.len().saturating_mul(2),
    };
    made.saturating_add(text.len())
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str);
    let letters = argument(0).map(|set| set.chars().collect::<Vec<_>>());
    let stripped = |letter: char| match &letters {
        None => letter.is_whitespace(),
        Some(set) => set.contains(&letter),
    };
    let missing = || {
        Error::new(
            ErrorKind::MissingArgument,
            format!("`{method}` wants a string"),
        )
    };
    Ok(match method {
        "strip" => text.trim_matches(stripped).into(),
        "lstrip" => text.trim_start_matches(stripped).into(),
        "rstrip" => text.trim_end_matches(stripped).into(),
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "startswith" => text.starts_with(argument(0).ok_or_else(missing)?).into(),
        "endswith" => text.ends_with(argument(0).ok_or_else(missing)?).into(),
        "replace" => {
            let (from, to) = argument(0).zip(argument(1)).ok_or_else(missing)?;
            text.replace(from, to).into()
        }
        "split" => match argument(0) {
            None => text
                .split_whitespace()
                .map(Value::from)
                .collect::<Vec<_>>()
                .into(),
            Some("") => return Err(missing()),
            Some(border) => text
                .split(border)
                .map(Value::from)
                .collect::<Vec<_>>()
                .into(),
        },
        "capitalize" => {
            let mut letters = text.chars();
            let first = letters.next().into_iter().flat_map(char::to_uppercase);
            let capitalized: String = first.chain(letters.flat_map(char::to_lowercase)).collect();
            capitalized.into()
        }
        _ => return Err(ErrorKind::UnknownMethod.into()),
    })
}

fn map_method(map: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let mut values = Vec::new();
    for key in map.try_iter()? {
        let value = map.get_item(&key)?;
        match method {
            "items" => values.push(vec![key, value].into()),
            "keys" => values.push(key),
            "values" => values.push(value),
            "get" => break,
            _ => return Err(ErrorKind::UnknownMethod.into()),
        }
    }
    if method == "get" {
        let [key, default @ ..] = arguments else {
            return Err(ErrorKind::MissingArgument.into());
        };
        let value = map.get_item(key)?;
        let default = default.first().cloned().unwrap_or(Value::from(()));
        return Ok(if value.is_undefined() { default } else { value });
    }
    Ok(values.into())
}
