//! `ogive bench store`: one shard's engine on a file or device, without a network, beside fio on
//! the same one.
//!
//! The first half of the file is formatted for a store, the second is fio's: the same device, the
//! same file system, the same run. Both take turns in rounds, so that whatever else the machine
//! does hits both alike; what counts is the ratio of a round, and the median of those.
//!
//! | file | content |
//! |---|---|
//! | `spec.rs` | what to measure; [`StoreBench`] |
//! | `place.rs` | the file or device, and its two halves |
//! | `run.rs` | the rounds over cases and contenders |
//! | `drive.rs`, `load.rs` | the loop over store and disk ring; the next request |
//! | `fio.rs` | fio, run and read |
//! | `engine.rs` | the engine alone: every operation ends at once |
//! | `sizes.rs`, `sparse.rs` | recovery, checkpoint and memory against the mapped size |
//! | `counters.rs` | bytes that reached the device, processor time of a thread |
//! | `sample.rs`, `budget.rs`, `report.rs` | figures, verdicts, the table |

mod budget;
mod counters;
mod drive;
mod engine;
mod fio;
mod load;
mod place;
mod report;
mod run;
mod sample;
mod sizes;
mod sparse;
mod spec;

pub use engine::EngineCost;
pub use report::{CaseReport, Entry, StoreReport};
pub use sample::{Amplification, Sample};
pub use sizes::{Data, SizeReport};
pub use spec::{Case, Contender, Pattern, StoreBench, StoreBenchError, Wait};
