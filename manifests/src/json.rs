//! How JSON views write numbers.
//!
//! Every 64-bit quantity is a decimal string, whatever its size, because a JSON number past
//! 2^53 loses digits in JavaScript; 32-bit numbers and smaller are numbers. Views are written
//! for people and scripts and are never read back: the canonical bytes are the document.

use serde::Serializer;

/// A 64-bit number as a decimal string.
pub(crate) fn u64_string<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The same for a number that may be absent.
pub(crate) fn u64_string_option<S: Serializer>(
    value: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Pretty JSON with the fields in the documents' own order, without a final line end.
pub(crate) fn pretty<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("documents have text keys only")
}
