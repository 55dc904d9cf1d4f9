//! Where the two ends run: each on a core of its own, where there are two.
#![allow(clippy::disallowed_methods)] // reads the topology from /sys

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The cores of this end and of the other; none where the machine has but one for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// Of this end.
    pub here: Option<usize>,
    /// Of the other end.
    pub there: Option<usize>,
}

impl Cores {
    /// Two of the cores that this process may use, of different physical cores if there are such:
    /// two spinners on one would slow each other down.
    pub fn choose() -> Cores {
        let allowed = sched_getaffinity(None)
            .map(|set| (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect::<Vec<_>>());
        choose(&allowed.unwrap_or_default(), siblings)
    }

    /// Neither end is bound.
    pub const NONE: Cores = Cores { here: None, there: None };
}

fn choose(allowed: &[usize], siblings: impl Fn(usize) -> Vec<usize>) -> Cores {
    let [first, others @ ..] = allowed else { return Cores::NONE };
    let same = siblings(*first);
    let apart = others.iter().find(|cpu| !same.contains(cpu));
    match apart.or(others.first()) {
        Some(other) => Cores { here: Some(*first), there: Some(*other) },
        None => Cores::NONE,
    }
}

/// The processors of the same physical core, as far as the kernel tells.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map(|list| parse_list(&list)).unwrap_or_default()
}

/// `0,4-6` as numbers; what is not one is left out.
fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            (Ok(from), Ok(to)) => from..to.saturating_add(1).min(CpuSet::MAX_CPU),
            _ => 0..0,
        }
    };
    list.split(',').flat_map(range).collect()
}

/// Binds the calling thread. Without effect where the system does not allow it: then the figures
/// are noisier, and nothing else.
pub(crate) fn pin(core: Option<usize>) {
    let Some(core) = core.filter(|&core| core < CpuSet::MAX_CPU) else { return };
    let mut set = CpuSet::new();
    set.set(core);
    let _ = sched_setaffinity(None, &set);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_physical_cores_are_better_than_two_threads_of_one() {
        let smt = |cpu: usize| vec![cpu & !1, cpu | 1];
        let cores = |here, there| Cores { here: Some(here), there: Some(there) };
        assert_eq!(choose(&[0, 1, 2, 3], smt), cores(0, 2));
        assert_eq!(choose(&[4, 5], smt), cores(4, 5));
        assert_eq!(choose(&[3, 7], |cpu| vec![cpu]), cores(3, 7));
        assert_eq!(choose(&[3], smt), Cores::NONE);
        assert_eq!(choose(&[], smt), Cores::NONE);
    }

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(parse_list("0,4-6\n"), [0, 4, 5, 6]);
        assert_eq!(parse_list("3"), [3]);
        assert_eq!(parse_list("x,,5-"), [0usize; 0]);
    }
}
