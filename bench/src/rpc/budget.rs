//! What the transports must reach, as ratios against references of the same round.

use serde::{Deserialize, Serialize};

use super::report::CaseReport;
use super::sample::{Sample, Spread};
use super::spec::{Case, Contender, Pattern};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// Median round trip.
    RoundTrip,
    /// Processor time of both ends for a message.
    Cpu,
    /// Data per second.
    Bandwidth,
}

/// A bound on the ratio of a figure of ours to that of a reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    what: &'static str,
    against_what: &'static str,
    ours: Contender,
    against: Contender,
    case: Case,
    figure: Figure,
    bound: f64,
}

const fn case(pattern: Pattern, bytes: usize, depth: usize) -> Case {
    Case { pattern, bytes, depth }
}

/// The budgets, in the order in which they are shown.
const BUDGETS: [Budget; 7] = [
    Budget {
        what: "shm round trip 64 B",
        against_what: "ucx_perftest",
        ours: Contender::Shm,
        against: Contender::Ucx,
        case: case(Pattern::Echo, 64, 1),
        figure: Figure::RoundTrip,
        bound: 2.0,
    },
    Budget {
        what: "shm round trip 4 KiB",
        against_what: "ucx_perftest",
        ours: Contender::Shm,
        against: Contender::Ucx,
        case: case(Pattern::Echo, 4096, 1),
        figure: Figure::RoundTrip,
        bound: 1.5,
    },
    Budget {
        what: "shm bandwidth 1 MiB",
        against_what: "ucx_perftest",
        ours: Contender::Shm,
        against: Contender::Ucx,
        case: case(Pattern::Write, 1 << 20, 32),
        figure: Figure::Bandwidth,
        bound: 0.8,
    },
    Budget {
        what: "tcp round trip 4 KiB",
        against_what: "spinning std socket",
        ours: Contender::Tcp,
        against: Contender::Bare,
        case: case(Pattern::Echo, 4096, 1),
        figure: Figure::RoundTrip,
        bound: 1.2,
    },
    Budget {
        what: "tcp round trip 4 KiB",
        against_what: "tonic unary",
        ours: Contender::Tcp,
        against: Contender::Tonic,
        case: case(Pattern::Echo, 4096, 1),
        figure: Figure::RoundTrip,
        bound: 0.15,
    },
    Budget {
        what: "tcp CPU per 4 KiB echo, depth 32",
        against_what: "std socket, depth 32",
        ours: Contender::Tcp,
        against: Contender::Bare,
        case: case(Pattern::Echo, 4096, 32),
        figure: Figure::Cpu,
        bound: 1.2,
    },
    Budget {
        what: "tcp CPU per 4 KiB write, depth 32",
        against_what: "std socket, depth 32",
        ours: Contender::Tcp,
        against: Contender::Bare,
        case: case(Pattern::Write, 4096, 32),
        figure: Figure::Cpu,
        bound: 1.2,
    },
];

impl Figure {
    fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Figure::RoundTrip => Some(sample.p50_us),
            Figure::Cpu => sample.cpu_us(),
            Figure::Bandwidth => Some(sample.bytes_per_s),
        }
    }

    /// Bandwidth is to be at least so much, the others at most.
    fn at_most(self) -> bool {
        self != Figure::Bandwidth
    }
}

/// A budget and what was measured of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is bounded.
    pub what: String,
    /// The reference.
    pub against: String,
    /// The bound of the ratio.
    pub bound: f64,
    /// True when the ratio is to be at most the bound, false when it is to be at least that.
    pub at_most: bool,
    /// The ratios of all rounds; none when one of the two was not measured.
    pub ratio: Option<Spread>,
    /// The ratio of the best rounds of both: what other load on the machine disturbs least.
    pub best: Option<f64>,
    /// Whether the median keeps the bound.
    pub met: Option<bool>,
}

impl Budget {
    /// The verdicts on all budgets.
    pub fn all(cases: &[CaseReport]) -> Vec<Verdict> {
        BUDGETS.iter().map(|budget| budget.judge(cases)).collect()
    }

    fn judge(&self, cases: &[CaseReport]) -> Verdict {
        let report = cases.iter().find(|report| report.case == self.case);
        let both = report.and_then(|report| {
            Some([report.rounds_of(self.ours)?, report.rounds_of(self.against)?])
        });
        let ratio = both.and_then(|[ours, against]| {
            // Rounds are compared with themselves: what the machine did then hit both.
            let pairs = ours.iter().zip(against);
            let ratios = pairs.filter_map(|(a, b)| Some(self.figure.of(a)? / self.figure.of(b)?));
            Spread::of(ratios)
        });
        let best = both.and_then(|both| {
            let [ours, against] = both.map(|rounds| self.best(rounds));
            Some(ours? / against?)
        });
        let at_most = self.figure.at_most();
        let keeps = |ratio: f64| if at_most { ratio <= self.bound } else { ratio >= self.bound };
        Verdict {
            what: self.what.into(),
            against: self.against_what.into(),
            bound: self.bound,
            at_most,
            met: ratio.map(|ratio| keeps(ratio.median)),
            ratio,
            best,
        }
    }

    fn best(&self, rounds: &[Sample]) -> Option<f64> {
        let spread = Spread::of(rounds.iter().filter_map(|sample| self.figure.of(sample)))?;
        Some(if self.figure.at_most() { spread.min } else { spread.max })
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, sample};
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let of = |p50s: &[f64]| p50s.iter().map(|&p50| sample(p50)).collect::<Vec<_>>();
        let case = case(Pattern::Echo, 4096, 1);
        let measured = [report(
            case,
            vec![
                (Contender::Tcp, of(&[11.0, 110.0, 13.0])),
                (Contender::Bare, of(&[10.0, 100.0, 10.0])),
            ],
        )];
        let verdicts = Budget::all(&measured);
        let bare = verdicts.iter().find(|v| v.against == "spinning std socket").unwrap();
        let ratio = bare.ratio.unwrap();
        assert!((ratio.median - 1.1).abs() < 1e-9 && (ratio.max - 1.3).abs() < 1e-9, "{ratio:?}");
        assert_eq!((bare.met, bare.best), (Some(true), Some(1.1)));
        let tonic = verdicts.iter().find(|v| v.against == "tonic unary").unwrap();
        assert_eq!((tonic.ratio, tonic.met), (None, None), "it was not measured");
    }

    #[test]
    fn bandwidth_is_to_be_high_and_the_rest_low() {
        let case = case(Pattern::Write, 1 << 20, 32);
        let one = |ours: f64, theirs: f64| {
            let of = |rate| vec![Sample { bytes_per_s: rate, ..sample(1.0) }];
            let rows = vec![(Contender::Shm, of(ours)), (Contender::Ucx, of(theirs))];
            let verdicts = Budget::all(&[report(case, rows)]);
            verdicts.iter().find(|v| v.what.contains("bandwidth")).unwrap().met
        };
        assert_eq!(one(81.0, 100.0), Some(true));
        assert_eq!(one(79.0, 100.0), Some(false));
    }
}
