//! How long I/O pauses when a chunkserver dies or stands still: `failover [TRIALS [WHO [HOW]]]`, by
//! default 20 trials each of `leader` and `follower`, `kill` and `stop`, in turn.
//!
//! A cluster of real processes on this machine; the load writes to one chunk, and so to one
//! copyset, whose leader or one of whose followers is killed with SIGKILL, or stopped with SIGSTOP
//! until the load has ended. Needs the release binary:
//! `cargo build --release -p ogive --bins --examples`, then `target/release/examples/failover`.
#![allow(clippy::disallowed_methods)] // a shell: processes and waiting

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ogive_bench::{StopHandle, VolumeBench};
use ogive_cli::local::{LocalCluster, Options, Part};
use ogive_types::layout::copyset_slot;
use ogive_types::{ChunkId, CopysetId};
use rustix::process::Signal;

const VOLUME: &str = "one";
const BEFORE: Duration = Duration::from_millis(1000);
const LOAD: Duration = Duration::from_millis(3500);
const BOUND: Duration = Duration::from_secs(60);

/// What happens to whom.
#[derive(Clone, Copy)]
struct Case {
    leader: bool,
    stops: bool,
}

impl Case {
    const ALL: [Case; 4] = [
        Case { leader: true, stops: false },
        Case { leader: false, stops: false },
        Case { leader: true, stops: true },
        Case { leader: false, stops: true },
    ];

    fn is(self, word: &str) -> bool {
        self.to_string().split(' ').any(|own| own == word)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.leader { "leader" } else { "follower" };
        write!(f, "{who} {}", if self.stops { "stop" } else { "kill" })
    }
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let trials: usize = words.next().map_or(Ok(20), |n| n.parse())?;
    let words: Vec<String> = words.collect();
    let chosen = |case: &Case| words.iter().all(|word| case.is(word));
    let cases: Vec<Case> = Case::ALL.into_iter().filter(chosen).collect();
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
    let mut gaps = vec![Vec::new(); cases.len()];
    for _ in 0..trials {
        for (case, gaps) in cases.iter().zip(&mut gaps) {
            let gap = one(&mut cluster, *case)?;
            println!("{:13}  longest gap {gap:7.1} ms", case.to_string());
            gaps.push(gap);
        }
    }
    for (case, mut gaps) in cases.iter().zip(gaps) {
        gaps.sort_by(f64::total_cmp);
        let (Some(most), median) = (gaps.last(), gaps.get(gaps.len() / 2)) else { continue };
        let median = median.unwrap_or(most);
        println!("{case}: {} trials, median {median:.1} ms, longest {most:.1} ms", gaps.len());
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

/// The process that leads the volume's copyset, or one that follows.
fn victim(cluster: &mut LocalCluster, leader: bool) -> anyhow::Result<Part> {
    let id = copyset(cluster)?;
    let status = cluster.wait_healthy(BOUND, |_| {})?;
    let copyset = status.copysets.iter().find(|c| c.id == id).context("no such copyset")?;
    let led = copyset.leader.context("no leader")?;
    let other = copyset.members.iter().map(|m| m.replica).find(|&m| m != led);
    let victim = if leader { led } else { other.context("no follower")? };
    let zone = status.chunkservers.iter().find(|c| c.id == victim.server).map(|c| &c.zone);
    let number = zone.and_then(|z| z.strip_prefix("zone-")).context("a zone of this cluster")?;
    Ok(Part::Chunkserver(number.parse()?))
}

/// One trial under load; the longest gap.
fn one(cluster: &mut LocalCluster, case: Case) -> anyhow::Result<f64> {
    let part = victim(cluster, case.leader)?;
    let running = load(cluster)?.spawn(|_| {})?;
    std::thread::sleep(BEFORE);
    match case.stops {
        true => cluster.signal(part, Signal::STOP)?,
        false => cluster.kill(part)?,
    }
    let report = running.join()?;
    match case.stops {
        true => cluster.signal(part, Signal::CONT)?,
        false => cluster.launch(part)?,
    }
    if !report.is_ok() {
        bail!("the load found faults:\n{report}");
    }
    Ok(report.longest_gap_ms)
}
