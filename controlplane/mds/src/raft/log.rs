//! The log: in memory for reading, in redb for keeping.
//!
//! Everything that was not purged is held in memory: a few thousand entries of a few hundred bytes
//! (see [`crate::limits::ENTRIES_PER_SNAPSHOT`]). So replication never waits for the disk to read
//! what was just written.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};

use super::store::{Op, Saved, Store, encode};
use super::{Entry, LogId, StorageError, Types, Vote};

/// The log of this server. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    inner: Arc<Mutex<Inner>>,
    store: Store,
}

struct Inner {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    pub(crate) fn new(store: Store, saved: &mut Saved) -> Log {
        let entries = std::mem::take(&mut saved.entries);
        let entries = entries.into_iter().map(|e| (e.log_id.index, e)).collect();
        let inner = Inner { vote: saved.vote, purged: saved.purged, entries };
        Log { inner: Arc::new(Mutex::new(inner)), store }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the log")
    }

    async fn write_log(&self, op: Op) -> Result<(), StorageError> {
        self.store.run(op).await.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.lock().entries.range(range).map(|(_, e)| e.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let inner = self.lock();
        let last = inner.entries.values().next_back().map(|e| e.log_id);
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: last.or(inner.purged) })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = self.store.run(Op::Vote(encode(vote))).await;
        written.map_err(|e| StorageIOError::write_vote(AnyError::new(&e)))?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, done: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        {
            let mut inner = self.lock();
            for entry in entries {
                rows.push((entry.log_id.index, encode(&entry)));
                inner.entries.insert(entry.log_id.index, entry);
            }
        }
        self.store.submit(Op::Append(rows), Box::new(|result| done.log_io_completed(result)));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        drop(self.lock().entries.split_off(&from.index));
        self.write_log(Op::Truncate(from.index)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        {
            let mut inner = self.lock();
            inner.purged = Some(upto);
            inner.entries = inner.entries.split_off(&(upto.index + 1));
        }
        self.write_log(Op::Purge(upto.index, encode(&upto))).await
    }
}
