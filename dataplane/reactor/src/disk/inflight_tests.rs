use std::ops::Range;

use ogive_buf::{ARENA_BYTES, Pool};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 1 << 20;

fn write(pool: &Pool, lens: &[usize]) -> InFlight {
    let bufs = lens.iter().map(|&n| pool.alloc(n).expect("room").freeze()).collect();
    InFlight::new(DiskOp::Write { id: OpId(7), addr: BASE, bufs })
}

fn read(pool: &Pool, len: usize) -> InFlight {
    let buf = pool.alloc(len).expect("room");
    InFlight::new(DiskOp::Read { id: OpId(7), addr: BASE, buf })
}

/// The memory that is left, as addresses.
fn left(op: &InFlight) -> Vec<Range<usize>> {
    let range = |p: &libc::iovec| p.iov_base as usize..p.iov_base as usize + p.iov_len;
    op.rest.pieces().iter().map(range).collect()
}

/// The same without its first `n` bytes.
fn skip(mut ranges: Vec<Range<usize>>, mut n: usize) -> Vec<Range<usize>> {
    for range in &mut ranges {
        let step = n.min(range.len());
        range.start += step;
        n -= step;
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

proptest! {
    #[test]
    fn short_writes_go_on_at_the_byte_where_they_stopped(
        lens in prop::collection::vec(0usize..20_000, 1..8),
        steps in prop::collection::vec(1usize..9000, 1..200),
    ) {
        let pool = Pool::new(2 * ARENA_BYTES);
        let mut op = write(&pool, &lens);
        let total: usize = lens.iter().sum();
        let whole = left(&op);
        prop_assert_eq!(whole.iter().map(Range::len).sum::<usize>(), total);
        let mut done = 0;
        for step in steps.into_iter().cycle() {
            if done == total {
                break;
            }
            let n = step.min(total - done);
            let outcome = op.step(n as i32);
            done += n;
            prop_assert_eq!(op.addr, BASE + done as u64);
            prop_assert_eq!(left(&op), skip(whole.clone(), done));
            let ended = matches!(outcome, Step::Done(Ok(())));
            prop_assert_eq!(ended, done == total, "{} of {}", done, total);
        }
    }
}

#[test]
fn a_short_read_goes_on_and_gives_the_buffer_back_at_its_end() {
    let pool = Pool::new(ARENA_BYTES);
    let mut op = read(&pool, 12_288);
    assert!(matches!(op.step(4096), Step::Again));
    assert!(matches!(op.step(-libc::EINTR), Step::Again), "nothing is lost by an interruption");
    assert_eq!((op.addr, op.rest.bytes()), (BASE + 4096, 8192));
    assert!(matches!(op.step(8192), Step::Done(Ok(()))));
    let done = op.end(Ok(()));
    assert_eq!((done.id, done.result.expect("good").map(|buf| buf.len())), (OpId(7), Some(12_288)));
}

#[test]
fn no_progress_is_an_error_and_not_a_loop() {
    let pool = Pool::new(ARENA_BYTES);
    for mut op in [write(&pool, &[4096]), read(&pool, 4096)] {
        assert!(matches!(op.step(0), Step::Done(Err(DiskError::Io(libc::EIO)))));
        for _ in 0..limits::RETRIES_MAX {
            assert!(matches!(op.step(-libc::EAGAIN), Step::Again));
        }
        let last = op.step(-libc::EAGAIN);
        assert!(matches!(last, Step::Done(Err(_))), "a device that never takes it is broken");
    }
    drop(read(&pool, 4096).end(Err(DiskError::Full)));
    assert_eq!(pool.stats().used_bytes, 0, "buffers go back on errors too");
}

#[test]
fn results_without_bytes_mean_what_they_say() {
    let pool = Pool::new(ARENA_BYTES);
    let mut flush = InFlight::new(DiskOp::Flush { id: OpId(7) });
    assert!(matches!(flush.step(0), Step::Done(Ok(()))));
    for full in [libc::ENOSPC, libc::EFBIG] {
        let step = write(&pool, &[4096]).step(-full);
        assert!(matches!(step, Step::Done(Err(DiskError::Full))));
    }
    let step = write(&pool, &[4096]).step(-libc::EIO);
    assert!(matches!(step, Step::Done(Err(DiskError::Io(libc::EIO)))));
}

#[test]
#[should_panic(expected = "more than it was asked")]
fn more_than_was_asked_is_a_broken_kernel() {
    let pool = Pool::new(ARENA_BYTES);
    write(&pool, &[4096]).step(4097);
}
