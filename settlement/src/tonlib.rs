//! A second opinion: what tonlib-core, the pure-Rust half of tonlib-rs, makes of the same words.
//!
//! In: a mnemonic. Out: the key and the address that tonlib-core has for it. Only under the
//! feature `tonlib`, which is off: tonlib-core links a crate under the LGPL and does not wipe its
//! keys, see `docs/decisions/0006-ton-libraries.md`. Nothing of ours depends on what it says.

use tonlib_core::wallet::mnemonic::Mnemonic as Words;
use tonlib_core::wallet::ton_wallet::TonWallet;
use tonlib_core::wallet::wallet_version::WalletVersion as Version;
use tussah_manifest::PublicKey;
use tycho_types::models::StdAddr;

use crate::wallet::{Mnemonic, WalletVersion};

/// The key and the address on the main network, by tonlib-core.
///
/// # Errors
/// [`TonlibError`] if it does not take the words, or gives a key or an address that is none.
pub fn wallet(
    mnemonic: &Mnemonic,
    version: WalletVersion,
) -> Result<(PublicKey, StdAddr), TonlibError> {
    let refused = |error: &dyn std::fmt::Display| TonlibError {
        reason: error.to_string(),
    };
    let password = mnemonic.password();
    let password = (!password.is_empty()).then(|| password.to_owned());
    let words = Words::from_str(mnemonic.words(), &password).map_err(|error| refused(&error))?;
    let pair = words.to_key_pair().map_err(|error| refused(&error))?;
    let key: [u8; 32] = pair
        .public_key
        .as_slice()
        .try_into()
        .map_err(|error| refused(&error))?;
    let key = PublicKey::from_bytes(key).map_err(|error| refused(&error))?;
    let version = match version {
        WalletVersion::V4R2 => Version::V4R2,
        WalletVersion::V5R1 => Version::V5R1,
    };
    let wallet = TonWallet::new(version, pair).map_err(|error| refused(&error))?;
    let address = wallet.address.to_hex().parse();
    Ok((key, address.map_err(|error| refused(&error))?))
}

/// Why tonlib-core has no opinion.
#[derive(Debug, thiserror::Error)]
#[error("tonlib-core: {reason}")]
pub struct TonlibError {
    /// Its words.
    pub reason: String,
}
