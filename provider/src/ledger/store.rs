//! `Store`: one SQLite database with one writer, whose answers come after the commit.
//!
//! In: a path, closures over a transaction. Out: their results, once they are on the disk. One
//! thread writes; what waits for it while it syncs is its next commit (group commit), each closure
//! in a savepoint of its own, so that one that fails takes no other with it.
//! Readers have a connection of their own and see committed states only.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

/// Each brings the database from its own number to the next; none is ever changed.
const MIGRATIONS: &[&str] = &[
    include_str!("0001.sql"),
    include_str!("0002.sql"),
    include_str!("0003.sql"),
    include_str!("0004.sql"),
    include_str!("0005.sql"),
];
/// "TusL": another program's database is not written to.
const APPLICATION_ID: i32 = 0x5475_734c;
/// How long a writer waits for a writer of another process, such as `tussah key new`.
const BUSY: Duration = Duration::from_secs(30);
/// Closures that one commit takes: bounds what the first of them waits for.
const BATCH_MAX: usize = 256;
/// How long a commit waits for more to come, where the one before had more than one closure: a
/// commit costs much the same for one as for ten.
const COMPANY: Duration = Duration::from_millis(2);
/// Closures that wait for the writer; whoever comes later waits for a place.
const WAITING_MAX: usize = 1024;
/// Statements that a connection keeps compiled: more than this crate has.
const STATEMENTS_MAX: usize = 64;
/// Reads of contents at a time: each can hold an output in memory.
const CONTENT_READS_MAX: usize = 4;
/// Connections that are kept open to read.
const READERS_MAX: usize = 8;
/// KiB of pages that each of them keeps: rows are small, and the system caches the file.
const READER_CACHE_KIB: i64 = 256;
/// SQLite's number for a database that gives pages back when asked to.
const VACUUM_INCREMENTAL: i64 = 2;
/// Pages of the write-ahead log from which on they are copied into the database: 8 MiB. It is done
/// after a commit's callers were told, so nobody waits for it who need not.
const CHECKPOINT_PAGES: i64 = 2048;
/// Times that a checkpoint has the disk sync: the log, the database, and the log's new head
/// (`sqlite3WalCheckpoint` and `walFrames` in SQLite's wal.c).
const CHECKPOINT_SYNCS: u64 = 3;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite's own error: no space, no permission, a damaged file.
    #[error("the ledger cannot be read or written")]
    Sqlite(#[from] rusqlite::Error),
    /// A later build wrote it.
    #[error("the ledger has version {found}, and this build reads up to {known}")]
    Newer {
        /// The database's version.
        found: i64,
        /// The newest that this build knows.
        known: usize,
    },
    /// An earlier build wrote it, and it was opened to be read only.
    #[error("the ledger has version {found} and no writer has brought it to {known} yet")]
    Older {
        /// The database's version.
        found: i64,
        /// What this build reads.
        known: usize,
    },
    /// Another kind of database.
    #[error("this SQLite database is no ledger of tussah's")]
    OtherKind,
    /// A value that this crate never writes.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// The commit failed, and with it everybody's part of it.
    #[error("the ledger could not be written: {0}")]
    Commit(String),
    /// The writer's thread ended.
    #[error("the ledger's writer has ended")]
    Closed,
}

impl StoreError {
    /// Whether the same write may do later: the disk was full, or another process held the
    /// database.
    pub(crate) fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, TypeMismatch};
        use rusqlite::ffi::{
            SQLITE_CONSTRAINT_CHECK, SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_NOTNULL,
            SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE,
        };
        /// Rules of the schema.
        const RULES: [i32; 5] = [
            SQLITE_CONSTRAINT_CHECK,
            SQLITE_CONSTRAINT_FOREIGNKEY,
            SQLITE_CONSTRAINT_NOTNULL,
            SQLITE_CONSTRAINT_PRIMARYKEY,
            SQLITE_CONSTRAINT_UNIQUE,
        ];
        match self {
            // What a rule of the schema or a damaged page refuses is refused the next time too, and
            // would hold up all others.
            Self::Sqlite(error) => error.sqlite_error().is_some_and(|error| {
                !RULES.contains(&error.extended_code)
                    && !matches!(error.code, DatabaseCorrupt | NotADatabase | TypeMismatch)
            }),
            Self::Commit(_) => true,
            _ => false,
        }
    }
}

/// What the writer did since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Closures that were committed.
    pub(crate) writes: AtomicU64,
    /// Commits: each is one sync of the disk.
    pub(crate) commits: AtomicU64,
    /// Syncs of the disk, at most: of commits and of checkpoints.
    pub(crate) syncs: AtomicU64,
}

/// The ledger's database, open for writing.
pub(crate) struct Store {
    readers: Arc<Readers>,
    /// Places for reads that take long.
    content_reads: Arc<Semaphore>,
    counts: Arc<Counts>,
    /// Taken when it is dropped, so that the writer ends.
    queue: Option<SyncSender<Box<dyn Pending>>>,
    writer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database, makes it if there is none, and brings it to the newest version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let version = version_of(&connection)?;
        // Before there is anything in it; it changes nothing where there is.
        connection.pragma_update(None, "auto_vacuum", VACUUM_INCREMENTAL)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        if version > 0 && !is_incremental(&connection)? {
            // The first version could not shrink; once, the file is written anew.
            connection.execute_batch("VACUUM")?;
        }
        // FULL: in WAL mode NORMAL may lose the last commits when the power goes.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?; // the writer does it itself
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut connection)?;
        let readers = Arc::new(Readers {
            path: path.to_owned(),
            idle: Mutex::new(vec![open_to_read(path)?]),
        });
        let (queue, receiver) = sync_channel(WAITING_MAX);
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_all(connection, &receiver, &counted))
            .map_err(|error| StoreError::Commit(error.to_string()))?;
        Ok(Self {
            readers,
            content_reads: Arc::new(Semaphore::new(CONTENT_READS_MAX)),
            counts,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// What was written since it was opened.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Reads from one committed state, however many statements it takes.
    pub(crate) fn read<T, E: From<StoreError>>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.readers.with(|connection| read(connection, run))
    }

    /// Reads by one statement, which sees one committed state by itself: for a row that an index
    /// finds, in microseconds.
    pub(crate) fn look<T, E: From<StoreError>>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.readers.with(|connection| run(connection))
    }

    /// Reads by one statement on a thread that may wait: for contents. So many at a time.
    pub(crate) async fn look_at_content<T, E>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let place = Arc::clone(&self.content_reads).acquire_owned().await;
        // The semaphore is never closed.
        let place = place.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(&self.readers);
        let read = tokio::task::spawn_blocking(move || {
            let _place = place;
            readers.with(|connection| run(connection))
        });
        read.await.unwrap_or_else(|error| {
            let text = format!("reading it failed: {error}");
            Err(StoreError::Damaged(text).into())
        })
    }

    /// Runs `write`; the answer comes when what it wrote is durable. Where it fails, nothing of it
    /// is.
    pub(crate) fn write<T, E>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Answer<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        if let Some(queue) = &self.queue {
            // Where the writer is gone, the sender goes with the closure, and the answer says so.
            let _ = queue.send(Box::new(Closure {
                write: Some(write),
                result: None,
                sender,
            }));
        }
        Answer(receiver)
    }
}

/// Connections that read, as many as there are readers at a time. A slow one holds up nobody.
struct Readers {
    path: PathBuf,
    /// Those that nobody uses just now, at most [`READERS_MAX`].
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn with<T, E: From<StoreError>>(
        &self,
        run: impl FnOnce(&mut Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = lock(&self.idle).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_to_read(&self.path)?,
        };
        let result = run(&mut connection);
        let mut idle = lock(&self.idle);
        if idle.len() < READERS_MAX {
            idle.push(connection);
        }
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told everybody who waited for it.
            let _ = writer.join();
        }
    }
}

/// What a writing closure will have answered.
pub(crate) struct Answer<T, E>(oneshot::Receiver<Result<T, E>>);

impl<T, E: From<StoreError>> Answer<T, E> {
    /// Waits, within a runtime.
    pub(crate) async fn wait(self) -> Result<T, E> {
        self.0
            .await
            .unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Waits and holds up this thread, wherever it is.
    pub(crate) fn block(self) -> Result<T, E>
    where
        T: Send,
        E: Send,
    {
        let receiver = self.0;
        let answer = match tokio::runtime::Handle::try_current() {
            Err(_) => receiver.blocking_recv().ok(),
            // A runtime's own threads may not wait in this way; another thread may.
            Ok(_) => std::thread::scope(|scope| {
                let waiter = scope.spawn(|| receiver.blocking_recv().ok());
                waiter.join().ok().flatten()
            }),
        };
        answer.unwrap_or_else(|| Err(StoreError::Closed.into()))
    }
}

/// Opens a ledger that exists, without any way to change it.
pub(crate) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    let version = version_of(&connection)?;
    if usize::try_from(version) != Ok(MIGRATIONS.len()) {
        return Err(StoreError::Older {
            found: version,
            known: MIGRATIONS.len(),
        });
    }
    Ok(connection)
}

/// Runs `run` over one state of the database.
pub(crate) fn read<T, E: From<StoreError>>(
    connection: &mut Connection,
    run: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Deferred)
        .map_err(StoreError::from)?;
    run(&transaction)
}

/// A closure that waits for its turn, and whoever waits for it.
trait Pending: Send {
    /// Runs it within the transaction, in a savepoint of its own: what fails is undone by itself.
    fn run(&mut self, connection: &Connection) -> Result<(), rusqlite::Error>;
    /// Tells its caller, after the commit or instead of it.
    fn finish(self: Box<Self>, failed: Option<&str>);
}

struct Closure<F, T, E> {
    write: Option<F>,
    result: Option<Result<T, E>>,
    sender: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Pending for Closure<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let Some(write) = self.write.take() else {
            return Ok(());
        };
        let step = |sql: &str| connection.prepare_cached(sql)?.execute([]);
        step("SAVEPOINT one")?;
        let result = write(connection);
        if result.is_err() {
            step("ROLLBACK TO one")?;
        }
        step("RELEASE one")?;
        self.result = Some(result);
        Ok(())
    }

    fn finish(self: Box<Self>, failed: Option<&str>) {
        let result = match (self.result, failed) {
            // What failed by itself says why, whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (_, Some(text)) => Err(StoreError::Commit(text.to_owned()).into()),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(StoreError::Closed.into()),
        };
        // A caller that is gone needs no answer.
        let _ = self.sender.send(result);
    }
}

/// The writer's thread: until nobody can ask any more.
fn write_all(mut connection: Connection, queue: &Receiver<Box<dyn Pending>>, counts: &Counts) {
    let mut last = 1;
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        // Who writes alone waits for nobody.
        let company = if last > 1 { COMPANY } else { Duration::ZERO };
        let until = Instant::now() + company;
        while batch.len() < BATCH_MAX {
            let next = queue.recv_timeout(until.saturating_duration_since(Instant::now()));
            match next {
                Ok(next) => batch.push(next),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        last = batch.len();
        let failed = commit(&mut connection, &mut batch).err();
        let failed = failed.map(|error| error.to_string());
        if failed.is_none() {
            let writes = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            counts.writes.fetch_add(writes, Ordering::Relaxed);
            counts.commits.fetch_add(1, Ordering::Relaxed);
            counts.syncs.fetch_add(1, Ordering::Relaxed);
        }
        for pending in batch {
            pending.finish(failed.as_deref());
        }
        match checkpoint(&connection) {
            Ok(false) => {}
            Ok(true) => {
                counts.syncs.fetch_add(CHECKPOINT_SYNCS, Ordering::Relaxed);
            }
            // The log only grows until the next try.
            Err(error) => tracing::warn!(%error, "the ledger's log was not copied"),
        }
    }
}

/// Copies a log that has grown long into the database; whether it had.
fn checkpoint(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let pages = |mode: &str| -> Result<i64, rusqlite::Error> {
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            row.get(1)
        })
    };
    if pages("NOOP")? < CHECKPOINT_PAGES {
        return Ok(false);
    }
    pages("PASSIVE")?;
    Ok(true)
}

fn commit(
    connection: &mut Connection,
    batch: &mut [Box<dyn Pending>],
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for pending in batch {
        pending.run(&transaction)?;
    }
    transaction.commit()
}

/// The version of a ledger; 0 is an empty file.
fn version_of(connection: &Connection) -> Result<i64, StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let owner: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if owner != APPLICATION_ID && (version != 0 || owner != 0 || tables != 0) {
        return Err(StoreError::OtherKind);
    }
    match usize::try_from(version) {
        Ok(number) if number <= MIGRATIONS.len() => Ok(version),
        Ok(_) => Err(StoreError::Newer {
            found: version,
            known: MIGRATIONS.len(),
        }),
        Err(_) => Err(StoreError::Damaged("user_version".to_owned())),
    }
}

/// Whether pages that became free can be given back.
fn is_incremental(connection: &Connection) -> Result<bool, StoreError> {
    let mode: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    Ok(mode == VACUUM_INCREMENTAL)
}

/// Brings the database to the newest version, whoever else opens it at the same time.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = usize::try_from(version_of(&transaction)?).unwrap_or_default();
    for migration in &MIGRATIONS[version..] {
        transaction.execute_batch(migration)?;
    }
    if version < MIGRATIONS.len() {
        let newest = i64::try_from(MIGRATIONS.len())
            .map_err(|_| StoreError::Damaged("user_version".to_owned()))?;
        transaction.pragma_update(None, "user_version", newest)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
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

    #[test]
    fn settings_are_the_durable_ones_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let store = Store::open(&path).unwrap();
        let settings = store.write::<_, StoreError>(|connection| {
            let journal: String = connection.query_row("PRAGMA journal_mode", [], |r| r.get(0))?;
            let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |r| r.get(0))?;
            Ok((journal, synchronous))
        });
        assert_eq!(settings.block().unwrap(), ("wal".to_owned(), 2));
        let refused = store.read::<_, StoreError>(|connection| {
            Ok(connection.execute("DELETE FROM settings", [])?)
        });
        assert!(matches!(refused, Err(StoreError::Sqlite(_))));
    }

    #[test]
    fn a_batch_is_one_commit_and_each_closure_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let store = Store::open(&path).unwrap();
        let watcher = open_to_read(&path).unwrap();
        // What another connection sees change is a commit.
        let commits = || -> i64 {
            watcher
                .query_row("PRAGMA data_version", [], |row| row.get(0))
                .unwrap()
        };
        let before = commits();
        // The writer is held in a transaction of its own until ten more wait.
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let first = store.write::<_, StoreError>(move |_| {
            let _ = held.recv();
            Ok(())
        });
        let answers: Vec<_> = (0_u8..10)
            .map(|number| {
                store.write(move |connection| -> Result<u8, StoreError> {
                    let value = vec![number];
                    let sql = "INSERT INTO settings VALUES (?1, ?2)";
                    connection.execute(sql, (number.to_string(), value))?;
                    match number {
                        3 => Err(StoreError::Damaged("three".to_owned())),
                        _ => Ok(number),
                    }
                })
            })
            .collect();
        hold.send(()).unwrap();
        first.block().unwrap();
        for (number, answer) in answers.into_iter().enumerate() {
            match (number, answer.block()) {
                (3, Err(StoreError::Damaged(_))) => {}
                (_, answer) => assert_eq!(usize::from(answer.unwrap()), number),
            }
        }
        let count: i64 = watcher
            .query_row("SELECT count(*) FROM settings", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 9);
        assert_eq!(commits() - before, 1, "ten writers, one commit");
    }

    #[test]
    fn other_databases_and_later_ledgers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        let connection = Connection::open(&other).unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        let refused = Store::open(&other).unwrap_err().to_string();
        assert_eq!(refused, "this SQLite database is no ledger of tussah's");
        let later = folder.path().join("later");
        drop(Store::open(&later).unwrap());
        let connection = Connection::open(&later).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let refused = Store::open(&later).unwrap_err().to_string();
        assert_eq!(
            refused,
            format!(
                "the ledger has version 99, and this build reads up to {}",
                MIGRATIONS.len()
            )
        );
    }
}
