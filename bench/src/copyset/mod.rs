//! What a replication core costs: processor time per committed operation and node, and for idle
//! groups, without disks and network.
//!
//! Every contender has groups of three replicas in this thread. A payload of 4 KiB is passed by
//! reference: an entry names it, no core copies it. Messages are delivered and entries persisted at
//! once, one operation at a time, so nothing is batched. The contenders take turns, round by round.
//!
//! Ours is in the `ogive` binary; raft-rs and openraft, which the same harness drives, are in
//! `bench/references`, a workspace of its own: they would bring two dozen crates and a second
//! protobuf into what is shipped.
//!
//! | file | content |
//! |---|---|
//! | `contender.rs` | what the harness asks of a core |
//! | `ours.rs` | Ogive's core |
//! | `run.rs` | rounds |
//! | `report.rs` | figures, for people and as JSON |

mod contender;
mod ours;
mod report;
mod run;

pub use contender::{Contender, IDLE_TICK, NODES, Payload};
pub use ours::Ours;
pub use report::{CopysetReport, Figure, Idle};
pub use run::CopysetBench;
