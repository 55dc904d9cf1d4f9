//! Blocks of devices are overwritten behind the chunkservers' backs: no reader may notice while one
//! good copy is left, and the operator must see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ogive_api::types::DeviceHealth;

use crate::common::{TestCluster, stderr, text, tool, try_tool};
use crate::eventually;

const BLOCK: usize = 4096;
/// Blocks written, of which the first half may be harmed: the newest entries may lie behind the
/// persisted mark of a log, where a chunkserver that is killed cannot tell rot from a torn write.
const BLOCKS: usize = 2048;

/// Block `n` of the volume: like no other.
fn block(n: usize) -> Vec<u8> {
    format!("block {n:8} of the volume  ").into_bytes().into_iter().cycle().take(BLOCK).collect()
}

/// A cluster with a volume full of such blocks, and the file that they came from. The scrub has
/// done its lap and rests: it would repair from a device that is about to be harmed.
fn filled() -> (TestCluster, std::path::PathBuf) {
    let cluster = TestCluster::with_volume("v", (BLOCKS * BLOCK) as u64);
    let image = cluster.dir().join("image");
    std::fs::write(&image, (0..BLOCKS).flat_map(block).collect::<Vec<u8>>()).unwrap();
    tool("nbdcopy", &["--flush", text(&image), &cluster.uri(1, "v")]);
    eventually("a lap with data on each device", || {
        (1..=3).all(|n| health(&cluster, n).last_lap_bytes > 0)
    });
    (cluster, image)
}

/// Where a device holds blocks of the volume, by their numbers.
fn places(device: &Path) -> BTreeMap<usize, Vec<u64>> {
    let file = File::open(device).unwrap();
    let mut found: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut bytes = vec![0; BLOCK];
    for at in (0..file.metadata().unwrap().len()).step_by(BLOCK) {
        file.read_exact_at(&mut bytes, at).unwrap();
        let number = std::str::from_utf8(&bytes[..14]).ok().and_then(|t| t.strip_prefix("block "));
        let Some(number) = number.and_then(|t| t.trim().parse().ok()) else { continue };
        if bytes == block(number) {
            found.entry(number).or_default().push(at);
        }
    }
    found
}

/// Overwrites the copies of some blocks on a device; how many blocks.
fn harm(device: &Path, numbers: impl Iterator<Item = usize>) -> u64 {
    let (places, file) = (places(device), File::options().write(true).open(device).unwrap());
    let mut count = 0;
    for number in numbers {
        for &at in places.get(&number).expect("each block is on each device") {
            file.write_all_at(&[0xde; BLOCK], at).unwrap();
        }
        count += 1;
    }
    file.sync_all().unwrap();
    count
}

/// What chunkserver `n` says of its device.
fn health(cluster: &TestCluster, n: u32) -> DeviceHealth {
    let status = cluster.status().expect("a status");
    let zone = format!("zone-{n}");
    status.chunkservers.iter().find(|c| c.zone == zone).expect("it is listed").device_health
}

fn reads_back(cluster: &TestCluster, image: &Path) {
    let back = cluster.dir().join("back");
    tool("nbdcopy", &[&cluster.uri(1, "v"), text(&back)]);
    assert!(std::fs::read(image).unwrap() == std::fs::read(back).unwrap(), "other data came back");
}

/// Restarts a chunkserver and waits for the first lap of its scrub.
fn scrubbed(cluster: &mut TestCluster, n: u32) {
    cluster.restart_noticed(n);
    eventually("a lap without open repairs", || {
        let health = health(cluster, n);
        health.last_lap_bytes > 0 && health.open_repairs == 0
    });
    cluster.healthy();
}

#[test]
fn one_good_copy_of_three_is_enough() {
    let (mut cluster, image) = filled();
    // Every block has its good copy on another device.
    let bad = |n: u32| (0..BLOCKS / 2).step_by(16).filter(move |b| b / 16 % 3 != n as usize - 1);
    for n in 1..=3 {
        assert!(harm(&cluster.device(n), bad(n)) > 0);
    }
    reads_back(&cluster, &image);
    (1..=3).for_each(|n| scrubbed(&mut cluster, n));
    // What was good is bad now: what was repaired must do.
    let good = |n: u32| (0..BLOCKS / 2).step_by(16).filter(move |b| b / 16 % 3 == n as usize - 1);
    for n in 1..=3 {
        let harmed = harm(&cluster.device(n), good(n));
        cluster.restart_noticed(n);
        eventually("the scrub finds them all", || {
            let now = health(&cluster, n);
            now.last_lap_bytes > 0 && (now.damaged_blocks, now.repaired_blocks) == (harmed, harmed)
        });
        cluster.healthy();
    }
    reads_back(&cluster, &image);
}

#[test]
fn a_block_without_a_good_copy_fails_alone_and_is_reported() {
    let (cluster, _) = filled();
    (1..=3).for_each(|n| assert_eq!(harm(&cluster.device(n), std::iter::once(100)), 1));
    let uri = cluster.uri(1, "v");
    let read = |at: usize| {
        let command = format!("read {} 4096", at * BLOCK);
        let output = try_tool("qemu-io", &["-f", "raw", "-c", &command, &uri]);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output))
    };
    assert!(read(100).contains("Input/output error"), "{}", read(100));
    for at in [99, 101] {
        assert!(read(at).contains("read 4096/4096"), "{}", read(at));
    }
    eventually("it is reported", || {
        let status = cluster.status().expect("a status");
        status.reasons.iter().any(|reason| reason.contains("no good copy"))
    });
    // Written anew, it is well again.
    let command = format!("write -P 7 {} 4096", 100 * BLOCK);
    tool("qemu-io", &["-f", "raw", "-c", &command, "-c", &command.replace("write", "read"), &uri]);
    eventually("healthy again", || {
        let status = cluster.status().expect("a status");
        status.reasons.is_empty()
    });
}
