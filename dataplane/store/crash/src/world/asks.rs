//! What is asked of a store and of its model.

use std::rc::Rc;

use ogive_store::{AppendError, HardState, RepairError};
use ogive_types::message::{BlockVersion, Op};
use ogive_types::{BlockRange, ChunkId, CopysetId, Epoch, Index, LogPos, Term, VolumeId};
use ogive_types::{block_sum, block_sums};

use crate::model::{Asked, Entry, Log};

use super::{BLOCKS, FIRST, Mix, Reading, Replica, World, members, range};

impl World {
    fn ask(&mut self, asked: Asked) {
        asked.apply(&mut self.logs);
        self.promises.ask(asked);
    }

    /// Makes a replica.
    pub fn create(&mut self, id: CopysetId) {
        let life = self.fresh() as u32;
        self.store.create_replica(id, &members());
        self.ask(Asked::Create(id, life));
        self.replicas.insert(id, Replica::default());
    }

    /// Drops a replica.
    pub fn drop_replica(&mut self, id: CopysetId) {
        self.store.drop_replica(id);
        self.ask(Asked::Drop(id));
        self.replicas.remove(&id);
    }

    /// Saves a new hard state.
    pub fn save_hard(&mut self, id: CopysetId) {
        let term = Term(self.fresh());
        let voted_for = self.rng.once_in(2).then(|| members()[0]);
        self.save(id, HardState { term, voted_for });
    }

    fn save(&mut self, id: CopysetId, hard: HardState) {
        self.store.save_hard_state(id, hard);
        self.ask(Asked::Hard(id, hard));
    }

    /// An entry that does something at random to a volume that is not deleted.
    pub fn draw_entry(&mut self, id: CopysetId, mix: &Mix) -> Rc<Entry> {
        let log = &self.logs[&id];
        let deleted = |volume: u64| {
            let gone = Op::DropVolume { volume: VolumeId(volume) };
            log.entries.iter().any(|e| e.op == gone)
        };
        let alive: Vec<u64> = (1..).filter(|v| !deleted(*v)).take(2).collect();
        let volume = VolumeId(alive[self.rng.below(2) as usize]);
        let chunk = ChunkId { volume, number: self.rng.below(2) as u32 };
        let most = match self.rng.below(8) {
            0 => mix.blocks_max,
            _ => mix.blocks_max.min(4),
        };
        let blocks = 1 + self.rng.below(u64::from(most)) as u16;
        let at = range(FIRST + self.rng.below(u64::from(BLOCKS - blocks) + 1) as u16, blocks);
        let tag = self.next + 1;
        let op = match self.rng.weighted(&mix.ops()) {
            0 => Op::Noop,
            1 => Op::Fence { volume, epoch: Epoch(self.rng.below(100)) },
            2 => Op::DropVolume { volume },
            3 => Op::Trim { chunk, range: at },
            _ => {
                self.next += u64::from(blocks);
                let sums = block_sums(&self.data(tag, blocks));
                Op::Write { chunk, range: at, sums }
            }
        };
        let log = &self.logs[&id];
        let term = log.last_term().max(log.hard.term).max(Term(1));
        Rc::new(Entry { term, op, tag })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// When the store refuses it; then nothing is changed.
    pub fn append(&mut self, id: CopysetId, entry: Rc<Entry>) -> Result<(), AppendError> {
        let index = Index(self.logs[&id].entries.len() as u64 + 1);
        let payload = match &entry.op {
            Op::Write { range, .. } => Some(self.data(entry.tag, range.blocks())),
            _ => None,
        };
        let result = self.store.append(id, index, entry.term, entry.op.clone(), payload);
        match result {
            Ok(()) => self.ask(Asked::Append(id, entry)),
            Err(_) => self.refused += 1,
        }
        result
    }

    /// Drops the entries behind the first `len`, which must be applied at least. What follows must
    /// have a higher term.
    pub fn truncate(&mut self, id: CopysetId, len: usize) {
        self.store.truncate_from(id, Index(len as u64 + 1));
        self.ask(Asked::Truncate(id, len));
        let replica = self.replicas.get_mut(&id).expect("it is here");
        replica.persisted = replica.persisted.min(len);
        let term = Term(self.fresh());
        self.save(id, HardState { term, voted_for: None });
    }

    /// Applies entries, which must be persisted.
    pub fn apply(&mut self, id: CopysetId, upto: usize) {
        let replica = self.replicas.get_mut(&id).expect("it is here");
        for entry in &self.logs[&id].entries[replica.applied..upto.max(replica.applied)] {
            replica.state.apply(entry);
        }
        replica.applied = replica.applied.max(upto);
        self.store.apply(id, Index(upto as u64));
    }

    /// Restarts a replica behind the end of a delta.
    pub fn reset(&mut self, token: u64, id: CopysetId, of: &Log, upto: usize, clear_at: usize) {
        let term = of.entries[upto - 1].term;
        let state = of.state_at(upto);
        let fences: Vec<_> = state.fences.iter().map(|(&v, &e)| (v, e)).collect();
        self.store.reset_log(token, id, LogPos { term, index: Index(upto as u64) }, &fences);
        self.ask(Asked::Reset(id, of.entries[..upto].to_vec()));
        self.replicas.insert(id, Replica { persisted: upto, applied: upto, state, clear_at });
    }

    /// Whether the content of a replica is known.
    fn is_clear(&self, id: CopysetId) -> bool {
        self.replicas.get(&id).is_none_or(|r| r.applied >= r.clear_at)
    }

    /// Reads blocks; the result is compared with what the model holds now.
    pub fn read(&mut self, id: CopysetId, chunk: ChunkId, range: BlockRange) {
        let content = self.replicas.get(&id).map(|r| &r.state.content);
        let tag = |block| content.and_then(|c| c.get(&(chunk, block))).copied().unwrap_or(0);
        let expected = self.is_clear(id).then(|| range.iter().map(tag).collect());
        let token = self.fresh();
        self.reads.insert(token, Reading { copyset: id, chunk, start: range.start(), expected });
        match self.rng.once_in(4) {
            true => self.store.mapped(token, id, chunk, range),
            false => self.store.read(token, id, chunk, range),
        }
    }

    /// Writes a block anew that is as it should be, as a repair does with a damaged one.
    pub fn mend(&mut self, id: CopysetId) {
        let Some(replica) = self.replicas.get(&id).filter(|_| self.is_clear(id)) else { return };
        let stored: Vec<_> = replica.state.content.iter().filter(|(_, tag)| **tag != 0).collect();
        if stored.is_empty() {
            return;
        }
        let (&(chunk, number), &tag) = stored[self.rng.below(stored.len() as u64) as usize];
        let wrote = |entry: &Rc<Entry>| match &entry.op {
            Op::Write { chunk: c, range, .. } => {
                *c == chunk && range.iter().zip(entry.tag..).any(|found| found == (number, tag))
            }
            _ => false,
        };
        let applied = &self.logs[&id].entries[..replica.applied];
        let index = applied.iter().rposition(wrote).expect("an entry wrote it") as u64 + 1;
        let data = self.data(tag, 1);
        let version = BlockVersion { chunk, number, index: Index(index), sum: block_sum(&data) };
        let token = self.fresh();
        match self.store.repair(token, id, &version, &data) {
            Ok(()) | Err(RepairError::Store(_)) => {}
            Err(error) => panic!("{id} {version:?}: {error}"),
        }
    }
}
