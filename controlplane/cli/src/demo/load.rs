//! Measured loads, and the one during which a chunkserver is killed.
#![allow(clippy::disallowed_methods)] // a shell: waits for the moments at which it acts

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ogive_api::types::ClusterStatus;
use ogive_bench::{NbdUri, Pattern, Progress as Load, Report, Stage, StopHandle, VolumeBench};

use crate::command::bench::line;
use crate::local::{LocalCluster, Part};
use crate::progress::Progress;

/// The part of the volume that is loaded: larger than any cache between here and the devices would
/// need to be to matter, small enough to be filled in a second or two.
const RANGE_BYTES: u64 = 128 << 20;
/// One write of the filling.
const FILL_BLOCK: usize = 1 << 20;
/// Requests in flight while a chunkserver is killed.
const KILL_DEPTH: usize = 16;
/// The load with the kill takes so many times as long as the other phases: a third before the kill,
/// a third without the chunkserver, a third in which it catches up.
const KILL_FACTOR: u32 = 3;
/// How long a healthy cluster is waited for: many times what it takes.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// What was measured in one phase.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its name, for programs.
    pub name: &'static str,
    /// What was measured.
    pub report: Report,
}

/// What happened around the kill.
#[derive(Clone, Debug)]
pub struct Kill {
    /// The load meanwhile.
    pub phase: Phase,
    /// Which chunkserver was killed, and how many copysets it led.
    pub victim: Part,
    /// Copysets that it led.
    pub led: u32,
    /// Entries that it lacked at most after its restart, over all copysets.
    pub lag_max: u64,
    /// From its restart until everything was healthy again.
    pub healthy_after: Duration,
}

/// A load to measure.
struct Plan {
    name: &'static str,
    label: &'static str,
    depth: usize,
    reads: u8,
}

const PLANS: [Plan; 3] = [
    Plan { name: "write_depth1", label: "write, depth 1 ", depth: 1, reads: 0 },
    Plan { name: "write_depth32", label: "write, depth 32", depth: 32, reads: 0 },
    Plan { name: "read_depth32", label: "read, depth 32 ", depth: 32, reads: 100 },
];

/// Fills the volume, so that no read is answered from nothing, and measures random 4 KiB I/O.
pub fn measure(uri: &NbdUri, phase: Duration) -> anyhow::Result<Vec<Phase>> {
    let fill = VolumeBench {
        depth: 4,
        block_bytes: FILL_BLOCK,
        read_percent: 0,
        pattern: Pattern::Sequential,
        ops: Some(RANGE_BYTES / FILL_BLOCK as u64),
        range: Some(0..RANGE_BYTES),
        ..VolumeBench::new(uri.clone())
    };
    let mut phases = vec![run("fill_1mib", "fill, 1 MiB    ", &fill)?];
    for plan in &PLANS {
        let bench = VolumeBench {
            depth: plan.depth,
            read_percent: plan.reads,
            duration: Some(phase),
            range: Some(0..RANGE_BYTES),
            ..VolumeBench::new(uri.clone())
        };
        phases.push(run(plan.name, plan.label, &bench)?);
    }
    Ok(phases)
}

fn run(name: &'static str, label: &str, bench: &VolumeBench) -> anyhow::Result<Phase> {
    let mut progress = Progress::spinner(label);
    let report = bench.run(&StopHandle::new(), |load| show(&mut progress, load))?;
    progress.done(&summary(&report));
    if let Some(why) = &report.ended_early {
        bail!("the load '{name}' ended early: {why}");
    }
    Ok(Phase { name, report })
}

/// The last report of a run says nothing about its rate.
fn show(progress: &mut Progress, load: &Load) {
    if load.stage == Stage::Load {
        progress.say(line(load));
    }
}

fn summary(report: &Report) -> String {
    let op = report.write.or(report.read);
    let latency = op.map_or(String::new(), |op| {
        format!(", mean {:.0} µs, p99 {:.0} µs", op.latency.mean_us, op.latency.p99_us)
    });
    format!("{:.0} IOPS{latency}", report.iops)
}

/// Loads the volume, checking every block, while the chunkserver that leads most is killed and
/// started again; then waits until the cluster is healthy.
pub fn survive_kill(
    cluster: &mut LocalCluster,
    uri: &NbdUri,
    phase: Duration,
) -> anyhow::Result<Kill> {
    let (victim, led) = most_leading(&cluster.status()?)?;
    let bench = VolumeBench {
        depth: KILL_DEPTH,
        read_percent: 50,
        duration: Some(phase * KILL_FACTOR),
        range: Some(0..RANGE_BYTES),
        verify: true,
        ..VolumeBench::new(uri.clone())
    };
    let state = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&state);
    let running = bench.spawn(move |load| {
        if let Ok(mut state) = told.lock() {
            *state = line(load);
        }
    })?;
    let mut progress = Progress::spinner("mixed, checked ");
    let show = |progress: &mut Progress, until: Instant| {
        while Instant::now() < until && !running.is_finished() {
            let text = state.lock().map(|s| s.clone()).unwrap_or_default();
            progress.say(text);
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    show(&mut progress, Instant::now() + phase);
    cluster.kill(victim)?;
    progress.note(&format!("    SIGKILL        {victim}, which led {led} copysets; I/O goes on"));
    show(&mut progress, Instant::now() + phase);
    cluster.launch(victim)?;
    let restarted = Instant::now();
    progress.note(&format!("    restart        {victim}"));
    show(&mut progress, restarted + phase + Duration::from_secs(3600));
    let report = running.join()?;
    progress.done(&format!("{}, longest gap {:.0} ms", summary(&report), report.longest_gap_ms));
    let (lag_max, healthy_after) = wait_caught_up(cluster, victim, restarted)?;
    Ok(Kill { phase: Phase { name: "failover", report }, victim, led, lag_max, healthy_after })
}

/// The chunkserver that leads most copysets: the worst to lose.
fn most_leading(status: &ClusterStatus) -> anyhow::Result<(Part, u32)> {
    let most = status.chunkservers.iter().max_by_key(|c| c.leaders).context("no chunkservers")?;
    let number = most.zone.rsplit('-').next().and_then(|n| n.parse().ok());
    let number = number.with_context(|| format!("zone {} is not one of the demo's", most.zone))?;
    Ok((Part::Chunkserver(number), most.leaders))
}

/// Shows the lag shrink until all is healthy. What the metadata servers heard before the restart
/// does not count: they take some seconds to notice that a chunkserver is gone.
fn wait_caught_up(
    cluster: &mut LocalCluster,
    victim: Part,
    restarted: Instant,
) -> anyhow::Result<(u64, Duration)> {
    let mut progress = Progress::spinner("catching up    ");
    let Part::Chunkserver(number) = victim else { bail!("{victim} is not a chunkserver") };
    let zone = format!("zone-{number}");
    let heard = |status: &ClusterStatus| {
        let silent = status.chunkservers.iter().find(|c| c.zone == zone).and_then(|c| c.silent_ms);
        silent.is_some_and(|ms| Duration::from_millis(ms) < restarted.elapsed())
    };
    let mut lag_max = 0;
    cluster.wait_until(HEALTHY_WITHIN, "catching up", heard)?;
    cluster.wait_healthy(HEALTHY_WITHIN, |status| {
        let lag = lag(status);
        lag_max = lag_max.max(lag);
        progress.say(format!("{lag} entries behind; {}", status.reasons.join("; ")));
    })?;
    let after = restarted.elapsed();
    progress.done(&format!("healthy {:.1} s after the restart", after.as_secs_f64()));
    Ok((lag_max, after))
}

/// Entries that replicas lack, over all copysets.
fn lag(status: &ClusterStatus) -> u64 {
    status.copysets.iter().flat_map(|c| &c.members).filter_map(|m| m.lag).sum()
}
