//! The model of a volume's blocks.
//!
//! Writes to one block are sent one at a time, and none while a read of it is in flight, so for
//! each block they have one order. Of each block the model knows
//!
//! - `floor`: the newest write that must be there: acknowledged, or seen by a read;
//! - `maybe`: newer writes that may be there or not: in flight, or of unknown outcome.
//!
//! | event | floor | maybe |
//! |---|---|---|
//! | write *w* sent | | + *w* |
//! | *w* acknowledged | *w* | emptied: all others are older |
//! | *w* of unknown outcome | | keeps *w* |
//! | read returns *v* | max(floor, *v*) | without those up to *v* |
//!
//! A read may return the floor or any `maybe` as they were when it was sent. So a value never goes
//! back, and once a later write was acknowledged, a write of unknown outcome may not turn up.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::limits::MAX_UNKNOWN_PER_BLOCK;
use crate::verify::block::{BLOCK, BlockNo, Content, Seq, classify, fill};
use crate::verify::report::{Fault, FaultKind, VerifyReport};

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteEnd {
    Acknowledged,
    Unknown,
}

/// What a read in flight may return, block by block.
#[derive(Debug)]
pub(crate) struct ReadTicket {
    first: BlockNo,
    allowed: Vec<Allowed>,
}

/// What one block may hold.
#[derive(Clone, Debug, Default)]
struct Allowed {
    /// `None`: what was there before the run.
    floor: Option<Seq>,
    /// True when a read has returned the floor.
    seen: bool,
    maybe: Vec<Seq>,
}

#[derive(Debug, Default)]
struct State {
    allowed: Allowed,
    /// Hash of what was there before the run, once read.
    initial: Option<u64>,
    writing: bool,
    reads: u32,
    written: bool,
}

/// All blocks that were touched, and what was found wrong.
#[derive(Debug)]
pub(crate) struct Model {
    run: u64,
    last: Seq,
    blocks: HashMap<BlockNo, State>,
    scratch: Vec<u8>,
    report: VerifyReport,
}

impl Model {
    /// `run` must differ from that of any earlier run on the volume.
    pub(crate) fn new(run: u64) -> Model {
        let report = VerifyReport::default();
        Model { run, last: Seq(0), blocks: HashMap::new(), scratch: Vec::new(), report }
    }

    /// True when a write to these blocks would keep the order of writes known.
    pub(crate) fn may_write(&self, blocks: Range<BlockNo>) -> bool {
        blocks.into_iter().all(|no| {
            self.blocks.get(&no).is_none_or(|state| {
                !state.writing
                    && state.reads == 0
                    && state.allowed.maybe.len() < MAX_UNKNOWN_PER_BLOCK
            })
        })
    }

    /// Begins a write and appends its data.
    pub(crate) fn begin_write(&mut self, blocks: Range<BlockNo>, out: &mut Vec<u8>) -> Seq {
        assert!(self.may_write(blocks.clone()), "two writes of one block at a time");
        self.last = Seq(self.last.0 + 1);
        for no in blocks {
            fill(self.run, no, self.last, out);
            let state = self.blocks.entry(no).or_default();
            state.writing = true;
            state.written = true;
            state.allowed.maybe.push(self.last);
        }
        self.last
    }

    /// A write that `begin_write` began has ended.
    pub(crate) fn end_write(&mut self, blocks: Range<BlockNo>, seq: Seq, end: WriteEnd) {
        self.report.unknown_writes += u64::from(end == WriteEnd::Unknown);
        for no in blocks {
            let state = self.blocks.get_mut(&no).expect("begun before");
            assert!(state.writing, "begun before");
            state.writing = false;
            if end == WriteEnd::Acknowledged && state.allowed.floor < Some(seq) {
                state.allowed = Allowed { floor: Some(seq), seen: false, maybe: Vec::new() };
            }
        }
    }

    /// Begins a read.
    pub(crate) fn begin_read(&mut self, blocks: Range<BlockNo>) -> ReadTicket {
        let first = blocks.start;
        let begin = |no| {
            let state = self.blocks.entry(no).or_default();
            state.reads += 1;
            state.allowed.clone()
        };
        ReadTicket { first, allowed: blocks.map(begin).collect() }
    }

    /// A read has failed, or its answer is lost.
    pub(crate) fn abandon_read(&mut self, ticket: ReadTicket) {
        for no in (ticket.first..).take(ticket.allowed.len()) {
            self.blocks.get_mut(&no).expect("begun before").reads -= 1;
        }
    }

    /// A read of the load has returned `data`; `now` counts from the start of the run.
    pub(crate) fn end_read(&mut self, ticket: ReadTicket, data: &[u8], now: Duration) {
        self.report.checked += ticket.allowed.len() as u64;
        self.check(&ticket, data, now);
    }

    /// A read of the final read-back has returned `data`.
    pub(crate) fn end_read_back(&mut self, ticket: ReadTicket, data: &[u8], now: Duration) {
        self.report.read_back += ticket.allowed.len() as u64;
        self.check(&ticket, data, now);
    }

    fn check(&mut self, ticket: &ReadTicket, data: &[u8], now: Duration) {
        assert_eq!(data.len(), ticket.allowed.len() * BLOCK);
        for ((no, allowed), data) in
            (ticket.first..).zip(&ticket.allowed).zip(data.chunks_exact(BLOCK))
        {
            let content = classify(self.run, no, data, &mut self.scratch);
            let state = self.blocks.get_mut(&no).expect("begun before");
            state.reads -= 1;
            if let Err(kind) = judge(state, allowed, content) {
                self.report.add(Fault { block: no, kind, at_s: now.as_secs_f64() });
            }
        }
    }

    /// Written blocks in order, as runs of at most `most` neighbours.
    pub(crate) fn written(&self, most: u64) -> Vec<Range<BlockNo>> {
        let written = self.blocks.iter().filter(|(_, state)| state.written);
        let mut numbers: Vec<BlockNo> = written.map(|(no, _)| *no).collect();
        numbers.sort_unstable();
        let mut runs: Vec<Range<BlockNo>> = Vec::new();
        for no in numbers {
            match runs.last_mut() {
                Some(run) if run.end == no && run.end - run.start < most => run.end = no + 1,
                _ => runs.push(no..no + 1),
            }
        }
        runs
    }

    /// What was found so far.
    pub(crate) fn report(&mut self) -> &mut VerifyReport {
        &mut self.report
    }
}

/// Compares what a read returned with what it may return, and learns from it.
fn judge(state: &mut State, allowed: &Allowed, content: Content) -> Result<(), FaultKind> {
    match content {
        Content::Written(seq) => judge_written(state, allowed, seq),
        Content::Foreign(hash) => judge_foreign(state, allowed, hash),
        Content::Torn => Err(FaultKind::Torn),
        Content::Misplaced(belongs_to) => Err(FaultKind::Misplaced { belongs_to }),
        Content::Corrupt(at) => Err(FaultKind::Corrupt { at: Some(at as u64) }),
    }
}

fn judge_written(state: &mut State, allowed: &Allowed, seq: Seq) -> Result<(), FaultKind> {
    if allowed.floor != Some(seq) && !allowed.maybe.contains(&seq) {
        return Err(match allowed.floor {
            Some(floor) if seq < floor => behind(allowed, floor, seq.0),
            _ => FaultKind::Changed,
        });
    }
    let known = &mut state.allowed;
    if known.floor < Some(seq) {
        known.floor = Some(seq);
        known.maybe.retain(|other| *other > seq);
    }
    known.seen |= known.floor == Some(seq);
    Ok(())
}

fn judge_foreign(state: &mut State, allowed: &Allowed, hash: u64) -> Result<(), FaultKind> {
    let is_initial = *state.initial.get_or_insert(hash) == hash;
    match (allowed.floor, is_initial) {
        (None, true) => Ok(()),
        (None, false) => Err(FaultKind::Changed),
        (Some(floor), true) => Err(behind(allowed, floor, 0)),
        (Some(_), false) => Err(FaultKind::Corrupt { at: None }),
    }
}

fn behind(allowed: &Allowed, floor: Seq, found: u64) -> FaultKind {
    match allowed.seen {
        true => FaultKind::WentBack { seen: floor.0, found },
        false => FaultKind::LostWrite { acknowledged: floor.0, found },
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
