//! Reading /sys and /proc, below a root that tests replace.

// A shell: it reads files of the system.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::facts::{Device, WriteCache};
use crate::limits::{DEVICE_STACK_MAX, SYSFS_FILE_MAX_BYTES};

/// Where `sys` and `proc` are found.
#[derive(Clone, Debug)]
pub(crate) struct Root(pub(crate) PathBuf);

impl Root {
    /// Those of this system.
    pub(crate) fn system() -> Root {
        Root(PathBuf::from("/"))
    }

    /// A file's text without the white space around it; `None` when it cannot be read.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let file = File::open(self.0.join(path)).ok()?;
        let mut text = String::new();
        file.take(SYSFS_FILE_MAX_BYTES).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.read(path)?.parse().ok()
    }

    /// Names in a directory, in order.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    fn canonical(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        fs::canonicalize(self.0.join(path)).ok()
    }
}

/// The lowest block devices under the one with this number: through partitions, then through what
/// device-mapper and md stack on others.
pub(crate) fn lowest_devices(root: &Root, major: u32, minor: u32) -> Vec<Device> {
    let Some(mut dir) = root.canonical(format!("sys/dev/block/{major}:{minor}")) else {
        return Vec::new();
    };
    if dir.join("partition").exists() {
        dir.pop();
    }
    let mut found = BTreeSet::new();
    descend(root, &dir, DEVICE_STACK_MAX, &mut found);
    found.iter().map(|dir| device(root, dir)).collect()
}

fn descend(root: &Root, dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    let slaves = root.names(dir.join("slaves"));
    if slaves.is_empty() || depth == 0 {
        found.insert(dir.to_owned());
        return;
    }
    for slave in slaves {
        let Some(mut below) = root.canonical(dir.join("slaves").join(slave)) else { continue };
        if below.join("partition").exists() {
            below.pop();
        }
        descend(root, &below, depth - 1, found);
    }
}

fn device(root: &Root, dir: &Path) -> Device {
    let queue = dir.join("queue");
    let write_cache = match root.read(queue.join("write_cache")).as_deref() {
        Some("write back") => Some(WriteCache::Volatile),
        Some("write through") => Some(WriteCache::WriteThrough),
        _ => None,
    };
    Device {
        name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        write_cache,
        logical_block: root.number(queue.join("logical_block_size")),
        rotational: root.number::<u8>(queue.join("rotational")).map(|n| n != 0),
    }
}

/// Number of the device that a mount point's source names, for file systems whose own device
/// number is made up (btrfs, overlay); `None` when it names none.
pub(crate) fn mount_source(root: &Root, device: (u32, u32)) -> Option<(String, PathBuf)> {
    let text = root.read("proc/self/mountinfo")?;
    let number = format!("{}:{}", device.0, device.1);
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if before.split(' ').nth(2) != Some(&number) {
            return None;
        }
        let mut after = after.split(' ');
        Some((after.next()?.to_owned(), PathBuf::from(after.next()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root(dir.path().to_owned());
        (dir, root)
    }

    #[test]
    fn through_device_mapper_and_partition_to_the_disk() {
        let (dir, root) = tree(&[
            ("sys/devices/virtual/block/dm-0/queue/write_cache", "write through\n"),
            ("sys/devices/pci/block/sda/queue/write_cache", "write back\n"),
            ("sys/devices/pci/block/sda/queue/logical_block_size", "512\n"),
            ("sys/devices/pci/block/sda/queue/rotational", "1\n"),
            ("sys/devices/pci/block/sda/sda1/partition", "1\n"),
            ("sys/dev/block/x", ""),
            ("sys/devices/virtual/block/dm-0/slaves/x", ""),
        ]);
        let sys = dir.path().join("sys");
        let dm = sys.join("devices/virtual/block/dm-0");
        fs::remove_file(dm.join("slaves/x")).unwrap();
        symlink(sys.join("devices/pci/block/sda/sda1"), dm.join("slaves/sda1")).unwrap();
        symlink(&dm, sys.join("dev/block/253:0")).unwrap();
        let found = lowest_devices(&root, 253, 0);
        let sda = Device {
            name: "sda".into(),
            write_cache: Some(WriteCache::Volatile),
            logical_block: Some(512),
            rotational: Some(true),
        };
        assert_eq!(found, [sda]);
        assert!(lowest_devices(&root, 9, 9).is_empty());
    }

    #[test]
    fn mounts() {
        let (_dir, root) = tree(&[(
            "proc/self/mountinfo",
            "30 1 0:27 /@ /data rw,x shared:5 - btrfs /dev/sdb rw\n",
        )]);
        assert_eq!(mount_source(&root, (0, 27)), Some(("btrfs".into(), "/dev/sdb".into())));
        assert_eq!(mount_source(&root, (0, 2)), None);
    }
}
