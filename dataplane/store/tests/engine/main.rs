//! The engine against a model, on a simulated disk: random work, power cuts at any moment, rot.

mod model;
mod world;

use ogive_store::audit;

use crate::world::World;

/// Seeds from `OGIVE_SEED` (one) or the first `count`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("OGIVE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn live(seed: u64, steps: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
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
    for seed in seeds(150) {
        println!("seed {seed}");
        let world = live(seed, 600);
        crashes += world.crashes;
        checkpoints += world.checkpoints;
        refused += world.refused;
    }
    println!("{crashes} crashes, {checkpoints} checkpoints, {refused} refusals");
}
