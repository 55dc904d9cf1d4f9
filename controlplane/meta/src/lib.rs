//! The metadata state machine: a pure function of commands.
//!
//! [`Meta::apply`] takes a [`Command`] and returns a [`Reply`] or a [`MetaError`]; it reads no
//! clock, draws no random number and does no I/O, so that every metadata server that applies the
//! same commands holds the same state. What depends on the moment (whether a session is still
//! alive, which copysets are healthy) is decided by the leader that proposes a command, and stated
//! in the command.
//!
//! - [`command`]: one file per command.
//! - [`plan`]: placement decisions, pure functions with their tables.
//! - [`model`]: what the state is made of.

pub mod command;
pub mod error;
pub mod limits;
pub mod model;
pub mod plan;
mod state;

pub use command::{Command, Displace, Reply};
pub use error::MetaError;
pub use model::{Chunkserver, Cluster, Copyset, Drop, Session, SigningKey, Volume, VolumeOptions};
pub use state::Meta;
