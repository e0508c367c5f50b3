//! Addresses as people pass them on: 48 characters with flags and a checksum.
//!
//! In: an address and what it is used for, or text from outside. Out: the text, or the address
//! with what its flags say. The form is TEP-2's: a tag (0x11 bounceable, 0x51 not, 0x80 more
//! for test networks), the workchain, 32 bytes and CRC-16 of it all, in URL-safe base64.

use std::fmt;
use std::str::FromStr;

use tycho_types::models::{Base64StdAddrFlags, DisplayBase64StdAddr, StdAddr, StdAddrFormat};

use crate::voucher::NetworkId;

/// An address with its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FriendlyAddress {
    /// The address.
    pub address: StdAddr,
    /// Whether money sent there comes back if no code takes it. Contracts are shown so; wallets,
    /// which may not be deployed yet, are not.
    pub bounceable: bool,
    /// Not for the main network.
    pub test_only: bool,
}

impl FriendlyAddress {
    /// A wallet: what is sent there stays, deployed or not.
    pub fn wallet(address: StdAddr, network: NetworkId) -> Self {
        Self {
            address,
            bounceable: false,
            test_only: network != NetworkId::MAINNET,
        }
    }

    /// A contract: what it does not take comes back.
    pub fn contract(address: StdAddr, network: NetworkId) -> Self {
        Self {
            bounceable: true,
            ..Self::wallet(address, network)
        }
    }

    fn flags(&self, base64_url: bool) -> Base64StdAddrFlags {
        Base64StdAddrFlags {
            testnet: self.test_only,
            base64_url,
            bounceable: self.bounceable,
        }
    }
}

impl fmt::Display for FriendlyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.flags(true);
        let addr = &self.address;
        DisplayBase64StdAddr { addr, flags }.fmt(f)
    }
}

impl FromStr for FriendlyAddress {
    type Err = AddressError;

    /// Reads either alphabet of base64. A raw address, `0:` and 64 hex digits, has no flags and
    /// is [`StdAddr`]'s to read.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError {
            text: text.chars().take(80).collect(),
        };
        let format = StdAddrFormat::any();
        let (address, flags) = StdAddr::from_str_ext(text, format).map_err(|_| wrong())?;
        let read = Self {
            address,
            bounceable: flags.bounceable,
            test_only: flags.testnet,
        };
        // A tag can have other bits, and a workchain be another than the two.
        let flags = read.flags(flags.base64_url);
        let addr = &read.address;
        let again = DisplayBase64StdAddr { addr, flags }.to_string();
        if again != text || !matches!(read.address.workchain, 0 | -1) {
            return Err(wrong());
        }
        Ok(read)
    }
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of 48 characters")]
pub struct AddressError {
    /// What it was, cut.
    pub text: String,
}
