//! What an operator does with a cluster: volumes, sizes, space, mistakes.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // real processes, real failures

mod common;
#[path = "cluster/damage.rs"]
mod damage;
#[path = "cluster/moves.rs"]
mod moves;
#[path = "cluster/tokens.rs"]
mod tokens;

use std::time::{Duration, Instant};

use common::{OGIVE, SOON, TestCluster, fails, make_image, ogive, scratch, stderr, text, tool};
use ogive_cli::local::Part;
use ogive_rpc::transport::{Path, PathChoice};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Waits for something that a cluster does by itself, such as freeing space.
fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !reached() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn used(cluster: &TestCluster) -> u64 {
    let status = cluster.status().expect("a status");
    status.chunkservers.iter().map(|c| c.used_bytes).sum()
}

#[test]
fn volumes_from_creation_to_deletion() {
    let cluster = TestCluster::start();
    let made = cluster.json(&["volume", "create", "a/b", "--size", "64MiB"]);
    assert_eq!((made["name"].as_str(), made["size_bytes"].as_u64()), (Some("a/b"), Some(64 * MIB)));
    cluster.json(&[
        "volume",
        "create",
        "c",
        "--size",
        "1GiB",
        "--stripe-chunks",
        "4",
        "--stripe-unit",
        "64KiB",
    ]);
    let all = cluster.json(&["volume", "list"]);
    let names: Vec<&str> =
        all.as_array().unwrap().iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["a/b", "c"]);
    let human = cluster.ogive(&["volume", "list"]);
    assert!(String::from_utf8_lossy(&human.stdout).contains("64.0 MiB"), "{human:?}");
    let grown = cluster.json(&["volume", "resize", "c", "--size", "2GiB"]);
    assert_eq!(grown["size_bytes"].as_u64(), Some(2048 * MIB));
    assert_eq!(cluster.json(&["volume", "show", "c"])["size_bytes"].as_u64(), Some(2048 * MIB));
    cluster.json(&["volume", "delete", "a/b"]);
    assert_eq!(cluster.json(&["volume", "list"]).as_array().unwrap().len(), 1);

    let again = cluster.ogive(&["volume", "create", "c", "--size", "64MiB"]);
    fails(&again, 1, &["ogive: ", "already", "\"c\""]);
    fails(&cluster.ogive(&["volume", "show", "nothing"]), 1, &["nothing"]);
    fails(&cluster.ogive(&["volume", "delete", "nothing"]), 1, &["nothing"]);
    fails(&cluster.ogive(&["volume", "resize", "c", "--size", "1GiB"]), 1, &["shrink"]);
    fails(&cluster.ogive(&["volume", "create", "b@d", "--size", "64MiB"]), 1, &["b@d"]);
    fails(&cluster.ogive(&["volume", "create", "d", "--size", "5000"]), 1, &["4"]);
    fails(&cluster.ogive(&["volume", "create", "d", "--size", "lots"]), 2, &["lots", "512MiB"]);
}

#[test]
fn status_tells_the_truth() {
    let mut cluster = TestCluster::start();
    let status = cluster.json(&["status"]);
    assert_eq!(status["health"].as_str(), Some("healthy"));
    assert_eq!(status["mds"].as_array().unwrap().len(), 3);
    assert_eq!(status["chunkservers"].as_array().unwrap().len(), 3);
    let human = cluster.ogive(&["status"]);
    let human = String::from_utf8_lossy(&human.stdout).into_owned();
    assert!(human.contains("is healthy") && human.contains("zone-3"), "{human}");

    cluster.kill(Part::Chunkserver(3)).unwrap();
    eventually("degraded status", || {
        let status = cluster.json(&["status"]);
        status["health"].as_str() == Some("degraded")
            && status["reasons"].as_array().is_some_and(|r| !r.is_empty())
    });
    cluster.launch(Part::Chunkserver(3)).unwrap();
    cluster.healthy();
}

#[test]
fn deletion_frees_space() {
    let mut cluster = TestCluster::start();
    let before = used(&cluster);
    cluster.export("v", 128 * MIB);
    let image = make_image(cluster.dir().join("image"), 96 << 20);
    tool("nbdcopy", &["--flush", text(&image), &cluster.uri(1, "v")]);
    // A fifth of the image is zero and takes no space.
    eventually("space in use on all three", || used(&cluster) > before + 3 * 70 * MIB);

    let held = cluster.ogive(&["volume", "delete", "v"]);
    fails(&held, 1, &["v", "attached"]);
    cluster.stop_part(Part::Gateway(1)).unwrap();
    cluster.json(&["volume", "delete", "v"]);
    // What the log still keeps for followers stays, a sixteenth of a device at most.
    eventually("space free again", || used(&cluster) < before + 3 * 20 * MIB);
}

#[test]
fn resize_reaches_the_client() {
    let mut cluster = TestCluster::with_volume("v", 64 * MIB);
    let uri = cluster.uri(1, "v");
    assert_eq!(tool("nbdinfo", &["--size", &uri]).trim(), (64 * MIB).to_string());
    cluster.json(&["volume", "resize", "v", "--size", "96MiB"]);
    eventually("new size", || tool("nbdinfo", &["--size", &uri]).trim() == (96 * MIB).to_string());
    let write = "write -P 7 94M 1M";
    tool("qemu-io", &["-f", "raw", "-c", write, "-c", "read -P 7 94M 1M", &uri]);
    cluster.check().unwrap();
}

/// A volume larger than the devices: it fills, says so, still reads, and goes on when space is
/// freed.
#[test]
fn a_full_cluster_refuses_and_recovers() {
    let mut cluster = TestCluster::with(|options| options.device_bytes = 96 * MIB);
    cluster.export("v", 256 * MIB);
    let uri = cluster.uri(1, "v");
    let full = common::try_tool("qemu-io", &["-f", "raw", "-c", "write -P 1 0 200M", &uri]);
    let said = format!("{}{}", String::from_utf8_lossy(&full.stdout), stderr(&full));
    assert!(said.contains("No space left"), "{said}");
    tool("qemu-io", &["-f", "raw", "-c", "read -P 1 0 16M", &uri]);
    tool("qemu-io", &["-f", "raw", "-d", "unmap", "-c", "discard 0 256M", &uri]);
    eventually("space after a discard", || {
        let write = ["-f", "raw", "-c", "write -P 2 0 16M", "-c", "read -P 2 0 16M", uri.as_str()];
        common::try_tool("qemu-io", &write).status.success()
    });
    cluster.healthy();
}

#[test]
fn one_gateway_at_a_time() {
    let mut cluster = TestCluster::with_volume("v", 64 * MIB);
    let other = scratch();
    let socket = other.path().join("nbd.sock");
    let second = cluster.ogive(&["nbd", "--volume", "v", "--socket", text(&socket)]);
    fails(&second, 1, &["cannot attach volume v", "--force"]);
    let taken = cluster.socket(1);
    cluster.create_volume("w", 64 * MIB).unwrap();
    let second = cluster.ogive(&["nbd", "--volume", "w", "--socket", text(&taken)]);
    fails(&second, 1, &["in use"]);
    let missing = cluster.ogive(&["nbd", "--volume", "none", "--socket", text(&socket)]);
    fails(&missing, 1, &["none"]);

    // Another that insists takes over; the first must not reach the data any more.
    cluster.start_gateway(2, &["v"]).unwrap();
    let write = |uri: &str| common::try_tool("qemu-io", &["-f", "raw", "-c", "write 0 4k", uri]);
    assert!(write(&cluster.uri(2, "v")).status.success());
    assert!(!write(&cluster.uri(1, "v")).status.success(), "the old gateway still writes");
}

#[test]
fn devices_stay_with_their_cluster_and_owner() {
    let mut cluster = TestCluster::start();
    let (mds, device) = (cluster.mds_addresses().join(","), cluster.device(1));
    let args = ["chunkserver", "--mds", &mds, "--zone", "z", "--device", text(&device)];
    fails(&ogive(&args), 1, &["in use"]);
    let format = ogive(&["format", text(&device), "--force"]);
    fails(&format, 1, &["in use"]);

    // The device of another cluster: its label says so.
    let kept = scratch();
    let moved = kept.path().join("device");
    cluster.stop().unwrap();
    std::fs::copy(&device, &moved).unwrap();
    fails(&ogive(&["format", text(&moved)]), 1, &["--force"]);
    drop(cluster);
    let cluster = TestCluster::start();
    let args = ["chunkserver", "--zone", "z", "--device", text(&moved)];
    fails(&cluster.ogive(&args), 1, &["cluster"]);
}

#[test]
fn several_shards() {
    let mut cluster = TestCluster::with(|options| options.shards = 2);
    cluster.export("v", 128 * MIB);
    let image = make_image(cluster.dir().join("image"), 64 << 20);
    let uri = cluster.uri(1, "v");
    tool("nbdcopy", &["--flush", text(&image), &uri]);
    let load = common::Meter::start(cluster.load("v"));
    load.wait(3000);
    cluster.kill(Part::Chunkserver(1)).unwrap();
    load.wait(3000);
    cluster.launch(Part::Chunkserver(1)).unwrap();
    cluster.healthy();
    load.verified();
    let status = cluster.json(&["status"]);
    let endpoints = |c: &Value| c["endpoints"].as_array().map(Vec::len);
    assert!(status["chunkservers"].as_array().unwrap().iter().all(|c| endpoints(c) == Some(2)));
}

#[test]
fn a_configuration_file_is_enough() {
    let cluster = TestCluster::start();
    let file = cluster.dir().join("ogive.toml");
    std::fs::write(&file, format!("mds = {:?}\njson = true\n", cluster.mds_addresses())).unwrap();
    let output = ogive(&["status", "--config", text(&file)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON, as the file says");
    assert_eq!(status["health"].as_str(), Some("healthy"));
}

/// What a build offers is announced, used, counted and shown; what is excluded is not.
#[test]
fn paths_are_announced_and_counted() {
    for (choice, offered) in [(PathChoice::Only(Path::Tcp), "tcp"), (PathChoice::Auto, "")] {
        let mut cluster = TestCluster::with(|options| options.transport = choice);
        cluster.export("v", 64 * MIB);
        let load = common::Meter::start(cluster.load("v"));
        load.wait(2000);
        // Counters come with heartbeats.
        eventually("the counters of the chunkservers", || {
            let status = cluster.json(&["status"]);
            let received = |p: &Value| p["bytes_received"].as_u64() > Some(1 << 20);
            let counted = |c: &Value| c["paths"].as_array().unwrap().iter().any(received);
            status["chunkservers"].as_array().unwrap().iter().all(counted)
        });
        let scheme =
            |c: &Value| c["endpoints"][0].as_str().unwrap().split(':').next().map(str::to_owned);
        let status = cluster.json(&["status"]);
        for c in status["chunkservers"].as_array().unwrap() {
            let scheme = scheme(c).unwrap();
            assert!(scheme.ends_with("tcp") && (offered.is_empty() || scheme == offered), "{c}");
            let all = c["paths"].as_array().unwrap();
            let best = |p: &&Value| p["chunkservers"].as_u64().unwrap() > 0;
            let used = all.iter().find(best).expect("it has peers");
            if cfg!(feature = "ucx") && choice == PathChoice::Auto {
                assert_eq!(used["path"].as_str(), Some("shm"), "{c}");
            } else {
                assert_eq!(used["path"].as_str(), Some("tcp"), "{c}");
            }
            assert!(used["bytes_received"].as_u64() > Some(1 << 20), "{c}");
        }
        eventually("the gateway reports too", || {
            let status = cluster.json(&["status"]);
            let paths = status["volumes"][0]["session"]["paths"].as_array().unwrap().clone();
            paths.iter().any(|p| p["chunkservers"].as_u64() > Some(0))
        });
        load.verified();
        cluster.stop_part(Part::Gateway(1)).unwrap();
        let log = std::fs::read_to_string(cluster.dir().join("log/nbd-1.log")).unwrap();
        assert!(log.contains("what went over this path"), "{log}");
        let shown = cluster.ogive(&["status"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("peers over") && shown.contains("tcp"), "{shown}");
    }
}

#[test]
fn a_forced_path_that_cannot_be_had_is_an_error() {
    let has_rdma = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut d| d.next().is_some());
    if has_rdma {
        return; // here it can be had
    }
    let cluster = TestCluster::start();
    cluster.create_volume("v", 64 * MIB).unwrap();
    let socket = cluster.dir().join("forced.sock");
    let nbd = ["nbd", "--volume", "v", "--socket", text(&socket), "--transport", "rdma"];
    fails(&cluster.ogive(&nbd), 2, &["--transport rdma cannot be had", "auto"]);
    fails(&cluster.ogive(&[&nbd[..6], &["quic"]].concat()), 2, &["quic", "rdma"]);
}

#[test]
fn the_demo_in_small() {
    let dir = scratch();
    let demo = dir.path().join("demo");
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("inner")).unwrap();
    make_image(tree.join("inner/file"), 3 << 20);
    std::os::unix::fs::symlink("inner/file", tree.join("link")).unwrap();
    let args =
        ["demo", "--json", "--seconds", "1", "--device", "768MiB", "--tree", text(&tree), "--dir"];
    let output = ogive(&[&args[..], &[text(&demo)]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((result["verified"].as_bool(), result["files"].as_u64()), (Some(true), Some(1)));
    let phases = result["phases"].as_object().unwrap();
    for name in ["write_depth1", "write_depth32", "read_depth32", "failover"] {
        assert!(phases[name]["iops"].as_f64().unwrap() > 0.0, "{name}: {result}");
    }
    assert!(
        result["longest_gap_ms"].as_f64().is_some() && result["blocks_checked"].as_u64() > Some(0)
    );
    let among = result["paths"]["among_chunkservers"].as_object().unwrap();
    assert!(!among.is_empty(), "{result}");
    assert!(!demo.exists(), "it cleans up");
}

/// Ctrl-C in the middle leaves no process and no directory.
#[test]
fn an_interrupted_demo_cleans_up() {
    let dir = scratch();
    let demo = dir.path().join("demo");
    let mut child = std::process::Command::new(OGIVE)
        .args(["demo", "--keep", "--device", "768MiB", "--dir", text(&demo)])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let state = demo.join("cluster.json");
    eventually("a cluster", || {
        std::fs::read_to_string(&state).is_ok_and(|json| json.contains("chunkserver-3"))
    });
    let pids: Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    tool("kill", &["-INT", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!demo.exists());
    for pid in pids["pids"].as_object().unwrap().values() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(text(&demo)), "process {pid} still runs");
    }
}
