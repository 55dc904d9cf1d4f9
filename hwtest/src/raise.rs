//! Raises the soft limits of this process to what a role needs, as far as the hard limits allow;
//! with CAP_SYS_RESOURCE those too.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::facts::Limit;
use crate::limits::RDMA_MEMLOCK_BYTES;
use crate::probe::{memlock, nofile};
use crate::requirements::Requirements;

/// Raises RLIMIT_MEMLOCK and RLIMIT_NOFILE of this process where they are too low. Never lowers
/// one and never fails: what could not be raised is for [`check`](crate::check) to report.
pub fn raise_limits(requirements: &Requirements) {
    // RDMA wants more, but does without: that is asked for here and not demanded there.
    let rdma = if requirements.paths.rdma { RDMA_MEMLOCK_BYTES } else { 0 };
    raise(Resource::Memlock, memlock(), requirements.memlock_bytes(false) + rdma);
    raise(Resource::Nofile, nofile(), requirements.open_files);
}

fn raise(resource: Resource, present: Limit, needed: u64) {
    for Limit { soft, hard } in candidates(present, needed) {
        if setrlimit(resource, Rlimit { current: soft, maximum: hard }).is_ok() {
            return;
        }
    }
}

/// Limits to try, best first: all that is needed, then all that is allowed.
fn candidates(present: Limit, needed: u64) -> Vec<Limit> {
    let Some(soft) = present.soft.filter(|soft| *soft < needed) else {
        return Vec::new();
    };
    match present.hard {
        Some(hard) if hard < needed => {
            let all = Limit { soft: Some(needed), hard: Some(needed) };
            let some = Limit { soft: Some(hard), hard: Some(hard) };
            if hard > soft { vec![all, some] } else { vec![all] }
        }
        hard => vec![Limit { soft: Some(needed), hard }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(soft: u64, hard: Option<u64>) -> Limit {
        Limit { soft: Some(soft), hard }
    }

    #[test]
    fn limits_only_rise() {
        assert_eq!(candidates(limit(10, Some(20)), 10), []);
        assert_eq!(candidates(Limit { soft: None, hard: None }, 10), []);
        assert_eq!(candidates(limit(5, Some(20)), 10), [limit(10, Some(20))]);
        assert_eq!(candidates(limit(5, None), 10), [limit(10, None)]);
        assert_eq!(candidates(limit(5, Some(8)), 10), [limit(10, Some(10)), limit(8, Some(8))]);
        assert_eq!(candidates(limit(8, Some(8)), 10), [limit(10, Some(10))]);
    }
}
