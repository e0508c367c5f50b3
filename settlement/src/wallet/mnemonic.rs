//! `Mnemonic`: 24 words that are a wallet's key, as TON's wallets have them.
//!
//! In: random bytes of the caller, or words that somebody typed. Out: the key. The words never
//! appear in `Debug`, and are wiped when dropped. The scheme is npm `@ton/crypto`'s (`mnemonic.ts`),
//! the word list BIP-39's English one (`bitcoin/bips`, MIT; SHA-256 2f5eed53…4dbda).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::Sha512;
use tussah_manifest::SigningKey;
use zeroize::{Zeroize, Zeroizing};

const WORDS: &str = include_str!("english.txt");
/// Rounds of PBKDF2 from words to key; the checks take fewer.
const ROUNDS: u32 = 100_000;
const BASIC_ROUNDS: u32 = ROUNDS / 256;
/// 24 words of 11 bits.
const RANDOM_BYTES: usize = 33;
/// One try of 256 gives good words, or of 65,536 with a password. So many fail by chance never.
const TRIES_MAX: u32 = 10_000_000;

/// The words of a wallet, and the password that some add.
pub struct Mnemonic {
    /// Lower case, one space between two.
    words: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mnemonic(24 secret words)")
    }
}

impl Mnemonic {
    /// How many words there are.
    pub const COUNT: usize = 24;

    /// Draws new words from `fill`, which must be the operating system's random source.
    ///
    /// # Errors
    /// - What `fill` fails with.
    /// - [`MnemonicError::Random`] if ten million draws gave no good words: `fill` is not random.
    pub fn generate<E: From<MnemonicError>>(
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
        password: &str,
    ) -> Result<Self, E> {
        let list: Vec<&str> = WORDS.lines().collect();
        for _ in 0..TRIES_MAX {
            let mut random = Zeroizing::new([0; RANDOM_BYTES]);
            fill(&mut random[..])?;
            let words = from_random(&list, &random);
            let drawn = Self {
                words,
                password: Zeroizing::new(password.to_owned()),
            };
            if drawn.check().is_ok() {
                return Ok(drawn);
            }
        }
        Err(MnemonicError::Random.into())
    }

    /// Reads words that somebody typed: any case, any space around them.
    ///
    /// # Errors
    /// - [`MnemonicError::Count`] if they are not 24.
    /// - [`MnemonicError::Word`] if one is not in the list; it is named by its place alone.
    /// - [`MnemonicError::PasswordNeeded`], [`MnemonicError::NoPassword`] or
    ///   [`MnemonicError::Checksum`] if words and password do not belong together.
    pub fn parse(text: &str, password: &str) -> Result<Self, MnemonicError> {
        let count = text.split_whitespace().count();
        if count != Self::COUNT {
            return Err(MnemonicError::Count { count });
        }
        // Room for all at once: a string that grows leaves copies behind.
        let mut words = Zeroizing::new(String::with_capacity(text.len()));
        for (index, word) in text.split_whitespace().enumerate() {
            let word = Zeroizing::new(word.to_ascii_lowercase());
            if !WORDS.lines().any(|known| known == *word) {
                return Err(MnemonicError::Word { place: index + 1 });
            }
            if index > 0 {
                words.push(' ');
            }
            words.push_str(&word);
        }
        let parsed = Self {
            words,
            password: Zeroizing::new(password.to_owned()),
        };
        parsed.check()?;
        Ok(parsed)
    }

    /// The words, to be shown once to whoever keeps them.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The password beside them; empty where there is none.
    #[cfg(feature = "tonlib")]
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The wallet's key.
    pub fn key(&self) -> SigningKey {
        let mut seed = Zeroizing::new([0; 64]);
        let entropy = self.entropy(&self.password);
        pbkdf2_hmac::<Sha512>(&entropy[..], b"TON default seed", ROUNDS, &mut seed[..]);
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&seed[..32]);
        SigningKey::from_bytes(&secret)
    }

    fn check(&self) -> Result<(), MnemonicError> {
        let without = self.entropy("");
        let needs_password = first_byte(&without, b"TON fast seed version", 1) == 1
            && first_byte(&without, b"TON seed version", BASIC_ROUNDS) != 0;
        match (needs_password, self.password.is_empty()) {
            (false, false) => return Err(MnemonicError::NoPassword),
            (true, true) => return Err(MnemonicError::PasswordNeeded),
            _ => {}
        }
        let entropy = self.entropy(&self.password);
        if first_byte(&entropy, b"TON seed version", BASIC_ROUNDS) != 0 {
            return Err(MnemonicError::Checksum);
        }
        Ok(())
    }

    fn entropy(&self, password: &str) -> Zeroizing<[u8; 64]> {
        let mac = <Hmac<Sha512> as KeyInit>::new_from_slice(self.words.as_bytes());
        let mut mac = mac.expect("HMAC takes keys of any length");
        mac.update(password.as_bytes());
        let mut digest = mac.finalize().into_bytes();
        let mut entropy = Zeroizing::new([0; 64]);
        entropy.copy_from_slice(&digest);
        digest.as_mut_slice().zeroize();
        entropy
    }
}

/// The checksum: words are drawn until this is what it should be.
fn first_byte(entropy: &[u8; 64], salt: &[u8], rounds: u32) -> u8 {
    let mut seed = Zeroizing::new([0; 64]);
    pbkdf2_hmac::<Sha512>(entropy, salt, rounds, &mut seed[..]);
    seed[0]
}

/// 11 bits a word, the most significant first; 2048 words, so each is as likely.
fn from_random(list: &[&str], random: &[u8; RANDOM_BYTES]) -> Zeroizing<String> {
    let mut words = Zeroizing::new(String::with_capacity(Mnemonic::COUNT * 9));
    for index in 0..Mnemonic::COUNT {
        let mut place = 0;
        for bit in index * 11..index * 11 + 11 {
            place = place << 1 | usize::from(random[bit / 8] >> (7 - bit % 8) & 1);
        }
        if index > 0 {
            words.push(' ');
        }
        words.push_str(list[place]);
    }
    words
}

/// Why words are no wallet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MnemonicError {
    /// Not 24.
    #[error("these are {count} words, not 24")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// A word that is not in the list.
    #[error("word {place} is not one of BIP-39's English words")]
    Word {
        /// Which one; the first is 1.
        place: usize,
    },
    /// The words want a password beside them.
    #[error("these words were made with a password, and none was given")]
    PasswordNeeded,
    /// The words want none.
    #[error("these words were made without a password")]
    NoPassword,
    /// A word is wrong, or its place, or the password.
    #[error("these words do not belong together, or the password is another")]
    Checksum,
    /// Random bytes that are not.
    #[error("the source of random bytes gives the same again and again")]
    Random,
}
