//! Counting and timing of one kind of request.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits::MAX_LATENCY_NS;
use crate::report::{Latency, OpReport};

/// Latencies to three digits, and bytes.
#[derive(Debug)]
pub(crate) struct OpStats {
    latency_ns: Histogram<u64>,
    bytes: u64,
}

impl OpStats {
    pub(crate) fn new() -> OpStats {
        let latency_ns = Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3);
        OpStats { latency_ns: latency_ns.expect("constant bounds are valid"), bytes: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration, bytes: usize) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.latency_ns.saturating_record(ns);
        self.bytes += bytes as u64;
    }

    pub(crate) fn ops(&self) -> u64 {
        self.latency_ns.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The summary over `seconds`; `None` without requests.
    ///
    /// In a closed loop a stall hides itself: one long request stands for the many that were not
    /// sent meanwhile. `corrected` adds those, at the pace of the median, as HdrHistogram does.
    pub(crate) fn report(&self, seconds: f64, open_loop: bool) -> Option<OpReport> {
        if self.ops() == 0 {
            return None;
        }
        let latency = summary(&self.latency_ns);
        let corrected = match open_loop {
            true => latency,
            false => {
                let pace = self.latency_ns.value_at_quantile(0.5).max(1);
                summary(&self.latency_ns.clone_correct(pace))
            }
        };
        Some(OpReport {
            ops: self.ops(),
            iops: self.ops() as f64 / seconds,
            bytes_per_s: self.bytes as f64 / seconds,
            latency,
            corrected,
        })
    }
}

fn summary(histogram: &Histogram<u64>) -> Latency {
    let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Latency {
        mean_us: histogram.mean() / 1e3,
        p50_us: us(0.5),
        p90_us: us(0.9),
        p99_us: us(0.99),
        p999_us: us(0.999),
        max_us: histogram.max() as f64 / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut stats = OpStats::new();
        for us in 1..=1000 {
            stats.record(Duration::from_micros(us), 4096);
        }
        let report = stats.report(2.0, true).unwrap();
        assert_eq!((report.ops, report.iops), (1000, 500.0));
        assert_eq!(report.bytes_per_s, 2_048_000.0);
        let near = |a: f64, b: f64| (a - b).abs() <= b * 0.002;
        assert!(near(report.latency.p50_us, 500.0), "{:?}", report.latency);
        assert!(near(report.latency.p99_us, 990.0), "{:?}", report.latency);
        assert!(near(report.latency.max_us, 1000.0), "{:?}", report.latency);
        assert!(near(report.latency.mean_us, 500.5), "{:?}", report.latency);
        assert_eq!(report.latency, report.corrected);
    }

    #[test]
    fn a_stall_shows_in_the_corrected_figures_of_a_closed_loop() {
        let mut stats = OpStats::new();
        for _ in 0..10_000 {
            stats.record(Duration::from_micros(100), 4096);
        }
        stats.record(Duration::from_secs(1), 4096);
        let report = stats.report(2.0, false).unwrap();
        assert!(report.latency.p99_us < 110.0);
        assert!(report.corrected.p99_us > 900_000.0, "{:?}", report.corrected);
    }

    #[test]
    fn nothing_to_report() {
        assert!(OpStats::new().report(1.0, false).is_none());
    }
}
