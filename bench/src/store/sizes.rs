//! Recovery, checkpoint and memory against the size of what is mapped.
//!
//! The engine maps so many bytes on a sparse file of a sufficient length: logs, map pages and
//! directories are really written and read, data blocks are not (they hold zeroes, and their reads
//! find holes). Then the store is dropped as a killed process would drop it, and opened again.
#![allow(clippy::disallowed_methods)] // a shell: makes a file, reads the clock and /proc

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ogive_buf::{Buf, Pool};
use ogive_reactor::Disk;
use ogive_store::file::DeviceFile;
use ogive_store::{
    AppendError, DiskDone, DiskOp, FormatOptions, Label, Store, StoreEvent, StoreOptions,
};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockSum, CopysetId, Index, Term, block_sum};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::load::place;
use crate::limits::STORE_POOL_BYTES;

const ID: CopysetId = CopysetId(1);
const BLOCK: u64 = BLOCK_BYTES as u64;
/// Writes started before what they led to is done.
const GROUP: usize = 256;
/// Unit of `statm` on the machines that this runs on.
const PAGE_BYTES: u64 = 4096;
/// Blocks of a long write.
const LONG: u64 = 256;

/// How the data came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// In writes of 1 MiB, in order.
    Sequential,
    /// In writes of 4 KiB, in such an order that no two neighbours lie side by side.
    Random,
    /// In order, and then every fourth block anew, as in `Random`.
    Mixed,
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Data::Sequential => "sequential",
            Data::Random => "random",
            Data::Mixed => "mixed",
        })
    }
}

/// What one size took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizeReport {
    /// How the data came.
    pub data: Data,
    /// Bytes mapped.
    pub mapped_bytes: u64,
    /// Time of a checkpoint of all of it.
    pub checkpoint_s: f64,
    /// Bytes that it wrote.
    pub checkpoint_bytes: u64,
    /// Bytes of the log that recovery replayed.
    pub log_bytes: u64,
    /// Time until the store was open again.
    pub recovery_s: f64,
    /// Memory that the process took for the open store, for each mapped GiB.
    pub memory_bytes_per_gib: f64,
}

/// Measures a size, with a file in `folder`.
pub(super) fn measure(
    folder: &Path,
    data: Data,
    mapped: u64,
    progress: &mut dyn FnMut(String),
) -> Result<SizeReport, String> {
    let file = SparseFile::make(folder, mapped)?;
    let mut open = Open::new(&file)?;
    open.map(data, mapped / BLOCK, progress)?;
    let before = open.store.stats().written;
    let start = Instant::now();
    open.store.start_checkpoint();
    open.settle()?;
    let checkpoint_s = start.elapsed().as_secs_f64();
    let after = open.store.stats().written;
    let checkpoint_bytes =
        after.map_bytes + after.directory_bytes - before.map_bytes - before.directory_bytes;
    // What was written last is not in the checkpoint: a kill comes at any time.
    let stats = open.store.stats();
    open.overwrite(stats.log_bytes / 4)?;
    let log_bytes = open.store.stats().log_bytes_used;
    drop(open);
    progress(format!("{data}, {} GiB: recovery", mapped >> 30));
    let (recovery_s, memory) = recover(&file)?;
    Ok(SizeReport {
        data,
        mapped_bytes: mapped,
        checkpoint_s,
        checkpoint_bytes,
        log_bytes,
        recovery_s,
        memory_bytes_per_gib: memory as f64 * (1u64 << 30) as f64 / mapped as f64,
    })
}

fn recover(file: &SparseFile) -> Result<(f64, u64), String> {
    let mut device = file.handle()?;
    let pool = Pool::new(STORE_POOL_BYTES);
    give_back_memory();
    let (before, start) = (resident(), Instant::now());
    let store = Store::open(&mut device, &file.label, 0, pool, StoreOptions::default());
    let store = store.map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    give_back_memory();
    let memory = resident().saturating_sub(before);
    drop(store);
    Ok((seconds, memory))
}

/// Frees what the allocator keeps of what was freed, so that [`resident`] counts what is in use.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns free pages of the heap to the system.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = || -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/statm").ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    };
    pages().unwrap_or(0) * PAGE_BYTES
}

/// A formatted file without space of its own, removed at the end.
struct SparseFile {
    /// Open all the time: the kernel takes down a ring, which holds the file and its lock, some
    /// time after it was closed.
    device: DeviceFile,
    label: Label,
    _path: Removed,
}

/// A file that goes with this.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // What cannot be removed is seen by whoever looks.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl SparseFile {
    fn make(folder: &Path, mapped: u64) -> Result<SparseFile, String> {
        let path = folder.join(format!("ogive-bench-sizes-{}", std::process::id()));
        let fail = |e: &dyn fmt::Display| format!("{}: {e}", path.display());
        let made = std::fs::File::options().write(true).create_new(true).open(&path);
        let made = made.map_err(|e| fail(&e))?;
        let path = Removed(path.clone());
        // A quarter more than is mapped, and what the smallest region takes.
        let len = (mapped + mapped / 4 + (256 << 20)).next_multiple_of(1 << 20);
        made.set_len(len).map_err(|e| fail(&e))?;
        let mut device = DeviceFile::open(&path.0).map_err(|e| fail(&e))?;
        let options = FormatOptions {
            shards: 1,
            sector: device.sector(),
            log_bytes: None,
            uuid: Uuid::new_v4(),
            force: true,
            quick: true,
        };
        let label = ogive_store::format(&mut device, &options, &mut |_, _| ());
        let label = label.map_err(|e| fail(&e))?;
        Ok(SparseFile { device, label, _path: path })
    }

    fn handle(&self) -> Result<DeviceFile, String> {
        self.device.try_clone().map_err(|e| e.to_string())
    }
}

struct Open {
    store: Store,
    disk: Disk,
    /// Data blocks begin here; they are not written.
    data_start: u64,
    zeroes: Buf,
    sum: BlockSum,
    index: Index,
    ops: Vec<DiskOp>,
    done: Vec<DiskDone>,
    events: Vec<StoreEvent>,
}

impl Open {
    fn new(file: &SparseFile) -> Result<Open, String> {
        let mut device = file.handle()?;
        let pool = Pool::new(STORE_POOL_BYTES);
        let options = StoreOptions::default();
        let store = Store::open(&mut device, &file.label, 0, pool.clone(), options);
        let mut store = store.map_err(|e| e.to_string())?;
        store.create_replica(ID, &[]);
        let disk = Disk::new(device.as_fd(), pool.clone(), 64).map_err(|e| e.to_string())?;
        let layout = file.label.regions()[0].layout().ok_or("a label without a layout")?;
        let zeroes = pool.alloc_zeroed(LONG as usize * BLOCK_BYTES).ok_or("no memory")?.freeze();
        Ok(Open {
            store,
            disk,
            data_start: layout.data_start,
            sum: block_sum(&zeroes[..BLOCK_BYTES]),
            zeroes,
            index: Index(0),
            ops: Vec::new(),
            done: Vec::new(),
            events: Vec::new(),
        })
    }

    /// Maps the first `blocks` blocks of the volume.
    fn map(
        &mut self,
        data: Data,
        blocks: u64,
        progress: &mut dyn FnMut(String),
    ) -> Result<(), String> {
        let mut tell = |done: u64| {
            progress(format!("{data}, {} GiB: {} %", blocks >> 18, done * 100 / blocks));
        };
        if data != Data::Random {
            for (n, at) in (0..blocks / LONG).zip((0..).step_by(LONG as usize)) {
                self.write(at, LONG)?;
                if n.is_multiple_of(1 << 14) {
                    tell(at);
                }
            }
        }
        let scattered = match data {
            Data::Sequential => 0,
            Data::Random => blocks,
            Data::Mixed => blocks / 4,
        };
        let stride = if data == Data::Mixed { 4 } else { 1 };
        for n in 0..scattered {
            self.write(scatter(n, scattered) * stride, 1)?;
            if n.is_multiple_of(1 << 20) {
                tell(n);
            }
        }
        self.settle()
    }

    /// Writes single blocks again until the log has grown by `bytes`.
    fn overwrite(&mut self, bytes: u64) -> Result<(), String> {
        let (goal, blocks) = (self.store.stats().log_bytes_used + bytes, self.index.0.min(1 << 16));
        let mut n = 0;
        while self.store.stats().log_bytes_used < goal {
            self.write(scatter(n % blocks, blocks), 1)?;
            n += 1;
        }
        self.settle()
    }

    fn write(&mut self, block: u64, blocks: u64) -> Result<(), String> {
        let bytes = blocks as usize * BLOCK_BYTES;
        let (chunk, range) = place(block * BLOCK, bytes);
        loop {
            let op = Op::Write { chunk, range, sums: vec![self.sum; blocks as usize] };
            let data = Some(self.zeroes.slice(0..bytes));
            match self.store.append(ID, self.index.next(), Term(1), op, data) {
                Ok(()) => break,
                // Each entry that is not applied holds the map page that it may need.
                Err(AppendError::NoSpace) if self.store.applied(ID).index < self.index => {
                    self.turn(true)?;
                }
                Err(AppendError::Busy) => self.turn(true)?,
                Err(error) => return Err(error.to_string()),
            }
        }
        self.index = self.index.next();
        if self.index.0.is_multiple_of(GROUP as u64) {
            self.turn(false)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        while !self.store.idle() {
            self.turn(true)?;
        }
        Ok(())
    }

    /// Ends what can end now; with `wait`, something does.
    fn turn(&mut self, wait: bool) -> Result<(), String> {
        self.store.poll_ops(&mut self.ops);
        let mut ended = 0;
        for op in self.ops.drain(..) {
            match op {
                DiskOp::Write { id, addr, .. } if addr >= self.data_start => {
                    self.store.complete(DiskDone { id, result: Ok(None) });
                    ended += 1;
                }
                other => self.disk.submit(other),
            }
        }
        self.disk.flush_sq();
        if wait && ended == 0 && self.disk.in_flight() > 0 {
            self.disk.wait(None);
        }
        self.disk.poll(&mut self.done);
        self.done.drain(..).for_each(|done| self.store.complete(done));
        self.store.poll_events(&mut self.events);
        for event in self.events.drain(..) {
            match event {
                StoreEvent::Persisted { index, .. } => {
                    self.store.apply(ID, index);
                    self.store.release(ID, index);
                }
                StoreEvent::Failed { error } => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Each of `0 .. count` once, neighbours far apart: multiples of a number without a common
/// divisor, near the golden section.
fn scatter(n: u64, count: u64) -> u64 {
    let mut step = (count as f64 * 0.618) as u64 | 1;
    while gcd(step, count) != 1 {
        step += 2;
    }
    (u128::from(n) * u128::from(step) % u128::from(count)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_numbers_come_once_and_apart() {
        for count in [1, 2, 256, 1000, 4097] {
            let mut seen: Vec<u64> = (0..count).map(|n| scatter(n, count)).collect();
            if count > 256 {
                assert!(seen.windows(2).all(|w| w[0].abs_diff(w[1]) > count / 4), "{count}");
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_size_is_mapped_and_recovered() {
        let folder = tempfile::tempdir_in(".").unwrap();
        for data in [Data::Sequential, Data::Random, Data::Mixed] {
            let report = measure(folder.path(), data, 64 << 20, &mut |_| ()).unwrap();
            assert!(report.log_bytes > 0 && report.checkpoint_bytes >= 4096, "{report:?}");
            assert!(report.recovery_s > 0.0 && report.checkpoint_s > 0.0, "{report:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
    }
}
