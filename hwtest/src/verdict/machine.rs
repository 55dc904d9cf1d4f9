//! Processors, memory, huge pages.

use crate::facts::Machine;
use crate::report::{Check, Verdict};
use crate::requirements::Requirements;
use crate::verdict::{bytes, ok};

pub(super) fn cpus(machine: &Machine, requirements: &Requirements) -> Check {
    let usable = usable(machine);
    let mut found = format!("{} of {}", machine.cpus_allowed, machine.cpus_online);
    if let Some(quota) = machine.cpu_quota {
        found += &format!(", cgroup grants {quota:.1}");
    }
    found += &format!("; {} cores", machine.cores);
    if machine.cpus_online > machine.cores {
        found += " with SMT";
    }
    if machine.numa_nodes > 1 {
        found += &format!(", {} NUMA nodes", machine.numa_nodes);
    }
    let needed = requirements.executors.max(1);
    let check = ok("cpus", found, format!("{needed} or more"));
    if usable >= needed as f64 {
        return check;
    }
    check.but(
        Verdict::Warn,
        format!("executors will share processors; run with {} or fewer", usable.max(1.0) as usize),
    )
}

/// Processors' worth of time.
fn usable(machine: &Machine) -> f64 {
    let allowed = machine.cpus_allowed as f64;
    machine.cpu_quota.map_or(allowed, |quota| quota.min(allowed))
}

pub(super) fn memory(machine: &Machine, requirements: &Requirements) -> Check {
    let needed = requirements.memory_bytes;
    let found = format!("{} available", bytes(machine.memory_available));
    let check = ok("memory", found, bytes(needed));
    // Without /proc nothing is known, and nothing is held against the host.
    if machine.memory_available >= needed || machine.memory_total == 0 {
        return check;
    }
    let short = bytes(needed - machine.memory_available);
    check.but(
        Verdict::Fail,
        format!("free {short} more (`ps aux --sort=-rss | head`), or run fewer executors"),
    )
}

pub(super) fn hugepages(machine: &Machine) -> Check {
    let found = match machine.hugepages_total {
        0 => "none".to_owned(),
        total => format!(
            "{} of {total} free, {} each",
            machine.hugepages_free,
            bytes(machine.hugepage_bytes)
        ),
    };
    ok("hugepages", found, "none (vhost-user will use them)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::good;

    #[test]
    fn a_cgroup_counts_like_missing_processors() {
        let mut machine = good().machine;
        assert_eq!(cpus(&machine, &Requirements::gateway(8)).verdict, Verdict::Ok);
        assert_eq!(cpus(&machine, &Requirements::gateway(9)).verdict, Verdict::Warn);
        machine.cpu_quota = Some(1.5);
        let check = cpus(&machine, &Requirements::gateway(2));
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.advice.ends_with("with 1 or fewer"), "{}", check.advice);
        assert!(check.found.contains("SMT"), "{}", check.found);
    }

    #[test]
    fn memory_must_be_there() {
        let mut machine = good().machine;
        let needs = Requirements { memory_bytes: 1 << 30, ..Requirements::gateway(1) };
        machine.memory_available = 1 << 30;
        assert_eq!(memory(&machine, &needs).verdict, Verdict::Ok);
        machine.memory_available -= 1 << 20;
        let check = memory(&machine, &needs);
        assert!(check.verdict == Verdict::Fail && check.advice.contains("1 MiB"));
        let unknown = Machine::default();
        assert_eq!(memory(&unknown, &needs).verdict, Verdict::Ok);
    }

    #[test]
    fn hugepages_only_inform() {
        let pages = Machine {
            hugepages_total: 4,
            hugepages_free: 3,
            hugepage_bytes: 2 << 20,
            ..Machine::default()
        };
        assert_eq!(hugepages(&pages).found, "3 of 4 free, 2 MiB each");
    }
}
