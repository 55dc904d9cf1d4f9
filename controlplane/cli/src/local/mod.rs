//! A whole cluster on this machine, as separate processes on loopback: what `ogive demo` runs and
//! what the tests of real processes break.
//!
//! Everything lies in one directory: `device/`, `mds/`, `log/`, the gateway's socket, and
//! `cluster.json`, which names the processes so that a later command can find and stop them.

mod cluster;
pub mod net;
mod ports;
mod process;

pub use cluster::{LocalCluster, LocalError, Options, State, freeze, remove};
pub use process::{Part, Process};
