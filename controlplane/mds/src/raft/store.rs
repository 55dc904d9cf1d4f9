//! The file `raft.redb`, and the thread that writes it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `log` | index | postcard of the entry |
//! | `state` | `vote` | postcard of the vote |
//! | `state` | `purged` | postcard of the id of the last entry that was removed from the front |
//! | `state` | `snapshot-meta` | postcard of the snapshot's metadata |
//! | `state` | `snapshot-data` | the snapshot: see `machine.rs` |
//!
//! One thread owns all writing. It takes every operation that waits, carries them out in order in
//! one transaction, commits it durably, and only then tells those who asked: what was acknowledged
//! is on the disk, and operations that arrive while a commit runs share the next one.
#![allow(clippy::disallowed_methods)] // A shell: it starts the thread that owns the file.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::{Entry, LogId, SnapshotMeta, Vote};
use crate::error::MdsError;
use crate::limits::OPS_PER_COMMIT_MAX;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");

/// Called when an operation is on the disk, or failed.
pub(crate) type Done = Box<dyn FnOnce(Result<(), io::Error>) + Send>;

/// A change to the file.
pub(crate) enum Op {
    /// Adds entries, or replaces those at their indexes.
    Append(Vec<(u64, Vec<u8>)>),
    /// Removes the entries from this index on.
    Truncate(u64),
    /// Removes the entries up to this one, the encoded id of which comes second.
    Purge(u64, Vec<u8>),
    /// Replaces the vote.
    Vote(Vec<u8>),
    /// Replaces the snapshot: metadata and data.
    Snapshot(Vec<u8>, Arc<Vec<u8>>),
}

/// What was found in the file.
#[derive(Default)]
pub(crate) struct Saved {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

/// The open file. Clones share it; the last one closes it.
#[derive(Clone)]
pub(crate) struct Store {
    db: Arc<Database>,
    writer: Arc<Writer>,
}

/// The thread that writes. Dropping it waits until what was queued is written and the thread has
/// let go of the file, so that it can be opened again.
struct Writer {
    ops: Option<mpsc::Sender<(Op, Done)>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.ops.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Opens or makes the file and reads what is in it.
pub(crate) fn open(path: &Path) -> Result<(Store, Saved), MdsError> {
    keep_private(path)?;
    let db = Database::builder().create(path).map_err(|e| open_error(path, e))?;
    let corrupt =
        |e: redb::Error| MdsError::Corrupt { path: path.to_owned(), detail: e.to_string() };
    create_tables(&db).map_err(corrupt)?;
    let saved = read_all(&db).map_err(|e| match e {
        ReadError::Redb(e) => corrupt(e),
        ReadError::Content(detail) => MdsError::Corrupt { path: path.to_owned(), detail },
    })?;
    let db = Arc::new(db);
    let (ops, queue) = mpsc::channel();
    let writer = db.clone();
    let thread = std::thread::Builder::new()
        .name("mds-log".into())
        .spawn(move || write_loop(&writer, &queue))
        .map_err(|source| MdsError::DataDir {
            what: "start the writer of",
            path: path.into(),
            source,
        })?;
    let writer = Writer { ops: Some(ops), thread: Some(thread) };
    Ok((Store { db, writer: Arc::new(writer) }, saved))
}

/// Makes the file if it is not there, readable by its owner alone: secrets are in it.
fn keep_private(path: &Path) -> Result<(), MdsError> {
    let file = File::options().create(true).append(true).mode(0o600).open(path);
    let kept = file.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
    kept.map_err(|source| MdsError::DataDir { what: "open", path: path.to_owned(), source })
}

fn open_error(path: &Path, e: DatabaseError) -> MdsError {
    let path: PathBuf = path.to_owned();
    match e {
        DatabaseError::DatabaseAlreadyOpen => {
            MdsError::InUse { path: path.parent().map(Into::into).unwrap_or(path) }
        }
        DatabaseError::Storage(redb::StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData =>
        {
            MdsError::DataDir { what: "open", path, source }
        }
        other => MdsError::Corrupt { path, detail: other.to_string() },
    }
}

fn create_tables(db: &Database) -> Result<(), redb::Error> {
    let tx = db.begin_write()?;
    tx.open_table(LOG)?;
    tx.open_table(STATE)?;
    tx.commit()?;
    Ok(())
}

enum ReadError {
    Redb(redb::Error),
    Content(String),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(e: E) -> ReadError {
        ReadError::Redb(e.into())
    }
}

fn decode<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ReadError> {
    postcard::from_bytes(bytes).map_err(|e| ReadError::Content(format!("{what}: {e}")))
}

fn read_all(db: &Database) -> Result<Saved, ReadError> {
    let tx = db.begin_read()?;
    let state = tx.open_table(STATE)?;
    let mut saved = Saved::default();
    if let Some(bytes) = state.get("vote")? {
        saved.vote = Some(decode("the vote", bytes.value())?);
    }
    if let Some(bytes) = state.get("purged")? {
        saved.purged = Some(decode("the log's start", bytes.value())?);
    }
    if let Some(bytes) = state.get("snapshot-meta")? {
        let meta = decode("the snapshot's metadata", bytes.value())?;
        let data = state.get("snapshot-data")?;
        let data = data.ok_or_else(|| ReadError::Content("the snapshot is missing".into()))?;
        saved.snapshot = Some((meta, data.value().to_vec()));
    }
    let first = saved.purged.map_or(0, |id| id.index + 1);
    for (next, row) in (first..).zip(tx.open_table(LOG)?.iter()?) {
        let (index, bytes) = row?;
        let entry: Entry = decode("a log entry", bytes.value())?;
        if index.value() != next || entry.log_id.index != next {
            return Err(ReadError::Content(format!("log entry {next} is missing")));
        }
        saved.entries.push(entry);
    }
    Ok(saved)
}

fn write_loop(db: &Database, queue: &mpsc::Receiver<(Op, Done)>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        while batch.len() < OPS_PER_COMMIT_MAX {
            match queue.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        let (ops, waiting): (Vec<Op>, Vec<Done>) = batch.into_iter().unzip();
        let result = write(db, ops).map_err(|e| e.to_string());
        if let Err(e) = &result {
            tracing::error!("cannot write the metadata log: {e}");
        }
        for done in waiting {
            done(result.clone().map_err(io::Error::other));
        }
    }
}

fn write(db: &Database, ops: Vec<Op>) -> Result<(), redb::Error> {
    let tx = db.begin_write()?;
    {
        let mut log = tx.open_table(LOG)?;
        let mut state = tx.open_table(STATE)?;
        for op in ops {
            match op {
                Op::Append(entries) => {
                    for (index, bytes) in entries {
                        log.insert(index, bytes.as_slice())?;
                    }
                }
                Op::Truncate(from) => log.retain_in(from.., |_, _| false)?,
                Op::Purge(upto, id) => {
                    log.retain_in(..=upto, |_, _| false)?;
                    state.insert("purged", id.as_slice())?;
                }
                Op::Vote(bytes) => {
                    state.insert("vote", bytes.as_slice())?;
                }
                Op::Snapshot(meta, data) => {
                    state.insert("snapshot-meta", meta.as_slice())?;
                    state.insert("snapshot-data", data.as_slice())?;
                }
            }
        }
    }
    // A commit is durable when it returns: that is redb's default, and this log depends on it.
    tx.commit()?;
    Ok(())
}

impl Store {
    /// Queues an operation; `done` is called once it is on the disk.
    pub(crate) fn submit(&self, op: Op, done: Done) {
        let ops = self.writer.ops.as_ref().expect("there until the last clone is dropped");
        if let Err(mpsc::SendError((_, done))) = ops.send((op, done)) {
            done(Err(io::Error::other("the writer of the metadata log has ended")));
        }
    }

    /// Queues an operation and waits until it is on the disk.
    pub(crate) async fn run(&self, op: Op) -> Result<(), io::Error> {
        let (tx, rx) = oneshot::channel();
        self.submit(op, Box::new(move |result| drop(tx.send(result))));
        rx.await
            .unwrap_or_else(|_| Err(io::Error::other("the writer of the metadata log has ended")))
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, io::Error> {
        let read = || -> Result<_, ReadError> {
            let tx = self.db.begin_read()?;
            let state = tx.open_table(STATE)?;
            let (Some(meta), Some(data)) =
                (state.get("snapshot-meta")?, state.get("snapshot-data")?)
            else {
                return Ok(None);
            };
            let meta = decode("the snapshot's metadata", meta.value())?;
            Ok(Some((meta, data.value().to_vec())))
        };
        read().map_err(|e| match e {
            ReadError::Redb(e) => io::Error::other(e.to_string()),
            ReadError::Content(text) => io::Error::new(io::ErrorKind::InvalidData, text),
        })
    }
}

/// Encodes what this crate itself made, which cannot fail.
pub(crate) fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("metadata types have a postcard form")
}
