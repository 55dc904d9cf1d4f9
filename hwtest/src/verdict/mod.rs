//! Facts against requirements: pure functions, one for each check.
//!
//! | check | fails when | warns when |
//! |---|---|---|
//! | `kernel` | | older than 6.1 |
//! | `io_uring` | no ring can be made, or an operation is missing | |
//! | `memlock`, `open files` | the limit is below the need | |
//! | `cpus` | | fewer than executors |
//! | `memory` | less available than needed | |
//! | `direct I/O` | refused (for blocks), or logical blocks above 4 KiB | in RAM (tmpfs) |
//! | `free space` | less than needed | |
//! | `write cache` | | unknown: flushes are then always sent |
//! | `rdma` | | a port is up and this process cannot use it |
//! | `shared memory` | | the build could use it and there is too little |
//! | `hugepages` | never: it only informs | |

mod kernel;
mod machine;
mod paths;
mod storage;

use crate::facts::Facts;
use crate::report::{Check, Report, Verdict};
use crate::requirements::Requirements;

/// Judges what a probe of these same requirements found.
pub fn judge(facts: &Facts, requirements: &Requirements) -> Report {
    let mut checks = Vec::new();
    if requirements.executors > 0 {
        checks.push(kernel::kernel(facts));
        checks.push(kernel::uring(&facts.uring));
        checks.push(kernel::memlock(facts, requirements));
    }
    checks.push(kernel::nofile(facts, requirements));
    checks.push(machine::cpus(&facts.machine, requirements));
    checks.push(machine::memory(&facts.machine, requirements));
    if requirements.executors > 0 {
        checks.push(machine::hugepages(&facts.machine));
        checks.push(paths::rdma(facts, requirements));
        checks.push(paths::shared_memory(facts, requirements));
    }
    for (storage, need) in facts.storage.iter().zip(&requirements.storage) {
        checks.extend(storage::all(storage, need));
    }
    let advised = |check: &Check| check.verdict != Verdict::Fail || !check.advice.is_empty();
    assert!(checks.iter().all(advised), "every failure says what to do");
    Report { role: requirements.role, checks }
}

/// A check that came out well.
fn ok(name: &str, found: impl Into<String>, needed: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        verdict: Verdict::Ok,
        found: found.into(),
        needed: needed.into(),
        advice: String::new(),
    }
}

impl Check {
    /// The same with another verdict and what to do.
    fn but(self, verdict: Verdict, advice: impl Into<String>) -> Check {
        Check { verdict, advice: advice.into(), ..self }
    }
}

/// Bytes for people: `1.5 GiB`.
fn bytes(amount: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if amount >= unit {
            let tenths = amount * 10 / unit;
            let fraction = if tenths < 1000 && !tenths.is_multiple_of(10) {
                format!(".{}", tenths % 10)
            } else {
                String::new()
            };
            return format!("{}{fraction} {name}", tenths / 10);
        }
    }
    format!("{amount} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Attempt, Limit, Machine, Uring};
    use std::path::Path;

    pub(super) fn good() -> Facts {
        Facts {
            kernel: "6.18.1".into(),
            uring: Uring {
                setup: Attempt::Works,
                data_plane_setup: Attempt::Works,
                disabled: Some(0),
                missing: vec![],
            },
            memlock: Limit { soft: Some(8 << 20), hard: Some(8 << 20) },
            may_lock_all: false,
            nofile: Limit { soft: Some(20_000), hard: None },
            machine: Machine {
                cpus_online: 8,
                cpus_allowed: 8,
                cores: 4,
                numa_nodes: 1,
                memory_total: 16 << 30,
                memory_available: 8 << 30,
                ..Machine::default()
            },
            rdma: vec![],
            shared_memory: None,
            storage: vec![],
        }
    }

    #[test]
    fn a_good_host_passes_and_a_role_without_a_ring_is_not_asked_for_one() {
        let gateway = Requirements::gateway(2);
        assert_eq!(judge(&good(), &gateway).worst(), Verdict::Ok);
        let mut facts = good();
        facts.uring.setup = Attempt::Refused { step: "io_uring_setup".into(), errno: libc::EPERM };
        assert!(!judge(&facts, &gateway).may_start());
        let mds = Requirements { storage: vec![], ..Requirements::mds(Path::new("/")) };
        assert!(judge(&facts, &mds).may_start());
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(8 << 20), "8 MiB");
        assert_eq!(bytes(200 << 30), "200 GiB");
        assert_eq!(bytes(5 << 40), "5 TiB");
    }
}
