//! A reactor's sign of life: written by its loop each turn, read by the watchdog; and the rule that
//! tells a hung loop from a sleeping or a stopped one.
//!
//! | loop is | counts as hung when |
//! |---|---|
//! | awake | it made no turn for the limit |
//! | asleep | its deadline has been past for the limit |
//! | ended | never |
//!
//! Both only while the watchdog itself ran: after a look that came late (the process was stopped,
//! the machine was suspended or starved) the count begins anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ogive_types::Time;

const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;
const ENDED: u64 = 2;

/// Written by one loop.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Turns and sleeps counted, times four, plus the state.
    beat: AtomicU64,
    /// Where the loop wants to wake, in microseconds; valid while asleep.
    deadline_us: AtomicU64,
}

/// What the watchdog sees in a pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Awake { beat: u64 },
    Asleep { beat: u64, deadline: Time },
    Ended,
}

impl Pulse {
    pub(crate) fn turn(&self) {
        self.set(AWAKE);
    }

    pub(crate) fn sleep(&self, deadline: Time) {
        self.deadline_us.store(deadline.0, Ordering::Relaxed);
        self.set(ASLEEP);
    }

    pub(crate) fn end(&self) {
        self.set(ENDED);
    }

    /// One writer, so no read-modify-write is needed.
    fn set(&self, state: u64) {
        let count = (self.beat.load(Ordering::Relaxed) >> 2).wrapping_add(1);
        self.beat.store(count << 2 | state, Ordering::Release);
    }

    pub(crate) fn read(&self) -> Reading {
        let beat = self.beat.load(Ordering::Acquire);
        match beat & 3 {
            AWAKE => Reading::Awake { beat },
            // A deadline newer than the beat is of a newer sleep: the loop lives, and the next look
            // sees it so.
            ASLEEP => {
                Reading::Asleep { beat, deadline: Time(self.deadline_us.load(Ordering::Relaxed)) }
            }
            _ => Reading::Ended,
        }
    }
}

/// What the watchdog remembers of one pulse.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    last: Option<Reading>,
    /// Since when the loop has been late, as far as the watchdog could see.
    since: Time,
}

/// Why a reactor counts as hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hang {
    /// No turn for so long.
    NoTurn(Duration),
    /// Its deadline has been past for so long.
    Overslept(Duration),
}

impl Suspicion {
    /// One look at `now`. `late` says that the watchdog itself had not run for a while.
    pub(crate) fn look(
        &mut self,
        reading: Reading,
        now: Time,
        late: bool,
        limit: Duration,
    ) -> Option<Hang> {
        if late || self.last != Some(reading) {
            self.last = Some(reading);
            self.since = now;
        }
        match reading {
            Reading::Awake { .. } => {
                let stuck = now.since(self.since);
                (stuck >= limit).then_some(Hang::NoTurn(stuck))
            }
            Reading::Asleep { deadline, .. } => {
                let over = now.since(deadline.max(self.since));
                (over >= limit).then_some(Hang::Overslept(over))
            }
            Reading::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000)
    }

    /// Looks once a second from `from` to `to` without a gap.
    fn watch(s: &mut Suspicion, p: &Pulse, from: u64, to: u64) -> Option<Hang> {
        (from..=to).find_map(|t| s.look(p.read(), at(t), false, LIMIT))
    }

    #[test]
    fn a_loop_without_turns_is_hung_and_one_with_turns_is_not() {
        let (p, mut s) = (Pulse::default(), Suspicion::default());
        p.turn();
        assert_eq!(watch(&mut s, &p, 100, 109), None);
        p.turn();
        assert_eq!(watch(&mut s, &p, 110, 119), None);
        assert_eq!(watch(&mut s, &p, 120, 121), Some(Hang::NoTurn(LIMIT)));
    }

    #[test]
    fn sleep_is_no_hang_until_the_deadline_is_long_past() {
        let (p, mut s) = (Pulse::default(), Suspicion::default());
        p.sleep(Time::NEVER);
        assert_eq!(watch(&mut s, &p, 0, 5000), None);
        p.sleep(at(5100));
        assert_eq!(watch(&mut s, &p, 5001, 5109), None);
        assert_eq!(watch(&mut s, &p, 5110, 5110), Some(Hang::Overslept(LIMIT)));
    }

    #[test]
    fn a_stopped_process_is_given_a_fresh_count() {
        let (p, mut s) = (Pulse::default(), Suspicion::default());
        p.turn();
        assert_eq!(watch(&mut s, &p, 0, 9), None);
        assert_eq!(s.look(p.read(), at(500), true, LIMIT), None);
        assert_eq!(watch(&mut s, &p, 501, 509), None);
        assert!(watch(&mut s, &p, 510, 510).is_some());

        p.sleep(at(520));
        assert_eq!(watch(&mut s, &p, 511, 521), None);
        assert_eq!(s.look(p.read(), at(900), true, LIMIT), None);
        assert_eq!(watch(&mut s, &p, 901, 909), None);
        assert!(watch(&mut s, &p, 910, 910).is_some());
    }

    #[test]
    fn an_ended_loop_never_hangs() {
        let (p, mut s) = (Pulse::default(), Suspicion::default());
        p.turn();
        p.end();
        assert_eq!(watch(&mut s, &p, 0, 100), None);
    }
}
