//! `Store`: one SQLite database, written in transactions that are on the disk when they return.
//!
//! In: a path, closures over a transaction. Out: their results, after the commit. Writers that
//! wait for one another share a commit (group commit): one of them runs everybody's closure, each
//! in a savepoint of its own, and all of them return when the one `fsync` is done.
//! Several processes may hold the same file; SQLite's lock orders them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Savepoint, TransactionBehavior};

/// Each brings the database from its own number to the next; none is ever changed.
const MIGRATIONS: &[&str] = &[include_str!("store/0001.sql")];

/// How long a writer waits for a writer of another process.
const BUSY: Duration = Duration::from_secs(30);

/// Closures that one commit takes: bounds what the first of them waits for.
const BATCH_MAX: usize = 256;

/// Whose book a database is; its `application_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Provider,
    Client,
}

impl Role {
    /// "TusP" and "TusC".
    const fn application_id(self) -> i32 {
        match self {
            Self::Provider => 0x5475_7350,
            Self::Client => 0x5475_7343,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Client => "client",
        }
    }
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite's own error: no space, no permission, a damaged file.
    #[error("the channel book cannot be read or written")]
    Sqlite(#[from] rusqlite::Error),
    /// A later build wrote it.
    #[error("the channel book has version {found}, and this build reads up to {known}")]
    Newer {
        /// The database's version.
        found: usize,
        /// The newest that this build knows.
        known: usize,
    },
    /// Another kind of database.
    #[error("this is no {expected}'s channel book")]
    OtherRole {
        /// Whose was expected.
        expected: &'static str,
    },
    /// A value that this crate never writes.
    #[error("the channel book is damaged: {0}")]
    Damaged(&'static str),
    /// The closure that was to run with others' was lost with the thread that ran them.
    #[error("another writer of the channel book failed")]
    Lost,
    /// The commit failed, and with it everybody's part of it.
    #[error("the channel book could not be written: {0}")]
    Commit(String),
}

/// A database of one role.
pub(crate) struct Store {
    connection: Mutex<Connection>,
    waiting: Mutex<VecDeque<Box<dyn Pending>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database, makes it if there is none, and brings it to the newest version.
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: in WAL mode NORMAL may lose the last commits when the power goes.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut connection, role)?;
        Ok(Self {
            connection: Mutex::new(connection),
            waiting: Mutex::default(),
        })
    }

    /// Reads from one state of the database.
    pub(crate) fn read<T, E: From<StoreError>>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = lock(&self.connection);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Deferred)
            .map_err(StoreError::from)?;
        run(&transaction)
    }

    /// Runs `write` and returns when what it wrote is durable. Where it fails, nothing of it is.
    pub(crate) fn write<T, E>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = channel();
        lock(&self.waiting).push_back(Box::new(Closure {
            write: Some(write),
            result: None,
            sender,
        }));
        // Whoever holds the connection runs what others have queued meanwhile, ours perhaps too.
        loop {
            let mut connection = lock(&self.connection);
            match receiver.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Disconnected) => return Err(StoreError::Lost.into()),
                Err(TryRecvError::Empty) => {}
            }
            let batch: Vec<_> = {
                let mut waiting = lock(&self.waiting);
                let count = waiting.len().min(BATCH_MAX);
                waiting.drain(..count).collect()
            };
            commit(&mut connection, batch);
        }
    }
}

/// A closure that waits for its turn, and whoever waits for it.
trait Pending: Send {
    /// Runs it within the transaction; what fails is undone by itself.
    fn run(&mut self, connection: &mut Savepoint<'_>) -> Result<(), rusqlite::Error>;
    /// Tells its caller, after the commit or instead of it.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Closure<F, T, E> {
    write: Option<F>,
    result: Option<Result<T, E>>,
    sender: Sender<Result<T, E>>,
}

impl<F, T, E> Pending for Closure<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, connection: &mut Savepoint<'_>) -> Result<(), rusqlite::Error> {
        let Some(write) = self.write.take() else {
            return Ok(());
        };
        let result = write(connection);
        if result.is_err() {
            connection.rollback()?;
        }
        self.result = Some(result);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.result, committed) {
            // What failed by itself says why, whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Lost.into()),
        };
        // A caller that is gone needs no answer.
        let _ = self.sender.send(result);
    }
}

/// Runs all of `batch` in one transaction, commits, and tells everybody.
fn commit(connection: &mut Connection, mut batch: Vec<Box<dyn Pending>>) {
    let committed = run_all(connection, &mut batch);
    let text = committed.err().map(|error| error.to_string());
    for pending in batch {
        pending.finish(match &text {
            None => Ok(()),
            Some(text) => Err(StoreError::Commit(text.clone())),
        });
    }
}

fn run_all(
    connection: &mut Connection,
    batch: &mut [Box<dyn Pending>],
) -> Result<(), rusqlite::Error> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for pending in batch {
        let mut savepoint = transaction.savepoint()?;
        pending.run(&mut savepoint)?;
        savepoint.commit()?;
    }
    transaction.commit()
}

/// Brings the database to the newest version, whoever else opens it at the same time.
fn migrate(connection: &mut Connection, role: Role) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let owner: i32 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version = usize::try_from(version).map_err(|_| StoreError::Damaged("user_version"))?;
    if version > 0 && owner != role.application_id() {
        return Err(StoreError::OtherRole {
            expected: role.name(),
        });
    }
    let known = MIGRATIONS.len();
    if version > known {
        return Err(StoreError::Newer {
            found: version,
            known,
        });
    }
    for migration in &MIGRATIONS[version..] {
        transaction.execute_batch(migration)?;
    }
    if version < known {
        let number = i64::try_from(known).map_err(|_| StoreError::Damaged("user_version"))?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.pragma_update(None, "application_id", role.application_id())?;
    }
    transaction.commit()?;
    Ok(())
}

/// What a panic left behind is what its transaction left behind: nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(connection: &Connection) -> Result<i64, StoreError> {
        Ok(connection.query_row("SELECT count(*) FROM posted", [], |row| row.get(0))?)
    }

    #[test]
    fn a_batch_is_one_commit_and_each_closure_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        let store = Store::open(&path, Role::Provider).unwrap();
        let other = Connection::open(&path).unwrap();
        let commits = || -> i64 {
            // What another connection sees change is a commit.
            other
                .query_row("PRAGMA data_version", [], |row| row.get(0))
                .unwrap()
        };
        let before = commits();
        let mut receivers = Vec::new();
        for number in 0_u64..10 {
            let (sender, receiver) = channel();
            receivers.push(receiver);
            let closure = move |connection: &Connection| -> Result<u64, StoreError> {
                connection.execute("CREATE TABLE IF NOT EXISTS seen (number)", [])?;
                let number_there = i64::try_from(number).unwrap();
                connection.execute("INSERT INTO seen VALUES (?1)", [number_there])?;
                if number == 3 {
                    return Err(StoreError::Damaged("three"));
                }
                Ok(number)
            };
            lock(&store.waiting).push_back(Box::new(Closure {
                write: Some(closure),
                result: None,
                sender,
            }));
        }
        // The eleventh runs all that wait.
        store.write(count).unwrap();
        for (number, receiver) in receivers.iter().enumerate() {
            let result = receiver.recv().unwrap();
            match number {
                3 => assert!(matches!(result, Err(StoreError::Damaged("three")))),
                _ => assert_eq!(result.unwrap(), number as u64),
            }
        }
        let seen: i64 = other
            .query_row("SELECT count(*) FROM seen", [], |row| row.get(0))
            .unwrap();
        assert_eq!(seen, 9);
        assert_eq!(commits() - before, 1, "ten writers, one commit");
    }

    #[test]
    fn a_book_of_the_other_role_or_of_a_later_build_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        drop(Store::open(&path, Role::Provider).unwrap());
        let refused = Store::open(&path, Role::Client).unwrap_err();
        assert_eq!(refused.to_string(), "this is no client's channel book");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let refused = Store::open(&path, Role::Provider).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the channel book has version 99, and this build reads up to 1"
        );
    }

    #[test]
    fn settings_are_the_durable_ones() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("book"), Role::Client).unwrap();
        let (journal, synchronous): (String, i64) = store
            .read::<_, StoreError>(|connection| {
                Ok((
                    connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?,
                    connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?,
                ))
            })
            .unwrap();
        assert_eq!((journal.as_str(), synchronous), ("wal", 2));
    }
}
