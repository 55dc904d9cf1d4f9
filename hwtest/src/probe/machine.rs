//! Processors, NUMA nodes and memory, from /sys and /proc.

use std::collections::BTreeSet;
use std::path::Path;

use crate::facts::Machine;
use crate::probe::Root;

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";

pub(super) fn probe(root: &Root) -> Machine {
    let online = cpu_list(&root.read(Path::new(CPUS).join("online")).unwrap_or_default());
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let status = root.read("proc/self/status").unwrap_or_default();
    let affinity = field(&status, "Cpus_allowed_list:").map(cpu_list);
    let memory = root.read("proc/meminfo").unwrap_or_default();
    let kib = |name| number(&memory, name).map_or(0, |n| n << 10);
    Machine {
        cpus_online: online.len().max(1),
        cpus_allowed: affinity.map_or(allowed, |list| list.len().max(1)),
        cpu_quota: cpu_quota(root),
        cores: cores(root, &online).max(1),
        numa_nodes: numa_nodes(root).max(1),
        memory_total: kib("MemTotal:"),
        memory_available: kib("MemAvailable:"),
        hugepages_total: number(&memory, "HugePages_Total:").unwrap_or(0),
        hugepages_free: number(&memory, "HugePages_Free:").unwrap_or(0),
        hugepage_bytes: kib("Hugepagesize:"),
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn number(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split_whitespace().next()?.parse().ok()
}

/// The numbers of a list such as `0-3,8`; what is malformed is left out.
fn cpu_list(text: &str) -> BTreeSet<usize> {
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>())
            && last < 1 << 16
        {
            cpus.extend(first..=last);
        }
    }
    cpus
}

fn cores(root: &Root, online: &BTreeSet<usize>) -> usize {
    let core = |cpu: &usize| {
        let dir = Path::new(CPUS).join(format!("cpu{cpu}/topology"));
        let package: Option<i64> = root.number(dir.join("physical_package_id"));
        Some((package?, root.number::<i64>(dir.join("core_id"))?))
    };
    let known: BTreeSet<(i64, i64)> = online.iter().filter_map(core).collect();
    if known.is_empty() { online.len() } else { known.len() }
}

fn numa_nodes(root: &Root) -> usize {
    cpu_list(&root.read(Path::new(NODES).join("has_cpu")).unwrap_or_default()).len()
}

/// The smallest bound of the process's cgroup (version 2) and those above it.
fn cpu_quota(root: &Root) -> Option<f64> {
    let own = root.read("proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let base = Path::new("sys/fs/cgroup");
    let dirs = Path::new(&path).ancestors().map(|dir| base.join(dir).join("cpu.max"));
    let quotas = dirs.filter_map(|file| quota(&root.read(file)?));
    quotas.reduce(f64::min)
}

/// `QUOTA PERIOD` in microseconds, or `max PERIOD` for no bound.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Builds trees of files to probe.
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists() {
        let list = |text| cpu_list(text).into_iter().collect::<Vec<_>>();
        assert_eq!(list("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(list(""), [0; 0]);
        assert_eq!(list("x,3-,5"), [5]);
        assert_eq!(quota("150000 100000"), Some(1.5));
        assert_eq!(quota("max 100000"), None);
    }

    #[test]
    fn a_two_socket_machine_with_smt_in_a_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: String, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(format!("{CPUS}/online"), "0-7\n");
        for cpu in 0..8 {
            let topology = format!("{CPUS}/cpu{cpu}/topology");
            put(format!("{topology}/physical_package_id"), &format!("{}\n", cpu % 2));
            put(format!("{topology}/core_id"), &format!("{}\n", cpu / 2 % 2));
        }
        put(format!("{NODES}/has_cpu"), "0-1\n");
        put("proc/self/status".into(), "Name:\tx\nCpus_allowed_list:\t0-3\n");
        put("proc/self/cgroup".into(), "0::/a/b\n");
        put("sys/fs/cgroup/a/cpu.max".into(), "150000 100000\n");
        put("sys/fs/cgroup/a/b/cpu.max".into(), "max 100000\n");
        put("proc/meminfo".into(), "MemTotal: 2048 kB\nMemAvailable: 1024 kB\nHugePages_Free: 3\n");
        let machine = probe(&Root(dir.path().to_owned()));
        assert_eq!((machine.cpus_online, machine.cpus_allowed, machine.cores), (8, 4, 4));
        assert_eq!((machine.numa_nodes, machine.cpu_quota), (2, Some(1.5)));
        assert_eq!((machine.memory_total, machine.memory_available), (2 << 20, 1 << 20));
        assert_eq!(machine.hugepages_free, 3);
    }
}
