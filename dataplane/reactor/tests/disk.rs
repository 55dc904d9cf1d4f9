//! The disk ring against real files.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods, reason = "these tests are about real files")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use ogive_buf::{ARENA_BYTES, BufMut, Pool};
use ogive_reactor::{Disk, TaskRun};
use ogive_store::{DiskDone, DiskError, DiskOp, OpId};

const MODES: [TaskRun; 3] = [TaskRun::Deferred, TaskRun::Cooperative, TaskRun::Interrupting];

/// A file of `len` bytes, opened with O_DIRECT where the file system has it.
fn file(len: u64) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(&path);
    let file = direct.or_else(|_| options.open(&path)).unwrap();
    file.set_len(len).unwrap();
    file
}

fn pool() -> Pool {
    Pool::new(4 * ARENA_BYTES)
}

fn filled(pool: &Pool, len: usize, byte: u8) -> BufMut {
    let mut buf = pool.alloc(len).unwrap();
    buf.fill(byte);
    buf
}

fn write(id: u64, addr: u64, bufs: Vec<BufMut>) -> DiskOp {
    DiskOp::Write { id: OpId(id), addr, bufs: bufs.into_iter().map(BufMut::freeze).collect() }
}

/// Runs until `count` operations have ended.
fn drive(disk: &mut Disk, count: usize) -> Vec<DiskDone> {
    let mut done = Vec::new();
    while done.len() < count {
        disk.flush_sq();
        disk.poll(&mut done);
    }
    done
}

fn one(disk: &mut Disk, op: DiskOp) -> Result<Option<BufMut>, DiskError> {
    disk.submit(op);
    drive(disk, 1).pop().unwrap().result
}

#[test]
fn what_is_written_is_read_in_every_mode() {
    for mode in MODES {
        let (file, pool) = (file(1 << 20), pool());
        let mut disk = Disk::with_task_run(file.as_fd(), pool.clone(), 8, mode).unwrap();
        let parts = vec![filled(&pool, 4096, 1), filled(&pool, 8192, 2), filled(&pool, 4096, 3)];
        assert!(one(&mut disk, write(1, 8192, parts)).unwrap().is_none());
        assert!(one(&mut disk, write(2, 0, vec![filled(&pool, 4096, 9)])).unwrap().is_none());
        assert!(one(&mut disk, DiskOp::Flush { id: OpId(3) }).unwrap().is_none());
        let buf = pool.alloc(24576).unwrap();
        let read = one(&mut disk, DiskOp::Read { id: OpId(4), addr: 0, buf }).unwrap().unwrap();
        let blocks: Vec<u8> = read.chunks(4096).map(|b| b[0]).collect();
        assert_eq!(blocks, [9, 0, 1, 2, 2, 3], "{:?}", disk.task_run());
        assert!(read.chunks(4096).all(|b| b.iter().all(|x| *x == b[0])));
        assert_eq!(disk.registered_arenas(), pool.arena_count());
    }
}

#[test]
fn many_more_operations_than_places_all_end_once_and_reuse_the_memory() {
    let (file, pool) = (file(16 << 20), pool());
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 4).unwrap();
    let count = 500u64;
    for i in 0..count {
        disk.submit(write(i, i * 4096, vec![filled(&pool, 4096, i as u8)]));
        assert!(disk.in_flight() <= 4);
    }
    assert_eq!(disk.waiting() as u64, count - 4);
    let mut ids: Vec<u64> = drive(&mut disk, count as usize).iter().map(|d| d.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..count).collect::<Vec<_>>());
    assert_eq!((disk.in_flight(), disk.waiting()), (0, 0));
    assert_eq!(pool.stats().used_bytes, 0, "written buffers go back to the pool");
    for i in 0..count {
        let mut block = pool.alloc(4096).unwrap();
        file.read_exact_at(&mut block, i * 4096).unwrap();
        assert!(block.iter().all(|&b| b == i as u8), "block {i}");
    }
}

#[test]
fn arenas_that_come_later_are_registered_and_foreign_buffers_work() {
    let (file, own, foreign) = (file(32 << 20), pool(), pool());
    let mut disk = Disk::new(file.as_fd(), own.clone(), 8).unwrap();
    assert_eq!(disk.registered_arenas(), 0);
    let held: Vec<BufMut> = (0..3).map(|i| filled(&own, ARENA_BYTES, i + 1)).collect();
    for (i, buf) in held.into_iter().enumerate() {
        one(&mut disk, write(0, (i * ARENA_BYTES) as u64, vec![buf])).unwrap();
    }
    assert_eq!(disk.registered_arenas(), 3);
    one(&mut disk, write(0, 4096, vec![filled(&foreign, 4096, 77)])).unwrap();
    let buf = foreign.alloc(8192).unwrap();
    let read = one(&mut disk, DiskOp::Read { id: OpId(1), addr: 0, buf }).unwrap().unwrap();
    assert_eq!((read[0], read[4096]), (1, 77));
}

#[test]
fn more_pieces_than_the_kernel_takes_are_written_in_steps() {
    let (file, pool) = (file(16 << 20), pool());
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 8).unwrap();
    let block = filled(&pool, 4096, 5).freeze();
    let bufs = vec![block; 2500];
    one(&mut disk, DiskOp::Write { id: OpId(1), addr: 4096, bufs }).unwrap();
    let mut last = pool.alloc(8192).unwrap();
    file.read_exact_at(&mut last, 2500 * 4096).unwrap();
    assert_eq!((last[0], last[4095], last[4096]), (5, 5, 0));
}

#[test]
fn reads_past_the_end_fail_and_short_reads_are_not_success() {
    let (file, pool) = (file(8192), pool());
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 8).unwrap();
    for (addr, len) in [(8192, 4096), (1 << 20, 4096), (4096, 8192)] {
        let buf = pool.alloc(len).unwrap();
        let result = one(&mut disk, DiskOp::Read { id: OpId(1), addr, buf });
        assert!(result.is_err(), "{addr} {len}");
    }
    assert_eq!(pool.stats().used_bytes, 0);
}

#[test]
fn errors_of_one_operation_leave_the_others_alone() {
    let (file, pool) = (file(1 << 20), pool());
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 8).unwrap();
    disk.submit(DiskOp::Read { id: OpId(1), addr: 4 << 20, buf: pool.alloc(4096).unwrap() });
    disk.submit(write(2, 0, vec![filled(&pool, 4096, 1)]));
    disk.submit(DiskOp::Flush { id: OpId(3) });
    let mut done = drive(&mut disk, 3);
    done.sort_by_key(|d| d.id);
    let ok: Vec<bool> = done.iter().map(|d| d.result.is_ok()).collect();
    assert_eq!(ok, [false, true, true]);
}

#[test]
fn the_caller_may_close_his_descriptor_and_a_read_only_file_gives_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device");
    std::fs::write(&path, vec![3u8; 8192]).unwrap();
    let file = File::open(&path).unwrap();
    let pool = pool();
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 8).unwrap();
    drop(file);
    let buf = pool.alloc(4096).unwrap();
    let read = one(&mut disk, DiskOp::Read { id: OpId(1), addr: 0, buf }).unwrap().unwrap();
    assert_eq!(read[0], 3);
    let refused = one(&mut disk, write(2, 0, vec![filled(&pool, 4096, 1)]));
    assert!(refused.is_err());
}

#[test]
fn a_full_device_reports_no_space() {
    // Every write to /dev/full ends with ENOSPC.
    let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let pool = pool();
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 8).unwrap();
    let result = one(&mut disk, write(1, 0, vec![filled(&pool, 4096, 1)]));
    assert_eq!(result.unwrap_err(), DiskError::Full);
}

#[test]
fn short_writes_are_continued_to_the_error() {
    // A pipe takes 64 KiB and then nothing, and a reader drains it in odd steps: each completion is
    // short.
    let (read, pipe) = std::io::pipe().unwrap();
    let pool = pool();
    let mut disk = Disk::new(pipe.as_fd(), pool.clone(), 8).unwrap();
    drop(pipe);
    let data: Vec<BufMut> = (0..300).map(|i| filled(&pool, 4096, i as u8)).collect();
    let reader = std::thread::spawn(move || {
        let (mut read, mut all, mut step) = (read, Vec::new(), vec![0; 3000]);
        loop {
            match std::io::Read::read(&mut read, &mut step).unwrap() {
                0 => return all,
                n => all.extend_from_slice(&step[..n]),
            }
        }
    });
    one(&mut disk, write(1, 0, data)).unwrap();
    drop(disk);
    let all = reader.join().unwrap();
    assert_eq!(all.len(), 300 * 4096);
    assert!(all.chunks(4096).enumerate().all(|(i, b)| b.iter().all(|&x| x == i as u8)));
}

#[test]
fn dropping_with_io_in_flight_waits_for_the_kernel() {
    let (file, pool) = (file(64 << 20), pool());
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 16).unwrap();
    for i in 0..40u64 {
        disk.submit(write(i, i << 18, vec![filled(&pool, 1 << 18, 7)]));
    }
    disk.flush_sq();
    assert_eq!((disk.in_flight(), disk.waiting()), (16, 24));
    drop(disk);
    assert_eq!(pool.stats().used_bytes, 0);
    let mut block = pool.alloc(1 << 18).unwrap();
    for i in 0..16u64 {
        file.read_exact_at(&mut block, i << 18).unwrap();
        assert!(block.iter().all(|&b| b == 7), "operation {i} had ended when drop returned");
    }
}

#[test]
fn random_operations_agree_with_a_model_in_memory() {
    const BLOCKS: usize = 256;
    let (file, pool) = (file((BLOCKS * 4096) as u64), pool());
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 16).unwrap();
    let (mut model, mut seed) = ([0u8; BLOCKS], 1u64);
    let mut next = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % n
    };
    for round in 0..200u64 {
        // One round holds operations on disjoint blocks, since none are ordered.
        let mut at = 0;
        let mut count = 0;
        while at < BLOCKS {
            let blocks = (1 + next(8)).min(BLOCKS - at);
            let addr = (at * 4096) as u64;
            if next(2) == 0 {
                let byte = next(256) as u8;
                let cut = next(blocks);
                let mut bufs = vec![filled(&pool, (blocks - cut) * 4096, byte)];
                if cut > 0 {
                    bufs.push(filled(&pool, cut * 4096, byte));
                }
                model[at..at + blocks].fill(byte);
                disk.submit(write(round << 32, addr, bufs));
            } else {
                let buf = pool.alloc(blocks * 4096).unwrap();
                disk.submit(DiskOp::Read { id: OpId(round << 32 | at as u64), addr, buf });
            }
            (at, count) = (at + blocks, count + 1);
        }
        for done in drive(&mut disk, count) {
            assert_eq!(done.id.0 >> 32, round);
            if let Some(read) = done.result.unwrap() {
                let at = done.id.0 as u32 as usize;
                for (i, block) in read.chunks(4096).enumerate() {
                    assert!(block.iter().all(|&b| b == model[at + i]), "block {}", at + i);
                }
            }
        }
    }
}
