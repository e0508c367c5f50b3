//! An address in all its forms: raw, and the friendly one with flags and a checksum.
//!
//! In: text from outside. Out: an address with what its form says, or nothing. The friendly form
//! is TEP-2's: a tag (0x11 bounceable, 0x51 not, 0x80 more for test networks), the workchain,
//! 32 bytes, CRC-16 of it all, in base64.

use tussah_settlement::Address;
use tycho_types::cell::HashBytes;
use tycho_types::crc::crc_16;

use crate::cells;

const BOUNCEABLE: u8 = 0x11;
const NON_BOUNCEABLE: u8 = 0x51;
const TEST_ONLY: u8 = 0x80;

/// How an address was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `0:` and 64 hex digits.
    Raw,
    /// 48 characters, for contracts: what cannot be delivered comes back.
    Bounceable,
    /// 48 characters, for wallets that may not be deployed yet.
    NonBounceable,
}

/// An address and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedAddress {
    /// The address.
    pub address: Address,
    /// Its form.
    pub form: Form,
    /// Not to be used on the main network.
    pub test_only: bool,
}

/// Reads an address in any form; `None` if it is none.
pub fn parse(text: &str) -> Option<ParsedAddress> {
    if let Some((workchain, hex)) = text.split_once(':') {
        let workchain: i8 = workchain.parse().ok()?;
        let bytes: [u8; 32] = cells::from_hex(hex)?.try_into().ok()?;
        return Some(ParsedAddress {
            address: Address::new(workchain, HashBytes(bytes)),
            form: Form::Raw,
            test_only: false,
        });
    }
    if text.len() != 48 {
        return None;
    }
    let bytes: [u8; 36] = cells::from_base64(text)?.try_into().ok()?;
    let (content, checksum) = bytes.split_at(34);
    if crc_16(content).to_be_bytes() != *checksum {
        return None;
    }
    let form = match content[0] & !TEST_ONLY {
        BOUNCEABLE => Form::Bounceable,
        NON_BOUNCEABLE => Form::NonBounceable,
        _ => return None,
    };
    let mut hash = [0; 32];
    hash.copy_from_slice(&content[2..]);
    Some(ParsedAddress {
        address: Address::new(content[1].cast_signed(), HashBytes(hash)),
        form,
        test_only: content[0] & TEST_ONLY != 0,
    })
}

/// The friendly form, in the alphabet for URLs.
pub fn friendly(address: &Address, bounceable: bool, test_only: bool) -> String {
    cells::base64_url(&friendly_bytes(address, bounceable, test_only))
}

pub(crate) fn friendly_bytes(address: &Address, bounceable: bool, test_only: bool) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[0] = if bounceable {
        BOUNCEABLE
    } else {
        NON_BOUNCEABLE
    };
    if test_only {
        bytes[0] |= TEST_ONLY;
    }
    bytes[1] = address.workchain.cast_unsigned();
    bytes[2..34].copy_from_slice(address.address.as_array());
    let checksum = crc_16(&bytes[..34]).to_be_bytes();
    bytes[34..].copy_from_slice(&checksum);
    bytes
}

/// The raw form, its digits in lower case.
pub fn raw(address: &Address) -> String {
    let hash = cells::hex(address.address.as_array());
    format!("{}:{hash}", address.workchain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TEP-2's example, in the four forms it has there and the two for test networks.
    #[test]
    fn the_forms_of_one_address() {
        let raw_form = "-1:fcb91a3a3816d0f7b8c2c76108b8a9bc5a6b7a55bd79f8ab101c52db29232260";
        let table = [
            (
                "Uf/8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15+KsQHFLbKSMiYG+9",
                Form::NonBounceable,
                false,
            ),
            (
                "Uf_8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15-KsQHFLbKSMiYG-9",
                Form::NonBounceable,
                false,
            ),
            (
                "Ef/8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15+KsQHFLbKSMiYDJ4",
                Form::Bounceable,
                false,
            ),
            (
                "kf/8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15+KsQHFLbKSMiYIny",
                Form::Bounceable,
                true,
            ),
            (raw_form, Form::Raw, false),
        ];
        for (text, form, test_only) in table {
            let parsed = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((parsed.form, parsed.test_only), (form, test_only), "{text}");
            assert_eq!(raw(&parsed.address), raw_form, "{text}");
            if form != Form::Raw {
                let again = friendly(&parsed.address, form == Form::Bounceable, test_only);
                assert_eq!(again, text.replace('+', "-").replace('/', "_"));
            }
        }
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            "0:",
            "0:00",
            "300:fcb91a3a3816d0f7b8c2c76108b8a9bc5a6b7a55bd79f8ab101c52db29232260",
            "0:gcb91a3a3816d0f7b8c2c76108b8a9bc5a6b7a55bd79f8ab101c52db29232260",
            "Uf_8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15-KsQHFLbKSMiYG-8",
            "Uf_8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15-KsQHFLbKSMiYG-",
            "öööööööööööööööööööööööö",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
