//! The metadata server: openraft, redb and tonic around the state machine of `ogive-meta`.
//!
//! A request takes this way: `service` (one file per group of calls) asks the `gate` whether this
//! server leads, decides with `volatile` knowledge what the command shall say, hands it to the
//! `proposer`, which makes one log entry of all commands that wait, and turns the state machine's
//! reply into the answer. `background` creates copysets. `health` judges the cluster.
//!
//! - `raft`: log and snapshots in redb, the network between servers, the state machine's frame.
//! - `tokens`: what chunkservers and sessions show to each other, signed.
//! - `datadir`: what lies in the data directory, and whose it is.

mod background;
mod config;
mod datadir;
mod error;
mod gate;
mod health;
pub mod limits;
mod node;
mod proposer;
mod raft;
mod server;
mod service;
mod tokens;
mod volatile;

pub use config::{MdsConfig, Timing};
pub use datadir::FORMAT as FORMAT_VERSION;
pub use error::MdsError;
pub use server::serve;
