//! The rounds: every contender in turn, in every case.
#![allow(clippy::disallowed_methods)] // starts a thread, so that only it is bound to a core

use std::time::Duration;

use super::bare::Bare;
use super::budget::Budget;
use super::cores::{Cores, pin};
use super::drive::{Plan, drive};
use super::peer::Peer;
use super::perftest::Perftest;
use super::report::{CaseReport, Entry, Present, RpcReport};
use super::sample::Sample;
use super::spec::{Case, Contender, RpcBench, RpcBenchError};
use super::unary::Unary;
use super::wire::{Net, Wire};
use crate::limits::RPC_IDLE;

/// A contender that is there.
struct Runner {
    who: Contender,
    state: State,
}

enum State {
    Wire { net: Box<Net>, peer: Peer },
    Bare(Peer),
    Tonic(Peer),
    Ucx(Perftest),
}

/// Runs the whole benchmark in a thread of its own, which alone is bound to a core.
pub(super) fn run(
    bench: &RpcBench,
    progress: &mut dyn FnMut(String),
) -> Result<RpcReport, RpcBenchError> {
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            pin(bench.cores.here);
            // The other thread only listens; when it is gone there is nobody to tell.
            rounds(bench, &mut |line| drop(sender.send(line)))
        });
        told.iter().for_each(progress);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn rounds(bench: &RpcBench, progress: &mut dyn FnMut(String)) -> Result<RpcReport, RpcBenchError> {
    progress("starting the other ends".into());
    let (mut runners, mut present) = start(bench)?;
    let cases = bench.cases();
    let mut reports = Vec::new();
    for (index, &case) in cases.iter().enumerate() {
        let mut entries: Vec<(Contender, Vec<Sample>)> =
            runners.iter().filter(|r| r.who.does(&case)).map(|r| (r.who, Vec::new())).collect();
        for round in 0..bench.rounds {
            let of = entries.len().max(1);
            for turn in 0..entries.len() {
                // Another one is first in each round.
                let (who, samples) = &mut entries[(turn + round) % of];
                let number = index + 1;
                progress(format!("{number}/{}  {case}, round {}  {who}", cases.len(), round + 1));
                let runner = runners.iter_mut().find(|runner| runner.who == *who);
                let Some(runner) = runner else { continue };
                match runner.measure(case, bench.duration, bench.cores) {
                    Ok(sample) => samples.push(sample),
                    Err(why) if Contender::PATHS.contains(who) => {
                        return Err(RpcBenchError::Broken { contender: *who, case, why });
                    }
                    Err(why) => give_up(*who, format!("{case}: {why}"), &mut runners, &mut present),
                }
            }
        }
        entries.retain(|(_, samples)| samples.len() == bench.rounds);
        let entries = entries.into_iter().map(|(who, samples)| Entry::new(who, samples)).collect();
        reports.push(CaseReport { case, entries });
    }
    Ok(RpcReport {
        cores: bench.cores,
        seconds: bench.duration.as_secs_f64(),
        rounds: bench.rounds,
        present,
        budgets: Budget::all(&reports),
        cases: reports,
    })
}

/// A reference that fails is left out from then on; its programs are not ours to repair.
fn give_up(who: Contender, why: String, runners: &mut Vec<Runner>, present: &mut [Present]) {
    runners.retain(|runner| runner.who != who);
    if let Some(entry) = present.iter_mut().find(|entry| entry.who == who) {
        entry.absent = Some(why);
    }
}

/// Starts the processes of all contenders; says why some are not there.
fn start(bench: &RpcBench) -> Result<(Vec<Runner>, Vec<Present>), RpcBenchError> {
    let mut wanted: Vec<Contender> = bench.paths.clone();
    if bench.references {
        wanted.extend([Contender::Bare, Contender::Tonic, Contender::Ucx]);
    }
    wanted.sort_unstable();
    wanted.dedup();
    let (mut runners, mut present) = (Vec::new(), Vec::new());
    for who in wanted {
        let absent = match state(bench, who)? {
            Ok(state) => {
                runners.push(Runner { who, state });
                None
            }
            Err(why) => Some(why),
        };
        present.push(Present { who, absent });
    }
    Ok((runners, present))
}

fn state(bench: &RpcBench, who: Contender) -> Result<Result<State, String>, RpcBenchError> {
    if who == Contender::Ucx {
        return Ok(Perftest::find().map(State::Ucx));
    }
    let peer = match Peer::start(bench, who)? {
        Ok(peer) => peer,
        Err(why) => return Ok(Err(why)),
    };
    Ok(match who {
        Contender::Bare => Ok(State::Bare(peer)),
        Contender::Tonic => Ok(State::Tonic(peer)),
        path => Net::new(path, false).map(|net| State::Wire { net: Box::new(net), peer }),
    })
}

impl Runner {
    fn measure(&mut self, case: Case, length: Duration, cores: Cores) -> Result<Sample, String> {
        // The other end of whoever was before may still spin.
        std::thread::sleep(RPC_IDLE * 2);
        let plan = Plan::new(case.depth, case.bytes, length);
        match &mut self.state {
            State::Wire { net, peer } => {
                let mut wire = Wire::connect(net, &peer.address, case)?;
                drive(&mut wire, &plan, peer.pid())
            }
            State::Bare(peer) => drive(&mut Bare::connect(&peer.address, case)?, &plan, peer.pid()),
            State::Tonic(peer) => {
                drive(&mut Unary::connect(&peer.address, case)?, &plan, peer.pid())
            }
            State::Ucx(perftest) => perftest.measure(case, length, cores),
        }
    }
}
