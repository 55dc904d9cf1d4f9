//! The rounds: store and fio in turn, in every case.
#![allow(clippy::disallowed_methods)] // starts a thread, so that only it is bound to a core

use std::path::Path;

use super::budget;
use super::counters::DiskCounters;
use super::drive::Driver;
use super::engine;
use super::fio::{self, Job};
use super::place::Place;
use super::report::{CaseReport, Entry, StoreReport};
use super::sample::Sample;
use super::sizes::{self, Data, SizeReport};
use super::spec::{Case, Contender, Pattern, StoreBench, StoreBenchError};
use crate::limits::CHECKPOINTS_TIMEOUT;
use crate::rpc::{Cores, pin};

/// The load works on this part of the data blocks, 1 / n, so that the store has free ones to
/// write to.
const SPAN_SHARE: u64 = 2;
/// The load works on a multiple of this.
const CHUNK: u64 = 16 << 20;
/// Checkpoints over which device bytes are counted.
const CHECKPOINTS: u64 = 2;

/// Runs the whole benchmark in a thread of its own, which alone is bound to a core.
pub(super) fn run(
    bench: &StoreBench,
    progress: &mut dyn FnMut(String),
) -> Result<StoreReport, StoreBenchError> {
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // The other thread only listens; when it is gone there is nobody to tell.
            measure(bench, &mut |line| drop(sender.send(line)))
        });
        told.iter().for_each(progress);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure(
    bench: &StoreBench,
    progress: &mut dyn FnMut(String),
) -> Result<StoreReport, StoreBenchError> {
    let absent = match bench.fio {
        true => fio::find().err(),
        false => Some("left out".to_owned()),
    };
    let core = Cores::choose().here;
    pin(core);
    let mut report = StoreReport {
        path: bench.path.clone(),
        sector_bytes: 0,
        flushes: false,
        span_bytes: 0,
        core,
        wait: bench.wait,
        seconds: bench.duration.as_secs_f64(),
        rounds: bench.rounds,
        fio_absent: absent,
        cases: Vec::new(),
        amplification: None,
        engine: None,
        sizes: Vec::new(),
        budgets: Vec::new(),
    };
    if !bench.cases().is_empty() {
        measure_cases(bench, &mut report, progress)?;
    }
    report.sizes = measure_sizes(bench, progress)?;
    let (amplification, engine) = (report.amplification.as_ref(), report.engine.as_ref());
    report.budgets = budget::judge(&report.cases, amplification, engine, &report.sizes);
    Ok(report)
}

/// Store and fio in all cases; then, where there are writes, what they cost.
fn measure_cases(
    bench: &StoreBench,
    report: &mut StoreReport,
    progress: &mut dyn FnMut(String),
) -> Result<(), StoreBenchError> {
    let mut place = Place::prepare(bench, progress)?;
    report.sector_bytes = place.file.sector();
    let cases = bench.cases();
    let fio = report.fio_absent.is_none();
    let mut rounds = Rounds::open(bench, &mut place, report.core, fio, progress)?;
    (report.flushes, report.span_bytes) = (rounds.flushes, rounds.span);
    for (n, &case) in cases.iter().enumerate() {
        let mut tell = |line: String| progress(format!("{}/{}  {line}", n + 1, cases.len()));
        report.cases.push(rounds.case(case, &mut tell)?);
    }
    if cases.iter().any(|case| case.pattern == Pattern::RandomWrite) {
        progress("device bytes over checkpoints".into());
        let Rounds { driver, span, disk, .. } = &mut rounds;
        let bytes = driver.amplification(*span, CHECKPOINTS, CHECKPOINTS_TIMEOUT, disk.as_ref());
        report.amplification = bytes.map_err(StoreBenchError::Store)?;
        progress("the engine alone".into());
        report.engine = Some(engine::measure().map_err(StoreBenchError::Store)?);
    }
    Ok(())
}

fn measure_sizes(
    bench: &StoreBench,
    progress: &mut dyn FnMut(String),
) -> Result<Vec<SizeReport>, StoreBenchError> {
    let folder = bench.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut sizes = Vec::new();
    for &mapped in &bench.mapped {
        for data in [Data::Sequential, Data::Random, Data::Mixed] {
            let size = sizes::measure(folder, data, mapped, progress);
            sizes.push(size.map_err(StoreBenchError::Store)?);
        }
    }
    Ok(sizes)
}

struct Rounds<'a> {
    bench: &'a StoreBench,
    place: &'a Place,
    driver: Driver,
    disk: Option<DiskCounters>,
    span: u64,
    flushes: bool,
    core: Option<usize>,
    fio: bool,
}

impl<'a> Rounds<'a> {
    fn open(
        bench: &'a StoreBench,
        place: &'a mut Place,
        core: Option<usize>,
        fio: bool,
        progress: &mut dyn FnMut(String),
    ) -> Result<Rounds<'a>, StoreBenchError> {
        let span = place.label.capacity_bytes() / SPAN_SHARE / CHUNK * CHUNK;
        if span == 0 {
            let why = "too small; give at least 256 MiB".to_owned();
            return Err(StoreBenchError::Place(why));
        }
        let flushes = place.file.volatile_cache();
        let handle = place.file.try_clone().map_err(|e| StoreBenchError::Place(e.to_string()))?;
        let label = place.label.clone();
        let driver = Driver::open(&mut place.part(), &handle, &label, flushes, bench.wait);
        let mut driver = driver.map_err(StoreBenchError::Store)?;
        progress("filling".into());
        driver.fill(span).map_err(StoreBenchError::Store)?;
        let disk = DiskCounters::of(&handle);
        Ok(Rounds { bench, place, driver, disk, span, flushes, core, fio })
    }

    fn case(
        &mut self,
        case: Case,
        progress: &mut dyn FnMut(String),
    ) -> Result<CaseReport, StoreBenchError> {
        let who = [Contender::Ogive, Contender::Fio, Contender::FioWriters];
        let who = who.into_iter().filter(|who| who.does(&case, self.flushes));
        let who = who.filter(|&who| self.fio || who == Contender::Ogive);
        let mut entries: Vec<(Contender, Vec<Sample>)> = who.map(|who| (who, Vec::new())).collect();
        for round in 0..self.bench.rounds {
            let of = entries.len();
            for turn in 0..of {
                // Another one is first in each round.
                let (who, samples) = &mut entries[(turn + round) % of];
                progress(format!("{case}, round {}  {}", round + 1, who.name()));
                samples.push(self.sample(*who, case, round)?);
            }
        }
        let entries = entries.into_iter().map(|(who, samples)| Entry::new(who, samples)).collect();
        Ok(CaseReport { case, entries })
    }

    fn sample(
        &mut self,
        who: Contender,
        case: Case,
        round: usize,
    ) -> Result<Sample, StoreBenchError> {
        let (span, length) = (self.span, self.bench.duration);
        match who {
            Contender::Ogive => {
                let sample = self.driver.measure(case, span, length, round as u64);
                sample.map_err(StoreBenchError::Store)
            }
            _ => {
                let (flush, core) = (self.flushes, self.core);
                let job = Job { who, case, span, length, flush, core };
                job.run(self.place).map_err(StoreBenchError::Fio)
            }
        }
    }
}
