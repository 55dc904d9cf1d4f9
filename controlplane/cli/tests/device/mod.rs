//! `ogive device` and `ogive format` on real files: what holds data is refused, what is damaged is
//! found.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{fails, ogive, scratch, stderr, text, tool};

fn formatted(path: &Path) {
    let made = ogive(&["format", text(path), "--size", "64MiB", "--shards", "2", "--quick"]);
    assert!(made.status.success(), "{}", stderr(&made));
}

fn device(command: &str, path: &Path) -> (i32, Value) {
    let output = ogive(&["device", command, text(path), "--json"]);
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("an exit code"), json)
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn a_new_device_is_explained_and_clean() {
    let dir = scratch();
    let path = dir.path().join("device");
    formatted(&path);
    let before = std::fs::read(&path).unwrap();
    let (code, view) = device("inspect", &path);
    assert_eq!((code, view["regions"].as_array().map(Vec::len)), (0, Some(2)));
    assert!(view["label"]["chunkserver"].is_null(), "{view}");
    let human = ogive(&["device", "inspect", text(&path)]);
    assert!(String::from_utf8_lossy(&human.stdout).contains("never registered"), "{human:?}");
    let (code, seen) = device("verify", &path);
    assert_eq!((code, seen["damages"].as_u64()), (0, Some(0)));
    let (code, space) = device("audit", &path);
    assert_eq!((code, space.as_array().map(Vec::len)), (0, Some(2)));
    let log = ogive(&["device", "dump-log", text(&path), "--shard", "1"]);
    assert!(String::from_utf8_lossy(&log.stdout).contains("shard 1  the log ends clean"));
    assert!(std::fs::read(&path).unwrap() == before, "nothing is written");
}

#[test]
fn damage_and_mistakes_have_their_exit_codes() {
    let dir = scratch();
    let path = dir.path().join("device");
    formatted(&path);
    overwrite(&path, 4096 + 40, b"damaged");
    let (code, seen) = device("verify", &path);
    assert_eq!((code, seen["damages"].as_u64()), (1, Some(1)), "{seen}");
    overwrite(&path, 40, b"damaged");
    fails(&ogive(&["device", "verify", text(&path)]), 1, &["device label are damaged"]);
    let missing = dir.path().join("missing");
    fails(&ogive(&["device", "inspect", text(&missing)]), 1, &["does not exist"]);
    fails(&ogive(&["device", "inspect", text(dir.path())]), 1, &["block device"]);
    fails(&ogive(&["device", "erase", text(&path)]), 2, &["erase"]);
    let other = dir.path().join("other");
    formatted(&other);
    fails(&ogive(&["device", "dump-log", text(&other), "--shard", "2"]), 2, &["2 shards"]);
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    fails(&ogive(&["device", "inspect", text(&path)]), 1, &["ogive format"]);
}

/// The other end of what a tool of that system would write, where it is installed.
#[test]
fn other_systems_data_is_not_overwritten() {
    let dir = scratch();
    let size = 64u64 << 20;
    let image = |name: &str| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    };
    let ext4 = image("ext4");
    tool("mke2fs", &["-q", "-t", "ext4", text(&ext4)]);
    let mut holders = vec![(ext4, "ext4")];
    // As their tools write them; the tools themselves need block devices, or are large.
    let at = |name: &str, places: &[(u64, &[u8])]| {
        let path = image(name);
        places.iter().for_each(|(at, bytes)| overwrite(&path, *at, bytes));
        path
    };
    holders.push((at("xfs", &[(0, b"XFSB")]), "XFS"));
    holders.push((at("luks", &[(0, b"LUKS\xba\xbe\0\x02")]), "LUKS"));
    holders.push((at("luks-second", &[(0x4000, b"SKUL\xba\xbe\0\x02")]), "LUKS"));
    holders.push((at("lvm", &[(512, b"LABELONE")]), "LVM"));
    holders.push((at("gpt", &[(510, &[0x55, 0xaa]), (512, b"EFI PART")]), "GPT"));
    holders.push((at("gpt-end", &[(size - 512, b"EFI PART")]), "GPT"));
    let raid = [0xfc, 0x4e, 0x2b, 0xa9];
    holders.push((at("raid-1.2", &[(4096, &raid)]), "RAID"));
    holders.push((at("raid-1.0", &[(size - 8192, &raid)]), "RAID"));
    holders.push((at("raid-0.90", &[(size - 65536, &raid)]), "RAID"));
    for (path, what) in &holders {
        let before = std::fs::read(path).unwrap();
        fails(&ogive(&["format", text(path), "--shards", "1"]), 1, &[what, "--force"]);
        assert!(std::fs::read(path).unwrap() == before, "{what}: untouched");
        let forced = ogive(&["format", text(path), "--shards", "1", "--quick", "--force"]);
        assert!(forced.status.success(), "{what}: {}", stderr(&forced));
        assert_eq!(device("verify", path).0, 0, "{what}");
    }
}

/// A loop device, taken down with this.
struct Loop(String);

impl Loop {
    /// None where this user may not make one.
    fn over(path: &Path) -> Option<Loop> {
        let output = Command::new("losetup").args(["--show", "-f", text(path)]).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Loop(name.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A mounted file system, unmounted with this.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn loop_devices_work_and_are_refused_while_they_are_in_use() {
    let dir = scratch();
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
    let Some(disk) = Loop::over(&file) else {
        return eprintln!("skipped: this user may not make loop devices");
    };
    // What lies behind a device is not formatted under it, whatever the options.
    fails(&ogive(&["format", text(&file), "--force"]), 1, &["disk behind", "/dev/loop"]);
    let sized = ogive(&["format", &disk.0, "--size", "64MiB"]);
    fails(&sized, 2, &["leave out --size"]);
    let made = ogive(&["format", &disk.0, "--shards", "1"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(device("verify", Path::new(&disk.0)).0, 0);
    fails(&ogive(&["format", &disk.0]), 1, &["--force"]);
    // The same bytes, as a file: the device has moved.
    let name = disk.0.clone();
    drop(disk);
    assert_eq!(device("inspect", &file).0, 0);

    tool("mke2fs", &["-q", "-F", "-t", "ext4", text(&file)]);
    let disk = Loop::over(&file).expect("as before");
    fails(&ogive(&["format", &disk.0]), 1, &["ext4", "--force"]);
    let at = dir.path().join("mnt");
    std::fs::create_dir(&at).unwrap();
    let mounted = Command::new("mount").args([&disk.0, text(&at)]).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: {name} may not be mounted here");
    }
    let _mounted = Mounted(at);
    fails(&ogive(&["format", &disk.0, "--force"]), 1, &["in use"]);
}
