//! When a transport with lanes asks TCP.
//!
//! Asking TCP is a system call (0.3 µs), asking a lane that is quiet a look at memory. A round trip
//! over shared memory takes under 1 µs, so an owner that spins for its answer must not ask TCP in
//! every turn; one that spins for an answer over TCP should. So TCP is asked in every poll as long
//! as something comes from there, and after [`TCP_EAGER_POLLS`] without anything rarely:
//!
//! | connections whose frames go over TCP | asked in one poll of | and at least every |
//! |---|---|---|
//! | some | [`TCP_LAZY_POLLS`] | [`TCP_LAZY_EVERY`] |
//! | none: only peers that meet, and ends, are told there | [`TCP_IDLE_POLLS`] | [`TCP_IDLE_EVERY`] |

use ogive_types::Time;

use crate::limits::{
    TCP_EAGER_POLLS, TCP_IDLE_EVERY, TCP_IDLE_POLLS, TCP_LAZY_EVERY, TCP_LAZY_POLLS,
};

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Asked in a row without an answer.
    fruitless: u32,
    /// Polls since TCP was asked.
    skipped: u32,
    asked: Time,
}

impl Pace {
    /// True when this poll is to ask TCP. `in_use`: there are connections whose frames go over it.
    pub(super) fn ask(&mut self, now: Time, in_use: bool) -> bool {
        self.skipped += 1;
        let lazy = self.fruitless >= TCP_EAGER_POLLS;
        let (polls, every) = match in_use {
            true => (TCP_LAZY_POLLS, TCP_LAZY_EVERY),
            false => (TCP_IDLE_POLLS, TCP_IDLE_EVERY),
        };
        if lazy && self.skipped < polls && now.since(self.asked) < every {
            return false;
        }
        (self.skipped, self.asked) = (0, now);
        true
    }

    /// What asking brought.
    pub(super) fn answered(&mut self, progress: bool) {
        self.fruitless = if progress { 0 } else { self.fruitless.saturating_add(1) };
    }

    /// Something is expected from TCP, for something was sent.
    pub(super) fn expect(&mut self) {
        self.fruitless = 0;
    }

    /// The owner sleeps: what wakes it may be TCP, so the next poll asks.
    pub(super) fn slept(&mut self) {
        self.skipped = TCP_IDLE_POLLS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_of(pace: &mut Pace, polls: u32, now: impl Fn(u32) -> Time) -> u32 {
        asked_while(pace, true, polls, now)
    }

    fn asked_while(pace: &mut Pace, in_use: bool, polls: u32, now: impl Fn(u32) -> Time) -> u32 {
        let mut asked = 0;
        for i in 0..polls {
            if pace.ask(now(i), in_use) {
                asked += 1;
                pace.answered(false);
            }
        }
        asked
    }

    #[test]
    fn quiet_tcp_is_asked_rarely_and_a_busy_one_always() {
        let mut pace = Pace::default();
        let still = |_| Time(5);
        assert_eq!(asked_of(&mut pace, TCP_EAGER_POLLS, still), TCP_EAGER_POLLS);
        assert_eq!(asked_of(&mut pace, 10 * TCP_LAZY_POLLS, still), 10, "even if time stands");
        let slow = |i| Time(100 + u64::from(i) * TCP_LAZY_EVERY.as_micros() as u64);
        assert_eq!(asked_of(&mut pace, 50, slow), 50, "polls that are far apart");
        pace.slept();
        assert_eq!(asked_of(&mut pace, TCP_LAZY_POLLS, still), 1, "once after a sleep");
        pace.expect();
        assert_eq!(asked_of(&mut pace, 8, still), 8);
        pace.answered(true);
        assert_eq!(asked_of(&mut pace, TCP_EAGER_POLLS, still), TCP_EAGER_POLLS);
    }
    #[test]
    fn tcp_that_carries_no_frames_is_asked_more_rarely() {
        let mut pace = Pace::default();
        let still = |_| Time(5);
        let asked = asked_while(&mut pace, false, TCP_EAGER_POLLS, still);
        assert_eq!(asked, TCP_EAGER_POLLS, "as eagerly while something may come");
        assert_eq!(asked_while(&mut pace, false, 3 * TCP_IDLE_POLLS, still), 3);
        let slow = |i| Time(100 + u64::from(i) * TCP_IDLE_EVERY.as_micros() as u64);
        assert_eq!(asked_while(&mut pace, false, 50, slow), 50, "polls that are far apart");
        pace.slept();
        assert_eq!(asked_while(&mut pace, false, TCP_IDLE_POLLS, still), 1, "once after a sleep");
        assert_eq!(asked_while(&mut pace, true, TCP_LAZY_POLLS, still), 1, "frames may come now");
    }
}
