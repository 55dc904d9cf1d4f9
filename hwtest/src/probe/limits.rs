//! Limits of this process.

use rustix::process::{Resource, getrlimit};

use crate::facts::Limit;
use crate::probe::Root;

/// Bit of CAP_IPC_LOCK in the capability sets.
const CAP_IPC_LOCK: u32 = 14;

/// RLIMIT_MEMLOCK.
pub(crate) fn memlock() -> Limit {
    limit(Resource::Memlock)
}

/// RLIMIT_NOFILE.
pub(crate) fn nofile() -> Limit {
    limit(Resource::Nofile)
}

fn limit(resource: Resource) -> Limit {
    let limit = getrlimit(resource);
    Limit { soft: limit.current, hard: limit.maximum }
}

/// True with CAP_IPC_LOCK.
pub(super) fn may_lock_all(root: &Root) -> bool {
    let status = root.read("proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}
