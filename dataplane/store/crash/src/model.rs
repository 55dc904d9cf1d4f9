//! What a store must hold: replicas as lists of entries, kept by the most naive means.

use std::collections::BTreeMap;
use std::rc::Rc;

use ogive_store::HardState;
use ogive_types::message::Op;
use ogive_types::{ChunkId, CopysetId, Epoch, Term, VolumeId};

/// An entry of a replica's log. The first block of its data has tag `tag`, the next `tag + 1`.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Term in which it was proposed.
    pub term: Term,
    /// What it does.
    pub op: Op,
    /// Tag of the first block that it writes.
    pub tag: u64,
}

/// Blocks that hold data, by their tags.
pub type Content = BTreeMap<(ChunkId, u16), u64>;

/// A replica's log and vote. Entries are never released here: entry `n` lies at `n - 1`.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Tells a replica from one of the same copyset that was made after the first was dropped.
    pub life: u32,
    /// The newest hard state.
    pub hard: HardState,
    /// The entries, from index 1 on.
    pub entries: Vec<Rc<Entry>>,
    /// Entries that were truncated. Some of them may come back until another entry is appended.
    pub gone: Vec<Rc<Entry>>,
}

impl Log {
    /// The log with so many of its truncated entries back; `None` when there are not so many.
    pub fn with_back(&self, count: usize) -> Option<Log> {
        let back = self.gone.get(..count)?;
        let mut log = self.clone();
        log.entries.extend_from_slice(back);
        log.gone.clear();
        Some(log)
    }

    /// Term of the last entry.
    pub fn last_term(&self) -> Term {
        self.entries.last().map_or(Term(0), |e| e.term)
    }

    /// Content and fences when the first `applied` entries are applied.
    pub fn state_at(&self, applied: usize) -> State {
        let mut state = State::default();
        self.entries[..applied].iter().for_each(|entry| state.apply(entry));
        state
    }
}

/// What applied entries lead to.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Blocks that hold data.
    pub content: Content,
    /// The newest epoch of each volume.
    pub fences: BTreeMap<VolumeId, Epoch>,
}

impl State {
    /// Applies an entry.
    pub fn apply(&mut self, entry: &Entry) {
        let mut fence = |volume: VolumeId, epoch: Epoch| {
            let newest = self.fences.entry(volume).or_default();
            *newest = (*newest).max(epoch);
        };
        match &entry.op {
            Op::Noop => {}
            Op::Write { chunk, range, .. } => {
                let tags = range.iter().zip(entry.tag..);
                self.content.extend(tags.map(|(block, tag)| ((*chunk, block), tag)));
            }
            Op::Trim { chunk, range } => {
                let trimmed = range.start()..range.end();
                self.content.retain(|(c, block), _| c != chunk || !trimmed.contains(block));
            }
            Op::Fence { volume, epoch } => fence(*volume, *epoch),
            Op::DropVolume { volume } => {
                fence(*volume, Epoch(u64::MAX));
                self.content.retain(|(chunk, _), _| chunk.volume != *volume);
            }
        }
    }
}

/// Something that was asked of a store, in order. A recovery shows the effect of a first part of
/// these and of nothing behind.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A replica was made; the number tells it from others of the copyset.
    Create(CopysetId, u32),
    /// It was dropped.
    Drop(CopysetId),
    /// A hard state was saved.
    Hard(CopysetId, HardState),
    /// An entry was appended.
    Append(CopysetId, Rc<Entry>),
    /// The entries behind the first so many were dropped.
    Truncate(CopysetId, usize),
    /// The log was restarted behind these entries.
    Reset(CopysetId, Vec<Rc<Entry>>),
}

/// All logs of a store.
pub type Logs = BTreeMap<CopysetId, Log>;

impl Asked {
    /// Whether both save the same hard state.
    pub fn is_hard(&self, other: &Asked) -> bool {
        match (self, other) {
            (Asked::Hard(a, saved), Asked::Hard(b, wanted)) => a == b && saved == wanted,
            _ => false,
        }
    }

    /// Whom it concerns.
    pub fn copyset(&self) -> CopysetId {
        match self {
            Asked::Create(id, _) | Asked::Drop(id) | Asked::Hard(id, _) => *id,
            Asked::Append(id, _) | Asked::Truncate(id, _) | Asked::Reset(id, _) => *id,
        }
    }

    /// What it does to the logs.
    pub fn apply(&self, logs: &mut Logs) {
        if let Asked::Create(id, life) = self {
            logs.insert(*id, Log { life: *life, ..Log::default() });
        }
        let Some(log) = logs.get_mut(&self.copyset()) else { return };
        match self {
            Asked::Create(..) => {}
            Asked::Drop(id) => drop(logs.remove(id)),
            Asked::Hard(_, hard) => log.hard = *hard,
            Asked::Append(_, entry) => {
                log.entries.push(Rc::clone(entry));
                log.gone.clear();
            }
            Asked::Truncate(_, len) => {
                let mut gone = log.entries.split_off(*len);
                gone.append(&mut log.gone);
                log.gone = gone;
            }
            Asked::Reset(_, entries) => {
                log.entries = entries.clone();
                log.gone.clear();
            }
        }
    }
}

/// The chunk that an entry touches.
pub fn chunk_of(op: &Op) -> Option<ChunkId> {
    match op {
        Op::Write { chunk, .. } | Op::Trim { chunk, .. } => Some(*chunk),
        _ => None,
    }
}
