//! A cluster of real processes under faults of all kinds, and clients whose history is judged.
//!
//! Each episode has a cluster of its own and a seed, which decides what goes wrong when. Then all
//! faults stop: the cluster must become healthy, every block must be readable, the history of all
//! clients must be linearizable, and the devices must be free of damage and hold the same.
//!
//! `make chaos MINUTES=10` goes through fresh seeds; `make chaos SEED=7` replays one.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // real processes, real failures

mod common;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/replicas.rs"]
mod replicas;
#[path = "chaos/schedule.rs"]
mod schedule;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{TestCluster, ogive, stderr, text};
use faults::World;
use ogive_bench::history::{Told, check};
use ogive_cli::local::Part;
use ogive_cli::local::net::Network;
use ogive_rpc::transport::{Path, PathChoice};
use schedule::{SERVERS, Schedule};

/// Seconds of faults in one episode.
const EPISODE: Duration = Duration::from_secs(60);
/// All must be well so soon after the last fault. Far more than it takes: it bounds a failure.
const HEAL: Duration = Duration::from_secs(120);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

#[test]
fn nothing_lies_whatever_breaks() {
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 1_000_000;
    let seed = number("OGIVE_CHAOS_SEED");
    let length = Duration::from_secs(60 * number("OGIVE_CHAOS_MINUTES").unwrap_or(0));
    let first = seed.unwrap_or_else(fresh);
    let begin = Instant::now();
    for seed in first.. {
        // A thread of its own, whose network it may leave.
        let run = std::thread::Builder::new().name(format!("seed {seed}"));
        let episode = run.spawn(move || episode(seed)).expect("a thread");
        if episode.join().is_err() {
            panic!("replay: make chaos SEED={seed}");
        }
        if begin.elapsed() >= length {
            break;
        }
    }
}

/// The parts that have a host of their own.
fn parts() -> Vec<Part> {
    let servers = (1..=SERVERS).flat_map(|n| [Part::Mds(n), Part::Chunkserver(n)]);
    servers.chain([Part::Gateway(1), Part::Gateway(2)]).collect()
}

fn episode(seed: u64) {
    println!("episode of seed {seed}");
    let network = match Network::new(&parts(), seed) {
        Ok(network) => Some(network),
        Err(error) => {
            println!("  without faults of the network: no network of our own ({error})");
            None
        }
    };
    let cluster = TestCluster::with(|options| {
        if let Some(network) = &network {
            options.hosts = network.hosts().clone();
            options.transport = PathChoice::Only(Path::Tcp);
        }
        // Small maps and logs, so that these too are cut and fetched; quick laps of the scrub.
        options.log_bytes = Some(4 << 20);
        options.env.insert("OGIVE_CHUNKSERVER_SCRUB_RATE".into(), "64MiB".into());
    });
    let mut schedule = Schedule::new(seed, network.is_some());
    let mut world = World::start(cluster, network, &mut schedule);
    let until = Instant::now() + EPISODE;
    while Instant::now() < until {
        let round = schedule.next().expect("it has no end");
        world.round(&round);
    }
    let (told, cluster, _network) = world.heal(HEAL);
    judge(&told);
    stopped_and_sound(cluster);
}

/// What the clients were told must be what one disk could have told them.
fn judge(told: &Told) {
    println!(
        "  {} operations, {} errors, {} without answer",
        told.history.len(),
        told.errors,
        told.unanswered
    );
    let violations = check(&told.history);
    for violation in violations.iter().take(10) {
        println!("  NOT LINEARIZABLE: {violation}");
    }
    assert!(told.nonsense.is_empty(), "{:?}", &told.nonsense[..told.nonsense.len().min(10)]);
    assert!(told.unread.is_empty(), "cannot be read: {:?}", told.unread);
    assert!(violations.is_empty(), "{} blocks are not linearizable", violations.len());
}

/// Stops the cluster; the devices must be whole, and the same.
fn stopped_and_sound(mut cluster: TestCluster) {
    cluster.stop().expect("all end in order");
    let devices: Vec<_> = (1..=SERVERS).map(|n| cluster.device(n)).collect();
    for device in &devices {
        let seen = ogive(&["device", "verify", text(device)]);
        let said = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(seen.status.success(), "{}: {said}{}", device.display(), stderr(&seen));
    }
    println!("  {} blocks, the same on all devices", replicas::identical(&devices));
}
