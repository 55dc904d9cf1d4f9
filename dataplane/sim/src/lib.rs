//! Deterministic simulation of whole clusters of real shards.
//!
//! Real shards over real stores, real clients, in one thread, from one seed. Only what lies outside
//! of them is simulated: the network, the disks, the clocks, the metadata servers' answers, and
//! what goes wrong. A seed decides everything, so a failing one can be replayed.
//!
//! | file | content |
//! |---|---|
//! | `world/` | the cluster, its load, its faults, its checks |
//! | `net.rs` | connections as the transports promise them, with the unkindness of real ones |
//! | `model.rs` | each quarter of a block as a register that must be linearizable |
//! | `options.rs` | what to run, known bugs |
//! | `fault.rs`, `shape.rs` | what goes wrong, and what a world consists of |
//! | `agenda.rs`, `rng.rs`, `report.rs`, `limits.rs` | time, chance, results, bounds |
//!
//! A run has two phases: load and faults; then all faults stop, and within a bounded time every
//! operation must be over, every copyset led, every replica equal, every block readable, and every
//! store must survive a last power cut.

mod agenda;
mod fault;
pub mod limits;
mod model;
mod net;
mod options;
mod report;
mod rng;
mod shape;
mod world;

pub use fault::{Fault, FaultSet};
pub use options::{CHAOS_US, Mutant, Options};
pub use report::{Failure, Report};
pub use rng::Rng;

/// Runs one world.
///
/// # Errors
/// What was wrong, with the seed that leads there. A panic of the code under test is not caught.
pub fn run(options: Options) -> Result<Report, Box<Failure>> {
    world::World::new(options).run().map_err(Box::new)
}
