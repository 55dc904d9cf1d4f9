//! Figures of one measurement, and how they spread over the rounds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_LATENCY_NS;

/// One measurement. A message is a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Messages answered.
    pub messages: u64,
    /// Length of the measurement.
    pub seconds: f64,
    /// Messages per second.
    pub rate: f64,
    /// Data per second, in one direction.
    pub bytes_per_s: f64,
    /// Mean latency in microseconds, from the sending of a request to its answer.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99 of 100; none where the reference does not say, as below.
    pub p99_us: Option<f64>,
    /// 999 of 1000.
    pub p999_us: Option<f64>,
    /// The longest.
    pub max_us: Option<f64>,
    /// Processor time of this end per message, in microseconds.
    pub cpu_us_here: Option<f64>,
    /// Of the other end.
    pub cpu_us_there: Option<f64>,
    /// Payload bytes that both ends copied per message between the kernel's or the NIC's memory and
    /// the payload's buffer.
    pub copied_bytes: Option<f64>,
    /// System calls that moved data, of both ends, per message.
    pub system_calls: Option<f64>,
}

impl Sample {
    /// Processor time of both ends per message, in microseconds.
    pub fn cpu_us(&self) -> Option<f64> {
        Some(self.cpu_us_here? + self.cpu_us_there?)
    }
}

/// Counters of both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) copied_bytes: Option<u64>,
    pub(super) system_calls: Option<u64>,
}

/// The same per message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PerMessage {
    copied_bytes: Option<f64>,
    system_calls: Option<f64>,
}

impl Totals {
    pub(super) fn since(&self, before: &Totals, messages: u64) -> PerMessage {
        let per = |now: Option<u64>, before: Option<u64>| {
            Some(now?.saturating_sub(before?) as f64 / messages.max(1) as f64)
        };
        PerMessage {
            copied_bytes: per(self.copied_bytes, before.copied_bytes),
            system_calls: per(self.system_calls, before.system_calls),
        }
    }
}

/// Latencies of one measurement, to three digits.
pub(super) struct Meter {
    latency_ns: Histogram<u64>,
}

impl Meter {
    pub(super) fn new() -> Meter {
        let latency_ns = Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3);
        Meter { latency_ns: latency_ns.expect("constant bounds are valid") }
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.latency_ns.saturating_record(ns);
    }

    pub(super) fn count(&self) -> u64 {
        self.latency_ns.len()
    }

    /// The figures, with the processor time of this end and the other; none without messages.
    pub(super) fn sample(
        &self,
        seconds: f64,
        bytes: usize,
        cpu: [Option<Duration>; 2],
        per_message: PerMessage,
    ) -> Option<Sample> {
        let messages = self.count();
        if messages == 0 || seconds <= 0.0 {
            return None;
        }
        let us = |quantile| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        let cpu = cpu.map(|time| Some(time?.as_secs_f64() * 1e6 / messages as f64));
        let rate = messages as f64 / seconds;
        Some(Sample {
            messages,
            seconds,
            rate,
            bytes_per_s: rate * bytes as f64,
            mean_us: self.latency_ns.mean() / 1e3,
            p50_us: us(0.5),
            p99_us: Some(us(0.99)),
            p999_us: Some(us(0.999)),
            max_us: Some(self.latency_ns.max() as f64 / 1e3),
            cpu_us_here: cpu[0],
            cpu_us_there: cpu[1],
            copied_bytes: per_message.copied_bytes,
            system_calls: per_message.system_calls,
        })
    }
}

/// The middle and the ends of a figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The median; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of all figures that are numbers; none when there is none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[half],
            _ => (sorted[half - 1] + sorted[half]) / 2.0,
        };
        Some(Spread { min, median, max })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_are_per_message() {
        let mut meter = Meter::new();
        assert_eq!(meter.sample(1.0, 1, [None; 2], PerMessage::default()), None);
        for us in 1..=1000 {
            meter.record(Duration::from_micros(us));
        }
        let before = Totals { copied_bytes: Some(10), system_calls: None };
        let after = Totals { copied_bytes: Some(4010), system_calls: Some(3) };
        let cpu = [Some(Duration::from_millis(2)), Some(Duration::from_millis(3))];
        let sample = meter.sample(0.5, 4096, cpu, after.since(&before, 1000)).unwrap();
        assert_eq!((sample.messages, sample.rate), (1000, 2000.0));
        assert_eq!(sample.bytes_per_s, 2000.0 * 4096.0);
        assert_eq!((sample.cpu_us_here, sample.cpu_us()), (Some(2.0), Some(5.0)));
        assert_eq!((sample.copied_bytes, sample.system_calls), (Some(4.0), None));
        let near = |a: f64, b: f64| (a - b).abs() <= b * 0.002;
        assert!(near(sample.p50_us, 500.0) && near(sample.mean_us, 500.5), "{sample:?}");
        assert!(near(sample.p99_us.unwrap(), 990.0) && near(sample.max_us.unwrap(), 1000.0));
    }

    #[test]
    fn medians() {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[f64::NAN, f64::INFINITY]), None);
        assert_eq!(of(&[3.0]), Some(Spread { min: 3.0, median: 3.0, max: 3.0 }));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 9.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), Some(Spread { min: 1.0, median: 3.0, max: 9.0 }));
    }

    proptest! {
        #[test]
        fn half_lie_on_each_side(figures in prop::collection::vec(-1e9..1e9, 1..50)) {
            let spread = Spread::of(figures.iter().copied()).unwrap();
            let below = figures.iter().filter(|&&x| x < spread.median).count();
            let above = figures.iter().filter(|&&x| x > spread.median).count();
            prop_assert!(below <= figures.len() / 2 && above <= figures.len() / 2);
            prop_assert!(spread.min <= spread.median && spread.median <= spread.max);
        }
    }
}
