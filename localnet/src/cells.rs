//! Cells, hashes and bytes as toncenter writes them in JSON.
//!
//! In: cells, 32-byte hashes. Out: base64 with padding. Reading takes the forms that toncenter
//! takes: base64, its URL variant and, for hashes, hex.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, DynCell};

/// Bytes in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes in base64 for URLs, with padding.
pub(crate) fn base64_url(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

/// Bytes from base64 of either alphabet, with padding.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

/// A bag of cells in base64.
pub(crate) fn boc(cell: &DynCell) -> String {
    base64(&Boc::encode(cell))
}

/// A bag of cells with one root, from base64.
pub(crate) fn from_boc(text: &str) -> Result<Cell, String> {
    let bytes = from_base64(text).ok_or_else(|| "it is not base64".to_owned())?;
    Boc::decode(bytes).map_err(|error| error.to_string())
}

/// 32 bytes from the four forms in which toncenter takes a hash.
pub(crate) fn from_hash(text: &str) -> Option<[u8; 32]> {
    let bytes = match text.len() {
        44 => from_base64(text)?,
        43 => URL_SAFE_NO_PAD.decode(text).ok()?,
        64 => from_hex(text)?,
        _ => return None,
    };
    bytes.try_into().ok()
}

/// Bytes from hex digits, two a byte.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

/// Hex digits, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
