//! A part: the piece of an operation that one request can do.

use ogive_buf::Buf;
use ogive_rpc::transport::ConnId;
use ogive_types::message::IoOp;
use ogive_types::{BlockRange, BlockSum, ChunkId, CopysetId, ShardAddr, Term};

use crate::op::OpKey;
use crate::slab::Key;

/// Names a part.
pub(crate) type PartKey = Key<Part>;

/// What a part is to do.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Read, into this slot of the operation; `settled` where a part of it will be written back.
    Read { slot: u32, settled: bool },
    /// Write these bytes.
    Write(Vec<Buf>, Vec<BlockSum>),
    /// Free the blocks.
    Trim,
    /// Tell which blocks are mapped.
    Map,
}

/// A part that is planned but not begun.
#[derive(Clone, Debug)]
pub(crate) struct PartSpec {
    /// Byte of the volume where its first block starts; for trims of striped volumes not
    /// meaningful.
    pub(crate) at: u64,
    pub(crate) chunk: ChunkId,
    pub(crate) range: BlockRange,
    pub(crate) what: What,
}

/// Where a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartState {
    /// In the queue of things to do now.
    Ready,
    /// Its segment is asked for.
    Segment(u32),
    /// Its copyset's leader is searched.
    Route(CopysetId),
    /// Its leader grants no more credit for now.
    Credit(ShardAddr),
    /// A pause before the next try.
    Pause,
    /// Sent, unanswered.
    Sent(Sent),
}

/// How a part was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) conn: ConnId,
    pub(crate) to: ShardAddr,
    pub(crate) copyset: CopysetId,
    pub(crate) term: Term,
}

/// A part in progress.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) op: OpKey,
    pub(crate) spec: PartSpec,
    pub(crate) state: PartState,
    /// Refusals in a row that asked for patience.
    pub(crate) pauses: u32,
    pub(crate) redirects: u8,
    pub(crate) timeouts: u8,
    pub(crate) bad_sums: u8,
}

impl Part {
    pub(crate) fn new(op: OpKey, spec: PartSpec) -> Part {
        let state = PartState::Ready;
        Part { op, spec, state, pauses: 0, redirects: 0, timeouts: 0, bad_sums: 0 }
    }

    /// True when the request changes data, so that an unanswered one may still take effect.
    pub(crate) fn changes_data(&self) -> bool {
        matches!(self.spec.what, What::Write(..) | What::Trim)
    }

    /// True when the part needs its segment allocated.
    pub(crate) fn needs_space(&self) -> bool {
        matches!(self.spec.what, What::Write(..))
    }

    /// The request's operation, and its payload.
    pub(crate) fn request(&self) -> (IoOp, Vec<Buf>) {
        let (chunk, range) = (self.spec.chunk, self.spec.range);
        match &self.spec.what {
            What::Read { settled, .. } => {
                (IoOp::Read { chunk, range, settled: *settled }, Vec::new())
            }
            What::Write(data, sums) => {
                (IoOp::Write { chunk, range, sums: sums.clone() }, data.clone())
            }
            What::Trim => (IoOp::Trim { chunk, range }, Vec::new()),
            What::Map => (IoOp::Map { chunk, range }, Vec::new()),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use ogive_types::VolumeId;

    use super::*;
    use crate::op::testing::op_keys;
    use crate::slab::Slab;

    /// `n` different keys.
    pub(crate) fn part_keys(n: usize) -> Vec<PartKey> {
        let chunk = ChunkId { volume: VolumeId(1), number: 0 };
        let range = BlockRange::new(0, 1).unwrap();
        let spec = PartSpec { at: 0, chunk, range, what: What::Trim };
        let mut slab = Slab::default();
        (0..n).map(|_| slab.insert(Part::new(op_keys(1)[0], spec.clone()))).collect()
    }
}
