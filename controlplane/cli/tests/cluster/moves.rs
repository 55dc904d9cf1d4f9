//! Devices that are looked at, and that move to another host.

use std::process::{Child, Command, Stdio};

use ogive_cli::local::Part;
use serde_json::Value;

use super::{MIB, eventually};
use crate::common::{Meter, OGIVE, TestCluster, fails, ogive, stderr, text};

/// Ends with the test.
struct Moved(Child);

impl Drop for Moved {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn device(args: &[&str]) -> Value {
    let output = ogive(&[&["device", "--json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_device_is_whole_after_a_kill_and_serves_from_another_host() {
    let mut cluster = TestCluster::with_volume("v", 64 * MIB);
    let load = Meter::start(cluster.load("v"));
    load.wait(3000);
    let path = cluster.device(3);
    let in_use = ogive(&["device", "verify", text(&path)]);
    fails(&in_use, 1, &["in use"]);
    fails(&ogive(&["device", "inspect", text(&path)]), 1, &["in use"]);
    // Looked at while it changes: it may be torn, but it is there.
    let forced = ogive(&["device", "inspect", "--force", "--json", text(&path)]);
    let forced: Value = serde_json::from_slice(&forced.stdout).expect("one JSON object");

    cluster.kill(Part::Chunkserver(3)).unwrap();
    let before = device(&["inspect", text(&path)]);
    let id = before["label"]["chunkserver"].as_u64().expect("an identity");
    assert_eq!(forced["label"], before["label"]);
    let seen = device(&["verify", text(&path)]);
    assert_eq!(seen["damages"].as_u64(), Some(0), "{seen}");
    assert!(seen["data_blocks"].as_u64() > Some(100), "{seen}");
    for shard in device(&["audit", text(&path)]).as_array().unwrap() {
        assert!(shard["contradiction"].is_null(), "{shard}");
    }

    let elsewhere = cluster.dir().join("another-host");
    std::fs::create_dir(&elsewhere).unwrap();
    let moved = elsewhere.join("disk");
    std::fs::copy(&path, &moved).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mds = cluster.mds_addresses().join(",");
    let child = Command::new(OGIVE)
        .args(["chunkserver", "--mds", &mds, "--zone", "zone-3", "--server", "another-host"])
        .args(["--device", text(&moved)])
        .stderr(Stdio::null())
        .spawn();
    let _moved = Moved(child.unwrap());
    eventually("healthy with the moved device", || {
        let status = cluster.json(&["status"]);
        let servers = status["chunkservers"].as_array().unwrap();
        let same = servers.iter().any(|server| server["id"].as_u64() == Some(id));
        assert!(servers.len() == 3 && same, "it is who it was: {status}");
        status["health"].as_str() == Some("healthy")
    });
    load.wait(1000);
    load.verified();
}
