//! Is a history linearizable, each block being a register?
//!
//! Every write has a value of its own, so the theorem of Gibbons and Korach ("Testing shared
//! memories", 1997) decides in n log n, without a search. With `first_end` the earliest end, and
//! `last_start` the latest start, of all operations on a value (its write and the reads of it):
//!
//! ```text
//! first_end < last_start   forward: the value was there all the time between the two
//! otherwise                backward: it was there at some moment between the two
//! wrong:                   two forward zones overlap, or a backward one lies within a forward one
//! ```
//!
//! A write without an answer may have taken place at any time, or never: it has no end, and without
//! a read of its value it does not count. Only a newer attachment bounds it: what was sent through
//! an older one must not be applied after an operation on the block has succeeded through a newer
//! one. So it ends there.

use std::collections::BTreeMap;
use std::fmt;

/// Names a write; 0 is what was there before the first.
pub type Value = u64;

/// What was asked of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this.
    Write(Value),
    /// Read; this was the answer.
    Read(Value),
}

/// One operation on one block. Times are nanoseconds since any moment that all clients share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// The block.
    pub block: u64,
    /// What was asked.
    pub action: Action,
    /// When.
    pub start: u64,
    /// When it was answered with success; `None` for a write of unknown outcome. A read without
    /// answer says nothing and is left out.
    pub end: Option<u64>,
    /// Number of the attachment that it went through; larger is newer.
    pub attachment: u64,
}

/// What no order of the operations can explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A value was read that nobody wrote.
    Unwritten {
        /// The read.
        read: Op,
    },
    /// A value was read before its write began.
    FromTheFuture {
        /// The read.
        read: Op,
    },
    /// A write that was sent through an attachment after a newer one had served the block was
    /// applied nevertheless.
    Unfenced {
        /// A read of it.
        read: Op,
    },
    /// Two values were there at the same time: one of them was read too late, or came back.
    Both {
        /// One.
        one: Zone,
        /// The other.
        other: Zone,
    },
}

/// When a value was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The block.
    pub block: u64,
    /// The value.
    pub value: Value,
    /// Earliest end of an operation on it.
    pub first_end: u64,
    /// Latest start of an operation on it.
    pub last_start: u64,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }

    /// Two zones that no order can part.
    fn clashes(&self, other: &Zone) -> bool {
        let later = self.first_end.max(other.first_end);
        match (self.is_forward(), other.is_forward()) {
            (true, true) => later < self.last_start.min(other.last_start),
            (true, false) => self.holds(other),
            (false, true) => other.holds(self),
            (false, false) => false,
        }
    }

    fn holds(&self, backward: &Zone) -> bool {
        self.first_end < backward.last_start && backward.first_end < self.last_start
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        let (first, last) = (ms(self.first_end), ms(self.last_start));
        let how = if self.is_forward() { "all the time from" } else { "at a moment between" };
        let (from, to) = if self.is_forward() { (first, last) } else { (last, first) };
        write!(f, "value {} {how} {from:.3} to {to:.3} ms", self.value)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |op: &Op| op.start as f64 / 1e6;
        match self {
            Violation::Unwritten { read } => {
                write!(f, "{:?} at {:.3} ms: nobody wrote that", read, at(read))
            }
            Violation::FromTheFuture { read } => {
                write!(f, "{:?} at {:.3} ms: read before it was written", read, at(read))
            }
            Violation::Unfenced { read } => write!(
                f,
                "{:?} at {:.3} ms: written through an attachment that was over",
                read,
                at(read)
            ),
            Violation::Both { one, other } => {
                write!(f, "block {}: it held {one}, and {other}", one.block)
            }
        }
    }
}

/// All that is known of one value.
#[derive(Clone, Copy)]
struct Known {
    zone: Zone,
    /// Its write; `None` when nobody wrote it.
    write: Option<Op>,
    /// The read that ended first.
    first_read: Option<Op>,
}

/// Judges a history; one violation for each block at most, since the first brings others with it.
pub fn check(history: &[Op]) -> Vec<Violation> {
    let mut blocks: BTreeMap<u64, Vec<Op>> = BTreeMap::new();
    for &op in history {
        blocks.entry(op.block).or_default().push(op);
    }
    blocks.into_values().filter_map(|ops| check_block(&ops).err()).collect()
}

fn check_block(ops: &[Op]) -> Result<(), Violation> {
    let bounds = Bounds::of(ops);
    let mut zones = Vec::new();
    for known in values(ops, &bounds).into_values() {
        match (known.write, known.first_read) {
            (None, Some(read)) => return Err(Violation::Unwritten { read }),
            (Some(write), Some(read)) if read.end.is_some_and(|end| end < write.start) => {
                return Err(Violation::FromTheFuture { read });
            }
            (Some(write), Some(read)) if bounds.end(&write) < write.start => {
                return Err(Violation::Unfenced { read });
            }
            // It perhaps never took place.
            (Some(Op { end: None, .. }), None) => {}
            _ => zones.push(known.zone),
        }
    }
    first_clash(zones)
}

/// For each attachment in order: the earliest success through it or a newer one.
struct Bounds(Vec<(u64, u64)>);

impl Bounds {
    fn of(ops: &[Op]) -> Bounds {
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        for (op, end) in ops.iter().filter_map(|op| Some((op, op.end?))) {
            let at = first.entry(op.attachment).or_insert(end);
            *at = end.min(*at);
        }
        let mut bounds: Vec<(u64, u64)> = first.into_iter().collect();
        for at in (1..bounds.len()).rev() {
            bounds[at - 1].1 = bounds[at - 1].1.min(bounds[at].1);
        }
        Bounds(bounds)
    }

    /// Before when an operation took place.
    fn end(&self, op: &Op) -> u64 {
        let newer = || {
            let at = self.0.partition_point(|&(attachment, _)| attachment <= op.attachment);
            self.0.get(at).map_or(u64::MAX, |&(_, end)| end)
        };
        op.end.unwrap_or_else(newer)
    }
}

fn values(ops: &[Op], bounds: &Bounds) -> BTreeMap<Value, Known> {
    let mut all: BTreeMap<Value, Known> = BTreeMap::new();
    // What was there before the first write was written before all times.
    let block = ops.first().map_or(0, |op| op.block);
    let before = Op { block, action: Action::Write(0), start: 0, end: Some(0), attachment: 0 };
    for op in std::iter::once(&before).chain(ops) {
        let (Action::Write(value) | Action::Read(value)) = op.action;
        let known = all.entry(value).or_insert_with(|| Known {
            zone: Zone { block, value, first_end: u64::MAX, last_start: 0 },
            write: None,
            first_read: None,
        });
        known.zone.first_end = known.zone.first_end.min(bounds.end(op));
        known.zone.last_start = known.zone.last_start.max(op.start);
        match op.action {
            Action::Write(_) => known.write = Some(*op),
            Action::Read(_) if known.first_read.is_none_or(|read| op.end < read.end) => {
                known.first_read = Some(*op);
            }
            Action::Read(_) => {}
        }
    }
    all
}

/// Two zones that clash, if there are any.
fn first_clash(mut zones: Vec<Zone>) -> Result<(), Violation> {
    zones.sort_unstable_by_key(|zone| zone.first_end.min(zone.last_start));
    let both = |one: Zone, other: Zone| Err(Violation::Both { one, other });
    // Forward zones part the time between them, so one that clashes is the last that began before,
    // or the first after.
    let forward: Vec<Zone> = zones.iter().copied().filter(Zone::is_forward).collect();
    if let Some(pair) = forward.windows(2).find(|pair| pair[0].clashes(&pair[1])) {
        return both(pair[0], pair[1]);
    }
    for zone in zones.iter().filter(|zone| !zone.is_forward()) {
        let after = forward.partition_point(|f| f.first_end < zone.last_start);
        if let Some(before) = after.checked_sub(1).map(|at| forward[at])
            && before.clashes(zone)
        {
            return both(before, *zone);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
