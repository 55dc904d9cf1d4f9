//! The engine against a model, on a simulated disk: random work, power cuts at any moment, rot.

mod delta;
mod faults;
mod load;
mod repair;
mod rot;

use ogive_crash::pair;
use ogive_crash::world::{Mix, World};
use ogive_store::audit;

/// The seed in `OGIVE_SEED`, or the first `OGIVE_SEEDS`, or the first `count`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OGIVE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OGIVE_SEEDS").unwrap_or(count),
    }
}

fn live(seed: u64, steps: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step(&Mix::default());
        if world.rng.once_in(120) {
            world.crash();
        }
        if world.rng.once_in(50) {
            world.settle();
            world.compare_states();
            audit(&world.store).expect("consistent at rest");
        }
    }
    world.settle();
    world.compare_content();
    audit(&world.store).expect("consistent at the end");
    world
}

#[test]
fn random_lives_with_power_cuts_agree_with_the_model() {
    let (mut crashes, mut checkpoints, mut refused) = (0, 0, 0);
    for seed in seeds(100) {
        println!("seed {seed}");
        let world = live(seed, 600);
        crashes += world.crashes;
        checkpoints += world.checkpoints;
        refused += world.refused;
    }
    println!("{crashes} crashes, {checkpoints} checkpoints, {refused} refusals");
}

#[test]
fn deltas_bring_a_replica_level_through_power_cuts() {
    let (mut done, mut cut) = (0, 0);
    for seed in seeds(40) {
        println!("seed {seed}");
        let counts = pair::live(seed, 6);
        done += counts.0;
        cut += counts.1;
    }
    println!("{done} deltas, {cut} cut short");
}
