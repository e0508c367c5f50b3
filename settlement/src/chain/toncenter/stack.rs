//! Stacks of get-methods as toncenter writes them.
//!
//! In: values of ours, or an answer's `stack`. Out: JSON, or values of ours. Two spellings exist:
//! pairs as `["num", "0x2a"]`, and objects as `{"@type": "tvm.stackEntryNumber", ...}`; within
//! tuples it is always the second. Only the second can ask with nothing or with tuples, so
//! arguments are sent as pairs where they can be, which every server reads.

use num_bigint::{BigInt, Sign};
use serde_json::{Value, json};
use tycho_types::boc::Boc;

use super::answer::Answer;
use super::http::ToncenterError;
use crate::chain::StackValue;

/// A TVM stack's depth, as far as servers answer with it.
const VALUES_MAX: usize = 1_024;
/// Values in a tuple of the TVM.
const TUPLE_MAX: usize = 255;
/// Tuples within tuples; servers stop at 100.
const DEPTH_MAX: usize = 100;

/// Arguments, and the call that takes them.
pub(super) struct Arguments {
    pub(super) call: &'static str,
    pub(super) values: Vec<Value>,
}

pub(super) fn write(values: &[StackValue]) -> Arguments {
    match values.iter().map(pair).collect() {
        Some(values) => Arguments {
            call: "runGetMethod",
            values,
        },
        None => Arguments {
            call: "runGetMethodStd",
            values: values.iter().map(object).collect(),
        },
    }
}

fn pair(value: &StackValue) -> Option<Value> {
    match value {
        StackValue::Int(value) => Some(json!(["num", value.to_string()])),
        StackValue::Cell(cell) => Some(json!(["tvm.Cell", Boc::encode_base64(cell)])),
        StackValue::Slice(cell) => Some(json!(["tvm.Slice", Boc::encode_base64(cell)])),
        StackValue::Null | StackValue::Tuple(_) => None,
    }
}

fn object(value: &StackValue) -> Value {
    match value {
        StackValue::Int(value) => json!({
            "@type": "tvm.stackEntryNumber",
            "number": { "@type": "tvm.numberDecimal", "number": value.to_string() },
        }),
        StackValue::Cell(cell) => json!({
            "@type": "tvm.stackEntryCell",
            "cell": { "@type": "tvm.cell", "bytes": Boc::encode_base64(cell) },
        }),
        StackValue::Slice(cell) => json!({
            "@type": "tvm.stackEntrySlice",
            "slice": { "@type": "tvm.slice", "bytes": Boc::encode_base64(cell) },
        }),
        // The TVM's lists end with null, so the empty one is null.
        StackValue::Null => json!({
            "@type": "tvm.stackEntryList",
            "list": { "@type": "tvm.list", "elements": [] },
        }),
        StackValue::Tuple(values) => json!({
            "@type": "tvm.stackEntryTuple",
            "tuple": {
                "@type": "tvm.tuple",
                "elements": values.iter().map(object).collect::<Vec<_>>(),
            },
        }),
    }
}

/// Reads an answer's stack, in either spelling.
pub(super) fn read(stack: &Answer<'_>) -> Result<Vec<StackValue>, ToncenterError> {
    stack.items(VALUES_MAX)?.iter().map(read_value).collect()
}

fn read_value(entry: &Answer<'_>) -> Result<StackValue, ToncenterError> {
    if entry.has("@type") {
        return read_object(entry, 0);
    }
    let parts = entry.items(2)?;
    let (kind, value) = match &parts[..] {
        [kind] => (kind, None),
        [kind, value] => (kind, Some(value)),
        _ => return Err(entry.wrong("a pair")),
    };
    match (kind.str()?, value) {
        ("null", _) => Ok(StackValue::Null),
        ("num", Some(value)) => read_number(value),
        ("cell", Some(value)) => Ok(StackValue::Cell(value.get("bytes")?.cell()?)),
        ("slice", Some(value)) => Ok(StackValue::Slice(value.get("bytes")?.cell()?)),
        ("tuple", Some(value)) => read_tuple(value, 0),
        ("list", Some(value)) => read_list(value, 0),
        _ => Err(kind.wrong("a kind of stack value that is known")),
    }
}

fn read_object(entry: &Answer<'_>, depth: usize) -> Result<StackValue, ToncenterError> {
    if depth > DEPTH_MAX {
        return Err(entry.wrong("100 tuples deep at most"));
    }
    let kind = entry.get("@type")?;
    match kind.str()? {
        "tvm.stackEntryNumber" => read_number(&entry.get("number")?.get("number")?),
        "tvm.stackEntryCell" => {
            let bytes = entry.get("cell")?.get("bytes")?;
            Ok(StackValue::Cell(bytes.cell()?))
        }
        "tvm.stackEntrySlice" => {
            let bytes = entry.get("slice")?.get("bytes")?;
            Ok(StackValue::Slice(bytes.cell()?))
        }
        "tvm.stackEntryTuple" => read_tuple(&entry.get("tuple")?, depth),
        "tvm.stackEntryList" => read_list(&entry.get("list")?, depth),
        "tvm.stackEntryNull" => Ok(StackValue::Null),
        _ => Err(kind.wrong("a kind of stack value that is known")),
    }
}

fn read_tuple(tuple: &Answer<'_>, depth: usize) -> Result<StackValue, ToncenterError> {
    let values = tuple.get("elements")?.items(TUPLE_MAX)?;
    let values = values.iter().map(|value| read_object(value, depth + 1));
    Ok(StackValue::Tuple(values.collect::<Result<_, _>>()?))
}

/// A list is pairs of a value and the rest; the last rest is null.
fn read_list(list: &Answer<'_>, depth: usize) -> Result<StackValue, ToncenterError> {
    let mut rest = StackValue::Null;
    for value in list.get("elements")?.items(TUPLE_MAX)?.iter().rev() {
        rest = StackValue::Tuple(vec![read_object(value, depth + 1)?, rest]);
    }
    Ok(rest)
}

/// Decimal, or hexadecimal after `0x`; the sign in front of either.
fn read_number(value: &Answer<'_>) -> Result<StackValue, ToncenterError> {
    let text = value.str()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (Sign::Minus, digits),
        None => (Sign::Plus, text),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // 257 bits are 78 decimal digits; servers pad hexadecimal ones to 64.
    let number = if digits.len() <= 80 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        BigInt::parse_bytes(digits.as_bytes(), radix)
    } else {
        None
    };
    let wrong = || value.wrong("a number of 257 bits");
    let number = number.ok_or_else(wrong)?;
    let number = if sign == Sign::Minus { -number } else { number };
    let largest: BigInt = (BigInt::from(1) << 256) - 1;
    if number > largest || number < -&largest - 1 {
        return Err(wrong());
    }
    Ok(StackValue::Int(number))
}
