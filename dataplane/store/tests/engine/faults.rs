//! Disks that fail while a store lives on them.

use ogive_crash::rng::Rng;
use ogive_crash::world::{Mix, Setup, World};
use ogive_store::audit;
use ogive_store::simdisk::{Fault, FaultCounts, FaultRates};
use ogive_types::CopysetId;

use crate::seeds;

/// A life of so many steps under faults; true when the store gave up.
fn live(world: &mut World, rates: FaultRates, steps: u64, mix: &Mix) -> bool {
    world.expect_faults(true);
    world.disk.set_fault_rates(rates);
    for _ in 0..steps {
        world.step(mix);
        if world.failed {
            break;
        }
    }
    world.settle();
    world.failed
}

fn world(seed: u64) -> World {
    let mut rng = Rng(seed);
    let setup = Setup::draw(&mut rng);
    World::with(setup, rng)
}

fn mix() -> Mix {
    Mix { quiet: 0, ..Mix::default() }
}

/// Errors, a full device and slow operations lose nothing: after the first failure of a write
/// nothing is promised any more, and a restart has all that was.
#[test]
fn a_disk_that_says_that_it_failed_costs_nothing_promised() {
    let (mut counts, mut gave_up) = (FaultCounts::default(), 0);
    for seed in seeds(60) {
        println!("seed {seed}");
        let mut world = world(seed);
        for life in 0..4 {
            let rates = FaultRates::new(seed ^ life << 32)
                .with(Fault::ReadError, 40)
                .with(Fault::WriteError, 250)
                .with(Fault::FlushError, 25)
                .with(Fault::Full, 400)
                .with(Fault::Slow, 20);
            gave_up += u64::from(live(&mut world, rates, 150, &mix()));
            world.disk.clear_faults();
            world.expect_faults(false);
            world.crash();
            world.settle();
            world.compare_content();
            audit(&world.store).expect("consistent after it is well again");
        }
        counts.add(&world.disk.counters().faults);
    }
    println!("{gave_up} gave up: {counts:?}");
    let happened = [Fault::ReadError, Fault::WriteError, Fault::FlushError, Fault::Full];
    assert!(happened.iter().all(|&fault| counts.of(fault) > 10), "{counts:?}");
    assert!(counts.of(Fault::Slow) > 100 && gave_up > 60, "{gave_up}: {counts:?}");
}

/// A disk that lies: reads give what was written, or say that it is damaged.
#[test]
fn a_disk_that_lies_is_found_out_and_never_believed() {
    let (mut counts, mut damaged) = (FaultCounts::default(), 0);
    for seed in seeds(60) {
        println!("seed {seed}");
        let mut world = world(seed);
        world.create(CopysetId(1));
        world.settle();
        let rates = FaultRates::new(seed)
            .with(Fault::BitFlip, 20)
            .with(Fault::Misdirected, 60)
            .with(Fault::Lost, 20);
        let mix = Mix { read: 30, ..mix() };
        // A map page that is read back damaged is the end of a store.
        let all_in_memory = world.setup.options.map_bytes_max >= 1 << 30;
        let gave_up = live(&mut world, rates, 300, &mix);
        assert!(!(gave_up && all_in_memory), "nothing said that it failed");
        if gave_up {
            continue;
        }
        world.compare_content();
        damaged += world.damaged;
        counts.add(&world.disk.counters().faults);
    }
    println!("damage named {damaged} times: {counts:?}");
    let happened = [Fault::BitFlip, Fault::Misdirected, Fault::Lost];
    assert!(happened.iter().all(|&fault| counts.of(fault) > 10) && damaged > 100, "{counts:?}");
}

/// The process dies and the machine does not: what is in the disk's cache is read by the next
/// store, which counts it as persisted, and must not lose it in a power cut.
#[test]
fn what_a_killed_process_left_in_the_cache_is_not_lost_later() {
    for seed in seeds(60) {
        println!("seed {seed}");
        let mut world = world(seed);
        for _ in 0..8 {
            for _ in 0..world.rng.below(40) {
                world.step(&mix());
            }
            world.kill();
            if world.rng.once_in(2) {
                world.crash();
            }
        }
        world.settle();
        world.compare_content();
        audit(&world.store).expect("consistent at the end");
    }
}
