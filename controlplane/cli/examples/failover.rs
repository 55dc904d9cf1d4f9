//! How long I/O pauses when a chunkserver is killed: `failover [TRIALS]`, by default 10 of a leader
//! and 10 of a follower, in turn.
//!
//! A cluster of real processes on this machine; the load writes to one chunk, and so to one
//! copyset, whose leader or one of whose followers is killed with SIGKILL. Needs the release
//! binary: `cargo build --release -p ogive --bins --examples`, then
//! `target/release/examples/failover`.
#![allow(clippy::disallowed_methods)] // a shell: processes and waiting

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ogive_bench::{StopHandle, VolumeBench};
use ogive_cli::local::{LocalCluster, Options, Part};
use ogive_types::layout::copyset_slot;
use ogive_types::{ChunkId, CopysetId};

const VOLUME: &str = "one";
const BEFORE: Duration = Duration::from_millis(1500);
const LOAD: Duration = Duration::from_secs(4);
const BOUND: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let trials: usize = std::env::args().nth(1).map_or(Ok(10), |n| n.parse())?;
    let exe = std::env::current_exe()?;
    let exe: PathBuf = exe.ancestors().nth(2).context("no build directory")?.join("ogive");
    let dir = std::env::temp_dir().join(format!("ogive-failover-{}", std::process::id()));
    let mut cluster = LocalCluster::create(Options::new(dir.clone(), exe))?;
    cluster.start()?;
    cluster.wait_healthy(BOUND, |_| {})?;
    cluster.create_volume(VOLUME, 16 << 20)?;
    cluster.start_gateway(1, &[VOLUME])?;
    let first = VolumeBench { ops: Some(1), ..load(&cluster)? };
    first.run(&StopHandle::new(), |_| {})?; // gives the volume its space
    let mut gaps = [Vec::new(), Vec::new()];
    for trial in 0..2 * trials {
        let leader = trial % 2 == 0;
        let gap = one(&mut cluster, leader)?;
        println!(
            "{:8} killed: longest gap {gap:7.1} ms",
            if leader { "leader" } else { "follower" }
        );
        gaps[usize::from(!leader)].push(gap);
    }
    for (name, mut gaps) in ["leader", "follower"].into_iter().zip(gaps) {
        gaps.sort_by(f64::total_cmp);
        let (median, most) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        println!("{name}: {} trials, median {median:.1} ms, longest {most:.1} ms", gaps.len());
    }
    cluster.stop()?;
    Ok(std::fs::remove_dir_all(dir)?)
}

fn load(cluster: &LocalCluster) -> anyhow::Result<VolumeBench> {
    let uri = cluster.uri(1, VOLUME).parse()?;
    Ok(VolumeBench {
        depth: 8,
        read_percent: 0,
        duration: Some(LOAD),
        verify: true,
        ..VolumeBench::new(uri)
    })
}

/// The copyset of the volume's only chunk.
fn copyset(cluster: &LocalCluster) -> anyhow::Result<CopysetId> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mds = cluster.mds()?;
    let volume = runtime.block_on(mds.get_volume(VOLUME))?;
    let found = runtime.block_on(mds.get_segments(volume.id, 0, 1, None))?;
    let segment = found.segments.get(&0).context("the volume has no space yet")?;
    let chunk = ChunkId { volume: volume.id, number: 0 };
    Ok(segment[copyset_slot(chunk, segment.len())])
}

/// Kills the leader, or a follower, of the volume's copyset under load; the longest gap.
fn one(cluster: &mut LocalCluster, leader: bool) -> anyhow::Result<f64> {
    let id = copyset(cluster)?;
    let status = cluster.wait_healthy(BOUND, |_| {})?;
    let copyset = status.copysets.iter().find(|c| c.id == id).context("no such copyset")?;
    let led = copyset.leader.context("no leader")?;
    let other = copyset.members.iter().map(|m| m.replica).find(|&m| m != led);
    let victim = if leader { led } else { other.context("no follower")? };
    let zone = status.chunkservers.iter().find(|c| c.id == victim.server).map(|c| &c.zone);
    let number = zone.and_then(|z| z.strip_prefix("zone-")).context("a zone of this cluster")?;
    let part = Part::Chunkserver(number.parse()?);
    let running = load(cluster)?.spawn(|_| {})?;
    std::thread::sleep(BEFORE);
    cluster.kill(part)?;
    let report = running.join()?;
    if !report.is_ok() {
        bail!("the load found faults:\n{report}");
    }
    cluster.launch(part)?;
    Ok(report.longest_gap_ms)
}
