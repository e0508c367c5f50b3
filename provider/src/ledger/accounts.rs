//! Who may ask: accounts with their credit, API keys by their hash; and what is offered:
//! manifests by digest, deployments by name.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row};
use tussah_manifest::{Digest, Document as _, Manifest, Nanograms};

use super::limits::{self, AccountLimits, LimitChanges};
use super::{AccountId, Ledger, LedgerError, StoreError, amount, signed, unsigned};

/// What an API key starts with.
const KEY_PREFIX: &str = "tsk_";
/// The hash of a key is for nothing else. The context is fixed for as long as keys are.
const KEY_CONTEXT: &str = "tussah 2026-11 api key v1";
/// The most characters of the name of an account, a key or a deployment.
const NAME_BYTES_MAX: usize = 63;

/// An account as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Its name.
    pub name: String,
    /// Its limits.
    pub limits: AccountLimits,
    /// What its finished jobs cost.
    pub spent: Nanograms,
    /// What its accepted jobs may still cost.
    pub reserved: Nanograms,
    /// Bytes of all blobs whose uploads it started, while it had a limit.
    pub uploaded_bytes: u64,
}

/// A new API key; this is the only time that anybody sees it.
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// `tsk_` and 64 hex digits.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(..)")
    }
}

/// An API key as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its own name.
    pub name: String,
    /// Whose it is.
    pub account: String,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When it was revoked, if it was.
    pub revoked_unix_ms: Option<u64>,
}

/// What the input and output of a deployed job look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A chat: messages in, text out.
    Chat,
    /// A prompt in, text out.
    Completions,
    /// Texts in, vectors out.
    Embeddings,
    /// Whatever the job likes; only the jobs API runs it.
    Raw,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Raw];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Raw => "raw",
        }
    }

    /// The shape of a word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

/// A job that is offered under a name: a "model" to OpenAI's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The name.
    pub name: String,
    /// The manifest.
    pub manifest: Digest,
    /// What goes in and comes out.
    pub shape: Shape,
    /// When it was deployed, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// The text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name; a name starts with a letter or digit and goes on with those, `.`, `_`, `-`, `:` or `/`, 63 characters at most"
)]
pub struct NameError(pub String);

/// Checks the name of an account, an API key or a deployment.
///
/// # Errors
/// [`NameError`] says what a name is.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"._-:/".contains(&c);
    let first = name
        .bytes()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= NAME_BYTES_MAX && name.bytes().all(good) {
        return Ok(());
    }
    let shown = name.chars().take(NAME_BYTES_MAX + 1).collect();
    Err(NameError(shown))
}

impl Ledger {
    /// The account of this name; makes it, without limits, if there is none.
    ///
    /// # Errors
    /// [`LedgerError::Name`] or [`LedgerError::Store`].
    pub fn account_or_new(&self, name: &str, now_ms: u64) -> Result<AccountId, LedgerError> {
        check_name(name)?;
        let name = name.to_owned();
        let answer = self
            .store
            .write(move |connection| account_or_new(connection, &name, now_ms));
        answer.block()
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn accounts(&self) -> Result<Vec<Account>, LedgerError> {
        self.store.read(|connection| {
            let sql = format!("SELECT {ACCOUNT} FROM accounts ORDER BY name");
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([], |row| Ok(account_of(row, 0)))?;
            rows.map(|row| row?).collect()
        })
    }

    /// Makes an API key of this name for an account, which is made with it where there is none.
    ///
    /// # Errors
    /// [`LedgerError::KeyTaken`], [`LedgerError::Name`], [`LedgerError::Random`] or
    /// [`LedgerError::Store`].
    pub fn new_api_key(
        &self,
        name: &str,
        account: &str,
        now_ms: u64,
    ) -> Result<ApiKeySecret, LedgerError> {
        self.new_api_key_with(name, account, LimitChanges::default(), now_ms)
    }

    /// The same, and changes the account's limits with it.
    ///
    /// # Errors
    /// Those of [`Ledger::new_api_key`] and [`Ledger::change_limits`]; then there is no such key.
    pub fn new_api_key_with(
        &self,
        name: &str,
        account: &str,
        changes: LimitChanges,
        now_ms: u64,
    ) -> Result<ApiKeySecret, LedgerError> {
        check_name(name)?;
        check_name(account)?;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| LedgerError::Random(error.to_string()))?;
        let secret = format!("{KEY_PREFIX}{}", Digest::from_bytes(bytes).to_hex());
        let hash = hash_of(&secret);
        let (name, account) = (name.to_owned(), account.to_owned());
        let answer = self.store.write(move |connection| {
            let name_of_account = account;
            let account = account_or_new(connection, &name_of_account, now_ms)?;
            limits::change(connection, &name_of_account, changes)?;
            let sql = "INSERT INTO api_keys (hash, account, name, created) \
                       VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
            let created = signed(now_ms, "the time")?;
            match connection.execute(sql, (hash, account.0, &name, created))? {
                0 => Err(LedgerError::KeyTaken(name)),
                _ => Ok(()),
            }
        });
        answer.block()?;
        Ok(ApiKeySecret(secret))
    }

    /// Makes a key useless. Jobs that it asked for go on.
    ///
    /// # Errors
    /// [`LedgerError::NoKey`] or [`LedgerError::Store`].
    pub fn revoke_api_key(&self, name: &str, now_ms: u64) -> Result<(), LedgerError> {
        let name = name.to_owned();
        let answer = self.store.write(move |connection| {
            let sql = "UPDATE api_keys SET revoked = coalesce(revoked, ?2) WHERE name = ?1";
            match connection.execute(sql, (&name, signed(now_ms, "the time")?))? {
                0 => Err(LedgerError::NoKey(name)),
                _ => Ok(()),
            }
        });
        answer.block()
    }

    /// All keys, by name.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn api_keys(&self) -> Result<Vec<ApiKey>, LedgerError> {
        self.store.read(|connection| {
            let sql = "SELECT k.name, a.name, k.created, k.revoked FROM api_keys k \
                       JOIN accounts a ON a.id = k.account ORDER BY k.name";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let (created, revoked) = (row.get::<_, i64>(2)?, row.get::<_, Option<i64>>(3)?);
                Ok((row.get(0)?, row.get(1)?, created, revoked))
            })?;
            rows.map(|row| {
                let (name, account, created, revoked) = row?;
                Ok(ApiKey {
                    name,
                    account,
                    created_unix_ms: unsigned(created, "api_keys.created")?,
                    revoked_unix_ms: revoked.map(|ms| unsigned(ms, "revoked")).transpose()?,
                })
            })
            .collect()
        })
    }

    /// Whose key this is; `None` for a text that is no key, or a revoked one.
    ///
    /// Keys are looked up by their hash: how long that takes says nothing of another key.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn account_of_key(&self, secret: &str) -> Result<Option<Account>, LedgerError> {
        let hash = hash_of(secret);
        self.store.look(|connection| {
            let sql = format!(
                "SELECT {ACCOUNT} FROM accounts WHERE id = \
                 (SELECT account FROM api_keys WHERE hash = ?1 AND revoked IS NULL)"
            );
            let found = connection
                .prepare_cached(&sql)?
                .query_row([hash], |row| Ok(account_of(row, 0)))
                .optional()?;
            found.transpose()
        })
    }

    /// Offers a job under a name, or another job under a name that was in use.
    ///
    /// # Errors
    /// [`LedgerError::Name`] or [`LedgerError::Store`].
    pub fn deploy(
        &self,
        name: &str,
        manifest: &Manifest,
        shape: Shape,
        now_ms: u64,
    ) -> Result<Digest, LedgerError> {
        check_name(name)?;
        let (name, digest, bytes) = (name.to_owned(), manifest.digest(), manifest.to_bytes());
        let answer = self.store.write::<_, LedgerError>(move |connection| {
            put_manifest(connection, &digest, &bytes)?;
            let sql = "INSERT INTO deployments VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO \
                       UPDATE SET manifest = ?2, shape = ?3, created = ?4";
            let created = signed(now_ms, "the time")?;
            connection.execute(sql, (name, digest.as_bytes(), shape.name(), created))?;
            Ok(digest)
        });
        answer.block()
    }

    /// No longer offers a job; whether it was.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn undeploy(&self, name: &str) -> Result<bool, LedgerError> {
        let name = name.to_owned();
        let answer = self.store.write::<_, LedgerError>(move |connection| {
            Ok(connection.execute("DELETE FROM deployments WHERE name = ?1", [name])? > 0)
        });
        answer.block()
    }

    /// All that is offered, by name.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn deployments(&self) -> Result<Vec<Deployment>, LedgerError> {
        self.store.read(|connection| {
            let sql = "SELECT name, manifest, shape, created FROM deployments ORDER BY name";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok(deployment_of(row)))?;
            rows.map(|row| row?).collect()
        })
    }

    /// What is offered under a name.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn deployment(&self, name: &str) -> Result<Option<Deployment>, LedgerError> {
        self.store.look(|connection| {
            let sql = "SELECT name, manifest, shape, created FROM deployments WHERE name = ?1";
            let found = connection
                .prepare_cached(sql)?
                .query_row([name], |row| Ok(deployment_of(row)))
                .optional()?;
            found.transpose()
        })
    }

    /// A manifest that some job or deployment has.
    ///
    /// # Errors
    /// [`LedgerError::Store`], also if its bytes were changed.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, LedgerError> {
        if let Some(manifest) = self.manifests.get(digest) {
            return Ok(Some(manifest));
        }
        let manifest = self.read_manifest(digest)?;
        if let Some(manifest) = &manifest {
            self.manifests.put(*digest, manifest.clone());
        }
        Ok(manifest)
    }

    fn read_manifest(&self, digest: &Digest) -> Result<Option<Manifest>, LedgerError> {
        self.store.look(|connection| {
            let sql = "SELECT bytes FROM manifests WHERE digest = ?1";
            let bytes: Option<Vec<u8>> = connection
                .prepare_cached(sql)?
                .query_row([digest.as_bytes()], |row| row.get(0))
                .optional()?;
            bytes.map(|bytes| manifest_of(digest, &bytes)).transpose()
        })
    }
}

/// Manifests that were read last: of a digest there is one, and no row of them is ever removed.
#[derive(Debug, Default)]
pub(super) struct Manifests(Mutex<VecDeque<(Digest, Manifest)>>);

impl Manifests {
    const KEPT: usize = 16;

    fn get(&self, digest: &Digest) -> Option<Manifest> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == digest)?;
        kept.swap(0, at);
        kept.front().map(|(_, manifest)| manifest.clone())
    }

    fn put(&self, digest: Digest, manifest: Manifest) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(Self::KEPT - 1);
        kept.push_front((digest, manifest));
    }
}

/// Decodes the bytes of a row, which must be what its digest says.
pub(super) fn manifest_of(digest: &Digest, bytes: &[u8]) -> Result<Manifest, LedgerError> {
    if Digest::of(bytes) != *digest {
        return Err(StoreError::Damaged(format!("manifest {digest} has other bytes")).into());
    }
    Manifest::from_bytes(bytes)
        .map_err(|error| StoreError::Damaged(format!("manifest {digest}: {error}")).into())
}

pub(super) fn put_manifest(
    connection: &Connection,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), LedgerError> {
    let sql = "INSERT INTO manifests VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute((digest.as_bytes(), bytes))?;
    Ok(())
}

/// The columns that [`account_of`] reads.
pub(super) const ACCOUNT: &str = "id, name, credit, running_max, queued_max, spent, reserved, \
                                  per_minute_max, upload_bytes_max, uploaded";

pub(super) fn account_of(row: &Row<'_>, first: usize) -> Result<Account, LedgerError> {
    let credit: Option<i64> = row.get(first + 2)?;
    let credit = credit
        .map(|credit| amount(credit, "accounts.credit"))
        .transpose()?;
    let upload_max: Option<i64> = row.get(first + 8)?;
    let upload_max = upload_max.map(|max| unsigned(max, "accounts.upload_bytes_max"));
    Ok(Account {
        id: AccountId(row.get(first)?),
        name: row.get(first + 1)?,
        limits: AccountLimits {
            credit_nanograms: credit,
            running_max: row.get(first + 3)?,
            queued_max: row.get(first + 4)?,
            per_minute_max: row.get(first + 7)?,
            upload_bytes_max: upload_max.transpose()?,
        },
        spent: amount(row.get(first + 5)?, "accounts.spent")?,
        reserved: amount(row.get(first + 6)?, "accounts.reserved")?,
        uploaded_bytes: unsigned(row.get(first + 9)?, "accounts.uploaded")?,
    })
}

fn account_or_new(
    connection: &Connection,
    name: &str,
    now_ms: u64,
) -> Result<AccountId, LedgerError> {
    let sql = "INSERT INTO accounts (name, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.execute(sql, (name, signed(now_ms, "the time")?))?;
    let sql = "SELECT id FROM accounts WHERE name = ?1";
    Ok(AccountId(
        connection.query_row(sql, [name], |row| row.get(0))?,
    ))
}

fn deployment_of(row: &Row<'_>) -> Result<Deployment, LedgerError> {
    let shape: String = row.get(2)?;
    let shape = Shape::from_name(&shape)
        .ok_or_else(|| StoreError::Damaged(format!("deployments.shape {shape:?}")))?;
    Ok(Deployment {
        name: row.get(0)?,
        manifest: Digest::from_bytes(row.get(1)?),
        shape,
        created_unix_ms: unsigned(row.get(3)?, "deployments.created")?,
    })
}

/// What is stored of an API key: 256 random bits need no salt and no slow hash.
fn hash_of(secret: &str) -> [u8; 32] {
    blake3::derive_key(KEY_CONTEXT, secret.as_bytes())
}
