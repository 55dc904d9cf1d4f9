//! What a run has measured, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::Pattern;
use crate::verify::VerifyReport;

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90 of 100 requests took at most this.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// The requests of one kind that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpReport {
    /// How many.
    pub ops: u64,
    /// How many per second.
    pub iops: f64,
    /// Data in bytes per second.
    pub bytes_per_s: f64,
    /// Latency: in an open loop from the time when the request should have begun, in a closed loop
    /// from when it was sent.
    pub latency: Latency,
    /// Latency with the requests added that a stall of a closed loop kept from being sent
    /// (coordinated omission); in an open loop the same as `latency`.
    pub corrected: Latency,
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The export.
    pub uri: String,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub depth: usize,
    /// Bytes of a request.
    pub block_bytes: usize,
    /// Share of reads asked for.
    pub read_percent: u8,
    /// Order of the places.
    pub pattern: Pattern,
    /// Requests per second asked for; none in a closed loop.
    pub rate: Option<f64>,
    /// Seed.
    pub seed: u64,
    /// Length of the load in seconds, without the final read-back.
    pub seconds: f64,
    /// Requests that succeeded.
    pub ops: u64,
    /// Requests that succeeded, per second.
    pub iops: f64,
    /// Data read and written, per second.
    pub bytes_per_s: f64,
    /// Reads; none when there was none.
    pub read: Option<OpReport>,
    /// Writes; none when there was none.
    pub write: Option<OpReport>,
    /// Longest time in which requests waited and none was completed, in milliseconds.
    pub longest_gap_ms: f64,
    /// When it began, in seconds from the start.
    pub longest_gap_at_s: f64,
    /// Requests that the server answered with an error.
    pub errors: u64,
    /// The last error, or why the last connection was lost.
    pub last_error: Option<String>,
    /// Connections lost.
    pub disconnects: u64,
    /// Requests that were lost with their connection.
    pub lost: u64,
    /// Open loop: requests that were due before the end and were not sent.
    pub missed: u64,
    /// Processor time of the load's thread in seconds.
    pub cpu_s: f64,
    /// The same per request, in microseconds.
    pub cpu_us_per_op: f64,
    /// Why the run ended before it was to; none when it did not.
    pub ended_early: Option<String>,
    /// Findings of a verifying run.
    pub verify: Option<VerifyReport>,
}

impl Report {
    /// True when the run went to its end and what was read was right. Errors and lost connections
    /// that were overcome do not count against it.
    pub fn is_ok(&self) -> bool {
        self.ended_early.is_none() && self.verify.as_ref().is_none_or(VerifyReport::is_ok)
    }
}

/// How a run stands, told every 200 ms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Seconds since the start.
    pub elapsed_s: f64,
    /// Requests that succeeded since the start.
    pub ops: u64,
    /// Requests per second since the last report.
    pub iops: f64,
    /// Bytes per second since the last report.
    pub bytes_per_s: f64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that failed since the start.
    pub errors: u64,
    /// Milliseconds since requests wait without any being completed.
    pub gap_ms: f64,
    /// Connections that are up.
    pub connected: usize,
    /// What the run is doing.
    pub stage: Stage,
    /// Wrong blocks found so far.
    pub faults: u64,
}

/// Part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Requests are sent.
    Load,
    /// The last requests are waited for.
    Drain,
    /// What was written is read back.
    ReadBack,
    /// All is done.
    Done,
}

/// A number with a unit: `12.3 k`, `1.5 M`.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            v if v >= 1e9 => (v / 1e9, " G"),
            v if v >= 1e6 => (v / 1e6, " M"),
            v if v >= 1e4 => (v / 1e3, " k"),
            v => return write!(f, "{v:.0} "),
        };
        write!(f, "{value:.1}{unit}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_task(f)?;
        self.write_table(f)?;
        self.write_faults(f)
    }
}

impl Report {
    /// One line: what was asked for.
    fn write_task(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = match self.pattern {
            Pattern::Random => "random",
            Pattern::Sequential => "sequential",
        };
        writeln!(
            f,
            "{}: {pattern}, {} bytes, {} % reads, {} × depth {}, {:.1} s{}",
            self.uri,
            self.block_bytes,
            self.read_percent,
            self.connections,
            self.depth,
            self.seconds,
            self.rate.map(|r| format!(", {r:.0} per second asked for")).unwrap_or_default(),
        )
    }

    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<17}{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
            "", "IOPS", "B/s", "mean µs", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, op) in [("read", self.read), ("write", self.write)] {
            let Some(op) = op else { continue };
            row(f, name, &op, &op.latency)?;
            if op.latency != op.corrected {
                row(f, &format!("{name}, corrected"), &op, &op.corrected)?;
            }
        }
        Ok(())
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  longest gap {:.1} ms at {:.1} s; {} errors, {} connections lost with {} requests, \
             {} not sent in time; CPU {:.1} µs per request",
            self.longest_gap_ms,
            self.longest_gap_at_s,
            self.errors,
            self.disconnects,
            self.lost,
            self.missed,
            self.cpu_us_per_op,
        )?;
        if let Some(error) = &self.last_error {
            writeln!(f, "  last error: {error}")?;
        }
        if let Some(why) = &self.ended_early {
            writeln!(f, "  ENDED EARLY: {why}")?;
        }
        self.verify.as_ref().map_or(Ok(()), |verify| write!(f, "{verify}"))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, op: &OpReport, latency: &Latency) -> fmt::Result {
    writeln!(
        f,
        "  {name:<17}{:>9} {:>9} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>10.0}",
        Short(op.iops).to_string(),
        Short(op.bytes_per_s).to_string(),
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
    )
}
