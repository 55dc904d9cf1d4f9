//! Load generators and benchmarks.
//!
//! [`VolumeBench`] loads one volume through NBD and measures it; with `verify` it also proves that
//! what is read was written. The decisions (which request next, what a block may hold, how long the
//! longest gap was) are pure; `engine` is the shell with the sockets and the clock.
//!
//! | file | content |
//! |---|---|
//! | `spec.rs` | what a run is asked to do |
//! | `load.rs` | state machine of a run: requests, completions, stages |
//! | `engine.rs`, `link.rs` | the loop over sockets and clock; connecting again |
//! | `verify/` | block contents, the model of a volume, findings |
//! | `gap.rs`, `stats.rs`, `report.rs` | measures |
//! | `nbd/` | NBD client |
//! | [`history`] | many clients whose history is judged |
//! | [`copyset`] | the replication core alone |
//! | [`store`] | a store on a file or device, beside fio |
//! | [`rpc`] | the transports of the data plane between two processes, beside references |

pub mod copyset;
mod engine;
mod gap;
pub mod history;
pub mod limits;
mod link;
mod load;
mod nbd;
mod places;
#[cfg(test)]
mod ram_server;
mod report;
mod rng;
pub mod rpc;
#[cfg(test)]
mod scenarios;
mod spec;
mod stats;
pub mod store;
mod verify;

pub use engine::{Running, StopHandle};
pub use gap::{Gap, GapMeter};
pub use nbd::{Address, ConnectError, NbdUri, UriError};
pub use report::{Latency, OpReport, Progress, Report, Stage};
pub use spec::{BenchError, Pattern, VolumeBench};
pub use verify::{Fault, FaultKind, VerifyReport};
