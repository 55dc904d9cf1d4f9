use ogive_buf::{Buf, Pool};
use proptest::prelude::*;

use super::*;

mod faults;

const LEN: u64 = 64 << 10;
const SECTOR: u32 = 512;

/// A small generator with a seed, good enough to draw faults.
fn rng(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn buf(pool: &Pool, len: usize, fill: u8) -> Buf {
    let mut buf = pool.alloc(len).unwrap();
    buf.fill(fill);
    buf.freeze()
}

fn write(pool: &Pool, id: u64, addr: u64, len: usize, fill: u8) -> DiskOp {
    DiskOp::Write { id: OpId(id), addr, bufs: vec![buf(pool, len, fill)] }
}

fn content(disk: &SimDisk) -> Vec<u8> {
    let mut all = vec![0; LEN as usize];
    disk.read_at(0, &mut all).unwrap();
    all
}

fn sector_of(disk: &SimDisk, number: u64) -> u8 {
    let mut bytes = [0; SECTOR as usize];
    disk.read_at(number * u64::from(SECTOR), &mut bytes).unwrap();
    assert!(bytes.iter().all(|b| *b == bytes[0]), "a sector is never torn");
    bytes[0]
}

#[test]
fn a_write_is_seen_when_it_ended_and_gathers_its_buffers() {
    let pool = Pool::new(4 << 20);
    let mut disk = SimDisk::new(LEN, SECTOR);
    let bufs = vec![buf(&pool, 512, 1), buf(&pool, 1024, 2)];
    disk.submit(DiskOp::Write { id: OpId(1), addr: 3584, bufs });
    assert_eq!((sector_of(&disk, 7), disk.pending()), (0, 1));
    assert!(disk.complete(OpId(2)).is_none());
    assert!(matches!(disk.complete(OpId(1)).unwrap().result, Ok(None)));
    assert_eq!([6, 7, 8, 9, 10].map(|n| sector_of(&disk, n)), [0, 1, 2, 2, 0]);

    disk.submit(DiskOp::Read { id: OpId(3), addr: 3584, buf: pool.alloc(1024).unwrap() });
    let done = disk.complete_next(&mut rng(0)).unwrap();
    let read = done.result.unwrap().unwrap();
    assert_eq!((read[0], read[512], done.id), (1, 2, OpId(3)));
    let expected = DiskCounters {
        reads: 1,
        read_bytes: 1024,
        writes: 1,
        write_bytes: 1536,
        ..Default::default()
    };
    assert_eq!(disk.counters(), expected);
}

#[test]
fn a_flush_covers_what_had_ended_when_it_was_submitted_and_nothing_else() {
    let pool = Pool::new(4 << 20);
    // Seeds lose the later writes at least once; the first one never.
    let mut lost_later = [false; 2];
    for seed in 0..64 {
        let mut disk = SimDisk::new(LEN, SECTOR);
        disk.submit(write(&pool, 1, 0, 512, 1));
        disk.complete(OpId(1)).unwrap();
        disk.submit(write(&pool, 2, 512, 512, 2));
        disk.submit(DiskOp::Flush { id: OpId(3) });
        disk.complete(OpId(2)).unwrap();
        disk.complete(OpId(3)).unwrap();
        disk.submit(write(&pool, 4, 1024, 512, 4));
        disk.power_cut(&mut rng(seed));
        assert_eq!((disk.pending(), sector_of(&disk, 0)), (0, 1));
        lost_later[0] |= sector_of(&disk, 1) == 0;
        lost_later[1] |= sector_of(&disk, 2) == 0;
    }
    assert_eq!(lost_later, [true; 2]);
}

#[test]
fn the_newest_of_overlapping_writes_stays_visible_across_a_flush() {
    let pool = Pool::new(4 << 20);
    let mut disk = SimDisk::new(LEN, SECTOR);
    disk.submit(write(&pool, 1, 0, 1024, 1));
    disk.complete(OpId(1)).unwrap();
    disk.submit(DiskOp::Flush { id: OpId(2) });
    disk.submit(write(&pool, 3, 512, 1024, 3));
    disk.complete(OpId(3)).unwrap();
    disk.complete(OpId(2)).unwrap();
    assert_eq!([0, 1, 2].map(|n| sector_of(&disk, n)), [1, 3, 3]);
}

#[test]
fn power_cuts_keep_lose_and_tear() {
    let pool = Pool::new(4 << 20);
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let mut disk = SimDisk::new(LEN, SECTOR);
        disk.submit(write(&pool, 1, 4096, 4096, 9));
        disk.power_cut(&mut rng(seed));
        match (8..16).filter(|n| sector_of(&disk, *n) == 9).count() {
            8 => kept += 1,
            0 => lost += 1,
            _ => torn += 1,
        }
        assert_eq!(content(&disk).iter().filter(|b| **b == 9).count() % 512, 0);
        assert!(content(&disk)[..4096].iter().all(|b| *b == 0));
    }
    assert!(kept > 40 && lost > 40 && torn > 40, "{kept} {lost} {torn}");
}

#[test]
fn without_a_volatile_cache_an_ended_write_survives() {
    let pool = Pool::new(4 << 20);
    for seed in 0..32 {
        let mut disk = SimDisk::new(LEN, SECTOR);
        disk.write_at(0, &[1; 512]).unwrap();
        disk.set_volatile_cache(false);
        disk.submit(write(&pool, 1, 512, 512, 2));
        disk.complete(OpId(1)).unwrap();
        disk.power_cut(&mut rng(seed));
        assert_eq!([0, 1].map(|n| sector_of(&disk, n)), [1, 2]);
    }
}

#[test]
fn rot_outlives_the_flush_of_an_earlier_write() {
    let mut disk = SimDisk::new(LEN, SECTOR);
    disk.write_at(100, &[0xff; 10]).unwrap();
    disk.flip_bit(105, 3);
    let mut byte = [0];
    for _ in 0..2 {
        disk.read_at(105, &mut byte).unwrap();
        assert_eq!(byte, [0xf7]);
        disk.flush().unwrap();
    }
    disk.power_cut(&mut rng(1));
    disk.read_at(104, &mut byte).unwrap();
    assert_eq!(byte, [0xff]);
    disk.read_at(105, &mut byte).unwrap();
    assert_eq!(byte, [0xf7]);
}

#[test]
fn faults_happen_as_often_as_asked() {
    let pool = Pool::new(4 << 20);
    let mut disk = SimDisk::new(LEN, SECTOR);
    let run = |disk: &mut SimDisk, op: DiskOp| {
        disk.submit(op);
        disk.complete_next(&mut rng(3)).unwrap().result.map(|_| ())
    };
    let eio = Err(DiskError::Io(libc::EIO));
    disk.fail_writes(1);
    assert_eq!(run(&mut disk, write(&pool, 1, 0, 512, 1)), eio);
    assert_eq!(run(&mut disk, write(&pool, 1, 0, 512, 1)), Ok(()));
    disk.fail_flushes(1);
    assert_eq!(run(&mut disk, DiskOp::Flush { id: OpId(2) }), eio);
    assert_eq!(run(&mut disk, DiskOp::Flush { id: OpId(2) }), Ok(()));
    disk.fail_reads(600..601);
    let read = |addr| DiskOp::Read { id: OpId(3), addr, buf: pool.alloc(512).unwrap() };
    assert_eq!(run(&mut disk, read(512)), eio);
    assert_eq!(run(&mut disk, read(0)), Ok(()));
    disk.set_full(true);
    assert_eq!(run(&mut disk, write(&pool, 4, 1024, 512, 4)), Err(DiskError::Full));
    disk.clear_faults();
    disk.misdirect_next_write(LEN - 512);
    assert_eq!(run(&mut disk, write(&pool, 5, 2048, 1024, 5)), Ok(()));
    assert_eq!([2, 4, LEN / 512 - 1].map(|n| sector_of(&disk, n)), [0, 0, 5]);
}

#[test]
fn misuse_is_a_panic() {
    let pool = Pool::new(4 << 20);
    let bad = [
        write(&pool, 1, 100, 512, 0),
        write(&pool, 1, 0, 100, 0),
        write(&pool, 1, LEN - 512, 1024, 0),
        DiskOp::Write { id: OpId(1), addr: 0, bufs: Vec::new() },
    ];
    for op in bad {
        let submit = move || SimDisk::new(LEN, SECTOR).submit(op);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(submit)).is_err());
    }
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Write { sector: u64, count: u64 },
    Flush,
    Complete { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..20, 1u64..12).prop_map(|(sector, count)| Step::Write { sector, count }),
        1 => Just(Step::Flush),
        4 => (0usize..8).prop_map(|nth| Step::Complete { nth }),
    ]
}

/// What a sector may hold after a power cut, and what a read must see now: kept by the most naive
/// means.
#[derive(Clone, Default)]
struct Model {
    /// By sector: fills of ended writes in their order, with the number of the end.
    ended: Vec<Vec<(u64, u8)>>,
    ends: u64,
    in_flight: Vec<(Step, u64, u8, u64)>,
    durable_before: u64,
}

impl Model {
    /// Values that a power cut may leave in `sector`.
    fn possible(&self, sector: usize) -> Vec<u8> {
        let ended = &self.ended[sector];
        let durable = ended.iter().rev().find(|(end, _)| *end < self.durable_before);
        let mut values = vec![durable.map_or(0, |(_, fill)| *fill)];
        values.extend(ended.iter().filter(|(end, _)| *end >= self.durable_before).map(|e| e.1));
        for (step, _, fill, _) in &self.in_flight {
            if let Step::Write { sector: start, count } = step
                && (*start..start + count).contains(&(sector as u64))
            {
                values.push(*fill);
            }
        }
        values
    }
}

thread_local! {
    /// One for all cases: making a pool zeroes megabytes.
    static POOL: Pool = Pool::new(4 << 20);
}

/// Runs `steps` on a disk and on the model at once.
fn run(steps: &[Step]) -> (SimDisk, Model) {
    recorded(steps, false)
}

fn recorded(steps: &[Step], on_tape: bool) -> (SimDisk, Model) {
    let pool = POOL.with(Pool::clone);
    let mut disk = SimDisk::new(LEN, SECTOR);
    if on_tape {
        disk.start_tape();
    }
    let mut model = Model { ended: vec![Vec::new(); 32], ..Model::default() };
    for (id, step) in steps.iter().enumerate() {
        let (id, fill) = (id as u64, id as u8 + 1);
        match step {
            Step::Write { sector, count } => {
                disk.submit(write(&pool, id, sector * 512, *count as usize * 512, fill));
                model.in_flight.push((step.clone(), id, fill, model.ends));
            }
            Step::Flush => {
                disk.submit(DiskOp::Flush { id: OpId(id) });
                model.in_flight.push((step.clone(), id, fill, model.ends));
            }
            Step::Complete { nth } if !model.in_flight.is_empty() => {
                let nth = nth % model.in_flight.len();
                let (step, id, fill, ends) = model.in_flight.remove(nth);
                assert!(disk.complete(OpId(id)).unwrap().result.is_ok());
                match step {
                    Step::Write { sector, count } => {
                        for at in sector..sector + count {
                            model.ended[at as usize].push((model.ends, fill));
                        }
                        model.ends += 1;
                    }
                    _ => model.durable_before = model.durable_before.max(ends),
                }
            }
            Step::Complete { .. } => {}
        }
    }
    (disk, model)
}

proptest! {
    #[test]
    fn reads_and_power_cuts_agree_with_the_model(
        steps in proptest::collection::vec(step(), 0..60), seed: u64,
    ) {
        let (mut disk, model) = run(&steps);
        for sector in 0..32 {
            let newest = model.ended[sector].last().map_or(0, |(_, fill)| *fill);
            prop_assert_eq!(sector_of(&disk, sector as u64), newest);
        }
        disk.power_cut(&mut rng(seed));
        for sector in 0..32 {
            let left = sector_of(&disk, sector as u64);
            let possible = model.possible(sector);
            prop_assert!(possible.contains(&left), "sector {}: {} of {:?}", sector, left, possible);
        }
    }

    #[test]
    fn equal_seeds_give_equal_disks(
        steps in proptest::collection::vec(step(), 0..60), seed: u64,
    ) {
        let images = [(), ()].map(|()| {
            let (mut disk, _) = run(&steps);
            disk.power_cut(&mut rng(seed));
            content(&disk)
        });
        prop_assert_eq!(&images[0], &images[1]);
    }
}
