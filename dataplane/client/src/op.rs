//! An operation of the caller: its stages, and the parts that it is cut into.
//!
//! ```text
//!            lock held                edges read               all parts done
//!  Locked ──────────────> Edges ──────────────────> Main ──────────────────────> completed
//!    (writes only)          (only when a block is      (reads, trims, maps and
//!                            covered in part)           aligned writes start here)
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use ogive_buf::Buf;
use ogive_types::{BLOCK_BYTES, CHUNK_BYTES, Layout, MAX_IO_BYTES, Time, VolumeId};

use crate::api::{VolumeError, VolumeOp, VolumeOutput};
use crate::chain;
use crate::limits::MAP_RUNS_MAX;
use crate::lock::LockKey;
use crate::part::{PartKey, PartSpec, What};
use crate::segments::{SegmentState, Segments};
use crate::slab::Key;
use crate::split;

const SEGMENT: u64 = ogive_types::SEGMENT_BYTES;

/// Names an operation.
pub(crate) type OpKey = Key<Op>;

/// See the module's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for earlier writes that it overlaps.
    Locked,
    /// Reads the blocks that it covers in part.
    Edges,
    /// Does what was asked.
    Main,
}

/// What does not change while parts are planned.
pub(crate) struct Plan<'a> {
    pub(crate) volume: VolumeId,
    pub(crate) layout: &'a Layout,
    pub(crate) segments: &'a Segments,
    pub(crate) zero: &'a Buf,
}

/// A run of bytes of the volume that holds data or does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) mapped: bool,
}

/// An operation in progress.
pub(crate) struct Op {
    pub(crate) token: u64,
    pub(crate) deadline: Time,
    pub(crate) lock: Option<LockKey>,
    pub(crate) stage: Stage,
    /// Parts begun and not done.
    pub(crate) parts: Vec<PartKey>,
    /// What reads gave, by slot.
    pub(crate) slots: Vec<Vec<Buf>>,
    pub(crate) runs: Vec<Run>,
    pub(crate) error: Option<VolumeError>,
    op: VolumeOp,
    bytes: Range<u64>,
    /// Parts planned and not begun.
    pending: VecDeque<PartSpec>,
    /// Bytes of a long trim or map whose parts are not planned yet.
    cursor: Range<u64>,
}

impl Op {
    /// An operation on a range that is not empty and lies inside the volume.
    pub(crate) fn new(token: u64, op: VolumeOp, deadline: Time) -> Op {
        let (offset, len) = op.span();
        Op {
            token,
            deadline,
            lock: None,
            stage: Stage::Locked,
            parts: Vec::new(),
            slots: Vec::new(),
            runs: Vec::new(),
            error: None,
            op,
            bytes: offset..offset + len,
            pending: VecDeque::new(),
            cursor: 0..0,
        }
    }

    /// The blocks that nobody else may change meanwhile; `None` for reads.
    pub(crate) fn lock_blocks(&self) -> Option<Range<u64>> {
        match self.op {
            VolumeOp::Write { .. } | VolumeOp::WriteZeroes { .. } => {
                Some(split::blocks(&self.bytes))
            }
            VolumeOp::Trim { .. } => {
                let inner = split::blocks(&split::inward(&self.bytes));
                (!inner.is_empty()).then_some(inner)
            }
            VolumeOp::Read { .. } | VolumeOp::Map { .. } | VolumeOp::Flush => None,
        }
    }

    /// Leaves `Locked`: plans the first stage.
    pub(crate) fn start(&mut self, plan: &Plan<'_>) {
        assert_eq!(self.stage, Stage::Locked, "started once");
        let edges = match self.op {
            VolumeOp::Write { .. } | VolumeOp::WriteZeroes { .. } => split::edges(&self.bytes),
            _ => Vec::new(),
        };
        if edges.is_empty() {
            return self.enter_main(plan);
        }
        self.stage = Stage::Edges;
        for edge in edges {
            self.plan_reads(plan, edge..edge + BLOCK_BYTES as u64);
        }
    }

    /// Goes on once all parts of a stage are done; false when the last stage is.
    pub(crate) fn next_stage(&mut self, plan: &Plan<'_>) -> bool {
        assert!(self.parts.is_empty() && self.pending.is_empty());
        match self.stage {
            Stage::Edges => self.enter_main(plan),
            Stage::Main => return false,
            Stage::Locked => unreachable!("stages are entered through start"),
        }
        true
    }

    fn enter_main(&mut self, plan: &Plan<'_>) {
        self.stage = Stage::Main;
        match &self.op {
            VolumeOp::Read { .. } => self.plan_reads(plan, split::outward(&self.bytes)),
            VolumeOp::Write { data, .. } => {
                let data = data.clone();
                self.plan_write(plan, data);
            }
            VolumeOp::Trim { .. } => self.cursor = split::inward(&self.bytes),
            VolumeOp::Map { .. } => self.cursor = split::outward(&self.bytes),
            VolumeOp::WriteZeroes { .. } => {
                self.plan_zero_edges(plan);
                self.cursor = split::inward(&self.bytes);
            }
            VolumeOp::Flush => {}
        }
    }

    fn plan_reads(&mut self, plan: &Plan<'_>, bytes: Range<u64>) {
        let len = bytes.end - bytes.start;
        for span in plan.layout.split(plan.volume, bytes.start, len, MAX_IO_BYTES as u64) {
            let (slot, settled) = (self.slots.len() as u32, self.stage == Stage::Edges);
            let what = What::Read { slot, settled };
            self.slots.push(Vec::new());
            let at = bytes.start + span.at;
            self.pending.push_back(PartSpec { at, chunk: span.chunk, range: span.range, what });
        }
    }

    /// The write's data between what its edge blocks keep, cut into spans. No byte is copied.
    fn plan_write(&mut self, plan: &Plan<'_>, data: Buf) {
        let outer = split::outward(&self.bytes);
        let mut whole = Vec::with_capacity(3);
        let head = (self.bytes.start - outer.start) as usize;
        let tail = (outer.end - self.bytes.end) as usize;
        if head > 0 {
            whole.extend(chain::slice(&self.slots[0], 0..head));
        }
        whole.push(data);
        if tail > 0 {
            let last = self.slots.last().expect("a partly covered block was read");
            whole.extend(chain::slice(last, BLOCK_BYTES - tail..BLOCK_BYTES));
        }
        self.push_writes(plan, outer.start, &whole);
    }

    fn push_writes(&mut self, plan: &Plan<'_>, at: u64, whole: &[Buf]) {
        let len = chain::len(whole);
        for span in plan.layout.split(plan.volume, at, len as u64, MAX_IO_BYTES as u64) {
            let start = span.at as usize;
            let pieces = chain::slice(whole, start..start + span.range.bytes());
            let sums = chain::sums(&pieces);
            let (at, chunk, range) = (at + span.at, span.chunk, span.range);
            self.pending.push_back(PartSpec { at, chunk, range, what: What::Write(pieces, sums) });
        }
    }

    /// The blocks that a range of zeroes covers in part, with zeroes in that part.
    fn plan_zero_edges(&mut self, plan: &Plan<'_>) {
        for (slot, edge) in split::edges(&self.bytes).into_iter().enumerate() {
            let number = (edge / SEGMENT) as u32;
            if *plan.segments.state(number) == SegmentState::Unallocated {
                continue; // zeroes already
            }
            let block = edge..edge + BLOCK_BYTES as u64;
            let from = (self.bytes.start.max(block.start) - edge) as usize;
            let to = (self.bytes.end.min(block.end) - edge) as usize;
            let mut whole = chain::slice(&self.slots[slot], 0..from);
            whole.extend(chain::zeroes(plan.zero, to - from));
            whole.extend(chain::slice(&self.slots[slot], to..BLOCK_BYTES));
            self.push_writes(plan, edge, &whole);
        }
    }

    /// The next part to begin.
    pub(crate) fn next_part(&mut self, plan: &Plan<'_>) -> Option<PartSpec> {
        while self.pending.is_empty() && self.cursor.start < self.cursor.end {
            self.plan_from_cursor(plan);
        }
        self.pending.pop_front()
    }

    fn plan_from_cursor(&mut self, plan: &Plan<'_>) {
        let (at, end) = (self.cursor.start, self.cursor.end);
        let is_map = matches!(self.op, VolumeOp::Map { .. });
        let segment = at / SEGMENT;
        let to = if *plan.segments.state(segment as u32) == SegmentState::Unallocated {
            let to = end.min((segment + 1) * SEGMENT);
            if is_map {
                self.runs.push(Run { at, len: to - at, mapped: false });
            }
            to
        } else if is_map {
            let to = end.min(split::unit_end(plan.layout, at));
            for span in plan.layout.split(plan.volume, at, to - at, CHUNK_BYTES) {
                let (chunk, range, what) = (span.chunk, span.range, What::Map);
                self.pending.push_back(PartSpec { at: at + span.at, chunk, range, what });
            }
            to
        } else {
            let to = end.min(split::group_end(plan.layout, at));
            for (chunk, range) in split::by_chunk(plan.layout, plan.volume, &(at..to)) {
                self.pending.push_back(PartSpec { at, chunk, range, what: What::Trim });
            }
            to
        };
        self.cursor.start = to;
        if self.runs.len() >= MAP_RUNS_MAX {
            self.cursor.start = end;
        }
    }

    /// Drops what is planned and not begun.
    pub(crate) fn abandon(&mut self, error: VolumeError) {
        self.error.get_or_insert(error);
        self.pending.clear();
        self.cursor = 0..0;
    }

    /// The result, once nothing is left to do.
    pub(crate) fn result(&mut self) -> Result<VolumeOutput, VolumeError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match self.op {
            VolumeOp::Read { .. } => {
                let whole: Vec<Buf> =
                    std::mem::take(&mut self.slots).into_iter().flatten().collect();
                let skip = (self.bytes.start % BLOCK_BYTES as u64) as usize;
                let len = (self.bytes.end - self.bytes.start) as usize;
                assert!(chain::len(&whole) >= skip + len, "every slot is filled");
                Ok(VolumeOutput::Data(chain::slice(&whole, skip..skip + len)))
            }
            VolumeOp::Map { .. } => Ok(VolumeOutput::Map(self.joined_runs())),
            _ => Ok(VolumeOutput::Done),
        }
    }

    /// The runs in order, clipped to what was asked, neighbours of a kind joined, up to the first
    /// gap.
    fn joined_runs(&mut self) -> Vec<(u64, bool)> {
        self.runs.sort_unstable_by_key(|run| run.at);
        let mut joined: Vec<(u64, bool)> = Vec::new();
        let mut at = self.bytes.start;
        for run in &self.runs {
            let (from, to) = (run.at.max(self.bytes.start), (run.at + run.len).min(self.bytes.end));
            assert_eq!(from, at, "parts of a map are begun in order and all done");
            at = to;
            match joined.last_mut() {
                Some((len, mapped)) if *mapped == run.mapped => *len += to - from,
                _ => joined.push((to - from, run.mapped)),
            }
        }
        joined
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::slab::Slab;

    /// `n` different keys.
    pub(crate) fn op_keys(n: usize) -> Vec<OpKey> {
        let mut slab = Slab::default();
        (0..n).map(|i| slab.insert(Op::new(i as u64, VolumeOp::Flush, Time::NEVER))).collect()
    }
}
