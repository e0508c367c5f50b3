//! The password of the owner's page.
//!
//! In: a wish for a new one, or what somebody typed. Out: the password, once, and whether what was
//! typed is it. The ledger keeps its Argon2id hash ([RFC 9106](https://www.rfc-editor.org/rfc/rfc9106))
//! under a salt of its own, never the password.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use rusqlite::{Connection, OptionalExtension as _};
use tussah_manifest::Digest;
use zeroize::Zeroizing;

use super::{Ledger, LedgerError, StoreError};

/// Crockford's digits (<https://www.crockford.com/base32.html>): none looks like another.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Digits of a password, of 5 bits each: nobody guesses 100 bits.
const DIGITS_COUNT: usize = 20;
/// Digits between two dashes.
const GROUP: usize = 5;
/// What is still a password somebody typed, in bytes, with all dashes and blanks.
const TYPED_BYTES_MAX: usize = 128;
const SALT_BYTES: usize = 16;
/// What is kept: a version, the salt, the hash.
const KEPT_BYTES: usize = 1 + SALT_BYTES + 32;
/// Argon2id with what its crate recommends: 19 MiB, two passes, one lane.
const KEPT_VERSION: u8 = 1;
const SETTING: &str = "page_password";

/// A new password; this is the only time that anybody sees it.
pub struct PagePassword(Zeroizing<String>);

impl PagePassword {
    /// Four groups of five digits and letters, with dashes between them.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PagePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PagePassword(..)")
    }
}

/// What is kept of a password, by which it is known again.
#[derive(Clone, PartialEq, Eq)]
pub struct PageLock([u8; KEPT_BYTES]);

impl fmt::Debug for PageLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageLock(..)")
    }
}

impl PageLock {
    /// Whether this is the password, with or without its dashes, in letters of either size. It
    /// takes tens of milliseconds and 19 MiB, which is the point of it.
    ///
    /// # Errors
    /// [`LedgerError::Store`] if what is kept is of a later build.
    pub fn opens(&self, typed: &str) -> Result<bool, LedgerError> {
        let [version, kept @ ..] = &self.0;
        if *version != KEPT_VERSION {
            let damaged = format!("settings.{SETTING} has the unknown version {version}");
            return Err(StoreError::Damaged(damaged).into());
        }
        let Some(digits) = digits_of(typed) else {
            return Ok(false);
        };
        let (salt, kept) = kept.split_at(SALT_BYTES);
        let found = hash(&digits, salt)?;
        // BLAKE3's comparison takes as long wherever the first difference is.
        Ok(
            blake3::Hash::from_slice(kept)
                .is_ok_and(|kept| kept == blake3::Hash::from_bytes(found)),
        )
    }

    /// By which whoever logged in with this password is told from whoever did with the last one.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl Ledger {
    /// Makes a password for the owner's page, in place of the last one.
    ///
    /// # Errors
    /// [`LedgerError::Random`] or [`LedgerError::Store`].
    pub fn new_page_password(&self) -> Result<PagePassword, LedgerError> {
        let random = |bytes: &mut [u8]| {
            getrandom::fill(bytes).map_err(|error| LedgerError::Random(error.to_string()))
        };
        let mut drawn = Zeroizing::new([0; DIGITS_COUNT]);
        random(&mut drawn[..])?;
        let mut kept = [KEPT_VERSION; KEPT_BYTES];
        random(&mut kept[1..=SALT_BYTES])?;
        let mut digits = Zeroizing::new(String::with_capacity(DIGITS_COUNT));
        let mut shown = Zeroizing::new(String::with_capacity(DIGITS_COUNT + DIGITS_COUNT / GROUP));
        for (index, byte) in drawn.iter().enumerate() {
            if index > 0 && index % GROUP == 0 {
                shown.push('-');
            }
            let digit = char::from(DIGITS[usize::from(byte % 32)]);
            digits.push(digit);
            shown.push(digit);
        }
        let hash = hash(&digits, &kept[1..=SALT_BYTES])?;
        kept[1 + SALT_BYTES..].copy_from_slice(&hash);
        let answer = self.store.write::<_, LedgerError>(move |connection| {
            let sql = "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET \
                       value = ?2";
            connection.execute(sql, (SETTING, kept.as_slice()))?;
            Ok(())
        });
        answer.block()?;
        Ok(PagePassword(shown))
    }

    /// Takes the password of the owner's page away, so that nobody logs in; whether there was one.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn remove_page_password(&self) -> Result<bool, LedgerError> {
        let answer = self.store.write::<_, LedgerError>(move |connection| {
            Ok(connection.execute("DELETE FROM settings WHERE name = ?1", [SETTING])? > 0)
        });
        answer.block()
    }

    /// What is kept of the password of the owner's page; `None` where there is none.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn page_lock(&self) -> Result<Option<PageLock>, LedgerError> {
        self.store.look(|connection: &Connection| {
            let sql = "SELECT value FROM settings WHERE name = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let found: Option<Vec<u8>> = statement
                .query_row([SETTING], |row| row.get(0))
                .optional()?;
            let lock = found.map(|bytes| {
                let bytes: Result<[u8; KEPT_BYTES], _> = bytes.try_into();
                bytes.map(PageLock).map_err(|_| {
                    StoreError::Damaged(format!("settings.{SETTING} is no password's hash"))
                })
            });
            Ok(lock.transpose()?)
        })
    }
}

/// The digits of what was typed, as Crockford's base 32 reads what looks alike; `None` if that is
/// no password of ours.
fn digits_of(typed: &str) -> Option<Zeroizing<String>> {
    if typed.len() > TYPED_BYTES_MAX {
        return None;
    }
    // Room for all of it: a string that grows leaves copies behind.
    let mut digits = Zeroizing::new(String::with_capacity(TYPED_BYTES_MAX));
    for letter in typed.chars() {
        match letter.to_ascii_lowercase() {
            '-' => {}
            blank if blank.is_whitespace() => {}
            'o' => digits.push('0'),
            'i' | 'l' => digits.push('1'),
            digit if digit.is_ascii() && DIGITS.iter().any(|d| char::from(*d) == digit) => {
                digits.push(digit);
            }
            _ => return None,
        }
    }
    (digits.len() == DIGITS_COUNT).then_some(digits)
}

fn hash(digits: &str, salt: &[u8]) -> Result<[u8; 32], LedgerError> {
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    let mut hash = [0; 32];
    argon
        .hash_password_into(digits.as_bytes(), salt, &mut hash)
        .map_err(|error| StoreError::Damaged(format!("settings.{SETTING}: {error}")))?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_alike_is_read_alike_and_nothing_else_is_a_password() {
        let digits = "0123456789abcdefghjk";
        for typed in [
            "0123456789abcdefghjk",
            "01234-56789-abcde-fghjk",
            " oI234-56789 ABCDE fghjk\n",
            "Ol23456789abcdefghjk",
        ] {
            let found = digits_of(typed);
            assert_eq!(found.as_ref().map(|d| d.as_str()), Some(digits), "{typed}");
        }
        for typed in [
            "",
            "-",
            "0123456789abcdefghj",
            "0123456789abcdefghjkm",
            "0123456789abcdefghju",
            "0123456789abcdefghjé",
        ] {
            assert!(digits_of(typed).is_none(), "{typed}");
        }
        assert!(digits_of(&"-".repeat(TYPED_BYTES_MAX + 1)).is_none());
    }
}
