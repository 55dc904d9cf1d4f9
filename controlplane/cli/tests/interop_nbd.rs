//! Clients of others on a real cluster: libnbd's tools, QEMU's, fio.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // real processes, real failures

mod common;
#[path = "interop_nbd/sectors.rs"]
mod sectors;

use common::{TestCluster, make_image, text, tool};
use serde_json::Value;

const MIB: u64 = 1 << 20;

#[test]
fn libnbd() {
    let cluster = TestCluster::with_volume("v", 64 * MIB);
    let uri = cluster.uri(1, "v");
    let info: Value = serde_json::from_str(&tool("nbdinfo", &["--json", &uri])).unwrap();
    let export = &info["exports"][0];
    assert_eq!(info["protocol"].as_str(), Some("newstyle-fixed"));
    assert_eq!(export["export-size"].as_u64(), Some(64 * MIB));
    for can in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df"] {
        assert_eq!(export[can].as_bool(), Some(true), "{can}: {export}");
    }
    let image = make_image(cluster.dir().join("image"), 20 << 20);
    tool("nbdcopy", &["--flush", "--connections=4", "--requests=32", text(&image), &uri]);
    let back = cluster.dir().join("back");
    tool("nbdcopy", &["--connections=4", &uri, text(&back)]);
    let (image, back) = (std::fs::read(image).unwrap(), std::fs::read(back).unwrap());
    assert!(back[..image.len()] == image[..], "other data came back");
    assert!(back[image.len()..].iter().all(|&b| b == 0));

    let map: Value = serde_json::from_str(&tool("nbdinfo", &["--map", "--json", &uri])).unwrap();
    let holes = map.as_array().unwrap().iter().filter(|e| e["type"].as_u64() == Some(3));
    let hole: u64 = holes.filter_map(|e| e["length"].as_u64()).sum();
    // A fifth of the image is zero, and 44 MiB were never written.
    assert!(hole >= 44 * MIB, "{map}");
}

#[test]
fn several_exports_are_listed() {
    let mut cluster = TestCluster::start();
    cluster.create_volume("one", 16 * MIB).unwrap();
    cluster.create_volume("two", 32 * MIB).unwrap();
    cluster.start_gateway(1, &["one", "two"]).unwrap();
    let list = tool("nbdinfo", &["--list", "--json", &cluster.uri(1, "")]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let names =
        list["exports"].as_array().unwrap().iter().filter_map(|e| e["export-name"].as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(tool("nbdinfo", &["--size", &cluster.uri(1, "")]).trim(), (16 * MIB).to_string());
}

#[test]
fn qemu() {
    let cluster = TestCluster::with_volume("v", 64 * MIB);
    let uri = cluster.uri(1, "v");
    let image = make_image(cluster.dir().join("image"), 64 << 20);
    tool("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", text(&image), &uri]);
    tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&image), &uri]);
    let qcow = cluster.dir().join("image.qcow2");
    tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, text(&qcow)]);
    tool("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&image), text(&qcow)]);
}

#[test]
fn qemu_io_with_odd_offsets() {
    let cluster = TestCluster::with_volume("v", 64 * MIB);
    let uri = cluster.uri(1, "v");
    let commands = [
        "write -P 1 0 64k",
        // Inside one block, over the edge of two, and over the end of a chunk.
        "write -P 2 512 1024",
        "write -P 3 4000 300",
        "write -P 4 16777000 500",
        "read -P 1 0 512",
        "read -P 2 512 1024",
        "read -P 1 1536 2464",
        "read -P 3 4000 300",
        "read -P 1 4300 3892",
        "read -P 4 16777000 500",
        "read -P 0 16776192 808",
        "write -z 8k 8k",
        "read -P 0 8k 8k",
        "read -P 1 16k 4k",
        "write -z -u 20000 10000",
        "read -P 0 20000 10000",
        "read -P 1 30000 2000",
        "discard 32k 16k",
        "read -P 0 32k 16k",
        "write -f -P 5 48k 4k",
        "flush",
        "read -P 5 48k 4k",
        "aio_write -P 6 1M 1M",
        "aio_write -P 7 2M 1M",
        "aio_flush",
        "read -P 6 1M 1M",
        "read -P 7 2M 1M",
    ];
    let mut args = vec!["-f", "raw", "-d", "unmap"];
    commands.iter().for_each(|c| args.extend(["-c", *c]));
    args.push(&uri);
    let said = tool("qemu-io", &args);
    assert!(!said.contains("failed") && !said.contains("verification"), "{said}");
}

#[test]
fn fio_verifies_mixed_sizes() {
    let cluster = TestCluster::with_volume("v", 64 * MIB);
    let uri = format!("--uri={}", cluster.uri(1, "v"));
    let job = ["--name=mixed", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-64k"];
    let more = ["--bs_unaligned", "--iodepth=8", "--size=48m", "--io_size=24m", "--norandommap=0"];
    let check = [
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--verify_backlog=256",
        "--verify_state_save=0",
    ];
    let said = tool("fio", &[&job[..], &more[..], &check[..], &[&uri]].concat());
    assert!(said.contains("err= 0"), "{said}");
}

#[test]
fn over_tcp_and_read_only() {
    let mut cluster = TestCluster::with_volume("v", 64 * MIB);
    tool("qemu-io", &["-f", "raw", "-c", "write -P 9 0 1M", &cluster.uri(1, "v")]);
    cluster.stop_part(ogive_cli::local::Part::Gateway(1)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listen, mds) = (format!("127.0.0.1:{port}"), cluster.mds_addresses().join(","));
    let mut gateway = std::process::Command::new(common::OGIVE)
        .args(["nbd", "--volume", "v", "--read-only", "--listen", &listen, "--mds", &mds])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + common::SOON;
    while std::net::TcpStream::connect(&listen).is_err() {
        assert!(std::time::Instant::now() < deadline, "the gateway does not listen");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let uri = format!("nbd://{listen}/v");
    tool("qemu-io", &["-r", "-f", "raw", "-c", "read -P 9 0 1M", &uri]);
    let info: Value = serde_json::from_str(&tool("nbdinfo", &["--json", &uri])).unwrap();
    assert_eq!(info["exports"][0]["is_read_only"].as_bool(), Some(true));
    tool("kill", &["-TERM", &gateway.id().to_string()]);
    assert!(gateway.wait().unwrap().success());
    let shown = cluster.json(&["volume", "show", "v"]);
    assert!(shown["session"].is_null(), "a gateway that stops in order detaches: {shown}");
}
