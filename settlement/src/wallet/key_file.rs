//! `KeyFile`: a wallet's secret key under a passphrase, as JSON.
//!
//! In: a key and a passphrase, or a file's bytes. Out: the file's bytes, or the key. The
//! passphrase goes through Argon2id (RFC 9106), the key lies under XChaCha20-Poly1305, and which
//! wallet it is for is authenticated with it. Work and memory that a file can ask for are bounded
//! before any is done. This file never draws random bytes: salt and nonce are the caller's, new
//! for each file.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use serde_json::{Value, json};
use tussah_manifest::{PublicKey, SigningKey};
use zeroize::Zeroizing;

use super::{Wallet, WalletVersion};
use crate::voucher::NetworkId;

/// The largest file that is read.
pub const FILE_BYTES_MAX: usize = 4_096;
/// What a file may ask for: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const KIND: &str = "tussah-wallet";

/// What a passphrase's guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes; Argon2 wants 8 KiB for each.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// RFC 9106's second recommendation, with one lane as this machine fills it alone.
    fn default() -> Self {
        Self {
            memory_kib: 1 << 16,
            passes: 3,
            lanes: 1,
        }
    }
}

impl KdfCost {
    fn params(self) -> Result<Params, KeyFileError> {
        let Self {
            memory_kib,
            passes,
            lanes,
        } = self;
        let is_bounded = memory_kib <= MEMORY_KIB_MAX
            && (1..=PASSES_MAX).contains(&passes)
            && (1..=LANES_MAX).contains(&lanes)
            && memory_kib >= 8 * lanes;
        if !is_bounded {
            return Err(KeyFileError::Cost(self));
        }
        let params = Params::new(memory_kib, passes, lanes, Some(32));
        params.map_err(|_| KeyFileError::Cost(self))
    }
}

/// A wallet's key, locked.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    wallet: Wallet,
    cost: KdfCost,
    salt: [u8; 16],
    nonce: [u8; 24],
    /// 32 bytes and a tag of 16.
    sealed: [u8; 48],
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("KeyFile");
        debug.field("wallet", &self.wallet).finish_non_exhaustive()
    }
}

impl KeyFile {
    /// Locks `key`. `salt` and `nonce` are random and never used again.
    ///
    /// # Errors
    /// - [`KeyFileError::NoPassphrase`] if it is empty.
    /// - [`KeyFileError::Cost`] if `cost` is out of bounds.
    pub fn seal(
        key: &SigningKey,
        version: WalletVersion,
        network: NetworkId,
        passphrase: &str,
        cost: KdfCost,
        (salt, nonce): ([u8; 16], [u8; 24]),
    ) -> Result<Self, KeyFileError> {
        if passphrase.is_empty() {
            return Err(KeyFileError::NoPassphrase);
        }
        let wallet = Wallet {
            version,
            key: key.public_key(),
            network,
        };
        let mut file = Self {
            wallet,
            cost,
            salt,
            nonce,
            sealed: [0; 48],
        };
        let (secret, header) = (key.to_bytes(), file.header());
        let payload = Payload {
            msg: &secret[..],
            aad: header.as_bytes(),
        };
        let sealed = file
            .cipher(passphrase)?
            .encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.ok().and_then(|sealed| sealed.try_into().ok());
        file.sealed = sealed.expect("32 bytes are sealed in 48");
        Ok(file)
    }

    /// Unlocks the key.
    ///
    /// # Errors
    /// [`KeyFileError::Passphrase`] if this is not the passphrase, or the file was changed.
    pub fn open(&self, passphrase: &str) -> Result<SigningKey, KeyFileError> {
        let header = self.header();
        let payload = Payload {
            msg: &self.sealed,
            aad: header.as_bytes(),
        };
        let secret = self
            .cipher(passphrase)?
            .decrypt(&XNonce::from(self.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| KeyFileError::Passphrase)?;
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(&secret);
        let key = SigningKey::from_bytes(&bytes);
        if key.public_key() != self.wallet.key {
            return Err(KeyFileError::Passphrase);
        }
        Ok(key)
    }

    /// Which wallet it is for; this part is not secret, and whoever can write the file can change
    /// it until the passphrase is used.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The file's bytes.
    pub fn to_json(&self) -> String {
        let value = json!({
            "kind": KIND,
            "format": 1,
            "wallet": version_name(self.wallet.version),
            "network": self.wallet.network.0,
            "public_key": self.wallet.key.to_string(),
            "kdf": {
                "name": "argon2id",
                "memory_kib": self.cost.memory_kib,
                "passes": self.cost.passes,
                "lanes": self.cost.lanes,
                "salt": hex(&self.salt),
            },
            "cipher": {
                "name": "xchacha20poly1305",
                "nonce": hex(&self.nonce),
                "sealed": hex(&self.sealed),
            },
        });
        format!("{value:#}\n")
    }

    /// Reads a file's bytes; nothing is computed yet.
    ///
    /// # Errors
    /// - [`KeyFileError::Size`] if there are more than 4 KiB.
    /// - [`KeyFileError::Field`] if one is missing, unknown, or not what it should be.
    /// - [`KeyFileError::Cost`] if it asks for more work than this crate does.
    pub fn from_json(bytes: &[u8]) -> Result<Self, KeyFileError> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(KeyFileError::Size);
        }
        let value: Value =
            serde_json::from_slice(bytes).map_err(|_| KeyFileError::Field("the whole, as JSON"))?;
        known(
            &value,
            &[
                "kind",
                "format",
                "wallet",
                "network",
                "public_key",
                "kdf",
                "cipher",
            ],
        )?;
        known(
            &value["kdf"],
            &["name", "memory_kib", "passes", "lanes", "salt"],
        )?;
        known(&value["cipher"], &["name", "nonce", "sealed"])?;
        for (pointer, expected) in [
            ("/kind", json!(KIND)),
            ("/format", json!(1)),
            ("/kdf/name", json!("argon2id")),
            ("/cipher/name", json!("xchacha20poly1305")),
        ] {
            if value.pointer(pointer) != Some(&expected) {
                return Err(KeyFileError::Field(pointer));
            }
        }
        let version = value["wallet"].as_str().and_then(version_of);
        let network = value["network"]
            .as_i64()
            .and_then(|id| i32::try_from(id).ok());
        let key = value["public_key"].as_str();
        let key = key.and_then(|key| key.parse::<PublicKey>().ok());
        let cost = KdfCost {
            memory_kib: number(&value, "/kdf/memory_kib")?,
            passes: number(&value, "/kdf/passes")?,
            lanes: number(&value, "/kdf/lanes")?,
        };
        cost.params()?;
        Ok(Self {
            wallet: Wallet {
                version: version.ok_or(KeyFileError::Field("/wallet"))?,
                key: key.ok_or(KeyFileError::Field("/public_key"))?,
                network: NetworkId(network.ok_or(KeyFileError::Field("/network"))?),
            },
            cost,
            salt: bytes_at(&value, "/kdf/salt")?,
            nonce: bytes_at(&value, "/cipher/nonce")?,
            sealed: bytes_at(&value, "/cipher/sealed")?,
        })
    }

    /// What is authenticated and not encrypted.
    fn header(&self) -> String {
        let (version, network) = (version_name(self.wallet.version), self.wallet.network.0);
        format!("{KIND} 1 {version} {network} {}", self.wallet.key)
    }

    fn cipher(&self, passphrase: &str) -> Result<XChaCha20Poly1305, KeyFileError> {
        let params = self.cost.params()?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = Zeroizing::new([0; 32]);
        argon
            .hash_password_into(passphrase.as_bytes(), &self.salt, &mut key[..])
            .map_err(|_| KeyFileError::Cost(self.cost))?;
        Ok(XChaCha20Poly1305::new(&Key::from(*key)))
    }
}

fn version_name(version: WalletVersion) -> &'static str {
    match version {
        WalletVersion::V4R2 => "v4r2",
        WalletVersion::V5R1 => "v5r1",
    }
}

fn version_of(name: &str) -> Option<WalletVersion> {
    match name {
        "v4r2" => Some(WalletVersion::V4R2),
        "v5r1" => Some(WalletVersion::V5R1),
        _ => None,
    }
}

/// That a part of the file has these fields and no others.
fn known(value: &Value, fields: &[&'static str]) -> Result<(), KeyFileError> {
    let object = value.as_object().ok_or(KeyFileError::Field("an object"))?;
    if let Some(field) = fields.iter().find(|field| !object.contains_key(**field)) {
        return Err(KeyFileError::Field(field));
    }
    if object.len() > fields.len() {
        return Err(KeyFileError::Field("one that is unknown"));
    }
    Ok(())
}

fn number(value: &Value, pointer: &'static str) -> Result<u32, KeyFileError> {
    let number = value.pointer(pointer).and_then(Value::as_u64);
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.ok_or(KeyFileError::Field(pointer))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_at<const N: usize>(value: &Value, pointer: &'static str) -> Result<[u8; N], KeyFileError> {
    let wrong = KeyFileError::Field(pointer);
    let digits = value.pointer(pointer).and_then(Value::as_str);
    let digits = digits
        .map(str::as_bytes)
        .filter(|digits| digits.len() == 2 * N);
    let Some(digits) = digits else {
        return Err(wrong);
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(wrong),
            };
            *byte = *byte << 4 | value;
        }
    }
    Ok(bytes)
}

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A passphrase of no letters locks nothing.
    #[error("the passphrase is empty")]
    NoPassphrase,
    /// It is not the passphrase; or the file was changed, which looks the same.
    #[error("this is not the wallet's passphrase, or its file was changed")]
    Passphrase,
    /// Too large for a key file.
    #[error("a key file has at most {FILE_BYTES_MAX} bytes")]
    Size,
    /// A field that is not as this format has it.
    #[error("this is no key file of format 1: {0} is not as it should be")]
    Field(&'static str),
    /// Work that is not done for a file.
    #[error("the file asks for {} KiB, {} passes and {} lanes of Argon2id", .0.memory_kib, .0.passes, .0.lanes)]
    Cost(KdfCost),
}
