//! Processor time of this process and of another, in nanoseconds.

use std::time::Duration;

/// The clock of a process's processor time, all threads together. It can be read from outside and
/// while the process runs, so the other end need not take part in its measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// Of this process.
    pub(super) fn own() -> CpuClock {
        CpuClock(libc::CLOCK_PROCESS_CPUTIME_ID)
    }

    /// Of another process; none when there is no such process, or the system does not tell.
    pub(super) fn of(pid: u32) -> Option<CpuClock> {
        let mut clock = 0;
        let pid = libc::pid_t::try_from(pid).ok()?;
        // SAFETY: `clock` is a valid place for the result for the length of the call.
        let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
        (error == 0).then_some(CpuClock(clock))
    }

    /// Time burnt so far; none when the process has ended.
    pub(super) fn read(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for the result for the length of the call.
        let error = unsafe { libc::clock_gettime(self.0, &mut time) };
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanos = u32::try_from(time.tv_nsec).ok()?;
        (error == 0).then(|| Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_seen_from_outside_too() {
        let (own, outside) = (CpuClock::own(), CpuClock::of(std::process::id()).unwrap());
        let (before, sum) = (own.read().unwrap(), (0..1_000_000u64).fold(0, |a, b| a ^ (b * b)));
        let (between, after) = (outside.read().unwrap(), own.read().unwrap());
        assert!(before < between && between <= after && sum != 1);
        assert!(CpuClock::of(u32::MAX).is_none());
    }
}
