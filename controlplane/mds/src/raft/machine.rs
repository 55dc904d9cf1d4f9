//! The state machine's frame: the state in memory, its snapshots in redb.
//!
//! Applying writes nothing. After a restart the state is that of the newest snapshot, and the log
//! behind it is applied again as soon as the group says how far it is committed. Reads are answered
//! only behind that (see `gate.rs`), so nobody sees the state of the past.
//!
//! A snapshot is one byte, the version of its format (2), and the postcard form of `Meta`. In
//! format 1 it had no key to sign tokens with, an option that is the last field of today's: such a
//! snapshot is read as one that ends with `None`, and the next leader gives the cluster a key.

use std::io::Cursor;
use std::sync::{Arc, RwLock};

use ogive_meta::Meta;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, BasicNode, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError,
};

use super::store::{Op, Store, encode};
use super::{Answers, Entry, LogId, Membership, SnapshotMeta, StorageError, Types};

const FORMAT: u8 = 2;
/// The format of before there were tokens.
const FORMAT_WITHOUT_KEY: u8 = 1;

/// What was applied so far.
#[derive(Clone, Default)]
struct Applied {
    meta: Meta,
    last: Option<LogId>,
    membership: Membership,
}

/// The state, for reading. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SharedMeta {
    applied: Arc<RwLock<Applied>>,
}

impl SharedMeta {
    /// Looks at the state. `look` must be short: applying waits for it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Meta) -> T) -> T {
        look(&self.applied.read().expect("no code panics while it holds the state").meta)
    }
}

/// Applies committed entries. Clones share the state.
#[derive(Clone)]
pub(crate) struct Machine {
    shared: SharedMeta,
    store: Store,
}

impl Machine {
    /// The state of the newest snapshot.
    ///
    /// # Errors
    /// What is wrong with the snapshot.
    pub(crate) fn new(
        store: Store,
        snapshot: Option<(SnapshotMeta, Vec<u8>)>,
    ) -> Result<Machine, String> {
        let machine = Machine { shared: SharedMeta::default(), store };
        if let Some((meta, data)) = snapshot {
            machine.replace(&meta, decode(&data)?);
        }
        Ok(machine)
    }

    pub(crate) fn shared(&self) -> SharedMeta {
        self.shared.clone()
    }

    fn replace(&self, snapshot: &SnapshotMeta, meta: Meta) {
        let membership = snapshot.last_membership.clone();
        let applied = Applied { meta, last: snapshot.last_log_id, membership };
        *self.shared.applied.write().expect("no code panics while it holds the state") = applied;
    }

    async fn keep(&self, meta: &SnapshotMeta, data: Arc<Vec<u8>>) -> Result<(), StorageError> {
        let written = self.store.run(Op::Snapshot(encode(meta), data)).await;
        let failed = |e| StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&e));
        Ok(written.map_err(failed)?)
    }
}

fn decode(data: &[u8]) -> Result<Meta, String> {
    let read = |state: &[u8]| match postcard::take_from_bytes(state) {
        Ok((meta, [])) => Ok(meta),
        Ok((_, rest)) => Err(format!("the snapshot: {} bytes too many", rest.len())),
        Err(e) => Err(format!("the snapshot: {e}")),
    };
    match data.split_first() {
        Some((&FORMAT, rest)) => read(rest),
        Some((&FORMAT_WITHOUT_KEY, rest)) => read(&[rest, &[0]].concat()),
        Some((format, _)) => Err(format!("the snapshot has the unknown format {format}")),
        None => Err("the snapshot is empty".into()),
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = self.shared.applied.read().expect("no code panics while it holds the state");
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied =
            self.shared.applied.write().expect("no code panics while it holds the state");
        let mut answers = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Answers(Vec::new()),
                EntryPayload::Normal(batch) => {
                    Answers(batch.0.into_iter().map(|c| applied.meta.apply(c)).collect())
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = Membership::new(Some(entry.log_id), membership);
                    Answers(Vec::new())
                }
            });
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let data = snapshot.into_inner();
        let state = decode(&data).map_err(|text| {
            StorageIOError::read_snapshot(Some(meta.signature()), AnyError::error(text))
        })?;
        self.keep(meta, Arc::new(data)).await?;
        self.replace(meta, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let found = self.store.snapshot();
        let found = found.map_err(|e| StorageIOError::read_snapshot(None, AnyError::new(&e)))?;
        Ok(found.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(Cursor::new(data)) }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let applied =
            self.shared.applied.read().expect("no code panics while it holds the state").clone();
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership,
            snapshot_id: applied.last.map(|id| id.to_string()).unwrap_or_default(),
        };
        let state = applied.meta;
        // A large state takes a while to encode; heartbeats must not wait for it.
        let encoded = tokio::task::spawn_blocking(move || {
            let mut data = vec![FORMAT];
            data.extend(encode(&state));
            data
        });
        let data =
            encoded.await.map_err(|e| StorageIOError::write_snapshot(None, AnyError::new(&e)))?;
        let data = Arc::new(data);
        self.keep(&meta, data.clone()).await?;
        let data = Arc::try_unwrap(data).unwrap_or_else(|shared| shared.to_vec());
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}

#[cfg(test)]
mod tests {
    use ogive_meta::command::SetSigningKey;
    use ogive_meta::{Command, MetaError, SigningKey};

    use super::*;

    /// A snapshot that the version without keys wrote: one chunkserver with one copyset.
    const OLD: &str = "01\
        0177016b010101011000000000000000000000000000000005017a01680107\
        7463703a683a31808080800401100000000000000000000000000000000501\
        01010101010000000000000201010000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    #[test]
    fn a_state_of_before_there_were_keys_is_read_and_gets_one() {
        let mut meta = decode(&bytes(OLD)).expect("readable");
        meta.check();
        assert_eq!((meta.copysets().count(), meta.chunkservers().count()), (1, 1));
        assert_eq!(meta.signing_key(), Err(MetaError::NotInitialised));
        let key = SigningKey([7; 32]);
        let set = Command::SetSigningKey(SetSigningKey { key: key.clone() });
        meta.apply(set).expect("no key yet");
        let again = decode(&[&[FORMAT][..], &encode(&meta)].concat()).expect("our own");
        assert_eq!((again.signing_key(), &again), (Ok(&key), &meta));
    }

    #[test]
    fn other_bytes_are_no_snapshot() {
        let old = bytes(OLD);
        assert!(decode(&[]).is_err() && decode(&[9]).is_err());
        assert!(decode(&old[..old.len() - 1]).is_err());
        assert!(decode(&[&old[..], &[0]].concat()).is_err(), "bytes too many");
    }
}
