//! Every power cut, and much rot, tried on the store.
//!
//! | file | content |
//! |---|---|
//! | `model.rs`, `promise.rs` | what a store must hold, and what of it is sure to survive |
//! | `world.rs` | a store on a simulated disk beside its model, driven at random |
//! | `pair.rs` | two of them, one brought forward by deltas of the other |
//! | `scenario.rs` | what a recorded life is about |
//! | `points.rs` | cuts the power at every place of it, in every way or in many |
//! | `damage.rs` | flips, swaps, loses and clears what lies on its media |
//! | `examine.rs`, `recovered.rs` | opens an image and compares what it shows with the promises |
//! | `hostile.rs` | bytes that nobody wrote |
//! | `cover.rs`, `area.rs` | what was tried, and where |

pub mod area;
pub mod cover;
pub mod damage;
pub mod examine;
pub mod hostile;
pub mod model;
pub mod pair;
pub mod points;
pub mod promise;
pub mod recovered;
pub mod rng;
pub mod scenario;
pub mod world;

/// Records the life that follows from a seed and looks at every medium that it could have left.
///
/// # Errors
/// What is wrong. Some of what can be wrong is a panic.
pub fn run(seed: u64) -> Result<cover::Cover, String> {
    run_with(seed, scenario::Scenario::of(seed), &points::Effort::default())
}

/// [`run`] with a scenario of choice, and more or less effort.
///
/// # Errors
/// What is wrong. Some of what can be wrong is a panic.
pub fn run_with(
    seed: u64,
    scenario: scenario::Scenario,
    effort: &points::Effort,
) -> Result<cover::Cover, String> {
    let mut rng = rng::Rng(!seed);
    let mut world = scenario.live(seed);
    let tape = world.disk.take_tape().expect("it was recorded");
    let place = |what| format!("{}: {what}", scenario.name());
    let fork = rng::Rng(rng.below(u64::MAX));
    let mut explorer = points::Explorer::new(&world, &tape, scenario.mix(), *effort, fork);
    explorer.run().map_err(place)?;
    let mut damager = damage::Damager::new(&world, &tape, rng);
    damager.run(effort.damaged_places).map_err(place)?;
    let mut cover = explorer.cover;
    cover.add(&damager.cover);
    *cover.lives.entry(scenario).or_default() += 1;
    Ok(cover)
}
