//! What was measured, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::engine::EngineCost;
use super::sample::{Amplification, Sample};
use super::sizes::SizeReport;
use super::spec::{Case, Contender, Wait};
use crate::rpc::{Spread, Verdict, write_verdict};

/// Result of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// The file or device.
    pub path: PathBuf,
    /// Bytes that the device writes at once.
    pub sector_bytes: u32,
    /// Whether writes need flushes: the device has a volatile cache.
    pub flushes: bool,
    /// Bytes that the load works on, on each half.
    pub span_bytes: u64,
    /// The core that both run on; none where the system does not allow it.
    pub core: Option<usize>,
    /// How the store's loop waits.
    pub wait: Wait,
    /// Length of one measurement in seconds.
    pub seconds: f64,
    /// Measurements of each contender in each case.
    pub rounds: usize,
    /// Why fio was not measured; none when it was.
    pub fio_absent: Option<String>,
    /// The figures.
    pub cases: Vec<CaseReport>,
    /// Device bytes over checkpoints.
    pub amplification: Option<Amplification>,
    /// The engine alone.
    pub engine: Option<EngineCost>,
    /// Recovery, checkpoint and memory by size.
    pub sizes: Vec<SizeReport>,
    /// The budgets.
    pub budgets: Vec<Verdict>,
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
    /// Requests per second.
    pub iops: Option<Spread>,
    /// Mean latency in microseconds.
    pub mean_us: Option<Spread>,
    /// All measurements.
    pub rounds: Vec<Sample>,
}

impl Entry {
    /// A contender with its measurements.
    pub fn new(who: Contender, rounds: Vec<Sample>) -> Entry {
        Entry {
            who,
            iops: Spread::of(rounds.iter().map(|sample| sample.iops)),
            mean_us: Spread::of(rounds.iter().map(|sample| sample.mean_us)),
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

impl StoreReport {
    /// Budgets that were measured and not met.
    pub fn missed(&self) -> usize {
        self.budgets.iter().filter(|verdict| verdict.met == Some(false)).count()
    }

    fn write_task(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cases.is_empty() {
            return Ok(());
        }
        let flushes = match self.flushes {
            true => "volatile cache: writes count when flushed",
            false => "no volatile cache: no flushes",
        };
        let (mib, sector) = (self.span_bytes >> 20, self.sector_bytes);
        writeln!(
            f,
            "{}: {mib} MiB each, sectors of {sector} bytes, {flushes}",
            self.path.display()
        )?;
        let wait = match self.wait {
            Wait::Spin => "the store's loop spins",
            Wait::Sleep => "the store's loop sleeps when it has nothing to do",
        };
        let core = self.core.map_or("no core of its own".to_owned(), |core| format!("core {core}"));
        let (rounds, seconds) = (self.rounds, self.seconds);
        writeln!(f, "{rounds} rounds of {seconds} s on {core}, medians; times in µs; {wait}")?;
        match &self.fio_absent {
            Some(why) => writeln!(f, "fio is not measured: {why}"),
            None => Ok(()),
        }
    }
}

impl StoreReport {
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Amplification { checkpoints, store, process, disk }) = self.amplification {
            write!(f, "\ndevice bytes for each byte of random 4 KiB writes, depth 32, ")?;
            writeln!(f, "over {checkpoints} checkpoints")?;
            let (process, disk) = (shown(process, 3), shown(disk, 3));
            write!(f, "  by the store {store:.3}, by /proc/self/io {process}, ")?;
            writeln!(f, "by /sys (everybody's) {disk}")?;
        }
        if let Some(EngineCost { write_depth_1_us, write_depth_32_us, read_us }) = self.engine {
            writeln!(f, "\nCPU of the engine alone, checkpoints included")?;
            write!(f, "  4 KiB write {write_depth_32_us:.2} µs, one at a time ")?;
            writeln!(f, "{write_depth_1_us:.2} µs; read with checksum {read_us:.2} µs")?;
        }
        Ok(())
    }
}

impl fmt::Display for StoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_task(f)?;
        self.cases.iter().try_for_each(|report| write_case(f, report))?;
        self.write_totals(f)?;
        write_sizes(f, &self.sizes)?;
        writeln!(
            f,
            "\nbudgets (ratios of each round: median, least, greatest; of the best rounds)"
        )?;
        writeln!(f, "  {:<35}{:<23}{:>8}{:>9}", "", "against", "bound", "ratio")?;
        self.budgets.iter().try_for_each(|verdict| write_verdict(f, verdict))
    }
}

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn write_case(f: &mut fmt::Formatter<'_>, report: &CaseReport) -> fmt::Result {
    writeln!(
        f,
        "\n{:<32}{:>8} {:>17} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}",
        report.case.to_string(),
        "IOPS",
        "least - greatest",
        "MiB/s",
        "mean",
        "p50",
        "p99",
        "p99.9",
        "CPU",
        "engine",
        "device"
    )?;
    for entry in &report.entries {
        let Some(iops) = entry.iops else { continue };
        writeln!(
            f,
            "  {:<30}{:>8.0} {:>17} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}",
            entry.who.name(),
            iops.median,
            format!("{:.0} - {:.0}", iops.min, iops.max),
            shown(entry.median(|s| Some(s.bytes_per_s / f64::from(1 << 20))), 1),
            shown(entry.mean_us.map(|mean| mean.median), 1),
            shown(entry.median(|s| s.p50_us), 1),
            shown(entry.median(|s| s.p99_us), 1),
            shown(entry.median(|s| s.p999_us), 1),
            shown(entry.median(|s| s.cpu_us), 2),
            shown(entry.median(|s| s.engine_us), 2),
            shown(entry.median(|s| s.device_bytes), 3),
        )?;
    }
    Ok(())
}

fn write_sizes(f: &mut fmt::Formatter<'_>, sizes: &[SizeReport]) -> fmt::Result {
    if sizes.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n{:<24}{:>12} {:>14} {:>10} {:>12} {:>16}",
        "mapped", "checkpoint s", "it wrote MiB", "log MiB", "recovery s", "memory KiB/GiB"
    )?;
    for size in sizes {
        writeln!(
            f,
            "  {:<22}{:>12.3} {:>14.1} {:>10.1} {:>12.3} {:>16.0}",
            format!("{}, {}", Mapped(size.mapped_bytes), size.data),
            size.checkpoint_s,
            size.checkpoint_bytes as f64 / f64::from(1 << 20),
            size.log_bytes as f64 / f64::from(1 << 20),
            size.recovery_s,
            size.memory_bytes_per_gib / 1024.0,
        )?;
    }
    Ok(())
}

struct Mapped(u64);

impl fmt::Display for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n.is_multiple_of(1 << 30) => write!(f, "{} GiB", n >> 30),
            n => write!(f, "{} MiB", n >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget;
    use super::super::sizes::Data;
    use super::super::spec::{Pattern, case};
    use super::*;

    #[test]
    fn reports_are_json_both_ways_and_tables() {
        let sample = |iops: f64| Sample { iops, mean_us: 1e6 / iops, ops: 10, ..Sample::EMPTY };
        let rounds = |iops: &[f64]| iops.iter().map(|&iops| sample(iops)).collect();
        let entries = vec![
            Entry::new(Contender::Ogive, rounds(&[7000.0, 8000.0, 9000.0])),
            Entry::new(Contender::Fio, rounds(&[8000.0; 3])),
        ];
        let cases = vec![CaseReport { case: case(Pattern::RandomWrite, 4096, 1), entries }];
        let amplification =
            Some(Amplification { checkpoints: 2, store: 1.05, process: Some(1.06), disk: None });
        let engine =
            Some(EngineCost { write_depth_1_us: 1.6, write_depth_32_us: 1.0, read_us: 0.7 });
        let sizes = vec![SizeReport {
            data: Data::Random,
            mapped_bytes: 10 << 30,
            checkpoint_s: 0.5,
            checkpoint_bytes: 40 << 20,
            log_bytes: 1 << 20,
            recovery_s: 0.25,
            memory_bytes_per_gib: 4096.0 * 1024.0,
        }];
        let budgets = budget::judge(&cases, amplification.as_ref(), engine.as_ref(), &sizes);
        let report = StoreReport {
            path: "/x".into(),
            sector_bytes: 512,
            flushes: true,
            span_bytes: 1 << 30,
            core: Some(0),
            wait: Wait::Spin,
            seconds: 1.0,
            rounds: 3,
            fio_absent: None,
            cases,
            amplification,
            engine,
            sizes,
            budgets,
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<StoreReport>(&json).unwrap(), report);
        let text = report.to_string();
        for part in [
            "random write 4 KiB, depth 1",
            "7000 - 9000",
            "1.000  (0.889 - 1.143)  best 0.889  met",
            "10 GiB, random",
            "1.600  (1.600 - 1.600)  NOT MET",
            "not measured",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(report.missed(), 1);
        assert!(text.lines().all(|line| line.chars().count() <= 132), "{text}");
    }
}
