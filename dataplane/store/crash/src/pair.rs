//! A replica that is brought forward by deltas from another store, under load and power cuts.

use std::rc::Rc;

use ogive_buf::Buf;
use ogive_store::{AppendError, DeltaCursor, DeltaScan, audit};
use ogive_types::message::DeltaPage;
use ogive_types::{CopysetId, Index, LogPos, Term};

use crate::world::{Mix, World};

/// The copyset of both.
pub const ID: CopysetId = CopysetId(1);

/// The source, and the replica that lags.
pub struct Pair {
    from: World,
    /// The one that lags.
    pub to: World,
    /// Deltas that ended.
    pub done: u64,
    /// Deltas that were cut short.
    pub cut: u64,
    /// The power of the one that lags is cut now and then.
    pub power_cuts: bool,
}

/// Why a delta came to nothing.
#[derive(Debug)]
pub enum Cut {
    /// The power was cut.
    Crash,
    /// The device was full.
    NoSpace,
}

impl Pair {
    /// A pair of which everything follows from `seed`.
    pub fn new(seed: u64) -> Pair {
        let (mut from, mut to) = (World::new(2 * seed), World::new(2 * seed + 1));
        from.create(ID);
        to.create(ID);
        from.settle(); // a power cut must not take the replicas themselves
        to.settle();
        Pair { from, to, done: 0, cut: 0, power_cuts: true }
    }

    /// Random work on the source.
    pub fn source_lives(&mut self, steps: u64) {
        for _ in 0..steps {
            self.from.step_on(ID, &Mix::default());
            if self.from.rng.once_in(100) {
                self.from.crash();
            }
        }
    }

    /// The lagging replica gets some entries the usual way, all of them committed.
    pub fn follow(&mut self, entries: usize) {
        let committed = self.from.replicas[&ID].applied;
        for _ in 0..entries {
            let len = self.to.logs[&ID].entries.len();
            if len >= committed {
                break;
            }
            let entry = Rc::clone(&self.from.logs[&ID].entries[len]);
            let _ = self.to.append(ID, entry);
            let ends = self.to.rng.below(6);
            self.to.pump(ends);
            self.apply_some();
        }
    }

    fn apply_some(&mut self) {
        let replica = &self.to.replicas[&ID];
        let more = (replica.persisted - replica.applied) as u64;
        let upto = replica.applied + self.to.rng.below(more + 1) as usize;
        self.to.apply(ID, upto);
    }

    /// One delta, from start to end.
    ///
    /// # Errors
    /// When it comes to nothing, for a reason that may pass.
    pub fn delta(&mut self) -> Result<(), Cut> {
        let base = self.to.replicas[&ID].applied;
        let upto = self.from.replicas[&ID].applied;
        if upto <= base {
            return Ok(());
        }
        self.to.replicas.get_mut(&ID).expect("made").clear_at = usize::MAX;
        let mut cursor = Some(DeltaCursor::start());
        let mut tokens = Vec::new();
        while let Some(at) = cursor {
            let blocks_max = 1 + self.from.rng.below(12) as usize;
            let scan = self.from.store.delta_scan(ID, Index(base as u64), at.clone(), blocks_max);
            if self.from.rng.once_in(3) {
                self.source_lives(3);
            }
            let Some(data) = self.fetch(&scan) else {
                cursor = Some(at); // changed meanwhile
                continue;
            };
            cursor = scan.next.clone();
            tokens.push(self.deliver(base, upto, scan, data)?);
            if self.power_cuts && self.to.rng.once_in(25) {
                self.to.crash();
                return Err(Cut::Crash);
            }
            if self.to.rng.once_in(4) && self.to.replicas[&ID].applied < upto {
                self.apply_some();
            }
        }
        self.to.settle();
        assert!(tokens.iter().all(|t| self.to.persisted_tokens.contains(t)), "every page ends");
        if self.to.replicas[&ID].applied >= upto {
            return Ok(()); // the log was faster
        }
        let clear_at = self.from.replicas[&ID].applied;
        let token = self.to.fresh();
        self.to.reset(token, ID, &self.from.logs[&ID].clone(), upto, clear_at);
        self.done += 1;
        Ok(())
    }

    /// Data of a page, or `None` when it has changed since.
    fn fetch(&mut self, scan: &DeltaScan) -> Option<Option<Buf>> {
        if scan.waits {
            self.from.pump(4); // a page of the map must be read first
            return None;
        }
        if scan.chunks.iter().flat_map(|c| &c.extents).all(|e| e.sums.is_empty()) {
            return Some(None);
        }
        let token = self.from.fresh();
        self.from.store.delta_read(token, ID, &scan.chunks);
        loop {
            self.from.pump(4);
            if let Some(result) = self.from.delta_reads.remove(&token) {
                return result.ok().map(Some);
            }
        }
    }

    fn deliver(
        &mut self,
        base: usize,
        upto: usize,
        scan: DeltaScan,
        data: Option<Buf>,
    ) -> Result<u64, Cut> {
        let term = self.from.logs[&ID].entries[upto - 1].term;
        let page = DeltaPage {
            term: Term(1),
            upto: LogPos { term, index: Index(upto as u64) },
            base: Index(base as u64),
            after: scan.after,
            through: scan.through,
            chunks: scan.chunks,
        };
        // The two stores have memory of their own.
        let data = data.map(|data| {
            let mut copy = self.to.pool.alloc(data.len()).expect("memory");
            copy.copy_from_slice(&data);
            copy.freeze()
        });
        let token = self.to.fresh();
        for _ in 0..1000 {
            let result = self.to.store.delta_apply(token, ID, &page, data.clone());
            let ends = self.to.rng.below(8);
            self.to.pump(ends);
            match result {
                Ok(()) => return Ok(token),
                Err(AppendError::Busy) => {}
                Err(AppendError::NoSpace) => return Err(Cut::NoSpace),
                Err(AppendError::Failed) => panic!("the device is well"),
            }
        }
        panic!("busy for ever: {:?}", self.to.store.stats());
    }

    /// Brings the replica to where the source is, and compares all of it.
    fn meet(&mut self) {
        self.from.settle();
        for _ in 0..1000 {
            self.follow(usize::MAX);
            self.to.settle();
            let persisted = self.to.replicas[&ID].persisted;
            self.to.apply(ID, persisted);
            if persisted == self.from.replicas[&ID].applied {
                break;
            }
        }
        let (from, to) = (&self.from.replicas[&ID], &self.to.replicas[&ID]);
        assert_eq!(from.applied, to.applied, "the log leads all the way");
        assert_eq!(from.state.content, to.state.content);
        self.to.compare_states();
        self.to.compare_content();
        audit(&self.to.store).expect("consistent when level");
    }
}

/// Lives of a pair; how many deltas ended, and how many were cut.
pub fn live(seed: u64, rounds: u64) -> (u64, u64) {
    let mut pair = Pair::new(seed);
    for _ in 0..rounds {
        pair.source_lives(60);
        let entries = pair.to.rng.below(20) as usize;
        pair.follow(entries);
        if pair.to.rng.once_in(4) {
            pair.to.store.start_checkpoint();
        }
        let mut tries = 0;
        while let Err(cut) = pair.delta() {
            pair.cut += 1;
            tries += 1;
            assert!(tries < 50, "{cut:?} again and again");
        }
        match pair.to.rng.below(3) {
            0 => pair.to.crash(),
            1 => pair.follow(5),
            _ => pair.to.settle(),
        }
        if pair.to.logs[&ID].entries.len() < pair.to.replicas[&ID].clear_at
            && pair.to.replicas[&ID].clear_at == usize::MAX
        {
            continue; // the end was lost: what came is part of a delta still
        }
        pair.meet();
    }
    (pair.done, pair.cut)
}
