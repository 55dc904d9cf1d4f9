//! Figures of one measurement.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_LATENCY_NS;

/// One measurement. Latencies in microseconds, from the start of a request until it counts as
/// done: for a write of the store, until it is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Requests that ended.
    pub ops: u64,
    /// Length of the measurement.
    pub seconds: f64,
    /// Requests per second.
    pub iops: f64,
    /// Data per second.
    pub bytes_per_s: f64,
    /// Mean latency.
    pub mean_us: f64,
    /// Median; none where fio does not tell, as below: its flushes are requests of their own.
    pub p50_us: Option<f64>,
    /// 99 of 100.
    pub p99_us: Option<f64>,
    /// 999 of 1000.
    pub p999_us: Option<f64>,
    /// The longest.
    pub max_us: Option<f64>,
    /// Processor time of the thread for a request, system calls and waiting included.
    pub cpu_us: Option<f64>,
    /// The part of it that the engine took: without system calls, ring and load generator.
    pub engine_us: Option<f64>,
    /// Flushes for a request.
    pub flushes: Option<f64>,
    /// Bytes written to the device for each byte of data written, by this process's own counters.
    pub device_bytes: Option<f64>,
}

/// Bytes written to the device for each byte of random 4 KiB writes, over whole checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Amplification {
    /// Checkpoints that ended meanwhile.
    pub checkpoints: u64,
    /// By the store's counters.
    pub store: f64,
    /// By the kernel's counters of this process.
    pub process: Option<f64>,
    /// By the block layer's counters, which see everybody's writes.
    pub disk: Option<f64>,
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

    pub(super) fn clear(&mut self) {
        self.latency_ns.reset();
    }

    pub(super) fn count(&self) -> u64 {
        self.latency_ns.len()
    }

    /// The figures that latencies give; none without requests.
    pub(super) fn sample(&self, seconds: f64, bytes: usize) -> Option<Sample> {
        let ops = self.count();
        if ops == 0 || seconds <= 0.0 {
            return None;
        }
        let us = |quantile| Some(self.latency_ns.value_at_quantile(quantile) as f64 / 1e3);
        let iops = ops as f64 / seconds;
        Some(Sample {
            ops,
            seconds,
            iops,
            bytes_per_s: iops * bytes as f64,
            mean_us: self.latency_ns.mean() / 1e3,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: Some(self.latency_ns.max() as f64 / 1e3),
            ..Sample::EMPTY
        })
    }
}

impl Sample {
    /// Nothing known.
    pub(super) const EMPTY: Sample = Sample {
        ops: 0,
        seconds: 0.0,
        iops: 0.0,
        bytes_per_s: 0.0,
        mean_us: 0.0,
        p50_us: None,
        p99_us: None,
        p999_us: None,
        max_us: None,
        cpu_us: None,
        engine_us: None,
        flushes: None,
        device_bytes: None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_latencies() {
        let mut meter = Meter::new();
        assert_eq!(meter.sample(1.0, 4096), None);
        (1..=1000).for_each(|us| meter.record(Duration::from_micros(us)));
        let sample = meter.sample(0.5, 4096).unwrap();
        assert_eq!((sample.ops, sample.iops, sample.bytes_per_s), (1000, 2000.0, 8_192_000.0));
        let near = |a: f64, b: f64| (a - b).abs() <= b * 0.002;
        assert!(near(sample.mean_us, 500.5) && near(sample.p50_us.unwrap(), 500.0), "{sample:?}");
        assert!(near(sample.p99_us.unwrap(), 990.0) && near(sample.max_us.unwrap(), 1000.0));
        meter.clear();
        assert_eq!(meter.count(), 0);
    }
}
