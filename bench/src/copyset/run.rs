//! The rounds of a run.
#![allow(clippy::disallowed_methods)] // a shell: it reads the clock of its thread

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::contender::{Contender, NODES, Payload};
use super::ours::Ours;
use super::report::{CopysetReport, Figure, Idle};

/// Makes so many groups.
type Maker = Box<dyn Fn(usize) -> Box<dyn Contender>>;

struct Entrant {
    name: String,
    make: Maker,
    fewer: u64,
    groups_max: usize,
}

/// A comparison of replication cores.
pub struct CopysetBench {
    entrants: Vec<Entrant>,
    /// Numbers of groups among which the operations are spread.
    pub groups: Vec<usize>,
    /// Numbers of idle groups.
    pub idle: Vec<usize>,
    /// Operations of one contender in one round.
    pub operations: u64,
    /// How long groups idle in one round.
    pub idle_for: Duration,
    /// Turns of each contender.
    pub rounds: usize,
}

impl CopysetBench {
    /// Our core alone, 1 and 1,000 groups, 1,000 and 10,000 idle ones.
    pub fn new() -> CopysetBench {
        let mut bench = CopysetBench {
            entrants: Vec::new(),
            groups: vec![1, 1000],
            idle: vec![1000, 10_000],
            operations: 200_000,
            idle_for: Duration::from_secs(2),
            rounds: 5,
        };
        bench.add("ogive", 1, usize::MAX, |groups| Box::new(Ours::new(groups)));
        bench
    }

    /// Another core, measured with `fewer` times fewer operations, so that a slow one does not take
    /// the time of all others, and not with more than `groups_max` groups.
    pub fn add(
        &mut self,
        name: &str,
        fewer: u64,
        groups_max: usize,
        make: impl Fn(usize) -> Box<dyn Contender> + 'static,
    ) {
        let (name, make): (_, Maker) = (name.to_owned(), Box::new(make));
        self.entrants.push(Entrant { name, make, fewer, groups_max });
    }

    fn entrants(&self, groups: usize) -> impl Iterator<Item = &Entrant> {
        self.entrants.iter().filter(move |entrant| groups <= entrant.groups_max)
    }

    /// Runs all rounds; `told` hears what comes next.
    pub fn run(&self, told: &mut dyn FnMut(String)) -> CopysetReport {
        let mut report = CopysetReport { rounds: self.rounds, ..CopysetReport::default() };
        for &groups in &self.groups {
            told(format!("{groups} groups"));
            report.figures.extend(self.busy(groups));
        }
        for &groups in &self.idle {
            told(format!("{groups} idle groups"));
            report.idle.extend(self.idling(groups));
        }
        report
    }

    fn busy(&self, groups: usize) -> Vec<Figure> {
        let mut all: Vec<_> =
            self.entrants(groups).map(|e| (e, (e.make)(groups), Vec::new())).collect();
        // The first round warms up.
        for round in 0..=self.rounds {
            for (entrant, core, times) in &mut all {
                let operations = (self.operations / entrant.fewer).max(groups as u64);
                let took = busy_ns(core.as_mut(), groups, operations);
                if round > 0 {
                    times.push(took / (operations as f64 * NODES as f64));
                }
            }
        }
        all.into_iter().map(|(e, _, times)| Figure::of(&e.name, groups, times)).collect()
    }

    fn idling(&self, groups: usize) -> Vec<Idle> {
        let measure = |entrant: &Entrant| {
            let mut core = (entrant.make)(groups);
            core.idle(self.idle_for);
            let mut shares: Vec<f64> = (0..self.rounds)
                .map(|_| {
                    let before = thread_ns();
                    core.idle(self.idle_for);
                    let ns = (thread_ns() - before) as f64;
                    ns / self.idle_for.as_nanos() as f64 / NODES as f64
                })
                .collect();
            shares.sort_by(f64::total_cmp);
            let share_of_a_core = shares[shares.len() / 2];
            Idle { name: entrant.name.clone(), groups, share_of_a_core }
        };
        self.entrants(groups).map(measure).collect()
    }
}

impl Default for CopysetBench {
    fn default() -> CopysetBench {
        CopysetBench::new()
    }
}

/// Processor time of so many operations, spread over all groups.
fn busy_ns(core: &mut dyn Contender, groups: usize, operations: u64) -> f64 {
    let held = |core: &dyn Contender| (0..groups).map(|group| core.held(group)).sum::<u64>();
    let (had, before) = (held(core), thread_ns());
    for n in 0..operations {
        core.commit(n as usize % groups, Payload::number(n));
    }
    let took = thread_ns() - before;
    assert_eq!(held(core), had + operations, "every operation is on every replica");
    took as f64
}

/// Time that this thread had on a processor: other work on the machine does not count.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_has_all_figures() {
        let small = CopysetBench {
            groups: vec![1, 4],
            idle: vec![4],
            operations: 100,
            idle_for: Duration::from_millis(300),
            rounds: 3,
            ..CopysetBench::new()
        };
        let mut heard = Vec::new();
        let report = small.run(&mut |line| heard.push(line));
        assert_eq!((report.figures.len(), report.idle.len(), heard.len()), (2, 1, 3));
        assert!(report.figures.iter().all(|f| f.ns_per_operation_and_node > 0.0));
        let text = report.to_string();
        assert!(text.contains("ogive") && text.contains("4 idle"), "{text}");
    }
}
