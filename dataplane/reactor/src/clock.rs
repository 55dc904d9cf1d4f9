//! The clock of the loops.

use std::time::Duration;

use ogive_types::Time;

/// CLOCK_MONOTONIC in microseconds. About 25 ns; the loop reads it once a turn.
pub fn now() -> Time {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Time(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000)
}

/// Time from `now` until `deadline`; `None` when that never comes.
pub(crate) fn until(deadline: Time, now: Time) -> Option<Duration> {
    (deadline != Time::NEVER).then(|| deadline.since(now))
}
