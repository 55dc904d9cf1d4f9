//! What a process wrote to the device, what the device took, and processor time of a thread.
#![allow(clippy::disallowed_methods)] // a shell: reads /proc and /sys

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FileType, fstat, major, minor};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of a sector in the block layer's counters, whatever the device has.
const SECTOR_BYTES: u64 = 512;

/// Processor time that this thread has taken.
pub(super) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes that this process sent to devices; none where the kernel does not count them.
pub(super) fn process_written() -> Option<u64> {
    parse_io(&fs::read_to_string("/proc/self/io").ok()?)
}

/// The line `write_bytes: N`.
fn parse_io(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok())
}

/// The block layer's counters of one device.
#[derive(Clone, Debug)]
pub(super) struct DiskCounters(PathBuf);

impl DiskCounters {
    /// Of a block device, or of the one that a file lies on; none where there is no such one, as
    /// for network file systems.
    pub(super) fn of(file: impl AsFd) -> Option<DiskCounters> {
        let stat = fstat(file).ok()?;
        let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        let device = if is_block { stat.st_rdev } else { stat.st_dev };
        let path = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
        let counters = DiskCounters(path.into());
        counters.written()?;
        Some(counters)
    }

    /// Bytes that it was given to write, by anybody.
    pub(super) fn written(&self) -> Option<u64> {
        parse_stat(&fs::read_to_string(&self.0).ok()?)
    }
}

/// The seventh number: sectors written (Linux, `Documentation/block/stat.rst`).
fn parse_stat(text: &str) -> Option<u64> {
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let io = "rchar: 1\nwchar: 2\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!((parse_io(io), parse_io("rchar: 1\n")), (Some(4096), None));
        let stat = "  9  8  7  6  5  4  30  2  1  0  0  0  0 0 0 0 0\n";
        assert_eq!((parse_stat(stat), parse_stat("1 2")), (Some(30 * 512), None));
    }

    #[test]
    fn time_of_this_thread_grows() {
        let before = thread_cpu();
        let sum = (0..1_000_000u64).fold(0, |a, b| a ^ std::hint::black_box(b));
        assert!(thread_cpu() > before && sum != 1);
    }
}
