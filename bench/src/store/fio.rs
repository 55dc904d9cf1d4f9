//! fio, run on its half of the file and read.
//!
//! | contender | flushes, where the device has a volatile cache |
//! |---|---|
//! | fio | one for each `depth` writes: what a group commit at that depth is at its best |
//! | fio, writers | `depth` threads, each with one write in flight and a flush after it |
//!
//! fio does not wait for the flush before it counts a write, nor begin it after the writes in
//! flight have ended, so the first promises less than the store at depths above 1. At depth 1 both
//! are a write and then a flush, one after the other.
#![allow(clippy::disallowed_methods)] // a shell: runs a process

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::place::Place;
use super::sample::Sample;
use super::spec::{Case, Contender, Pattern};
use crate::limits::FIO_GRACE;

/// What is asked of one run of fio.
pub(super) struct Job {
    pub(super) who: Contender,
    pub(super) case: Case,
    /// Bytes that it works on.
    pub(super) span: u64,
    pub(super) length: Duration,
    /// Whether writes need flushes.
    pub(super) flush: bool,
    pub(super) core: Option<usize>,
}

/// Whether fio is there, with the engine that is needed.
pub(super) fn find() -> Result<(), String> {
    let output = Command::new("fio").arg("--enghelp").output();
    let output = output.map_err(|e| format!("fio cannot be run ({e}); install it"))?;
    let engines = String::from_utf8_lossy(&output.stdout);
    if engines.contains("io_uring") { Ok(()) } else { Err("this fio has no io_uring".into()) }
}

/// What every run is called with.
const ALWAYS: [&str; 9] = [
    "--name=store",
    "--output-format=json",
    "--ioengine=io_uring",
    "--direct=1",
    "--thread",
    "--group_reporting",
    "--norandommap",
    "--time_based",
    // A device with a file system on another of its partitions is none of its business.
    "--allow_mounted_write=1",
];

impl Job {
    fn arguments(&self, place: &Place) -> Vec<String> {
        let Case { pattern, bytes, depth } = self.case;
        let (jobs, depth, flush_every) = match self.who {
            Contender::FioWriters => (depth, 1, 1),
            _ => (1, depth, depth),
        };
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let rw = match pattern {
            Pattern::SequentialWrite => "write",
            Pattern::SequentialRead => "read",
            Pattern::RandomWrite => "randwrite",
            Pattern::RandomRead => "randread",
            Pattern::Mixed => "randrw",
        };
        let mut words: Vec<String> = ALWAYS.map(str::to_owned).into();
        words.extend([
            format!("--filename={}", place.path.display()),
            format!("--offset={}", place.half),
            format!("--size={}", self.span),
            format!("--rw={rw}"),
            format!("--bs={bytes}"),
            format!("--iodepth={depth}"),
            format!("--numjobs={jobs}"),
            format!("--runtime={}", ms(self.length)),
            format!("--ramp_time={}", ms(self.length / 5)),
        ]);
        if pattern == Pattern::Mixed {
            words.push(format!("--rwmixread={}", pattern.read_percent()));
        }
        if self.flush && pattern.writes() {
            words.push(format!("--fdatasync={flush_every}"));
        }
        if let Some(core) = self.core.filter(|_| jobs == 1) {
            words.push(format!("--cpus_allowed={core}"));
        }
        words
    }

    /// Runs it.
    pub(super) fn run(&self, place: &Place) -> Result<Sample, String> {
        // fio leaves files of state where it runs.
        let mut child = Command::new("timeout");
        child.arg(format!("{}", (self.length * 2 + FIO_GRACE).as_secs()));
        child.arg("fio").args(self.arguments(place)).stdin(Stdio::null());
        let output = child.current_dir(std::env::temp_dir()).output();
        let output = output.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} {}", why.trim(), said.trim()));
        }
        // Warnings may stand before the object.
        let json = said.find('{').map(|at| &said[at..]).unwrap_or_default();
        let json: Value = serde_json::from_str(json).map_err(|e| format!("its output: {e}"))?;
        self.read(&json).ok_or_else(|| "its output has other fields than expected".into())
    }

    fn read(&self, json: &Value) -> Option<Sample> {
        let job = json.get("jobs")?.get(0)?;
        let kinds = [job.get("read")?, job.get("write")?];
        let number = |kind: &Value, name: &str| kind.get(name).and_then(Value::as_f64);
        let sum = |name: &str| kinds.iter().filter_map(|kind| number(kind, name)).sum::<f64>();
        let ops = sum("total_ios");
        // From the data moved, not the rate that fio prints: that one is of its own time.
        let seconds = kinds.iter().filter_map(|kind| number(kind, "runtime")).fold(0.0, f64::max);
        let (seconds, iops) = (seconds / 1e3, sum("iops"));
        if iops <= 0.0 || seconds <= 0.0 {
            return None;
        }
        let busy = number(job, "usr_cpu")? + number(job, "sys_cpu")?;
        let jobs = if self.who == Contender::FioWriters { self.case.depth } else { 1 } as f64;
        // A flush is an operation of its own to fio: the time of a write with its share of the
        // flushes follows from the rate.
        let mean_us = self.case.depth as f64 * 1e6 / iops;
        let flushed = self.flush && self.case.pattern.writes();
        let main = if self.case.pattern.read_percent() > 0 { kinds[0] } else { kinds[1] };
        let us = |name: &str| {
            let ns = main.get("clat_ns")?.get("percentile")?.get(name)?.as_f64()?;
            (!flushed).then_some(ns / 1e3)
        };
        Some(Sample {
            ops: ops as u64,
            seconds,
            iops,
            bytes_per_s: iops * self.case.bytes as f64,
            mean_us,
            p50_us: us("50.000000"),
            p99_us: us("99.000000"),
            p999_us: us("99.900000"),
            cpu_us: Some(busy / 100.0 * jobs * 1e6 / iops),
            ..Sample::EMPTY
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::case;
    use super::*;

    fn job(who: Contender, pattern: Pattern, depth: usize) -> Job {
        let case = case(pattern, 4096, depth);
        let length = Duration::from_secs(1);
        Job { who, case, span: 1 << 30, length, flush: true, core: Some(1) }
    }

    fn output(reads: f64, writes: f64) -> Value {
        let kind = |iops: f64| {
            serde_json::json!({
                "total_ios": iops, "iops": iops, "runtime": if iops > 0.0 { 1000 } else { 0 },
                "clat_ns": { "percentile": { "50.000000": 50_000, "99.000000": 90_000 } },
            })
        };
        serde_json::json!({ "jobs": [{
            "read": kind(reads), "write": kind(writes), "usr_cpu": 10.0, "sys_cpu": 30.0,
        }] })
    }

    #[test]
    fn a_write_takes_its_share_of_the_flushes() {
        let one = job(Contender::Fio, Pattern::RandomWrite, 1).read(&output(0.0, 8000.0)).unwrap();
        assert_eq!((one.iops, one.mean_us, one.p50_us), (8000.0, 125.0, None));
        assert_eq!(one.cpu_us, Some(50.0));
        let read = job(Contender::Fio, Pattern::RandomRead, 32).read(&output(64_000.0, 0.0));
        let read = read.unwrap();
        assert_eq!((read.mean_us, read.p50_us, read.p99_us), (500.0, Some(50.0), Some(90.0)));
        let mixed = job(Contender::Fio, Pattern::Mixed, 32).read(&output(700.0, 300.0)).unwrap();
        assert_eq!((mixed.iops, mixed.ops), (1000.0, 1000));
        let writers = job(Contender::FioWriters, Pattern::RandomWrite, 32);
        assert_eq!(writers.read(&output(0.0, 3200.0)).unwrap().cpu_us, Some(4000.0));
        assert_eq!(writers.read(&serde_json::json!({})), None);
        assert_eq!(writers.read(&output(0.0, 0.0)), None);
    }
}
