//! The longest I/O gap: the longest time in which requests waited and none was completed.
//!
//! ```text
//!          wanted                served, none waits
//!   Idle ─────────► Open(since) ───────────────────► Idle
//!                    │   ▲
//!                    └───┘ served, others wait: since = now
//! ```
//!
//! A request that fails does not end a gap: the caller's wish is still unserved.

use std::time::Duration;

/// Measures gaps; all times count from one start and never go back.
#[derive(Clone, Debug, Default)]
pub struct GapMeter {
    open_since: Option<Duration>,
    last_served: Duration,
    longest: Gap,
}

/// A time without completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When it began.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
}

impl GapMeter {
    /// Somebody wants I/O, from `since` on; a wish may be told late, but what was served after
    /// `since` ended the gap of that time.
    pub fn wanted(&mut self, since: Duration) {
        self.open_since.get_or_insert(since.max(self.last_served));
    }

    /// A request was completed with success; `waiting` others are still in flight.
    pub fn served(&mut self, now: Duration, waiting: usize) {
        self.close(now);
        self.last_served = now;
        self.open_since = (waiting > 0).then_some(now);
    }

    /// The load has ended: a gap that is open ends now.
    pub fn end(&mut self, now: Duration) {
        self.close(now);
        self.open_since = None;
    }

    /// How long the present gap has lasted; zero when nobody waits.
    pub fn present(&self, now: Duration) -> Duration {
        self.open_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// The longest gap that has ended.
    pub fn longest(&self) -> Gap {
        self.longest
    }

    fn close(&mut self, now: Duration) {
        if let Some(start) = self.open_since {
            let length = now.saturating_sub(start);
            if length > self.longest.length {
                self.longest = Gap { start, length };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn idle_time_is_no_gap() {
        let mut meter = GapMeter::default();
        meter.wanted(ms(0));
        meter.served(ms(2), 0);
        assert_eq!(meter.present(ms(500)), ms(0));
        meter.wanted(ms(1000));
        meter.served(ms(1003), 0);
        assert_eq!(meter.longest(), Gap { start: ms(1000), length: ms(3) });
    }

    #[test]
    fn waiting_requests_keep_it_open() {
        let mut meter = GapMeter::default();
        meter.wanted(ms(0));
        meter.wanted(ms(1));
        meter.served(ms(2), 1);
        assert_eq!(meter.present(ms(10)), ms(8));
        meter.served(ms(42), 0);
        assert_eq!(meter.longest(), Gap { start: ms(2), length: ms(40) });
    }

    #[test]
    fn a_wish_told_late_does_not_reach_behind_the_last_completion() {
        let mut meter = GapMeter::default();
        meter.wanted(ms(0));
        meter.served(ms(10), 0);
        meter.wanted(ms(1));
        meter.served(ms(12), 0);
        assert_eq!(meter.longest(), Gap { start: ms(0), length: ms(10) });
    }

    #[test]
    fn failures_do_not_end_it_and_the_end_does() {
        let mut meter = GapMeter::default();
        meter.wanted(ms(5));
        // A failure is simply not told; the retry asks again.
        meter.wanted(ms(100));
        meter.end(ms(205));
        assert_eq!(meter.longest(), Gap { start: ms(5), length: ms(200) });
        assert_eq!(meter.present(ms(300)), ms(0));
    }
}
