//! Measures the disk ring: mean latency at depth 1 and rate at depth 32 of 4 KiB random I/O, per
//! mode.
//!
//! `disk_rate FILE BYTES SECONDS` prints one line per mode, kind and depth. FILE is preallocated
//! and filled first, so that the file system only ever overwrites.

#![allow(clippy::disallowed_methods, reason = "a measurement owns its file and clock")]

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use ogive_buf::{ARENA_BYTES, BufMut, Pool};
use ogive_reactor::{Disk, TaskRun, now};
use ogive_store::{DiskDone, DiskOp, OpId};

const BLOCK: u64 = 4096;

struct Load {
    disk: Disk,
    blocks: u64,
    seed: u64,
    polls: u64,
}

impl Load {
    fn submit(&mut self, buf: BufMut, write: bool) {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let addr = (self.seed >> 33) % self.blocks * BLOCK;
        let id = OpId(0);
        self.disk.submit(match write {
            true => DiskOp::Write { id, addr, bufs: vec![buf.freeze()] },
            false => DiskOp::Read { id, addr, buf },
        });
    }

    /// Operations that ended within `time` at `depth`.
    fn run(&mut self, pool: &Pool, write: bool, depth: usize, time: Duration) -> u64 {
        let mut done: Vec<DiskDone> = Vec::new();
        for _ in 0..depth {
            self.submit(pool.alloc(BLOCK as usize).expect("room"), write);
        }
        let (start, mut count) = (now(), 0);
        self.polls = 0;
        while now().since(start) < time {
            self.disk.flush_sq();
            self.polls += 1;
            self.disk.poll(&mut done);
            for ended in done.drain(..) {
                let buf = ended.result.expect("good disk");
                count += 1;
                let buf = buf.or_else(|| pool.alloc(BLOCK as usize)).expect("room");
                self.submit(buf, write);
            }
        }
        while self.disk.in_flight() > 0 {
            self.disk.flush_sq();
            self.disk.poll(&mut done);
        }
        count
    }
}

fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, bytes, seconds] = &args[..] else {
        panic!("usage: disk_rate FILE BYTES SECONDS")
    };
    let bytes: u64 = bytes.parse().expect("bytes");
    let time = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT).open(path);
    let file = file.expect("a file on a file system with O_DIRECT");
    let pool = Pool::new(ARENA_BYTES);
    if file.metadata().expect("stat").len() < bytes {
        let zeroes = pool.alloc_zeroed(1 << 20).expect("room");
        (0..bytes >> 20).for_each(|i| file.write_all_at(&zeroes, i << 20).expect("space"));
    }
    for mode in [TaskRun::Deferred, TaskRun::Cooperative, TaskRun::Interrupting] {
        for (write, depth) in [(true, 1), (true, 32), (false, 1), (false, 32)] {
            let disk = Disk::with_task_run(file.as_fd(), pool.clone(), 32, mode).expect("a ring");
            let mut load = Load { disk, blocks: bytes / BLOCK, seed: 7, polls: 0 };
            let before = cpu();
            let count = load.run(&pool, write, depth, time);
            let cpu_us = (cpu() - before).as_secs_f64() * 1e6 / count as f64;
            let rate = count as f64 / time.as_secs_f64();
            println!(
                "{mode:?} {} depth {depth}: {rate:.0} IOPS, mean {:.1} us, \
                 cpu {cpu_us:.1} us/op, {} polls",
                if write { "write" } else { "read" },
                depth as f64 * 1e6 / rate,
                load.polls,
            );
        }
    }
}
