//! Clocks of processes: they start anywhere, run a little fast or slow, and make steps.

use ogive_types::Time;

use super::World;
use crate::options::Options;
use crate::rng::Rng;
use crate::shape::Shape;

/// A local clock. It never goes back, as monotonic clocks do not: a step back makes it stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: u64,
    base: u64,
    ppm: i64,
}

impl Clock {
    pub(super) fn new(now: u64, base: u64, ppm: i64) -> Clock {
        Clock { start: now, base, ppm }
    }

    pub(super) fn local(self, now: u64) -> Time {
        let passed = i128::from(now.saturating_sub(self.start));
        Time(self.base + (passed + passed * i128::from(self.ppm) / 1_000_000) as u64)
    }

    /// The first moment at which the local clock shows `time`, or later.
    pub(super) fn global(self, time: Time) -> u64 {
        if time == Time::NEVER {
            return u64::MAX;
        }
        let local = i128::from(time.0.saturating_sub(self.base));
        self.start + (local * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64 + 1
    }

    /// From now on it runs at another rate.
    fn set_rate(&mut self, now: u64, ppm: i64) {
        *self = Clock::new(now, self.local(now).0, ppm);
    }

    fn leap(&mut self, now: u64, by: u64) {
        *self = Clock::new(now, self.local(now).0 + by, self.ppm);
    }

    fn stand(&mut self, now: u64, until: u64) {
        *self = Clock::new(until, self.local(now).0, self.ppm);
    }
}

/// What a world is drawn from: its shape from the seed, all else from seed and salt.
pub(super) fn draw(options: Options) -> (Shape, Rng) {
    let mut rng = Rng::new(options.seed);
    let mut shape = Shape::draw(&mut rng);
    shape.volumes = shape.volumes.min(options.volumes_max);
    shape.depth = shape.depth.min(options.depth_max);
    match options.salt {
        0 => (shape, rng),
        salt => (shape, Rng::new(rng.next() ^ salt)),
    }
}

impl World {
    /// The clock of a process that starts.
    pub(super) fn new_clock(&mut self) -> Clock {
        let ppm =
            if self.chaos || !self.shape.clocks.loose { self.shape.clocks.drift_ppm } else { 0 };
        let ppm = self.rng.between(0, 2 * ppm as u64) as i64 - ppm;
        Clock::new(self.now, self.rng.between(1, 1 << 40), ppm)
    }

    /// Some clock leaps ahead, or stands.
    pub(super) fn step_clock(&mut self) -> bool {
        let addrs: Vec<_> = self.topology.endpoints.keys().copied().collect();
        let addr = self.rng.pick(&addrs);
        let by = self.rng.between(1, self.shape.clocks.step_us);
        let (ahead, now) = (self.rng.chance(50), self.now);
        let Some(process) = self.process(addr) else { return false };
        match ahead {
            true => process.clock.leap(now, by),
            false => process.clock.stand(now, now + by),
        }
        self.trace(|_| {
            format!("the clock of {addr} {} {by} us", if ahead { "leaps" } else { "stands" })
        });
        self.wake(addr, now + 1);
        true
    }

    /// Lets all clocks run at their proper rate, and none stand.
    pub(super) fn heal_clocks(&mut self) {
        if !self.shape.clocks.loose {
            return;
        }
        let now = self.now;
        for addr in self.topology.endpoints.keys().copied().collect::<Vec<_>>() {
            if let Some(process) = self.process(addr) {
                process.clock.set_rate(now, 0);
                self.wake(addr, now + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back_and_deadlines_are_reached() {
        let mut clock = Clock::new(1000, 50, 100_000);
        assert_eq!(clock.local(2000), Time(1150));
        clock.leap(2000, 500);
        assert_eq!(clock.local(2000), Time(1650));
        clock.stand(2000, 3000);
        assert_eq!((clock.local(2500), clock.local(3000)), (Time(1650), Time(1650)));
        clock.set_rate(4000, 0);
        assert_eq!(clock.local(4000), Time(2750));
        for time in [2750, 2751, 9999] {
            assert!(clock.local(clock.global(Time(time))) >= Time(time));
        }
    }
}
