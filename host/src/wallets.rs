//! Wallets by name: one key file each in `wallets/`, and the passphrase that opens it.
//!
//! In: names, passphrases from a file or a terminal. Out: key files, unlocked keys. A file is
//! whole before it has its name, is never replaced, and only its owner can read it. The
//! passphrase is never an argument, where every process of the machine would see it.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use tussah_manifest::SigningKey;
use tussah_settlement::Chain;
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{
    FILE_BYTES_MAX, KdfCost, KeyFile, KeyFileError, Wallet, WalletVersion,
};
use zeroize::Zeroizing;

use crate::{
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
};

/// The longest passphrase, or password of words.
const SECRET_BYTES_MAX: u64 = 1_024;

/// Where the passphrase is from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PassphraseOption {
    /// The file whose first line is the wallet's passphrase; the terminal asks if not given.
    #[arg(long, value_name = "FILE", env = "TUSSAH_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseOption {
    /// The passphrase of a wallet that is there.
    ///
    /// # Errors
    /// A usage failure if there is neither a file nor a terminal.
    pub(crate) fn read(&self, name: &str) -> Result<Zeroizing<String>, Failure> {
        match &self.passphrase_file {
            Some(file) => first_line(file),
            None => ask(&format!("Passphrase of wallet {name}: ")),
        }
    }

    /// A new passphrase; the terminal asks for it twice.
    ///
    /// # Errors
    /// As [`PassphraseOption::read`], and if the two differ.
    pub(crate) fn choose(&self, name: &str) -> Result<Zeroizing<String>, Failure> {
        let Some(file) = &self.passphrase_file else {
            let first = ask(&format!("New passphrase of wallet {name}: "))?;
            let again = ask("Once more: ")?;
            if first != again {
                return Err(Failure::usage("the two passphrases differ"));
            }
            return Ok(first);
        };
        first_line(file)
    }
}

/// Asks the terminal for a secret, which it does not show.
///
/// # Errors
/// A usage failure if there is no terminal.
pub(crate) fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let secret = rpassword::prompt_password(prompt).map(Zeroizing::new);
    secret.map_err(|error| {
        Failure::usage(error)
            .context("there is no terminal to ask for a secret")
            .help("give it in a file, such as with --passphrase-file")
    })
}

/// The first line of a file.
///
/// # Errors
/// A failure if it cannot be read, is longer than a secret is, or is no text.
pub(crate) fn first_line(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error| file_failure("read", path, error);
    let mut text = Zeroizing::new(Vec::with_capacity(2_048));
    let mut file = fs::File::open(path)
        .map_err(failed)?
        .take(SECRET_BYTES_MAX + 1);
    file.read_to_end(&mut text).map_err(failed)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() as u64 > SECRET_BYTES_MAX {
        let message = format!("{} has a line of more than 1024 bytes", path.display());
        return Err(Failure::usage(message));
    }
    let line = std::str::from_utf8(line);
    let line = line.map_err(|_| Failure::usage(format!("{} is no text", path.display())))?;
    Ok(Zeroizing::new(line.to_owned()))
}

/// For clap: a wallet's name.
pub(crate) fn wallet_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    if is_name {
        return Ok(text.to_owned());
    }
    Err("a wallet's name has 1 to 64 lowercase letters, digits, `-`, `_` and `.`".to_owned())
}

fn path(home: &Home, name: &str) -> Result<PathBuf, Failure> {
    Ok(home.folder("wallets")?.join(format!("{name}.json")))
}

/// Reads a wallet's file.
///
/// # Errors
/// A usage failure if there is none of this name, or it is damaged.
pub(crate) fn load(home: &Home, name: &str) -> Result<KeyFile, Failure> {
    let path = path(home, name)?;
    let bytes = match fs::File::open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
            read.map_err(|error| file_failure("read", &path, error))?;
            bytes
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("there is no wallet `{name}`"))
                .help(format!("make one with `tussah wallet new {name}`")));
        }
        Err(error) => return Err(file_failure("read", &path, error)),
    };
    let file = KeyFile::from_json(&bytes);
    file.map_err(|error| Failure::usage(error).context(format!("cannot use {}", path.display())))
}

/// Reads a wallet and opens it.
///
/// # Errors
/// As [`load`]; not verified if the passphrase is another.
fn unlock(
    home: &Home,
    name: &str,
    passphrase: &PassphraseOption,
) -> Result<(Wallet, SigningKey), Failure> {
    let file = load(home, name)?;
    let passphrase = passphrase.read(name)?;
    let key = file.open(&passphrase).map_err(|error| match error {
        KeyFileError::Passphrase => Failure::not_verified(error),
        other => Failure::usage(other),
    })?;
    Ok((file.wallet().clone(), key))
}

/// Reads a wallet and opens it, where it is of this chain's network.
///
/// # Errors
/// As [`unlock`] and [`require_network`], which comes first: nobody types a passphrase in vain.
pub(crate) fn unlock_on<C: Chain>(
    home: &Home,
    chain: &C,
    name: &str,
    passphrase: &PassphraseOption,
) -> Result<(Wallet, SigningKey), Failure> {
    let known = load(home, name)?;
    require_network(name, known.wallet(), chain.network())?;
    unlock(home, name, passphrase)
}

/// Locks a key in a new file.
///
/// # Errors
/// A usage failure if there is a wallet of this name, which stays as it is.
pub(crate) fn create(
    home: &Home,
    name: &str,
    key: &SigningKey,
    (version, network): (WalletVersion, NetworkId),
    passphrase: &str,
) -> Result<Wallet, Failure> {
    let path = path(home, name)?;
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    random(&mut salt)?;
    random(&mut nonce)?;
    let cost = KdfCost::default();
    let file = KeyFile::seal(key, version, network, passphrase, cost, (salt, nonce));
    let file = file.map_err(Failure::usage)?;
    let failed = |error| file_failure("write", &path, error);
    let folder = path.parent().unwrap_or(home.root());
    // Temporary files are made with mode 0600.
    let mut new = tempfile::Builder::new()
        .prefix(".wallet-")
        .tempfile_in(folder)
        .map_err(failed)?;
    new.write_all(file.to_json().as_bytes()).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    match new.persist_noclobber(&path) {
        Ok(_) => sync_folder(folder).map_err(failed)?,
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(taken(name));
        }
        Err(error) => return Err(failed(error.error)),
    }
    Ok(file.wallet().clone())
}

/// Refuses a name that is taken, before anybody types a passphrase for it.
///
/// # Errors
/// A usage failure if there is such a wallet.
pub(crate) fn require_free(home: &Home, name: &str) -> Result<(), Failure> {
    if path(home, name)?.exists() {
        return Err(taken(name));
    }
    Ok(())
}

fn taken(name: &str) -> Failure {
    Failure::usage(format!("there is a wallet `{name}` already")).help("choose another name")
}

/// The new name is the folder's content.
///
/// # Errors
/// Those of the file system.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(()) // Folders cannot be synced there.
}

/// That a wallet is used on its own network: elsewhere it has another address, or its money is
/// worth nothing.
///
/// # Errors
/// A usage failure that names both.
pub(crate) fn require_network(
    name: &str,
    wallet: &Wallet,
    network: NetworkId,
) -> Result<(), Failure> {
    if wallet.network == network {
        return Ok(());
    }
    let (own, other) = (wallet.network.0, network.0);
    let message = format!("wallet `{name}` is of network {own}, and this chain is network {other}");
    Err(Failure::usage(message).help("name the chain that you mean with --chain"))
}

/// Bytes of the operating system.
///
/// # Errors
/// A host failure if it has none.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|error| {
        Failure::new(Exit::HOST_FAILED, error).context("the operating system gave no random bytes")
    })
}
