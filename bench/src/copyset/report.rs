//! The figures of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most that an operation may cost our core, in nanoseconds on each node, over 1,000 groups.
const BUDGET_NS: f64 = 700.0;
/// How much more raft-rs must cost in the same run.
const BUDGET_RATIO: f64 = 4.0;
/// Most that 1,000 idle groups may cost a node, as a share of a core.
const BUDGET_IDLE: f64 = 0.01;

/// What an operation costs one contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The contender.
    pub name: String,
    /// Groups that the operations were spread over.
    pub groups: usize,
    /// Median over the rounds.
    pub ns_per_operation_and_node: f64,
    /// Best round.
    pub least_ns: f64,
    /// Worst round.
    pub most_ns: f64,
}

impl Figure {
    pub(super) fn of(name: &str, groups: usize, mut times: Vec<f64>) -> Figure {
        times.sort_by(f64::total_cmp);
        assert!(!times.is_empty(), "a run has rounds");
        Figure {
            name: name.to_owned(),
            groups,
            ns_per_operation_and_node: times[times.len() / 2],
            least_ns: times[0],
            most_ns: times[times.len() - 1],
        }
    }
}

/// What groups cost one contender that have nothing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// The contender.
    pub name: String,
    /// The groups.
    pub groups: usize,
    /// Processor time of a node, as a share of one core: 0.01 is one percent.
    pub share_of_a_core: f64,
}

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CopysetReport {
    /// Turns of each contender; figures are medians over them.
    pub rounds: usize,
    /// Costs of operations.
    pub figures: Vec<Figure>,
    /// Costs of idle groups.
    pub idle: Vec<Idle>,
}

impl CopysetReport {
    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    fn ns(&self, name: &str, groups: usize) -> Option<f64> {
        let mut all = self.figures.iter();
        let found = all.find(|figure| figure.name == name && figure.groups == groups);
        found.map(|figure| figure.ns_per_operation_and_node)
    }

    /// Budgets and whether they are met, of what was measured.
    fn verdicts(&self) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        let ours = self.ns("ogive", 1000);
        if let Some(ns) = ours {
            all.push((format!("<= {BUDGET_NS:.0} ns over 1,000 groups: {ns:.0}"), ns <= BUDGET_NS));
        }
        if let (Some(ns), Some(other)) = (ours, self.ns("raft-rs", 1000)) {
            let ratio = other / ns;
            let text = format!(">= {BUDGET_RATIO}x less than raft-rs: {ratio:.1}x");
            all.push((text, ratio >= BUDGET_RATIO));
        }
        let mut idle = self.idle.iter();
        if let Some(idle) = idle.find(|idle| idle.name == "ogive" && idle.groups == 1000) {
            let share = idle.share_of_a_core;
            let text = format!("1,000 idle groups <= 1 % of a core: {:.3} %", share * 100.0);
            all.push((text, share <= BUDGET_IDLE));
        }
        all
    }
}

impl fmt::Display for CopysetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ns per operation and node, median of {} rounds (least, most)", self.rounds)?;
        for figure in &self.figures {
            let ours = self.ns("ogive", figure.groups);
            let ratio = ours.map_or(1.0, |ours| figure.ns_per_operation_and_node / ours);
            writeln!(
                f,
                "{:>6} groups  {:10} {:>9.0}  ({:.0}, {:.0})  {ratio:.1}x",
                figure.groups,
                figure.name,
                figure.ns_per_operation_and_node,
                figure.least_ns,
                figure.most_ns
            )?;
        }
        writeln!(f, "processor time of a node for groups that idle")?;
        for idle in &self.idle {
            let (groups, share) = (idle.groups, idle.share_of_a_core * 100.0);
            writeln!(f, "{groups:>6} idle    {:10} {share:>9.3} % of a core", idle.name)?;
        }
        for (text, met) in self.verdicts() {
            writeln!(f, "{}  {text}", if met { "met    " } else { "NOT MET" })?;
        }
        Ok(())
    }
}
