//! An address in all its forms: raw, and the friendly one with flags and a checksum.
//!
//! In: text from outside. Out: an address with what its form says, or nothing. The friendly form
//! is [`FriendlyAddress`]'s to read and write.

use tussah_settlement::{Address, FriendlyAddress};
use tycho_types::cell::HashBytes;

use crate::cells;

/// How an address was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `0:` and 64 hex digits.
    Raw,
    /// 48 characters, for contracts: what cannot be delivered comes back.
    Bounceable,
    /// 48 characters, for wallets that may not be deployed yet.
    NonBounceable,
}

/// An address and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedAddress {
    /// The address.
    pub(crate) address: Address,
    /// Its form.
    pub(crate) form: Form,
    /// Not to be used on the main network.
    pub(crate) test_only: bool,
}

/// Reads an address in any form; `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<ParsedAddress> {
    if let Some((workchain, hex)) = text.split_once(':') {
        let workchain: i8 = workchain.parse().ok()?;
        let bytes: [u8; 32] = cells::from_hex(hex)?.try_into().ok()?;
        return Some(ParsedAddress {
            address: Address::new(workchain, HashBytes(bytes)),
            form: Form::Raw,
            test_only: false,
        });
    }
    let friendly: FriendlyAddress = text.parse().ok()?;
    Some(ParsedAddress {
        form: if friendly.bounceable {
            Form::Bounceable
        } else {
            Form::NonBounceable
        },
        test_only: friendly.test_only,
        address: friendly.address,
    })
}

/// The friendly form, in the alphabet for URLs.
pub(crate) fn friendly(address: &Address, bounceable: bool, test_only: bool) -> String {
    let address = address.clone();
    FriendlyAddress {
        address,
        bounceable,
        test_only,
    }
    .to_string()
}

/// The raw form, its digits in lower case.
pub(crate) fn raw(address: &Address) -> String {
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
