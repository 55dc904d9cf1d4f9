//! Lets a store run on its disk, and compares it with the model.

use std::collections::BTreeSet;
use std::rc::Rc;

use ogive_buf::Buf;
use ogive_store::{DiskOp, ReadError, StoreEvent};
use ogive_types::message::Mapped;
use ogive_types::{BLOCK_BYTES, ChunkId, CopysetId, Index, LogPos};

use crate::model::{Asked, chunk_of};

use super::{BLOCKS, FIRST, Reading, World, block, range};

impl World {
    /// Starts what the store wants.
    fn start_ops(&mut self) {
        let mut ops: Vec<DiskOp> = Vec::new();
        self.store.poll_ops(&mut ops);
        ops.into_iter().for_each(|op| self.disk.submit(op));
    }

    /// Starts what the store wants, ends up to `ends` operations, and looks at what it reports.
    pub fn pump(&mut self, ends: u64) {
        self.note();
        self.start_ops();
        for _ in 0..ends {
            let rng = &mut self.rng;
            let Some(done) = self.disk.complete_next(&mut |n| rng.below(n)) else { break };
            self.store.complete(done);
            self.look_at_events();
            self.note();
            if self.rng.once_in(3) {
                self.start_ops();
            }
        }
        self.look_at_events();
        self.note();
    }

    /// Ends everything.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.pump(8);
            let over = self.store.idle() || self.failed && !self.store.is_busy();
            if over && self.disk.pending() == 0 {
                assert!(self.reads.is_empty(), "every read ends");
                return;
            }
        }
        panic!("the store does not come to rest: {:?}", self.store.stats());
    }

    fn look_at_events(&mut self) {
        let mut events = Vec::new();
        self.store.poll_events(&mut events);
        for event in events {
            match event {
                StoreEvent::Persisted { copyset, index } => self.persisted(copyset, index),
                StoreEvent::HardState { copyset, hard } => {
                    let saved = Asked::Hard(copyset, hard);
                    self.promises.now_sure(|asked| asked.is_hard(&saved));
                }
                StoreEvent::ReadDone { token, result } => self.read_done(token, result),
                StoreEvent::Mapped { token, result } => self.mapped_done(token, result),
                StoreEvent::MapRead { .. } => {}
                StoreEvent::DeltaPersisted { token, copyset } => {
                    self.persisted_tokens.push(token);
                    let fits = |a: &Asked| matches!(a, Asked::Reset(id, _) if *id == copyset);
                    self.promises.now_sure(fits);
                }
                StoreEvent::Failed { .. } if self.faulty => self.failed = true,
                StoreEvent::Damaged { .. } if self.faulty => self.damaged += 1,
                StoreEvent::Repaired { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn read_done(&mut self, token: u64, result: Result<Buf, ReadError>) {
        let Some(reading) = self.reads.remove(&token) else {
            self.delta_reads.insert(token, result);
            return;
        };
        let data = match result {
            Ok(data) => data,
            Err(ReadError::Checksum | ReadError::Device(_)) if self.faulty => return,
            Err(error) => panic!("nothing is damaged, but: {error}"),
        };
        let Some(tags) = reading.expected else { return };
        assert_eq!(data.len(), tags.len() * BLOCK_BYTES);
        for (at, bytes) in data.chunks_exact(BLOCK_BYTES).enumerate() {
            let found = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
            let Reading { copyset, chunk, start, .. } = reading;
            let what = (copyset, chunk, usize::from(start) + at);
            assert_eq!(found, tags[at], "tag of {what:?}");
            assert_eq!(bytes, block(found), "data of {what:?}");
        }
    }

    fn mapped_done(&mut self, token: u64, result: Result<Vec<Mapped>, ReadError>) {
        let reading = self.reads.remove(&token).expect("only what is read is asked for");
        let runs = match result {
            Ok(runs) => runs,
            Err(ReadError::Device(_)) if self.faulty => return,
            Err(error) => panic!("nothing is damaged, but: {error}"),
        };
        let Some(tags) = reading.expected else { return };
        let found: Vec<(u16, bool)> =
            runs.iter().flat_map(|run| run.range.iter().map(|b| (b, run.mapped))).collect();
        let expected = (reading.start..).zip(tags.iter().map(|&tag| tag != 0));
        let (id, chunk) = (reading.copyset, reading.chunk);
        assert_eq!(found, expected.collect::<Vec<_>>(), "what is mapped of {chunk} in {id}");
    }

    fn persisted(&mut self, id: CopysetId, index: Index) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let upto = index.0 as usize;
        assert!(upto > replica.persisted, "{id}: persisted {upto} after {}", replica.persisted);
        replica.persisted = upto;
        let entry = Rc::clone(&self.logs[&id].entries[upto - 1]);
        let fits =
            |a: &Asked| matches!(a, Asked::Append(c, e) if *c == id && Rc::ptr_eq(e, &entry));
        self.promises.now_sure(fits);
    }

    /// The store says of its replicas what the model says.
    pub fn compare_states(&self) {
        assert!(self.store.replicas().eq(self.logs.keys().copied()));
        for (&id, log) in &self.logs {
            let state = self.store.replica(id).expect("listed");
            let replica = &self.replicas[&id];
            let last = LogPos { term: log.last_term(), index: Index(log.entries.len() as u64) };
            assert_eq!((state.last, state.hard), (last, log.hard), "{id}");
            let known = (state.applied.index.0 as usize, state.persisted.0 as usize);
            assert_eq!(known, (replica.applied, replica.persisted), "{id}");
            assert!(state.first <= state.applied.index.next(), "{id}: applied entries only go");
            for (&volume, &epoch) in &replica.state.fences {
                assert_eq!(self.store.fence_of(id, volume), Some(epoch), "{id} {volume}");
            }
        }
    }

    /// Reads everything that tests ever touch, and compares.
    pub fn compare_content(&mut self) {
        let ids: Vec<CopysetId> = self.logs.keys().copied().collect();
        for id in ids {
            let entries = &self.logs[&id].entries;
            let touched: BTreeSet<ChunkId> =
                entries.iter().filter_map(|e| chunk_of(&e.op)).collect();
            for chunk in touched {
                self.read(id, chunk, range(FIRST, BLOCKS));
                self.pump(4);
            }
        }
        self.settle();
    }
}
