//! Does the disk below keep ended writes where a power cut loses them?
//!
//! The kernel knows for every block device (`queue/write_cache` in sysfs): "write back" means that
//! only a flush makes them stable. A partition has the queue of its disk. A stacked device (dm, md)
//! answers for itself, and the devices that it is made of are asked too.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::extents;

/// Stacks of devices are a few high; deeper ones count as unknown.
const DEPTH_MAX: u32 = 8;

/// True unless it is certain that an ended write survives a power cut.
pub(super) fn is_volatile(file: &File) -> bool {
    let Ok(data) = file.metadata() else { return true };
    let is_block = data.file_type().is_block_device();
    let device = if is_block { data.rdev() } else { data.dev() };
    let sysfs = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    !is_write_through(&sysfs, DEPTH_MAX) || !(is_block || extents::all_written(file))
}

fn is_write_through(sysfs: &Path, depth: u32) -> bool {
    // A link into the tree of devices, where a partition lies in its disk's folder.
    let Ok(mut folder) = fs::canonicalize(sysfs) else { return false };
    if folder.join("partition").exists() && !folder.pop() {
        return false;
    }
    let own = fs::read_to_string(folder.join("queue/write_cache"));
    if depth == 0 || own.ok().as_deref().map(str::trim) != Some("write through") {
        return false;
    }
    match fs::read_dir(folder.join("slaves")) {
        Err(_) => true,
        Ok(slaves) => slaves
            .into_iter()
            .all(|slave| slave.is_ok_and(|slave| is_write_through(&slave.path(), depth - 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs of one disk with a partition, below a stacked device.
    fn sysfs(disk: &str, stacked: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |path: &str| dir.path().join(path);
        for folder in ["disk/queue", "disk/part", "dm/queue", "dm/slaves"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        fs::write(at("disk/part/partition"), "1\n").expect("written");
        fs::write(at("disk/queue/write_cache"), disk).expect("written");
        fs::write(at("dm/queue/write_cache"), stacked).expect("written");
        std::os::unix::fs::symlink("../../disk/part", at("dm/slaves/part")).expect("linked");
        dir
    }

    #[test]
    fn a_partition_and_a_stack_are_as_safe_as_the_disk_below() {
        for (disk, stacked, disk_safe, stack_safe) in [
            ("write through\n", "write through\n", true, true),
            ("write back\n", "write through\n", false, false),
            ("write through\n", "write back\n", true, false),
            ("", "", false, false),
        ] {
            let dir = sysfs(disk, stacked);
            assert_eq!(is_write_through(&dir.path().join("disk"), DEPTH_MAX), disk_safe);
            assert_eq!(is_write_through(&dir.path().join("disk/part"), DEPTH_MAX), disk_safe);
            assert_eq!(is_write_through(&dir.path().join("dm"), DEPTH_MAX), stack_safe);
        }
    }

    #[test]
    fn the_unknown_is_volatile() {
        let dir = sysfs("write through\n", "write through\n");
        assert!(!is_write_through(&dir.path().join("missing"), DEPTH_MAX));
        assert!(!is_write_through(&dir.path().join("dm"), 1), "too high a stack");
        fs::remove_file(dir.path().join("disk/queue/write_cache")).expect("removed");
        assert!(!is_write_through(&dir.path().join("disk"), DEPTH_MAX));
    }
}
