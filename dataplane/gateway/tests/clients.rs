//! The server against the NBD clients that people use. They are needed: a missing one fails its
//! test.

// A failing step panics, which is what a test is to do; and files are what these clients copy.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::fs;

use serde_json::Value;
use support::{TestServer, run, try_run};

const SIZE: usize = 48 << 20;

fn server() -> TestServer {
    TestServer::start(SIZE, 64 << 20)
}

/// Bytes that are not the same in any two blocks, with holes of zeroes.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 12345u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let hole = bytes.len() / 65536 % 3 == 1;
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bytes.extend(if hole { [0; 8] } else { state.to_le_bytes() });
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn nbdinfo_sees_the_exports_and_what_they_can_do() {
    let server = server();
    for uri in [server.uri("disk"), server.tcp_uri("disk")] {
        let info: Value = serde_json::from_str(&run("nbdinfo", &["--json", &uri])).unwrap();
        assert_eq!(info["protocol"], "newstyle-fixed");
        assert_eq!(info["structured"], true);
        let export = &info["exports"][0];
        assert_eq!(export["export-name"], "disk");
        assert_eq!(export["export-size"], SIZE);
        assert_eq!(export["contexts"][0], "base:allocation");
        for able in [
            "can_df",
            "can_fast_zero",
            "can_flush",
            "can_fua",
            "can_multi_conn",
            "can_trim",
            "can_zero",
        ] {
            assert_eq!(export[able], true, "{able}");
        }
        assert_eq!((&export["can_cache"], &export["is_read_only"]), (&false.into(), &false.into()));
        assert_eq!(export["block_size_minimum"], 1);
        assert_eq!(export["block_size_preferred"], 4096);
        assert_eq!(export["block_size_maximum"], 32 << 20);
    }
    let list: Value =
        serde_json::from_str(&run("nbdinfo", &["--list", "--json", &server.uri("")])).unwrap();
    let names: Vec<&Value> =
        list["exports"].as_array().unwrap().iter().map(|e| &e["export-name"]).collect();
    assert_eq!(names, ["disk", "frozen"]);
    assert!(!try_run("nbdinfo", &[&server.uri("missing")]).0);
    run("nbdinfo", &["--is", "read-only", &server.uri("frozen")]);
}

#[test]
fn nbdcopy_in_and_out_gives_the_same_bytes_and_the_map_shows_them() {
    let server = server();
    let (input, output) = (server.path("in"), server.path("out"));
    fs::write(&input, pattern(SIZE)).unwrap();
    run("nbdcopy", &["--connections=4", "--requests=64", "--flush", &input, &server.uri("disk")]);
    run("nbdcopy", &["--connections=4", &server.tcp_uri("disk"), &output]);
    assert!(fs::read(&input).unwrap() == fs::read(&output).unwrap(), "what came back differs");
    let map: Value =
        serde_json::from_str(&run("nbdinfo", &["--map", "--json", &server.uri("disk")])).unwrap();
    let mut at = 0;
    for extent in map.as_array().unwrap() {
        assert_eq!(extent["offset"], at);
        let expected = if at / 65536 % 3 == 1 { 3 } else { 0 };
        assert_eq!(extent["type"], expected, "at {at}");
        at += extent["length"].as_u64().unwrap();
    }
    assert_eq!(at, SIZE as u64);
}

#[test]
fn a_small_pool_slows_clients_down_but_fails_nothing() {
    let server = TestServer::start(SIZE, 8 << 20);
    let (input, output) = (server.path("in"), server.path("out"));
    fs::write(&input, pattern(SIZE)).unwrap();
    let size = "--request-size=1048576";
    run("nbdcopy", &["--connections=4", "--requests=16", size, &input, &server.uri("disk")]);
    run("nbdcopy", &["--connections=1", "--requests=1", size, &server.uri("disk"), &output]);
    assert!(fs::read(&input).unwrap() == fs::read(&output).unwrap(), "what came back differs");
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    let server = server();
    let (input, output) = (server.path("in"), server.path("out"));
    fs::write(&input, pattern(SIZE)).unwrap();
    let uri = server.uri("disk");
    let info: Value =
        serde_json::from_str(&run("qemu-img", &["info", "--output=json", &uri])).unwrap();
    assert_eq!(info["virtual-size"], SIZE);
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "-m", "8", "-W", &input, &uri]);
    let same = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &input, &uri]);
    assert!(same.contains("Images are identical"), "{same}");
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &server.tcp_uri("disk"), &output]);
    assert!(fs::read(&input).unwrap() == fs::read(&output).unwrap(), "what came back differs");
    let map: Value =
        serde_json::from_str(&run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]))
            .unwrap();
    assert_eq!(map[0]["length"], 65536);
    assert_eq!((&map[0]["data"], &map[1]["zero"]), (&true.into(), &true.into()));
}

#[test]
fn qemu_io_reads_back_what_it_wrote_at_any_alignment() {
    let server = server();
    let uri = server.uri("disk");
    let commands = [
        "write -P 0x11 0 1M",
        "write -P 0x22 -f 12345 7",
        "read -P 0x22 12345 7",
        "read -P 0x11 12352 4096",
        "write -P 0x33 3000001 999999",
        "read -P 0x33 3000001 999999",
        "read -P 0 2999000 1001",
        "write -z 4096 100000",
        "read -P 0 4096 100000",
        "write -z -u 200000 300000",
        "read -P 0 200000 300000",
        "discard 524288 65536",
        "read -P 0 524288 65536",
        "flush",
        "aio_write -P 0x44 8M 16M",
        "aio_flush",
        "read -P 0x44 8M 16M",
        "read -P 0x11 0 4096",
    ];
    let mut args = vec!["-f", "raw"];
    for command in &commands {
        args.extend(["-c", command]);
    }
    args.push(&uri);
    let text = run("qemu-io", &args);
    assert!(!text.contains("failed") && !text.contains("rror"), "{text}");
    let (_, text) = try_run("qemu-io", &["-f", "raw", "-c", "write 0 4096", &server.uri("frozen")]);
    assert!(text.contains("Permission denied"), "{text}");
}

#[test]
fn fio_verifies_random_writes_over_several_connections() {
    let server = server();
    let uri = format!("--uri={}", server.uri("disk"));
    let common = [
        "--name=v",
        "--ioengine=nbd",
        "--size=16m",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
    ];
    let load = ["--rw=randwrite", "--bsrange=512-256k", "--iodepth=32", "--output-format=json"];
    let dir = format!("--aux-path={}", server.dir.path().display());
    let mut args = common.to_vec();
    args.extend([uri.as_str(), dir.as_str()]);
    args.extend(load);
    let report = run("fio", &args);
    let report: Value = serde_json::from_str(&report[report.find('{').unwrap()..]).unwrap();
    assert_eq!(report["jobs"][0]["error"], 0);
    assert!(report["jobs"][0]["read"]["total_ios"].as_u64().unwrap() > 0, "it verified nothing");
}
