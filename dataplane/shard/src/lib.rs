//! A shard: copysets, store and sessions behind one synchronous `apply`.
//!
//! The heart of the data plane. A [`Shard`] owns its part of a device and the replicas on it. It is
//! told what happened ([`Event`]) and says what to do ([`Effect`]); it has no clock, socket, thread
//! or lock of its own. The production loop and the simulator feed the same code.
//!
//! The path of a write:
//!
//! 1. `io`: the request is checked (leader, fence, checksums) and appended to the leader's store,
//!    which starts its disk writes; it waits in its group for the commit;
//! 2. `outbox`: the entries go to the followers from the buffer in which they arrived, while our
//!    own disk writes run;
//! 3. `replica`: a follower checks and appends them, and answers when its store says that they are
//!    persisted;
//! 4. `group`: the core counts; at the commit the waiting request is answered, and the store
//!    applies the entry.
//!
//! Blocks that reads or the `scrub` find damaged are fetched from a peer (`repair`, `fetch`) and
//! written anew.

mod calls;
mod delta;
mod effects;
mod event;
mod fetch;
mod group;
mod io;
pub mod limits;
mod outbox;
mod peers;
mod repair;
mod replica;
mod report;
mod scrub;
mod sessions;
mod shard;
mod stored;

pub use event::{Admin, Effect, Event, ReplicaSpec};
pub use report::{Health, RepairReport, ReplicaReport, ReplicaRole, ScrubReport};
pub use scrub::ScrubOptions;
pub use shard::{Shard, ShardOptions, Stats};
