//! What a person sees of the command itself: help, formats, and errors that say what to do.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // real processes, real failures

mod bench_rpc;
mod bench_store;
mod common;
mod device;

use std::net::TcpListener;
use std::process::{Command, Stdio};

use common::{OGIVE, fails, ogive, scratch, stderr, text, tool};
use serde_json::Value;

fn out(args: &[&str]) -> String {
    let output = ogive(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn versions_help_and_pages() {
    let version: Value = serde_json::from_str(&out(&["version", "--json"])).unwrap();
    assert_eq!(version["ogive"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    assert!(out(&["version"]).contains("device format"));
    let paths: Vec<&str> =
        version["paths"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert_eq!((paths.last(), paths.contains(&"shm")), (Some(&"tcp"), cfg!(feature = "ucx")));
    assert!(out(&["--help"]).contains("chunkserver"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&["completions", shell]).contains("chunkserver"), "{shell}");
    }
    assert!(out(&["man"]).contains(".TH ogive"));
    let dir = scratch();
    out(&["man", "--dir", text(dir.path())]);
    assert!(dir.path().join("ogive-chunkserver.1").is_file());
}

#[test]
fn wrong_calls_are_told_apart_from_failures() {
    fails(&ogive(&[]), 2, &["Usage"]);
    fails(&ogive(&["volumes"]), 2, &["volumes"]);
    fails(&ogive(&["status"]), 2, &["--mds"]);
    fails(&ogive(&["chunkserver", "--mds", "a:1", "--device", "d"]), 2, &["--zone"]);
    fails(&ogive(&["mds", "--id", "1", "--peers", "a:1", "--dir", "d"]), 2, &["ID=HOST:PORT"]);
    fails(&ogive(&["nbd", "--mds", "a:1", "--volume", "v"]), 2, &["--socket"]);
    fails(&ogive(&["demo", "--transport", "quic"]), 2, &["quic", "auto, tcp, shm or rdma"]);
    fails(&ogive(&["version", "--log", "a=b=c"]), 2, &["--log"]);
    fails(&ogive(&["bench", "volume", "http://x"]), 2, &["nbd://"]);
    fails(&ogive(&["bench", "rpc", "--path", "quic"]), 2, &["rdma, shm or tcp"]);
    fails(&ogive(&["bench", "rpc", "--depth", "0"]), 2, &["depth of 0"]);
}

#[test]
fn configuration_files_are_checked() {
    let dir = scratch();
    let file = dir.path().join("o.toml");
    std::fs::write(&file, "[chunkserver]\nzoen = 1\n").unwrap();
    fails(&ogive(&["version", "--config", text(&file)]), 2, &["chunkserver.zoen"]);
    std::fs::write(&file, "[nbd]\ntransport = \"quic\"\n").unwrap();
    fails(&ogive(&["nbd", "--config", text(&file)]), 2, &["--transport", "quic"]);
    std::fs::write(&file, "[chunkserver\n").unwrap();
    fails(&ogive(&["version", "--config", text(&file)]), 2, &["TOML"]);
    let missing = dir.path().join("none.toml");
    fails(&ogive(&["version", "--config", text(&missing)]), 2, &["none.toml", "cannot read"]);
}

#[test]
fn nobody_there_is_said() {
    let output = ogive(&["status", "--mds", "127.0.0.1:1"]);
    fails(&output, 1, &["ogive: ", "127.0.0.1:1", "is a majority of the MDS running?"]);
    fails(&ogive(&["status", "--mds", "nonsense"]), 1, &["nonsense", "HOST:PORT"]);
    let uri = "nbd+unix:///v?socket=/no/such/socket";
    fails(&ogive(&["bench", "volume", uri, "--seconds", "1"]), 1, &["/no/such/socket"]);
}

#[test]
fn formatting() {
    let dir = scratch();
    let path = dir.path().join("device");
    fails(&ogive(&["format", text(&path)]), 2, &["--size"]);
    let made =
        out(&["format", text(&path), "--size", "64MiB", "--shards", "1", "--quick", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((made["shards"].as_u64(), made["log_bytes"].as_u64().is_some()), (Some(1), true));
    assert_eq!(path.metadata().unwrap().len(), 64 << 20);
    fails(&ogive(&["format", text(&path)]), 1, &["--force"]);
    out(&["format", text(&path), "--force", "--quick"]);

    let small = dir.path().join("small");
    fails(&ogive(&["format", text(&small), "--size", "1MiB"]), 1, &["small"]);
    let huge = dir.path().join("huge");
    fails(&ogive(&["format", text(&huge), "--size", "8000TiB"]), 1, &["huge"]);
    assert!(!huge.exists(), "what was not made does not stay");

    let foreign = dir.path().join("foreign");
    tool("mke2fs", &["-q", "-t", "ext4", text(&foreign), "64m"]);
    fails(&ogive(&["format", text(&foreign)]), 1, &["ext", "--force"]);
}

/// Before anybody else hears of it: the metadata servers named here do not exist.
#[test]
fn a_path_that_is_demanded_and_cannot_be_had_stops_the_start() {
    if std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut found| found.next().is_some()) {
        return println!("skipped: this host has RDMA");
    }
    let dir = scratch();
    let device = dir.path().join("device");
    out(&["format", text(&device), "--size", "64MiB", "--quick"]);
    let mds = ["--mds", "127.0.0.1:1", "--transport", "rdma"];
    let socket = dir.path().join("nbd");
    let says = ["--transport rdma cannot be had: ", "--transport auto"];
    let chunkserver = ["chunkserver", "--zone", "z", "--device", text(&device)];
    fails(&ogive(&[&chunkserver[..], &mds].concat()), 2, &says);
    let nbd = ["nbd", "--volume", "v", "--socket", text(&socket)];
    fails(&ogive(&[&nbd[..], &mds].concat()), 2, &says);
    let demo = dir.path().join("demo");
    fails(&ogive(&["demo", "--dir", text(&demo), "--transport", "rdma"]), 2, &says);
    assert!(!demo.exists(), "nothing was begun");
}

#[test]
fn bad_devices_are_refused() {
    let dir = scratch();
    let start = |device: &str| {
        ogive(&["chunkserver", "--mds", "127.0.0.1:1", "--zone", "z", "--device", device])
    };
    let missing = dir.path().join("missing");
    fails(&start(text(&missing)), 1, &["missing"]);
    let blank = dir.path().join("blank");
    std::fs::write(&blank, vec![0u8; 1 << 20]).unwrap();
    fails(&start(text(&blank)), 1, &["blank", "ogive format"]);

    let device = dir.path().join("device");
    out(&["format", text(&device), "--size", "64MiB", "--quick"]);
    // Waits for metadata servers that never come, and holds the device.
    let holder = Command::new(OGIVE)
        .args(["chunkserver", "--mds", "127.0.0.1:1", "--zone", "z", "--device", text(&device)])
        .stderr(Stdio::piped())
        .spawn();
    let mut holder = holder.unwrap();
    let mut said = std::io::BufReader::new(holder.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("first start") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "it ended");
    }
    fails(&start(text(&device)), 1, &["in use"]);
    fails(&ogive(&["format", text(&device), "--force"]), 1, &["in use"]);
    tool("kill", &["-TERM", &holder.id().to_string()]);
    assert!(holder.wait().unwrap().success(), "it stops when it is asked to");
}

#[test]
fn bad_starts_of_metadata_servers() {
    let dir = scratch();
    let mds = |id: &str, peers: &str, dir: &str| {
        ogive(&["mds", "--id", id, "--peers", peers, "--dir", dir])
    };
    let data = dir.path().join("mds");
    fails(&mds("4", "1=127.0.0.1:1", text(&data)), 1, &["4", "peers"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = format!("1={}", taken.local_addr().unwrap());
    fails(&mds("1", &peers, text(&data)), 1, &[&taken.local_addr().unwrap().port().to_string()]);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    fails(&mds("1", "1=127.0.0.1:0", text(&file)), 1, &["ogive: "]);
}

#[test]
fn the_demo_does_not_touch_what_is_not_its_own() {
    let dir = scratch();
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    for line in [&["demo", "--dir"][..], &["demo", "--stop", "--dir"]] {
        let output = ogive(&[line, &[text(dir.path())]].concat());
        fails(&output, 1, &["was not made by ogive", "--dir"]);
    }
    assert!(dir.path().join("precious").exists());
    let none = dir.path().join("none");
    assert!(ogive(&["demo", "--stop", "--dir", text(&none)]).status.success());
    let tree = dir.path().join("precious");
    let demo = dir.path().join("demo");
    let output = ogive(&["demo", "--dir", text(&demo), "--tree", text(&tree)]);
    fails(&output, 1, &["not a directory"]);
}

#[test]
fn hwtest_judges_this_machine() {
    let dir = scratch();
    let output = ogive(&["hwtest", text(dir.path()), "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|c| c["name"].as_str().is_some_and(|n| n.contains("uring"))));
    let failed = checks.iter().any(|c| c["verdict"].as_str() == Some("fail"));
    assert_eq!(output.status.code(), Some(i32::from(failed)));
}
