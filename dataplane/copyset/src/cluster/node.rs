//! A replica with a store that loses what was not persisted, and a clock of its own.

use std::collections::{HashMap, VecDeque};

use ogive_types::{Index, LogPos, ShardAddr, Term, Time};

use crate::rng::Rng;
use crate::{Copyset, HardState, Restored, TermRun};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) term: Term,
    pub(super) payload: u64,
}

/// Entries behind `prev`.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) prev: LogPos,
    pub(super) entries: VecDeque<Entry>,
}

impl Log {
    pub(super) fn last(&self) -> LogPos {
        let index = Index(self.prev.index.0 + self.entries.len() as u64);
        let term = self.entries.back().map_or(self.prev.term, |entry| entry.term);
        LogPos { term, index }
    }

    pub(super) fn get(&self, index: Index) -> Option<Entry> {
        let at = index.0.checked_sub(self.prev.index.0 + 1)?;
        self.entries.get(at as usize).copied()
    }

    pub(super) fn pos(&self, index: Index) -> LogPos {
        let entry = self.get(index);
        LogPos { term: entry.map_or(self.prev.term, |entry| entry.term), index }
    }

    /// What was released is committed, and so held by the map.
    pub(super) fn holds(&self, index: Index, entry: Entry) -> bool {
        index <= self.prev.index || self.get(index) == Some(entry)
    }

    pub(super) fn truncate_from(&mut self, index: Index) {
        self.entries.truncate((index.0 - self.prev.index.0 - 1) as usize);
    }

    pub(super) fn release(&mut self, upto: Index) {
        if upto > self.prev.index {
            let prev = self.pos(upto);
            self.entries.drain(..(upto.0 - self.prev.index.0) as usize);
            self.prev = prev;
        }
    }

    fn runs(&self) -> Vec<TermRun> {
        let mut runs: Vec<TermRun> = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                let start = Index(self.prev.index.0 + 1 + i as u64);
                runs.push(TermRun { start, term: entry.term });
            }
        }
        runs
    }
}

/// Rate and offset of a replica's clock against the true time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) offset: u64,
    pub(super) drift_ppm: i64,
}

impl Clock {
    fn rate(self) -> u128 {
        (1_000_000 + self.drift_ppm) as u128
    }

    pub(super) fn local(self, now: u64) -> Time {
        Time(self.offset + (u128::from(now) * self.rate() / 1_000_000) as u64)
    }

    /// The first true moment at which the clock shows `local` or later.
    pub(super) fn when(self, local: Time) -> u64 {
        let passed = u128::from(local.0.saturating_sub(self.offset)) * 1_000_000;
        passed.div_ceil(self.rate()) as u64 + 1
    }
}

/// A change on its way to stable storage.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Hard(HardState),
    /// Truncates at `first`, appends, then reports up to `report` unless that was truncated
    /// meanwhile.
    Append {
        first: Index,
        entries: Vec<Entry>,
        report: Index,
    },
    Release(Index),
    /// A delta ends; `request` is answered.
    Reset {
        upto: LogPos,
        from: usize,
        request: u64,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) hard: HardState,
    pub(super) log: Log,
}

impl Durable {
    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Hard(hard) => self.hard = *hard,
            Write::Append { first, entries, .. } => {
                // Entries that a delta made obsolete meanwhile.
                if *first > self.log.prev.index {
                    self.log.truncate_from(*first);
                    self.log.entries.extend(entries);
                }
            }
            Write::Release(upto) => self.log.release(*upto),
            Write::Reset { upto, .. } => {
                self.log = Log { prev: *upto, entries: VecDeque::new() };
            }
        }
    }
}

pub(super) struct Node {
    pub(super) addr: ShardAddr,
    pub(super) clock: Clock,
    /// `None` while it is down.
    pub(super) core: Option<Copyset>,
    /// Counts restarts; what an earlier life started does not reach a later one.
    pub(super) boot: u32,
    pub(super) log: Log,
    pub(super) durable: Durable,
    /// Term and vote, and the log, reach stable storage independently, each in order.
    pub(super) disks: [VecDeque<Write>; 2],
    pub(super) disk_free_at: [u64; 2],
    pub(super) disk_delay_us: u64,
    pub(super) full: bool,
    pub(super) resetting: bool,
    pub(super) applied: Index,
    /// Requests to answer: peer and request id by token.
    pub(super) tokens: HashMap<u64, (usize, u64)>,
    /// Own requests without an answer, with the term they were sent in.
    pub(super) requests: HashMap<u64, (usize, Kind, Term)>,
    /// What was committed when a read was requested, by token.
    pub(super) reads: HashMap<u64, usize>,
    pub(super) timer_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Append,
    Delta,
    Other,
}

impl Node {
    pub(super) fn new(addr: ShardAddr, clock: Clock) -> Node {
        Node {
            addr,
            clock,
            core: None,
            boot: 0,
            log: Log::default(),
            durable: Durable::default(),
            disks: Default::default(),
            disk_free_at: [0; 2],
            disk_delay_us: 0,
            full: false,
            resetting: false,
            applied: Index(0),
            tokens: HashMap::new(),
            requests: HashMap::new(),
            reads: HashMap::new(),
            timer_at: u64::MAX,
        }
    }

    /// Loses its memory, and of what was being written all but some first part.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.core = None;
        self.boot += 1;
        for disk in &mut self.disks {
            let survive = rng.next() as usize % (disk.len() + 1);
            for write in disk.drain(..).take(survive) {
                self.durable.write(&write);
            }
        }
        self.log = self.durable.log.clone();
        self.tokens.clear();
        self.requests.clear();
        self.reads.clear();
        (self.full, self.resetting, self.timer_at) = (false, false, u64::MAX);
    }

    /// What the store finds: of what was applied, some is in the map.
    pub(super) fn restored(&mut self, rng: &mut Rng) -> Restored {
        let (first, last) = (self.log.prev.index.0, self.log.last().index.0);
        let end = self.applied.0.clamp(first, last);
        self.applied = Index(first + rng.next() % (end - first + 1));
        Restored {
            hard: self.durable.hard,
            terms: self.log.runs(),
            prev: self.log.prev,
            last: self.log.last(),
            applied: self.applied,
        }
    }

    /// Drops entries from the log in memory; reports of those on their way are void.
    pub(super) fn truncate_from(&mut self, index: Index) {
        self.log.truncate_from(index);
        for write in &mut self.disks[1] {
            if let Write::Append { report, .. } = write {
                *report = (*report).min(index.prev());
            }
        }
    }
}
