//! `ogive bench rpc`: the transports of the data plane between two processes, beside references in
//! the same run.
//!
//! Each *contender* (a path of our transport, a bare socket program, tonic) has a second process
//! that serves it, and makes a new connection for each measurement. The contenders take turns in
//! rounds, so that whatever else the machine does hits all alike; what counts is the ratio of a
//! round, and the median of those.
//!
//! | file | content |
//! |---|---|
//! | `spec.rs` | what to measure; [`RpcBench`] |
//! | `run.rs` | the rounds over cases and contenders |
//! | `drive.rs` | the loop that keeps requests in flight and times them |
//! | `wire.rs` | one connection of our transport; the process that answers |
//! | `bare.rs` | the same bytes over a plain socket, as one writes it at first |
//! | `unary.rs` | the same over tonic |
//! | `perftest.rs` | `ucx_perftest`, run and read |
//! | `peer.rs`, `cores.rs`, `cpu.rs` | the second process, where both run, what they burn |
//! | `sample.rs`, `budget.rs`, `report.rs` | figures, verdicts, the table |

mod bare;
mod budget;
mod cores;
mod cpu;
mod drive;
mod peer;
mod perftest;
mod report;
mod run;
mod sample;
mod spec;
mod unary;
mod wire;

pub use budget::{Budget, Verdict};
pub use cores::Cores;
pub(crate) use cores::pin;
pub use peer::{PeerKind, serve};
pub(crate) use report::write_verdict;
pub use report::{CaseReport, Entry, Present, RpcReport};
pub use sample::{Sample, Spread};
pub(crate) use spec::Bytes;
pub use spec::{Case, Contender, Pattern, RpcBench, RpcBenchError};
