//! When a transport with lanes asks TCP.
//!
//! Asking TCP is a system call (0.3 µs), asking a lane that is quiet a look at memory. A round trip
//! over shared memory takes under 1 µs, so an owner that spins for its answer must not ask TCP in
//! every turn; one that spins for an answer over TCP should. So TCP is asked in every poll as long
//! as something comes from there, and after [`TCP_EAGER_POLLS`] without anything in one of
//! [`TCP_LAZY_POLLS`] polls, or after [`TCP_LAZY_EVERY`], whichever comes first.

use ogive_types::Time;

use crate::limits::{TCP_EAGER_POLLS, TCP_LAZY_EVERY, TCP_LAZY_POLLS};

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Asked in a row without an answer.
    fruitless: u32,
    /// Polls since TCP was asked.
    skipped: u32,
    asked: Time,
}

impl Pace {
    /// True when this poll is to ask TCP.
    pub(super) fn ask(&mut self, now: Time) -> bool {
        self.skipped += 1;
        let lazy = self.fruitless >= TCP_EAGER_POLLS;
        if lazy && self.skipped < TCP_LAZY_POLLS && now.since(self.asked) < TCP_LAZY_EVERY {
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
        self.skipped = TCP_LAZY_POLLS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_of(pace: &mut Pace, polls: u32, now: impl Fn(u32) -> Time) -> u32 {
        let mut asked = 0;
        for i in 0..polls {
            if pace.ask(now(i)) {
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
}
