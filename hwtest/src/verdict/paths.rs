//! RDMA and shared memory. Neither is needed, since TCP is always there; what is there and cannot
//! be used is worth a warning.

use crate::facts::{Facts, RdmaPort};
use crate::limits::{RDMA_MEMLOCK_BYTES, SHM_PER_EXECUTOR_BYTES};
use crate::report::{Check, Verdict};
use crate::requirements::Requirements;
use crate::verdict::{bytes, ok};

pub(super) fn rdma(facts: &Facts, requirements: &Requirements) -> Check {
    let ports = &facts.rdma;
    let active: Vec<&RdmaPort> = ports.iter().filter(|port| port.state == "ACTIVE").collect();
    let names: Vec<String> = active.iter().copied().map(describe).collect();
    let found = match (names.is_empty(), ports.len()) {
        (false, _) => names.join(", "),
        (true, 0) => "none".to_owned(),
        (true, down) => format!("{down} ports, none active"),
    };
    let check = ok("rdma", found, "none (TCP is used without)");
    if active.is_empty() {
        return check;
    }
    match unusable(&active, facts, requirements) {
        Some(advice) => check.but(Verdict::Warn, advice),
        None => check,
    }
}

fn describe(port: &RdmaPort) -> String {
    let gids = match port.gids.len() {
        1 => "1 GID".to_owned(),
        gids => format!("{gids} GIDs"),
    };
    format!("{}:{} ({}, {}, {gids})", port.device, port.port, port.link_layer, port.rate)
}

/// What keeps this process from ports that are up.
fn unusable(active: &[&RdmaPort], facts: &Facts, requirements: &Requirements) -> Option<String> {
    if !requirements.paths.rdma {
        return Some("this build cannot use it: cargo build --features ucx,rdma".into());
    }
    // On InfiniBand a port without GIDs is not ACTIVE; on Ethernet its network card has no address.
    if active.iter().all(|port| port.gids.is_empty()) {
        return Some("no port has a GID: give its network card an address (ip addr add)".into());
    }
    let need = RDMA_MEMLOCK_BYTES;
    let soft = facts.memlock.soft.filter(|soft| *soft < need && !facts.may_lock_all)?;
    Some(format!(
        "only {} may be locked in memory and RDMA needs {}: ulimit -l unlimited, or \
         LimitMEMLOCK=infinity in the systemd unit",
        bytes(soft),
        bytes(need)
    ))
}

pub(super) fn shared_memory(facts: &Facts, requirements: &Requirements) -> Check {
    let need = SHM_PER_EXECUTOR_BYTES * requirements.executors.max(1) as u64;
    let found = match facts.shared_memory {
        Some(shm) => format!("{} of {} free", bytes(shm.free_bytes), bytes(shm.total_bytes)),
        None => "/dev/shm cannot be written".to_owned(),
    };
    if !requirements.paths.shm {
        let found = format!("{found}; this build does not use it");
        return ok("shared memory", found, "none (TCP is used without)");
    }
    let check = ok("shared memory", found, bytes(need));
    if facts.shared_memory.is_some_and(|shm| shm.free_bytes >= need) {
        return check;
    }
    check.but(
        Verdict::Warn,
        "TCP is used between processes of this host: mount -o remount,size=1G /dev/shm, or in \
         Docker --shm-size=1g",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Gid, Limit, SharedMemory};
    use crate::requirements::Paths;
    use crate::verdict::tests::good;

    fn port(state: &str) -> RdmaPort {
        RdmaPort {
            device: "mlx5_0".into(),
            port: 1,
            state: state.into(),
            link_layer: "Ethernet".into(),
            rate: "100 Gb/sec".into(),
            gids: vec![Gid { index: 1, address: "::1".into(), kind: "RoCE v2".into() }],
        }
    }

    fn with(ports: &[RdmaPort]) -> Facts {
        Facts { rdma: ports.to_vec(), may_lock_all: true, ..good() }
    }

    fn all() -> Requirements {
        Requirements::gateway(2).with_paths(Paths { shm: true, rdma: true })
    }

    #[test]
    fn no_rdma_is_no_fault() {
        let none = rdma(&with(&[]), &Requirements::gateway(1));
        assert_eq!((none.found.as_str(), none.verdict), ("none", Verdict::Ok));
        let down = rdma(&with(&[port("DOWN")]), &all());
        assert_eq!((down.found.as_str(), down.verdict), ("1 ports, none active", Verdict::Ok));
        let up = rdma(&with(&[port("ACTIVE"), port("DOWN")]), &all());
        assert_eq!(up.found, "mlx5_0:1 (Ethernet, 100 Gb/sec, 1 GID)");
        assert_eq!(up.verdict, Verdict::Ok);
    }

    #[test]
    fn rdma_that_cannot_be_used_says_why() {
        let warns = |facts: &Facts, requirements: &Requirements, words: &str| {
            let check = rdma(facts, requirements);
            assert_eq!(check.verdict, Verdict::Warn, "{check}");
            assert!(check.advice.contains(words), "{check}");
        };
        let up = with(&[port("ACTIVE")]);
        warns(&up, &Requirements::gateway(1), "--features ucx,rdma");
        let bare = RdmaPort { gids: vec![], ..port("ACTIVE") };
        warns(&with(&[bare]), &all(), "ip addr add");
        let limit = |soft| Limit { soft, hard: None };
        let tight = Facts { memlock: limit(Some(8 << 20)), may_lock_all: false, ..up.clone() };
        warns(&tight, &all(), "only 8 MiB may be locked");
        let enough = Facts { memlock: limit(Some(RDMA_MEMLOCK_BYTES)), ..tight.clone() };
        assert_eq!(rdma(&enough, &all()).verdict, Verdict::Ok);
        let unlimited = Facts { memlock: limit(None), ..tight };
        assert_eq!(rdma(&unlimited, &all()).verdict, Verdict::Ok);
    }

    #[test]
    fn shared_memory_counts_for_builds_that_use_it() {
        let check = |free_bytes, requirements: &Requirements| {
            let shm = SharedMemory { total_bytes: 64 << 20, free_bytes };
            shared_memory(&Facts { shared_memory: Some(shm), ..good() }, requirements)
        };
        let need = 2 * SHM_PER_EXECUTOR_BYTES;
        assert_eq!(check(need, &all()).verdict, Verdict::Ok);
        assert_eq!(check(need, &all()).found, "32 MiB of 64 MiB free");
        let short = check(need - 1, &all());
        assert!(short.verdict == Verdict::Warn && short.advice.contains("--shm-size"), "{short}");
        assert_eq!(check(0, &Requirements::gateway(2)).verdict, Verdict::Ok);
        assert_eq!(shared_memory(&good(), &all()).verdict, Verdict::Warn);
    }
}
