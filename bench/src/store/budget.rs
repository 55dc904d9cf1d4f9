//! What the store must reach: ratios against fio of the same round, and a few absolute bounds.

use super::engine::EngineCost;
use super::report::CaseReport;
use super::sample::{Amplification, Sample};
use super::sizes::{Data, SizeReport};
use super::spec::{Case, Contender, Pattern, case};
use crate::rpc::{Spread, Verdict};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Rate,
    Mean,
}

/// A bound on the ratio of a figure of the store to that of fio.
struct Budget {
    what: &'static str,
    case: Case,
    figure: Figure,
    bound: f64,
}

const fn budget(what: &'static str, case: Case, figure: Figure, bound: f64) -> Budget {
    Budget { what, case, figure, bound }
}

const fn random(pattern: Pattern, depth: usize) -> Case {
    case(pattern, 4096, depth)
}

const fn long(pattern: Pattern) -> Case {
    case(pattern, 1 << 20, 8)
}

/// In the order in which they are shown.
const BUDGETS: [Budget; 8] = [
    budget("4 KiB write, depth 32, rate", random(Pattern::RandomWrite, 32), Figure::Rate, 0.8),
    budget("4 KiB write, depth 128, rate", random(Pattern::RandomWrite, 128), Figure::Rate, 0.8),
    budget("4 KiB write, depth 1, mean", random(Pattern::RandomWrite, 1), Figure::Mean, 1.25),
    budget("4 KiB read, depth 32, rate", random(Pattern::RandomRead, 32), Figure::Rate, 0.9),
    budget("4 KiB read, depth 128, rate", random(Pattern::RandomRead, 128), Figure::Rate, 0.9),
    budget("4 KiB read, depth 1, mean", random(Pattern::RandomRead, 1), Figure::Mean, 1.15),
    budget("1 MiB sequential write, rate", long(Pattern::SequentialWrite), Figure::Rate, 0.9),
    budget("1 MiB sequential read, rate", long(Pattern::SequentialRead), Figure::Rate, 0.9),
];

/// Bytes written to the device for each byte of random 4 KiB writes, at most.
const AMPLIFICATION_MAX: f64 = 1.2;
/// Processor time of the engine for a 4 KiB write, at most.
const ENGINE_US_MAX: f64 = 1.5;
/// Recovery of this much, mapped at random, takes at most so long.
const RECOVERY_BYTES: u64 = 100 << 30;
const RECOVERY_S_MAX: f64 = 5.0;

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Figure::Rate => sample.iops,
            Figure::Mean => sample.mean_us,
        }
    }

    fn at_most(self) -> bool {
        self == Figure::Mean
    }
}

/// The verdicts on all budgets.
pub(super) fn judge(
    cases: &[CaseReport],
    amplification: Option<&Amplification>,
    engine: Option<&EngineCost>,
    sizes: &[SizeReport],
) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = BUDGETS.iter().map(|budget| budget.judge(cases)).collect();
    let recovered = sizes.iter().filter(|s| s.data == Data::Random);
    let recovered = recovered.filter(|s| s.mapped_bytes >= RECOVERY_BYTES).map(|s| s.recovery_s);
    let written = amplification.map(|a| a.process.unwrap_or(a.store));
    let cost = |of: fn(&EngineCost) -> f64| engine.map(of);
    verdicts.extend([
        absolute("device bytes per 4 KiB write", "4 KiB", AMPLIFICATION_MAX, written),
        absolute("engine CPU per 4 KiB write", "µs", ENGINE_US_MAX, cost(|e| e.write_depth_32_us)),
        absolute("the same, one at a time", "µs", ENGINE_US_MAX, cost(|e| e.write_depth_1_us)),
        absolute("recovery of 100 GiB at random", "s", RECOVERY_S_MAX, recovered.reduce(f64::max)),
    ]);
    verdicts
}

fn absolute(what: &str, against: &str, bound: f64, figure: Option<f64>) -> Verdict {
    Verdict {
        what: what.into(),
        against: against.into(),
        bound,
        at_most: true,
        ratio: figure.and_then(|figure| Spread::of([figure])),
        best: None,
        met: figure.map(|figure| figure <= bound),
    }
}

impl Budget {
    fn judge(&self, cases: &[CaseReport]) -> Verdict {
        let report = cases.iter().find(|report| report.case == self.case);
        let both = report.and_then(|report| {
            Some([report.rounds_of(Contender::Ogive)?, report.rounds_of(Contender::Fio)?])
        });
        let ratio = both.and_then(|[ours, theirs]| {
            // Rounds are compared with themselves: what the machine did then hit both.
            let pairs = ours.iter().zip(theirs);
            Spread::of(pairs.map(|(a, b)| self.figure.of(a) / self.figure.of(b)))
        });
        let at_most = self.figure.at_most();
        let best = both.and_then(|both| {
            let [ours, theirs] = both.map(|rounds| self.best(rounds));
            Some(ours? / theirs?)
        });
        let keeps = |ratio: f64| if at_most { ratio <= self.bound } else { ratio >= self.bound };
        Verdict {
            what: self.what.into(),
            against: "fio".into(),
            bound: self.bound,
            at_most,
            met: ratio.map(|ratio| keeps(ratio.median)),
            ratio,
            best,
        }
    }

    fn best(&self, rounds: &[Sample]) -> Option<f64> {
        let spread = Spread::of(rounds.iter().map(|sample| self.figure.of(sample)))?;
        Some(if self.figure.at_most() { spread.min } else { spread.max })
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Entry;
    use super::*;

    fn rounds(figures: &[(f64, f64)]) -> Vec<Sample> {
        let of = |&(iops, mean_us): &(f64, f64)| Sample { iops, mean_us, ..Sample::EMPTY };
        figures.iter().map(of).collect()
    }

    fn report(case: Case, ours: &[(f64, f64)], theirs: &[(f64, f64)]) -> CaseReport {
        let entries = vec![
            Entry::new(Contender::Ogive, rounds(ours)),
            Entry::new(Contender::Fio, rounds(theirs)),
        ];
        CaseReport { case, entries }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_judged_by_their_median() {
        let one = random(Pattern::RandomWrite, 1);
        let cases = [
            report(one, &[(1.0, 120.0), (1.0, 300.0), (1.0, 100.0)], &[(1.0, 100.0); 3]),
            report(random(Pattern::RandomWrite, 32), &[(79.0, 1.0)], &[(100.0, 1.0)]),
        ];
        let amplification =
            Amplification { checkpoints: 2, store: 1.3, process: Some(1.19), disk: Some(2.0) };
        let verdicts = judge(&cases, Some(&amplification), None, &[]);
        let find = |what: &str| verdicts.iter().find(|v| v.what.contains(what)).unwrap();
        let mean = find("write, depth 1, mean");
        assert!(mean.at_most && mean.met == Some(true), "{mean:?}");
        assert_eq!((mean.ratio.unwrap().median, mean.best), (1.2, Some(1.0)));
        let rate = find("write, depth 32");
        assert!(!rate.at_most && rate.met == Some(false), "{rate:?}");
        assert_eq!((find("device bytes").met, find("engine CPU").met), (Some(true), None));
        assert_eq!((find("read, depth 1").met, find("recovery").met), (None, None));
    }

    #[test]
    fn only_a_hundred_gib_at_random_count_for_recovery() {
        let size = |data, gib: u64, recovery_s| SizeReport {
            data,
            mapped_bytes: gib << 30,
            checkpoint_s: 1.0,
            checkpoint_bytes: 1,
            log_bytes: 1,
            recovery_s,
            memory_bytes_per_gib: 1.0,
        };
        let met = |sizes: &[SizeReport]| {
            let verdicts = judge(&[], None, None, sizes);
            verdicts.iter().find(|v| v.what.contains("recovery")).unwrap().met
        };
        assert_eq!(met(&[size(Data::Random, 10, 1.0), size(Data::Sequential, 100, 1.0)]), None);
        assert_eq!(met(&[size(Data::Random, 100, 4.9)]), Some(true));
        assert_eq!(met(&[size(Data::Random, 100, 4.9), size(Data::Random, 101, 5.1)]), Some(false));
    }
}
