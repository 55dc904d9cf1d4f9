//! What this host can do: start-up checks and the doctor report.
//!
//! [`probe`] asks the system and returns [`Facts`]; [`judge`] compares them with the
//! [`Requirements`] of a role and returns a [`Report`], whose failures each say what to do.
//! [`check`] does both. Verdicts are pure, so that every refusal is tested without the machine
//! that would cause it.
//!
//! | file | content |
//! |---|---|
//! | `facts.rs` | what was found, plain data |
//! | `probe/` | the shell that finds it: io_uring, limits, /sys, storage |
//! | `requirements.rs` | what each role needs |
//! | `verdict/` | facts and requirements to checks |
//! | `report.rs` | checks as a table and as JSON |
//! | `measure.rs` | a half-second measurement of a device |
//! | `raise.rs` | raises this process's own limits as far as it may |

pub mod facts;
pub mod limits;
mod measure;
mod probe;
mod raise;
mod report;
mod requirements;
mod verdict;

pub use facts::Facts;
pub use measure::{DeviceLatencies, MeasureError, Percentiles, measure};
pub use probe::probe;
pub use raise::raise_limits;
pub use report::{Check, Report, Verdict};
pub use requirements::{Paths, Requirements, Role, StorageNeed, StorageUse};
pub use verdict::judge;

/// Probes this host and judges it by what a role needs.
pub fn check(requirements: &Requirements) -> Report {
    judge(&probe(requirements), requirements)
}
