//! Values of a TVM stack in JSON: the pairs of `runGetMethod` and the objects of `runGetMethodStd`.
//!
//! In: JSON from outside, the machine's values. Out: the machine's values, JSON. As in toncenter's,
//! a list is nested pairs that end in null, an empty list is null, and what has no form in JSON
//! (a continuation, a builder) says so.

use num_bigint::BigInt;
use serde_json::{Value, json};
use tycho_types::cell::{Cell, CellBuilder, DynCell};
use tycho_vm::{OwnedCellSlice, RcStackValue, SafeRc, Stack};

use crate::cells;
use crate::methods::ApiError;

/// Tuples in tuples, at most: what is deeper is an attack or a mistake.
const DEPTH_MAX: usize = 32;
/// A cell is also written out as a tree, for clients that cannot read bags of cells; past this
/// many cells it is not, because a small bag can be an endless tree.
const TREE_CELLS_MAX: usize = 1024;

/// Reads one pair of `runGetMethod`'s stack, such as `["num", "0x1"]`.
pub(crate) fn from_pair(pair: &Value) -> Result<RcStackValue, ApiError> {
    let Some([kind, value]) = pair.as_array().map(Vec::as_slice) else {
        return Err(wrong("expected 2 elements in a stack entry"));
    };
    let Some(kind) = kind.as_str() else {
        return Err(wrong("expected a text as first element of a stack entry"));
    };
    match kind {
        "num" | "int" | "number" | "integer" => number(value),
        "tvm.Cell" => Ok(SafeRc::new_dyn_value(cell(value)?)),
        "tvm.Slice" => Ok(slice(cell(value)?)),
        "cell" => Ok(SafeRc::new_dyn_value(cell(&value["bytes"])?)),
        "slice" => Ok(slice(cell(&value["bytes"])?)),
        "tuple" | "tvm.Tuple" => tuple(elements(value)?, 0),
        "list" | "tvm.List" => list(elements(value)?, 0),
        other => Err(ApiError::new(
            542,
            format!("unsupported stack entry type: {other}"),
        )),
    }
}

/// Reads one object of `runGetMethodStd`'s stack.
pub(crate) fn from_object(object: &Value) -> Result<RcStackValue, ApiError> {
    from_object_at(object, 0)
}

fn from_object_at(object: &Value, depth: usize) -> Result<RcStackValue, ApiError> {
    if depth > DEPTH_MAX {
        return Err(wrong("a stack entry is nested too deeply"));
    }
    match object["@type"].as_str() {
        Some("tvm.stackEntryNumber") => number(&object["number"]["number"]),
        Some("tvm.stackEntryCell") => Ok(SafeRc::new_dyn_value(cell(&object["cell"]["bytes"])?)),
        Some("tvm.stackEntrySlice") => Ok(slice(cell(&object["slice"]["bytes"])?)),
        Some("tvm.stackEntryTuple") => tuple(elements(&object["tuple"])?, depth),
        Some("tvm.stackEntryList") => list(elements(&object["list"])?, depth),
        Some(other) => Err(wrong(&format!("unsupported stack entry type: {other}"))),
        None => Err(wrong("a stack entry has no @type")),
    }
}

fn wrong(message: &str) -> ApiError {
    ApiError::malformed(message.to_owned())
}

fn elements(value: &Value) -> Result<&[Value], ApiError> {
    let elements = value["elements"].as_array();
    elements
        .map(Vec::as_slice)
        .ok_or_else(|| wrong("a tuple or list has no elements"))
}

fn tuple(elements: &[Value], depth: usize) -> Result<RcStackValue, ApiError> {
    // The TVM's own limit.
    if elements.len() > 255 {
        return Err(wrong("a tuple has at most 255 elements"));
    }
    let read = elements
        .iter()
        .map(|value| from_object_at(value, depth + 1));
    let values = read.collect::<Result<Vec<RcStackValue>, ApiError>>()?;
    Ok(SafeRc::new_dyn_value(values))
}

fn list(elements: &[Value], depth: usize) -> Result<RcStackValue, ApiError> {
    if elements.len() > 255 {
        return Err(wrong("a list has at most 255 elements"));
    }
    let mut rest = Stack::make_null();
    for value in elements.iter().rev() {
        rest = SafeRc::new_dyn_value(vec![from_object_at(value, depth + 1)?, rest]);
    }
    Ok(rest)
}

fn number(value: &Value) -> Result<RcStackValue, ApiError> {
    let parsed = match value {
        Value::Number(number) => number.as_i64().map(BigInt::from),
        Value::String(text) => integer(text),
        _ => None,
    };
    // 257 bits with the sign.
    let least = -BigInt::from(2_u8).pow(256);
    let fits = |number: &BigInt| number.bits() <= 256 || *number == least;
    match parsed.filter(fits) {
        Some(number) => Ok(SafeRc::new_dyn_value(number)),
        None => Err(wrong(&format!("invalid number: {value}"))),
    }
}

/// Decimal, or hex after `0x`, with a sign in front of either.
fn integer(text: &str) -> Option<BigInt> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    // 2^256 in decimal has 78 digits; longer texts are not worth reading.
    if digits.is_empty() || digits.len() > 80 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let number = BigInt::parse_bytes(digits.as_bytes(), radix)?;
    Some(if negative { -number } else { number })
}

fn cell(value: &Value) -> Result<Cell, ApiError> {
    let Some(text) = value.as_str() else {
        return Err(wrong("a cell in a stack entry is a bag of cells in base64"));
    };
    cells::from_boc(text).map_err(|error| wrong(&format!("a cell in a stack entry: {error}")))
}

fn slice(cell: Cell) -> RcStackValue {
    SafeRc::new_dyn_value(OwnedCellSlice::new_allow_exotic(cell))
}

/// A value as `runGetMethod` answers it.
pub(crate) fn to_pair(value: &RcStackValue) -> Value {
    if let Some(number) = value.as_int() {
        let digits = number.magnitude().to_str_radix(16);
        let sign = if number.sign() == num_bigint::Sign::Minus {
            "-"
        } else {
            ""
        };
        return json!(["num", format!("{sign}0x{digits}")]);
    }
    // Slices come as cells, as toncenter has them.
    if let Some(cell) = cell_of(value) {
        let mut body = json!({ "bytes": cells::boc(cell.as_ref()) });
        let mut left = TREE_CELLS_MAX;
        if let Some(tree) = tree(cell.as_ref(), &mut left) {
            body["object"] = tree;
        }
        return json!(["cell", body]);
    }
    match to_object(value) {
        object if object["@type"] == "tvm.stackEntryList" => json!(["list", object["list"]]),
        object if object["@type"] == "tvm.stackEntryTuple" => json!(["tuple", object["tuple"]]),
        _ => json!(["unsupported", ""]),
    }
}

/// A value as `runGetMethodStd` answers it.
pub(crate) fn to_object(value: &RcStackValue) -> Value {
    to_object_at(value, 0)
}

fn to_object_at(value: &RcStackValue, depth: usize) -> Value {
    if let Some(number) = value.as_int() {
        return json!({
            "@type": "tvm.stackEntryNumber",
            "number": { "@type": "tvm.numberDecimal", "number": number.to_string() },
        });
    }
    if let Some(cell) = value.as_cell() {
        let cell = json!({ "@type": "tvm.cell", "bytes": cells::boc(cell.as_ref()) });
        return json!({ "@type": "tvm.stackEntryCell", "cell": cell });
    }
    if let Some(cell) = cell_of(value) {
        let slice = json!({ "@type": "tvm.slice", "bytes": cells::boc(cell.as_ref()) });
        return json!({ "@type": "tvm.stackEntrySlice", "slice": slice });
    }
    if depth > DEPTH_MAX {
        return json!({ "@type": "tvm.stackEntryUnsupported" });
    }
    let write = |values: &[&RcStackValue]| -> Vec<Value> {
        let values = values.iter();
        values.map(|value| to_object_at(value, depth + 1)).collect()
    };
    if let Some(values) = list_of(value) {
        let list = json!({ "@type": "tvm.list", "elements": write(&values) });
        return json!({ "@type": "tvm.stackEntryList", "list": list });
    }
    if let Some(values) = value.as_tuple() {
        let values: Vec<&RcStackValue> = values.iter().collect();
        let tuple = json!({ "@type": "tvm.tuple", "elements": write(&values) });
        return json!({ "@type": "tvm.stackEntryTuple", "tuple": tuple });
    }
    json!({ "@type": "tvm.stackEntryUnsupported" })
}

/// The elements, if it is null or pairs that end in null.
fn list_of(value: &RcStackValue) -> Option<Vec<&RcStackValue>> {
    let mut elements = Vec::new();
    let mut rest = value;
    while !rest.is_null() {
        let [head, tail] = rest.as_tuple()? else {
            return None;
        };
        elements.push(head);
        rest = tail;
    }
    Some(elements)
}

fn cell_of(value: &RcStackValue) -> Option<Cell> {
    if let Some(cell) = value.as_cell() {
        return Some(cell.clone());
    }
    let slice = value.as_cell_slice()?;
    CellBuilder::build_from(slice.apply()).ok()
}

/// A cell as nested objects; `None` if more than `left` cells are in it.
fn tree(cell: &DynCell, left: &mut usize) -> Option<Value> {
    *left = left.checked_sub(1)?;
    let bits = cell.bit_len();
    let mut refs = Vec::new();
    for child in cell.references() {
        refs.push(tree(child, left)?);
    }
    Some(json!({
        "data": { "b64": cells::base64(cell.data()), "len": bits },
        "refs": refs,
        "special": cell.is_exotic(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(pair: Value) -> Value {
        to_pair(&from_pair(&pair).unwrap())
    }

    #[test]
    fn numbers_in_every_writing() {
        for (text, expected) in [
            (json!("0"), "0x0"),
            (json!(-5), "-0x5"),
            (json!("0x1F"), "0x1f"),
            (json!("-0x10"), "-0x10"),
            (
                json!("123456789012345678901234567890"),
                "0x18ee90ff6c373e0ee4e3f0ad2",
            ),
        ] {
            assert_eq!(
                there_and_back(json!(["num", text])),
                json!(["num", expected])
            );
        }
        let least = format!("-0x1{}", "0".repeat(64));
        assert_eq!(there_and_back(json!(["num", least])), json!(["num", least]));
        for bad in [json!("0x1ffff"), json!("")].iter().skip(1).chain(&[
            json!("0x"),
            json!("1a"),
            json!("--1"),
            json!(1.5),
            json!(null),
            json!(format!("0x1{}", "0".repeat(64))),
        ]) {
            let error = from_pair(&json!(["num", bad])).unwrap_err();
            assert_eq!(error.code, 422, "{bad}");
        }
    }

    #[test]
    fn null_is_the_empty_list_and_pairs_are_lists() {
        let empty = json!(["list", { "@type": "tvm.list", "elements": [] }]);
        assert!(from_pair(&empty).unwrap().is_null());
        assert_eq!(there_and_back(empty.clone()), empty);
        let one = json!({
            "@type": "tvm.stackEntryNumber",
            "number": { "@type": "tvm.numberDecimal", "number": "7" },
        });
        let list = json!(["list", { "@type": "tvm.list", "elements": [one, one] }]);
        assert_eq!(there_and_back(list.clone()), list);
        let tuple = json!(["tuple", { "@type": "tvm.tuple", "elements": [one, one, one] }]);
        assert_eq!(there_and_back(tuple.clone()), tuple);
    }

    #[test]
    fn a_bag_that_is_a_huge_tree_is_not_written_out() {
        let mut cell = Cell::default();
        for _ in 0..40 {
            let mut builder = CellBuilder::new();
            builder.store_reference(cell.clone()).unwrap();
            builder.store_reference(cell).unwrap();
            cell = builder.build().unwrap();
        }
        let pair = to_pair(&SafeRc::new_dyn_value(cell));
        assert!(pair[1]["bytes"].is_string());
        assert!(pair[1]["object"].is_null());
    }
}
