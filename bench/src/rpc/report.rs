//! What was measured, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::budget::Verdict;
use super::cores::Cores;
use super::sample::{Sample, Spread};
use super::spec::{Case, Contender};

/// Result of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RpcReport {
    /// Cores of the two ends.
    pub cores: Cores,
    /// Length of one measurement in seconds.
    pub seconds: f64,
    /// Measurements of each contender in each case.
    pub rounds: usize,
    /// Who was measured, and why others were not.
    pub present: Vec<Present>,
    /// The figures.
    pub cases: Vec<CaseReport>,
    /// The budgets.
    pub budgets: Vec<Verdict>,
}

/// Whether a contender was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Who.
    pub who: Contender,
    /// Why it was not measured; none when it was.
    pub absent: Option<String>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// What was measured.
    pub case: Case,
    /// Each contender.
    pub entries: Vec<Entry>,
}

/// A contender in a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Who.
    pub who: Contender,
    /// Median latency over the rounds, in microseconds.
    pub p50_us: Option<Spread>,
    /// Messages per second.
    pub rate: Option<Spread>,
    /// Processor time of both ends per message, in microseconds.
    pub cpu_us: Option<Spread>,
    /// All measurements.
    pub rounds: Vec<Sample>,
}

impl Entry {
    /// A contender with its measurements.
    pub fn new(who: Contender, rounds: Vec<Sample>) -> Entry {
        Entry {
            who,
            p50_us: Spread::of(rounds.iter().map(|sample| sample.p50_us)),
            rate: Spread::of(rounds.iter().map(|sample| sample.rate)),
            cpu_us: Spread::of(rounds.iter().filter_map(Sample::cpu_us)),
            rounds,
        }
    }

    fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        Spread::of(self.rounds.iter().filter_map(figure)).map(|spread| spread.median)
    }
}

impl CaseReport {
    /// The measurements of a contender, if it was measured in this case.
    pub fn rounds_of(&self, who: Contender) -> Option<&[Sample]> {
        let entry = self.entries.iter().find(|entry| entry.who == who)?;
        Some(&entry.rounds)
    }
}

impl RpcReport {
    /// Budgets that were measured and not met.
    pub fn missed(&self) -> usize {
        self.budgets.iter().filter(|verdict| verdict.met == Some(false)).count()
    }
}

impl fmt::Display for RpcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_task(f)?;
        for report in &self.cases {
            write_case(f, report)?;
        }
        writeln!(
            f,
            "\nbudgets (ratios of each round: median, least, greatest; of the best rounds)"
        )?;
        writeln!(f, "  {:<35}{:<23}{:>8}{:>9}", "", "against", "bound", "ratio")?;
        self.budgets.iter().try_for_each(|verdict| write_verdict(f, verdict))
    }
}

impl RpcReport {
    fn write_task(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rounds, seconds) = (self.rounds, self.seconds);
        writeln!(
            f,
            "{rounds} rounds of {seconds} s, medians; times in µs, per request and answer"
        )?;
        match self.cores {
            Cores { here: Some(here), there: Some(there) } => {
                writeln!(f, "both ends spin, on cores {here} and {there}")?;
            }
            _ => writeln!(f, "both ends spin on ONE core: the figures say little")?,
        }
        for Present { who, absent } in &self.present {
            if let Some(why) = absent {
                writeln!(f, "{who} is not measured: {why}")?;
            }
        }
        Ok(())
    }
}

fn write_case(f: &mut fmt::Formatter<'_>, report: &CaseReport) -> fmt::Result {
    writeln!(
        f,
        "\n{:<22}{:>9} {:>17} {:>9} {:>9} {:>9} {:>10} {:>9} {:>8} {:>8} {:>6}",
        report.case.to_string(),
        "p50",
        "least - greatest",
        "p99",
        "p99.9",
        "max",
        "msg/s",
        "MiB/s",
        "CPU",
        "copied B",
        "calls"
    )?;
    for entry in &report.entries {
        let Some(p50) = entry.p50_us else { continue };
        let shown = |figure: Option<f64>, digits: usize| {
            figure.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        writeln!(
            f,
            "  {:<20}{:>9.2} {:>17} {:>9} {:>9} {:>9} {:>10} {:>9} {:>8} {:>8} {:>6}",
            entry.who.name(),
            p50.median,
            format!("{:.2} - {:.2}", p50.min, p50.max),
            shown(entry.median(|s| s.p99_us), 1),
            shown(entry.median(|s| s.p999_us), 1),
            shown(entry.median(|s| s.max_us), 0),
            shown(entry.median(|s| Some(s.rate)), 0),
            shown(entry.median(|s| Some(s.bytes_per_s / f64::from(1 << 20))), 1),
            shown(entry.median(Sample::cpu_us), 2),
            shown(entry.median(|s| s.copied_bytes), 0),
            shown(entry.median(|s| s.system_calls), 2),
        )?;
    }
    Ok(())
}

pub(crate) fn write_verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    let sign = if verdict.at_most { "≤" } else { "≥" };
    let bound = format!("{sign} {}", verdict.bound);
    let said = match (verdict.ratio, verdict.met) {
        (Some(ratio), Some(met)) => {
            let word = if met { "met" } else { "NOT MET" };
            let best = verdict.best.map_or(String::new(), |best| format!("  best {best:.3}"));
            let (median, min, max) = (ratio.median, ratio.min, ratio.max);
            format!("{median:>9.3}  ({min:.3} - {max:.3}){best}  {word}")
        }
        _ => format!("{:>9}  not measured", "-"),
    };
    writeln!(f, "  {:<35}{:<23}{bound:>8}{said}", verdict.what, verdict.against)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::budget::Budget;
    use super::super::spec::Pattern;
    use super::*;

    pub(in super::super) fn sample(p50_us: f64) -> Sample {
        Sample {
            messages: 10,
            seconds: 1.0,
            rate: 10.0,
            bytes_per_s: 1000.0,
            mean_us: p50_us,
            p50_us,
            p99_us: Some(2.0 * p50_us),
            p999_us: None,
            max_us: None,
            cpu_us_here: Some(1.0),
            cpu_us_there: Some(2.0),
            copied_bytes: None,
            system_calls: None,
        }
    }

    pub(in super::super) fn report(case: Case, rows: Vec<(Contender, Vec<Sample>)>) -> CaseReport {
        let entries = rows.into_iter().map(|(who, rounds)| Entry::new(who, rounds)).collect();
        CaseReport { case, entries }
    }

    #[test]
    fn reports_are_json_both_ways_and_tables() {
        let case = Case { pattern: Pattern::Echo, bytes: 4096, depth: 1 };
        let rows = vec![
            (Contender::Tcp, vec![sample(13.0), sample(11.0), sample(12.0)]),
            (Contender::Bare, vec![sample(10.0), sample(10.0), sample(10.0)]),
        ];
        let cases = vec![report(case, rows)];
        let absent = Some("not in this build".to_owned());
        let report = RpcReport {
            cores: Cores { here: Some(0), there: Some(1) },
            seconds: 0.5,
            rounds: 3,
            present: vec![
                Present { who: Contender::Rdma, absent },
                Present { who: Contender::Tcp, absent: None },
            ],
            budgets: Budget::all(&cases),
            cases,
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RpcReport>(&json).unwrap(), report);
        let text = report.to_string();
        assert!(text.contains("rdma is not measured: not in this build"), "{text}");
        assert!(text.contains("echo 4 KiB, depth 1"), "{text}");
        assert!(text.contains("1.200  (1.100 - 1.300)  best 1.100  met"), "{text}");
        assert!(text.contains("not measured"), "{text}");
        assert_eq!(report.missed(), 0);
        assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
    }
}
