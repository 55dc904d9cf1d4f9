//! What the demo found: a table for people, one object for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use ogive_bench::{Latency, OpReport};
use serde::Serialize;

use super::files::{Comparison, Files, hex};
use super::load::{Kill, Phase};
use super::paths::Paths;
use super::tree;
use crate::output::{Table, bytes};

/// Result of a demo.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// True when everything that was written came back as it was, and no load failed.
    pub verified: bool,
    /// What did not hold; empty when `verified`.
    pub problems: Vec<String>,
    /// The tree that was copied.
    pub tree: String,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 of the image that held them.
    pub sha256: String,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Longest time without any completed I/O while a chunkserver was killed and restarted.
    pub longest_gap_ms: f64,
    /// The chunkserver that was killed.
    pub killed: String,
    /// Copysets that it led.
    pub killed_led_copysets: u32,
    /// From its restart until everything was healthy, in milliseconds.
    pub healthy_after_ms: u64,
    /// Log entries that it lacked at most meanwhile, over all of its copysets.
    pub lag_max: u64,
    /// 4 KiB blocks that were checked under the load with the kill, and after it.
    pub blocks_checked: u64,
    /// Over which paths the processes reached each other.
    pub paths: Paths,
    /// Measures by phase.
    pub phases: BTreeMap<&'static str, Measures>,
    /// How long it all took.
    pub seconds: f64,
    /// Order of the phases.
    #[serde(skip)]
    order: Vec<&'static str>,
}

/// Rates and latencies of a phase; of all of its I/O.
#[derive(Clone, Debug, Serialize)]
pub struct Measures {
    /// Requests per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Mean latency.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99 of 100 took at most this.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
    /// Longest time without a completion, in milliseconds.
    pub longest_gap_ms: f64,
}

impl Outcome {
    /// Judges what was found.
    pub fn new(
        files: &Files,
        phases: &[Phase],
        kill: &Kill,
        comparison: &Comparison,
        paths: Paths,
        took: Duration,
    ) -> Outcome {
        let (count, total) = tree::totals(&files.manifest);
        let verify = kill.phase.report.verify.clone().unwrap_or_default();
        let problems = problems(phases, kill, comparison);
        let all = phases.iter().chain([&kill.phase]);
        Outcome {
            verified: problems.is_empty(),
            problems,
            tree: files.tree.display().to_string(),
            files: count,
            bytes: total,
            sha256: hex(&files.image_sum),
            image_bytes: files.image_bytes,
            longest_gap_ms: kill.phase.report.longest_gap_ms,
            killed: kill.victim.to_string(),
            killed_led_copysets: kill.led,
            healthy_after_ms: kill.healthy_after.as_millis() as u64,
            lag_max: kill.lag_max,
            blocks_checked: verify.checked + verify.read_back,
            paths,
            phases: all.clone().map(|p| (p.name, Measures::of(p))).collect(),
            seconds: took.as_secs_f64(),
            order: all.map(|p| p.name).collect(),
        }
    }

    /// The table and the verdict.
    pub fn human(&self) -> String {
        let titles =
            ["phase", "IOPS", "B/s", "mean µs", "p50 µs", "p99 µs", "p99.9 µs", "longest gap"];
        let mut table = Table::new(&titles);
        for name in &self.order {
            let m = &self.phases[name];
            let numbers = [m.mean_us, m.p50_us, m.p99_us, m.p999_us].map(|us| format!("{us:.0}"));
            let mut row = vec![title(name).to_owned(), format!("{:.0}", m.iops)];
            row.push(bytes(m.bytes_per_s as u64));
            row.extend(numbers);
            row.push(format!("{:.1} ms", m.longest_gap_ms));
            table.row(row);
        }
        let mut text = format!("\n{table}\n");
        if self.verified {
            let _ = writeln!(
                text,
                "verified: {} files ({}) came back unchanged, the file system is clean, and {} \
                 blocks\nchecked while {} was killed and restarted held what was written. Took \
                 {:.0} s.",
                self.files,
                bytes(self.bytes),
                self.blocks_checked,
                self.killed,
                self.seconds
            );
        } else {
            text.push_str("NOT VERIFIED:\n");
            self.problems.iter().for_each(|problem| {
                let _ = writeln!(text, "  - {problem}");
            });
        }
        text
    }
}

fn problems(phases: &[Phase], kill: &Kill, comparison: &Comparison) -> Vec<String> {
    let mut problems = Vec::new();
    for phase in phases.iter().chain([&kill.phase]) {
        let report = &phase.report;
        if report.errors > 0 || report.lost > 0 {
            let last = report.last_error.as_deref().unwrap_or("no reason given");
            let failed = report.errors + report.lost;
            problems.push(format!("{failed} requests failed in phase {}: {last}", phase.name));
        }
        if let Some(why) = &report.ended_early {
            problems.push(format!("phase {} ended early: {why}", phase.name));
        }
        if let Some(verify) = report.verify.as_ref().filter(|verify| !verify.is_ok()) {
            problems.push(format!("phase {}: {}", phase.name, verify.to_string().trim()));
        }
    }
    if !comparison.same_image {
        problems.push("the image on the volume changed".to_owned());
    }
    problems.extend(comparison.differences.iter().take(10).cloned());
    problems.extend(comparison.fsck.clone());
    problems
}

fn title(name: &str) -> &str {
    match name {
        "fill_1mib" => "sequential write 1 MiB, depth 4",
        "write_depth1" => "random write 4 KiB, depth 1",
        "write_depth32" => "random write 4 KiB, depth 32",
        "read_depth32" => "random read 4 KiB, depth 32",
        "failover" => "random 50/50 4 KiB, depth 16, with kill",
        other => other,
    }
}

impl Measures {
    fn of(phase: &Phase) -> Measures {
        let report = &phase.report;
        let latency = worse(report.read, report.write);
        Measures {
            iops: report.iops,
            bytes_per_s: report.bytes_per_s,
            mean_us: latency.mean_us,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            p999_us: latency.p999_us,
            longest_gap_ms: report.longest_gap_ms,
        }
    }
}

/// Latencies of the only kind of I/O, or of the slower kind of a mixed load.
fn worse(read: Option<OpReport>, write: Option<OpReport>) -> Latency {
    let none = Latency { mean_us: 0., p50_us: 0., p90_us: 0., p99_us: 0., p999_us: 0., max_us: 0. };
    let all = [read, write].into_iter().flatten().map(|op| op.latency);
    all.max_by(|a, b| a.mean_us.total_cmp(&b.mean_us)).unwrap_or(none)
}
