//! Random time-outs from a seed: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` up to, but not including, `high`, in whole microseconds.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = (high.saturating_sub(low).as_micros() as u64).max(1);
        low + Duration::from_micros(self.next() % span)
    }
}
