//! `ogive bench volume`: a load on one export; `store`: the engine on a device; `rpc`: the
//! transports; `copyset`: the replication core.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use ogive_bench::copyset::CopysetBench;
use ogive_bench::rpc::{self, RpcBench};
use ogive_bench::store::{StoreBench, StoreBenchError, Wait};
use ogive_bench::{NbdUri, Pattern, Progress as Load, Stage, StopHandle, VolumeBench};

use crate::Usage;
use crate::args::{
    BenchCopysetArgs, BenchRpcArgs, BenchRpcPeerArgs, BenchStoreArgs, BenchVolumeArgs, WaitArg,
};
use crate::output::{self, bytes};
use crate::progress::Progress;

/// How long a lost server is waited for: longer than a gateway or a chunkserver takes to restart.
const RECONNECT: Duration = Duration::from_secs(30);

/// Loads the export and prints what was measured; the exit code is 1 when the run did not reach its
/// end, or something that was read is wrong.
pub fn run(args: &BenchVolumeArgs, json: bool) -> anyhow::Result<ExitCode> {
    let bench = bench(args)?;
    let stop = StopHandle::new();
    stop_on_interrupt(&stop)?;
    let mut progress = Progress::spinner(args.uri.as_str());
    let report = bench.run(&stop, |load| progress.say(line(load)));
    progress.clear();
    let report = report?;
    output::print(json, &report, ToString::to_string)?;
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench(args: &BenchVolumeArgs) -> anyhow::Result<VolumeBench> {
    let uri: NbdUri = args.uri.parse().map_err(|e| Usage(format!("{e}")))?;
    let pattern = if args.sequential { Pattern::Sequential } else { Pattern::Random };
    Ok(VolumeBench {
        connections: args.connections,
        depth: args.depth,
        block_bytes: usize::try_from(args.block).context("--block is too large")?,
        read_percent: args.reads,
        pattern,
        duration: Some(Duration::from_secs(args.seconds)),
        rate: args.rate.map(|rate| rate as f64),
        range: args.range.map(|end| 0..end),
        seed: args.seed,
        verify: args.verify,
        reconnect: RECONNECT,
        ..VolumeBench::new(uri)
    })
}

/// Measures the transports and prints the figures and the verdicts on the budgets.
pub fn rpc(args: &BenchRpcArgs, json: bool) -> anyhow::Result<ExitCode> {
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let sizes = args.size.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>();
    let bench = RpcBench {
        paths: args.path.clone(),
        references: !args.no_references,
        sizes: sizes.context("--size is too large")?,
        depths: args.depth.clone(),
        duration: Duration::from_secs_f64(args.seconds),
        rounds: args.rounds,
        ..RpcBench::new(exe, vec!["bench".into(), "rpc-peer".into()])
    };
    let mut progress = Progress::spinner("rpc");
    let report = bench.run(&mut |line| progress.say(line));
    progress.clear();
    let report = report.map_err(|error| match error {
        rpc::RpcBenchError::Spec(_) => anyhow::Error::new(Usage(error.to_string())),
        error => error.into(),
    })?;
    output::print(json, &report, ToString::to_string)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures the store on a file or device and prints the figures and the verdicts on the budgets.
pub fn store(args: &BenchStoreArgs, json: bool) -> anyhow::Result<ExitCode> {
    let bench = StoreBench {
        path: args.path.clone(),
        size: args.size,
        force: args.force,
        duration: Duration::from_secs_f64(args.seconds),
        rounds: args.rounds,
        fio: !args.no_fio,
        wait: match args.wait {
            WaitArg::Spin => Wait::Spin,
            WaitArg::Sleep => Wait::Sleep,
        },
        only: args.case.clone(),
        mapped: args.mapped.clone(),
    };
    let mut progress = Progress::spinner("store");
    let report = bench.run(&mut |line| progress.say(line));
    progress.clear();
    let report = report.map_err(|error| match error {
        StoreBenchError::Spec(_) => anyhow::Error::new(Usage(error.to_string())),
        error => error.into(),
    })?;
    output::print(json, &report, ToString::to_string)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures the replication core and prints the figures and the verdicts on the budgets.
pub fn copyset(args: &BenchCopysetArgs, json: bool) -> anyhow::Result<ExitCode> {
    let mut bench = CopysetBench::new();
    bench.groups.clone_from(&args.groups);
    bench.idle.clone_from(&args.idle);
    bench.operations = args.operations;
    bench.rounds = usize::from(args.rounds);
    let mut progress = Progress::spinner("copyset");
    let report = bench.run(&mut |line| progress.say(line));
    progress.clear();
    output::print(json, &report, ToString::to_string)?;
    Ok(ExitCode::SUCCESS)
}

/// The other end of `ogive bench rpc`.
pub fn rpc_peer(args: &BenchRpcPeerArgs) -> anyhow::Result<()> {
    rpc::serve(args.kind, args.core).map_err(anyhow::Error::msg)
}

/// Ctrl-C ends the load early, and what was measured is still printed; a second one ends it at
/// once.
fn stop_on_interrupt(stop: &StopHandle) -> anyhow::Result<()> {
    let stop = stop.clone();
    let mut first = true;
    crate::progress::on_stop(move |_| match std::mem::take(&mut first) {
        true => stop.stop(),
        false => stop.abort(),
    })
}

/// How the load stands, in one line.
pub fn line(load: &Load) -> String {
    let stage = match load.stage {
        Stage::Load => "",
        Stage::Drain => "waiting for the last requests  ",
        Stage::ReadBack => "reading back  ",
        Stage::Done => "done  ",
    };
    let mut text = format!(
        "{stage}{:>5.1} s  {:>8.0} IOPS  {:>10}/s  {} in flight",
        load.elapsed_s,
        load.iops,
        bytes(load.bytes_per_s as u64),
        load.in_flight
    );
    if load.gap_ms > 100.0 {
        text.push_str(&format!("  waiting for {:.0} ms", load.gap_ms));
    }
    if load.errors > 0 {
        text.push_str(&format!("  {} errors", load.errors));
    }
    if load.faults > 0 {
        text.push_str(&format!("  {} WRONG BLOCKS", load.faults));
    }
    text
}
