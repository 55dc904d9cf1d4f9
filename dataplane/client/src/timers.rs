//! Timers by what they are for; each purpose has at most one, and a cancelled one leaves nothing
//! behind.

use std::collections::{BTreeMap, BTreeSet};

use ogive_types::{CopysetId, ShardAddr, Time};

use crate::op::OpKey;
use crate::part::PartKey;

/// What to do when the time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Fail the operation.
    Op(OpKey),
    /// Try the piece again.
    Part(PartKey),
    /// Give the connection attempt up.
    Peer(ShardAddr),
    /// Go on with the search for the copyset's leader.
    Route(CopysetId),
    /// Ask for the segment again.
    Segment(u32),
}

/// The timers that are armed.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Time, Timer)>,
    armed: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Arms a timer, in place of an earlier one for the same purpose.
    pub(crate) fn arm(&mut self, timer: Timer, at: Time) {
        self.cancel(timer);
        if at != Time::NEVER {
            self.due.insert((at, timer));
            self.armed.insert(timer, at);
        }
    }

    /// Disarms a timer, if it is armed.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        if self.armed.is_empty() {
            return;
        }
        if let Some(at) = self.armed.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// Takes the next timer that is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Timer> {
        let &(at, timer) = self.due.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Time {
        self.due.first().map_or(Time::NEVER, |&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armed_again_means_once() {
        let (a, b) = (Timer::Segment(1), Timer::Segment(2));
        let mut timers = Timers::default();
        timers.arm(a, Time(10));
        timers.arm(b, Time(20));
        timers.arm(a, Time(30));
        assert_eq!((timers.next(), timers.pop(Time(9))), (Time(20), None));
        assert_eq!(timers.pop(Time(40)), Some(b));
        assert_eq!(timers.pop(Time(40)), Some(a));
        assert_eq!((timers.pop(Time(40)), timers.next()), (None, Time::NEVER));
        timers.arm(a, Time(1));
        timers.cancel(a);
        assert_eq!(timers.pop(Time(40)), None);
    }
}
