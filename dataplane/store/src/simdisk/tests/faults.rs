//! Faults by chance, and tapes.

use super::*;

fn one(disk: &mut SimDisk, op: DiskOp) -> Result<(), DiskError> {
    disk.submit(op);
    disk.complete_next(&mut rng(3)).expect("it was submitted").result.map(|_| ())
}

#[test]
fn a_lost_write_is_damage_and_no_error() {
    let pool = Pool::new(4 << 20);
    let mut disk = SimDisk::new(LEN, SECTOR);
    disk.lose_writes(1);
    assert_eq!(one(&mut disk, write(&pool, 1, 0, 512, 1)), Ok(()));
    assert_eq!(one(&mut disk, write(&pool, 1, 512, 512, 2)), Ok(()));
    assert_eq!(one(&mut disk, DiskOp::Flush { id: OpId(2) }), Ok(()));
    disk.power_cut(&mut rng(1));
    assert_eq!([0, 1].map(|n| sector_of(&disk, n)), [0, 2]);
    assert_eq!(disk.counters().faults.of(Fault::Lost), 1);
}

#[test]
fn each_kind_happens_by_chance_and_is_counted() {
    let pool = Pool::new(4 << 20);
    for fault in Fault::ALL {
        let counts = [(), ()].map(|()| {
            let mut disk = SimDisk::new(LEN, SECTOR);
            disk.set_fault_rates(FaultRates::new(9).with(fault, 4));
            let mut errors = 0;
            for n in 0..200 {
                let buf = pool.alloc(512).expect("memory");
                let ops = [
                    write(&pool, 1, n % 64 * 512, 512, n as u8),
                    DiskOp::Read { id: OpId(2), addr: 0, buf },
                    DiskOp::Flush { id: OpId(3) },
                ];
                errors += ops.into_iter().filter_map(|op| one(&mut disk, op).err()).count() as u64;
            }
            let others = Fault::ALL.into_iter().filter(|other| *other != fault);
            assert!(others.into_iter().all(|other| disk.counters().faults.of(other) == 0));
            let silent =
                matches!(fault, Fault::BitFlip | Fault::Misdirected | Fault::Lost | Fault::Slow);
            let count = disk.counters().faults.of(fault);
            assert_eq!(errors, if silent { 0 } else { count }, "{fault:?}");
            assert!(count > 20, "{fault:?}: {count}");
            count
        });
        assert_eq!(counts[0], counts[1], "{fault:?} is drawn from the seed");
    }
}

#[test]
fn slow_operations_are_overtaken_and_end() {
    let pool = Pool::new(4 << 20);
    let mut disk = SimDisk::new(LEN, SECTOR);
    disk.set_fault_rates(FaultRates::new(1).with(Fault::Slow, 1));
    disk.submit(write(&pool, 0, 0, 512, 1));
    disk.clear_faults();
    disk.submit(write(&pool, 1, 512, 512, 1));
    assert_eq!(disk.complete_next(&mut rng(1)).expect("one is ready").id, OpId(1));
    assert_eq!(disk.complete_next(&mut rng(1)).expect("nothing overtakes it").id, OpId(0));
    assert!(disk.complete_next(&mut rng(1)).is_none());
}

#[test]
fn a_killed_owner_leaves_what_had_ended() {
    let pool = Pool::new(4 << 20);
    let (mut done, mut undone) = (0, 0);
    for seed in 0..64 {
        let mut disk = SimDisk::new(LEN, SECTOR);
        assert_eq!(one(&mut disk, write(&pool, 1, 0, 512, 1)), Ok(()));
        disk.submit(write(&pool, 2, 512, 512, 2));
        disk.abandon(&mut rng(seed));
        assert_eq!((disk.pending(), sector_of(&disk, 0)), (0, 1));
        match sector_of(&disk, 1) {
            2 => done += 1,
            _ => undone += 1,
        }
    }
    assert!(done > 10 && undone > 10, "{done} {undone}");
}

fn sector_on(image: &Image, number: u64) -> u8 {
    let mut bytes = [0; SECTOR as usize];
    image.read_at(number * u64::from(SECTOR), &mut bytes).expect("within");
    bytes[0]
}

proptest! {
    /// Nothing is on an image that a power cut could not leave, and all that it could is found.
    #[test]
    fn tapes_give_what_power_cuts_leave(
        steps in proptest::collection::vec(step(), 0..40), seed: u64,
    ) {
        let (mut disk, model) = recorded(&steps, true);
        let tape = disk.take_tape().expect("recorded");
        let mut player = tape.play();
        while player.step().is_some() {}
        let visible: Vec<u64> = (0..32).map(|n| u64::from(sector_of(&disk, n))).collect();
        let ended = player.air().iter().filter(|write| write.has_ended()).count();
        let (image, _) = player.image(&mut |write, _| write < ended);
        let kept: Vec<u64> = (0..32).map(|n| u64::from(sector_on(&image, n))).collect();
        prop_assert_eq!(kept, visible, "with all that ended the image is what reads see");
        let mut draw = rng(seed);
        let mut coin = rng(seed ^ 1);
        for _ in 0..8 {
            let (image, _) = player.image_reordered(&mut draw, &mut |_, _| coin(2) == 0);
            for sector in 0..32 {
                let (left, possible) = (sector_on(&image, sector), model.possible(sector as usize));
                prop_assert!(possible.contains(&left), "{}: {} of {:?}", sector, left, possible);
            }
        }
        let writes = player.air().len();
        let alone: Vec<Image> =
            (0..=writes).map(|one| player.image(&mut |write, _| write == one).0).collect();
        for sector in 0..32 {
            for wanted in model.possible(sector as usize) {
                let found = alone.iter().any(|image| sector_on(image, sector) == wanted);
                prop_assert!(found, "sector {} is never {}", sector, wanted);
            }
        }
    }
}
