//! One replica of one copyset on this shard: the core, and who waits for it.

use std::collections::{BTreeMap, VecDeque};

use ogive_copyset::Copyset;
use ogive_types::{BlockRange, ChunkId, CopysetId, Epoch, Index, ShardAddr, VolumeId};

use crate::calls::Token;
use crate::delta::DeltaSender;
use crate::outbox::Outbox;

pub(crate) struct Group {
    pub(crate) id: CopysetId,
    pub(crate) core: Copyset,
    pub(crate) members: Vec<ShardAddr>,
    /// Writes that wait for their commit, in log order.
    pub(crate) writes: VecDeque<(Index, Token)>,
    /// Reads that wait for the lease, or for an apply.
    pub(crate) reads: Vec<WaitingRead>,
    /// Epochs proposed by this leader that are not applied yet, with the index of their entry. They
    /// already bind.
    pub(crate) fences: BTreeMap<VolumeId, (Epoch, Index)>,
    /// As a leader: the no-op of this term. Client I/O is served once it is applied, since only
    /// then all fences of earlier leaders are known here.
    pub(crate) noop: Option<Index>,
    /// Appends on their way to followers.
    pub(crate) outboxes: BTreeMap<ShardAddr, Outbox>,
    /// Followers being caught up by a delta.
    pub(crate) deltas: BTreeMap<ShardAddr, DeltaSender>,
    /// Entries were added since the core was last asked to replicate.
    pub(crate) replicate: bool,
}

/// A read or map query that cannot be served yet.
pub(crate) struct WaitingRead {
    pub(crate) token: Token,
    pub(crate) chunk: ChunkId,
    pub(crate) range: BlockRange,
    pub(crate) query: Query,
    /// What it must see besides all that was committed: the entry that makes the reader's epoch
    /// known, while it is not applied (served sooner, the read could be followed by a write of an
    /// older epoch, should this leader be lost with the entry); for a settled read, the whole log.
    pub(crate) floor: Index,
    /// What must be applied first; `None` while the lease is in doubt.
    pub(crate) after: Option<Index>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    Data { settled: bool },
    Map,
}

impl Group {
    pub(crate) fn new(id: CopysetId, core: Copyset, members: Vec<ShardAddr>) -> Group {
        Group {
            id,
            core,
            members,
            writes: VecDeque::new(),
            reads: Vec::new(),
            fences: BTreeMap::new(),
            noop: None,
            outboxes: BTreeMap::new(),
            deltas: BTreeMap::new(),
            replicate: false,
        }
    }

    /// Takes out the writes that are committed at `commit`.
    pub(crate) fn committed(&mut self, commit: Index) -> impl Iterator<Item = Token> + '_ {
        let n = self.writes.partition_point(|&(index, _)| index <= commit);
        self.writes.drain(..n).map(|(_, token)| token)
    }

    /// Takes out the reads that may be served once `applied` is applied.
    pub(crate) fn readable(&mut self, applied: Index) -> Vec<WaitingRead> {
        let ready = |read: &mut WaitingRead| read.after.is_some_and(|after| after <= applied);
        self.reads.extract_if(.., ready).collect()
    }

    /// Everything that waits for a leader which is none any more.
    pub(crate) fn step_down(&mut self) -> (Vec<Token>, Vec<Token>) {
        self.noop = None;
        self.fences.clear();
        self.deltas.clear();
        self.outboxes.clear();
        let writes = self.writes.drain(..).map(|(_, token)| token).collect();
        let reads = self.reads.drain(..).map(|read| read.token).collect();
        (writes, reads)
    }
}
