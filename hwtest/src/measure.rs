//! A short measurement of a device: 4 KiB direct I/O, one request at a time.

// A shell: it owns a clock and a file.
#![allow(clippy::disallowed_methods)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::{MEASURE_BYTES, MEASURE_MAX, PROBE_BYTES};
use crate::probe::{AlignedBlock, DirectFile, Refusal, TempFile, open_direct};

/// Latencies of one kind of request, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Requests measured.
    pub count: usize,
    /// Median.
    pub p50_us: f64,
    /// 99 of 100 requests took at most this.
    pub p99_us: f64,
}

/// What a device needs for 4 KiB, one request at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceLatencies {
    /// What was measured.
    pub path: PathBuf,
    /// Writes; none where writing would destroy data (a file or a device that exists).
    pub write: Option<Percentiles>,
    /// A write and then fdatasync: what a durable write costs; none as above.
    pub write_sync: Option<Percentiles>,
    /// Reads.
    pub read: Percentiles,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The system refused a step.
    #[error("cannot {step} at {path}: {error}; `ogive hwtest` says more")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not even one block to read.
    #[error("{path} is too small to be measured; it needs 4096 bytes")]
    TooSmall {
        /// Where.
        path: PathBuf,
    },
}

type Step = Result<(), Refusal>;

/// Measures a directory with a temporary file (writes, durable writes, reads), an existing file or
/// block device with reads only. Takes about `time`, and the time to write 64 MiB.
///
/// # Errors
///
/// When the path cannot be used for direct I/O.
pub fn measure(path: &Path, time: Duration) -> Result<DeviceLatencies, MeasureError> {
    let time = time.min(MEASURE_MAX);
    let refused = |refusal: Refusal| MeasureError::Refused {
        step: refusal.step,
        path: path.to_owned(),
        error: refusal.errno.into(),
    };
    let mut block = AlignedBlock::new();
    if !path.is_dir() {
        let file = open_direct(path).map_err(refused)?;
        let blocks = file.len().map_err(refused)? / PROBE_BYTES as u64;
        if blocks == 0 {
            return Err(MeasureError::TooSmall { path: path.to_owned() });
        }
        let read = phase(time, blocks, |at| file.read(&mut block, at)).map_err(refused)?;
        let path = path.to_owned();
        return Ok(DeviceLatencies { path, write: None, write_sync: None, read });
    }
    let file = TempFile::create(path).map_err(refused)?;
    let blocks = MEASURE_BYTES / PROBE_BYTES as u64;
    fill(&file, &mut block).map_err(refused)?;
    let third = time / 3;
    let write = phase(third, blocks, |at| file.write(&block, at)).map_err(refused)?;
    let durable = |at| file.write(&block, at).and_then(|()| file.sync());
    let write_sync = phase(third, blocks, durable).map_err(refused)?;
    let read = phase(third, blocks, |at| file.read(&mut block, at)).map_err(refused)?;
    let (write, write_sync) = (Some(write), Some(write_sync));
    Ok(DeviceLatencies { path: path.to_owned(), write, write_sync, read })
}

/// Writes all of the file once, so that no later write allocates.
fn fill(file: &DirectFile, block: &mut AlignedBlock) -> Step {
    let pattern = (0..PROBE_BYTES).map(|i| ((i * 31) >> 3) as u8);
    block.bytes_mut().iter_mut().zip(pattern).for_each(|(byte, value)| *byte = value);
    for at in (0..MEASURE_BYTES).step_by(PROBE_BYTES) {
        file.write(block, at)?;
    }
    file.sync()
}

/// Repeats one step at pseudo-random places for a time, at least once.
fn phase(
    time: Duration,
    blocks: u64,
    mut step: impl FnMut(u64) -> Step,
) -> Result<Percentiles, Refusal> {
    let mut samples = Vec::new();
    let mut state = 1u64;
    let start = Instant::now();
    let mut last = Duration::ZERO;
    while last < time || samples.is_empty() {
        // A linear congruential generator (Knuth's MMIX): places, not secrets.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        step((state >> 33) % blocks * PROBE_BYTES as u64)?;
        let now = start.elapsed();
        samples.push(now - last);
        last = now;
    }
    Ok(percentiles(samples))
}

fn percentiles(mut samples: Vec<Duration>) -> Percentiles {
    samples.sort_unstable();
    let at = |share: f64| {
        let rank = (samples.len() as f64 * share).ceil() as usize;
        samples[rank.clamp(1, samples.len()) - 1].as_secs_f64() * 1e6
    };
    Percentiles { count: samples.len(), p50_us: at(0.5), p99_us: at(0.99) }
}

impl fmt::Display for DeviceLatencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: 4 KiB, one at a time", self.path.display())?;
        let rows = [
            ("write", self.write),
            ("write + fdatasync", self.write_sync),
            ("read", Some(self.read)),
        ];
        for (name, row) in rows {
            let Some(row) = row else { continue };
            let (p50, p99, count) = (row.p50_us, row.p99_us, row.count);
            writeln!(f, "  {name:<18} p50 {p50:>7.0} µs   p99 {p99:>7.0} µs   {count} requests")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let samples = (1..=200).rev().map(Duration::from_micros).collect();
        let found = percentiles(samples);
        assert_eq!((found.count, found.p50_us, found.p99_us), (200, 100.0, 198.0));
        let one = percentiles(vec![Duration::from_micros(7)]);
        assert_eq!((one.p50_us, one.p99_us), (7.0, 7.0));
    }

    #[test]
    fn an_empty_file_is_refused_and_a_full_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"").unwrap();
        let error = measure(&path, Duration::ZERO).unwrap_err();
        assert!(matches!(error, MeasureError::TooSmall { .. } | MeasureError::Refused { .. }));
        std::fs::write(&path, vec![3; 8192]).unwrap();
        if let Ok(found) = measure(&path, Duration::ZERO) {
            assert_eq!((found.write, found.read.count), (None, 1));
        }
        assert_eq!(std::fs::read(&path).unwrap(), vec![3; 8192]);
    }
}
