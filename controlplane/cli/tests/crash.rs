//! Kill -9 of every role under a load that checks each block it reads and, at the end, all that it
//! wrote.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // real processes, real failures

mod common;

use std::time::{Duration, Instant};

use common::{Meter, SOON, TestCluster, tool, verified};
use ogive_bench::VolumeBench;
use ogive_cli::local::Part;
use rustix::process::Signal;

/// Requests between two events: enough that every copyset took part.
const SOME: u64 = 3000;

/// Kills a part in the middle of a load, starts it again, and checks.
fn survives(pick: impl Fn(&mut TestCluster) -> Part) {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    let load = Meter::start(cluster.load("v"));
    load.wait(SOME);
    let victim = pick(&mut cluster);
    cluster.kill(victim).unwrap();
    if !matches!(victim, Part::Gateway(_)) {
        load.wait(SOME);
    }
    cluster.launch(victim).unwrap();
    load.wait(SOME);
    cluster.healthy();
    let report = load.verified();
    // A gateway's clients see it die; of everything else they see nothing but a delay.
    if !matches!(victim, Part::Gateway(_)) {
        assert_eq!((report.errors, report.lost), (0, 0), "{report}");
    }
}

#[test]
fn chunkserver_that_leads() {
    survives(|cluster| cluster.leader_and_follower().0);
}

#[test]
fn chunkserver_that_follows() {
    survives(|cluster| cluster.leader_and_follower().1);
}

#[test]
fn metadata_server_that_leads() {
    survives(|cluster| cluster.mds_leader());
}

#[test]
fn gateway() {
    survives(|_| Part::Gateway(1));
}

#[test]
fn each_chunkserver_in_turn() {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    let load = Meter::start(cluster.load("v"));
    for n in 1..=3 {
        load.wait(SOME);
        cluster.kill(Part::Chunkserver(n)).unwrap();
        load.wait(SOME);
        cluster.launch(Part::Chunkserver(n)).unwrap();
        cluster.healthy();
    }
    let report = load.verified();
    assert_eq!((report.errors, report.lost), (0, 0), "{report}");
}

#[test]
fn io_goes_on_without_any_metadata_server() {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    let load = Meter::start(cluster.load("v"));
    load.wait(SOME);
    for n in 1..=3 {
        cluster.kill(Part::Mds(n)).unwrap();
    }
    load.wait(3 * SOME);
    // A chunkserver that dies meanwhile changes nothing: its peers elect without anybody's help.
    cluster.kill(Part::Chunkserver(1)).unwrap();
    load.wait(SOME);
    for n in 1..=3 {
        cluster.launch(Part::Mds(n)).unwrap();
    }
    cluster.launch(Part::Chunkserver(1)).unwrap();
    cluster.healthy();
    let report = load.verified();
    assert_eq!((report.errors, report.lost), (0, 0), "{report}");
}

/// Its clients' requests will never be answered; it gives them up.
#[test]
fn a_gateway_that_lost_its_cluster_ends_when_told() {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    let load = VolumeBench { reconnect: Duration::ZERO, ..cluster.load("v") };
    let load = Meter::start(load);
    load.wait(SOME);
    let others: Vec<Part> = cluster.processes().map(|p| p.part()).collect();
    for part in others.into_iter().filter(|part| *part != Part::Gateway(1)) {
        cluster.kill(part).unwrap();
    }
    cluster.signal(Part::Gateway(1), Signal::TERM).unwrap();
    let deadline = Instant::now() + SOON;
    while cluster.check().is_ok() {
        assert!(Instant::now() < deadline, "it still runs: {}", cluster.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    // What the load says of its lost export is of no interest.
    drop(load.running.join());
}

#[test]
fn everything_at_once() {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    for _ in 0..2 {
        let load = Meter::start(cluster.load("v"));
        load.wait(2 * SOME);
        let parts: Vec<Part> = cluster.processes().map(|p| p.part()).collect();
        for &part in &parts {
            cluster.kill(part).unwrap();
        }
        for &part in &parts {
            cluster.launch(part).unwrap();
        }
        load.wait(SOME);
        load.verified();
    }
    cluster.healthy();
}

#[test]
fn restart_in_order_keeps_everything() {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    let image = common::make_image(cluster.dir().join("image"), 48 << 20);
    tool("nbdcopy", &["--flush", common::text(&image), &cluster.uri(1, "v")]);
    let parts: Vec<Part> = cluster.processes().map(|p| p.part()).collect();
    cluster.stop().unwrap();
    for part in parts {
        cluster.launch(part).unwrap();
    }
    cluster.wait_gateway(1).unwrap();
    cluster.healthy();
    let back = cluster.dir().join("back");
    tool("nbdcopy", &[&cluster.uri(1, "v"), common::text(&back)]);
    let (image, back) = (std::fs::read(image).unwrap(), std::fs::read(back).unwrap());
    assert!(back.len() == 128 << 20 && back[..image.len()] == image[..], "other data came back");
    assert!(back[image.len()..].iter().all(|&b| b == 0), "data where nothing was written");
}

/// A log of 1 MiB holds a fraction of a second of this load: it must be cut again and again, also
/// by a chunkserver that comes back in the middle of it.
#[test]
fn a_small_log_never_fills() {
    let mut cluster = TestCluster::with(|options| options.log_bytes = Some(1 << 20));
    cluster.export("v", 128 << 20);
    let load = Meter::start(cluster.load("v"));
    load.wait(10 * SOME);
    let (leader, _) = cluster.leader_and_follower();
    cluster.kill(leader).unwrap();
    cluster.launch(leader).unwrap();
    load.wait(5 * SOME);
    cluster.healthy();
    let report = load.verified();
    assert_eq!((report.errors, report.lost), (0, 0), "{report}");
}

/// The same by somebody else's checker.
#[test]
fn fio_verifies_across_a_kill() {
    let mut cluster = TestCluster::with_volume("v", 128 << 20);
    let (leader, _) = cluster.leader_and_follower();
    let uri = format!("--uri={}", cluster.uri(1, "v"));
    let fio = std::thread::spawn(move || {
        let job = ["--name=kill", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=16"];
        let check = [
            "--size=48m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--verify_state_save=0",
        ];
        tool("fio", &[&job[..], &check[..], &[&uri]].concat())
    });
    // Until fio has written something; how far it got does not matter.
    let used = |cluster: &TestCluster| {
        let status = cluster.status().expect("a status");
        status.chunkservers.iter().map(|c| c.used_bytes).sum::<u64>()
    };
    let before = used(&cluster);
    let deadline = std::time::Instant::now() + SOON;
    while used(&cluster) < before + (4 << 20) && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    cluster.kill(leader).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    cluster.launch(leader).unwrap();
    let output = fio.join().expect("fio found everything in place");
    assert!(output.contains("err= 0"), "{output}");
}

/// Loads on two volumes at once, on both of which a chunkserver's death must be survived.
#[test]
fn two_volumes_of_one_gateway() {
    let mut cluster = TestCluster::start();
    cluster.create_volume("a", 64 << 20).unwrap();
    cluster.create_volume("b", 64 << 20).unwrap();
    cluster.start_gateway(1, &["a", "b"]).unwrap();
    let (a, b) = (cluster.load("a"), cluster.load("b"));
    let (a, b) = (Meter::start(a), Meter::start(b));
    a.wait(SOME);
    b.wait(SOME);
    cluster.kill(Part::Chunkserver(2)).unwrap();
    a.wait(SOME);
    b.wait(SOME);
    cluster.launch(Part::Chunkserver(2)).unwrap();
    cluster.healthy();
    a.running.stop_handle().stop();
    b.running.stop_handle().stop();
    verified(a.running);
    verified(b.running);
}
