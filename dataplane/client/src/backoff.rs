//! Pauses between tries: doubling, bounded, with jitter so that clients do not come back in step.

use std::time::Duration;

/// A small deterministic generator (splitmix64; Steele, Lea, Flood 2014), seeded by the owner.
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The pause before try number `tries` (from 1): between half and all of `min * 2^(tries-1)`,
    /// at most `max`.
    pub(crate) fn pause(&mut self, tries: u32, min: Duration, max: Duration) -> Duration {
        let full = min.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(max);
        let half_us = (full.as_micros() as u64 / 2).max(1);
        Duration::from_micros(half_us + self.next() % half_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_bounded() {
        let (min, max) = (Duration::from_millis(2), Duration::from_millis(100));
        let mut jitter = Jitter::new(7);
        for tries in 1..200 {
            let full = (2u64 << (tries - 1).min(10)).min(100);
            let pause = jitter.pause(tries, min, max);
            assert!(pause >= Duration::from_micros(full * 500), "{tries}: {pause:?}");
            assert!(pause <= Duration::from_millis(full), "{tries}: {pause:?}");
        }
    }
}
