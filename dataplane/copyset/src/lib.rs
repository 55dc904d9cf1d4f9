//! The replication state machine of one copyset: Raft over indexes, without I/O.
//!
//! [`Copyset`] decides and its owner, the shard, does: every event is a method call, and what must
//! happen is appended to a list of [`Effect`]s, to be executed in order. The core never sees data.
//! It knows the shape of the log (which term each index has) and who holds how much of it; the
//! entries and their blocks lie in the shard's store. No clock, no socket, no randomness but a
//! seed: the same calls give the same effects.
//!
//! | file | state machine or part |
//! |---|---|
//! | `copyset.rs` | the struct, the timer, what can be asked of it |
//! | `election.rs` | roles, votes and pre-votes, leader stickiness |
//! | `matching.rs` | the follower's log: match, truncate, answer once persisted |
//! | `leading.rs` | the leader's sending and the answers that it gets |
//! | `progress.rs` | what the leader knows of one follower: probe, replicate, delta |
//! | `commit.rs` | how far the log is committed |
//! | `lease.rs` | reads without a round trip, check-quorum |
//! | `reads.rs` | reads with a round trip, when the lease is in doubt |
//! | `transfer.rs` | handing leadership over, by request or to the preferred replica |
//! | `hard.rs` | term and vote on stable storage before any answer that depends on them |
//! | `terms.rs` | the shape of the log as runs of terms |
//!
//! The life of a write, on the leader: [`Copyset::propose`] gives its position; the shard appends
//! it to its store and calls [`Copyset::replicate`]; [`Effect::Replicate`] says what to send to
//! whom; [`Copyset::persisted`] and [`Copyset::on_append_reply`] count; [`Effect::Commit`] says
//! that a majority has it. On a follower: [`Copyset::on_append`] says what to store,
//! [`Copyset::persisted`] releases [`Effect::AppendReply`]. The arguments for safety are in
//! `design/0001-raft-over-indexes.md`.

#[cfg(test)]
mod cluster;
mod commit;
mod config;
mod copyset;
mod effect;
mod election;
mod hard;
mod leading;
mod lease;
pub mod limits;
mod matching;
mod mutant;
mod progress;
mod quorum;
mod reads;
mod rng;
mod status;
mod terms;
#[cfg(test)]
mod testkit;
mod transfer;

pub use config::{Config, Priority, Timing};
pub use copyset::Copyset;
pub use effect::{
    AppendMeta, Appending, Effect, HardState, NotLeader, NotReadable, ReadState, Restored,
};
pub use election::Role;
pub use progress::ProgressState;
pub use status::{FollowerStatus, Status};
pub use terms::TermRun;
