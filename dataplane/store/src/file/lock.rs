//! One process per device, by flock(2): the lock belongs to the open file, goes with it, and
//! survives no crash.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, major, minor};
use rustix::io::Errno;

use super::error::OpenFileError;

/// udev locks a block device while it looks at it, which it does whenever somebody closed it: wait
/// for that.
const UDEV_TRIES: u32 = 40;
const UDEV_WAIT: Duration = Duration::from_millis(50);
/// A process that was killed is gone before the kernel has taken down its io_uring, which holds the
/// file, and so the lock, until the last of its I/O has ended: wait for that, too.
const DEAD_TRIES: u32 = 100;

/// Locks `file`, opened from `path`, for one who writes to it.
pub(super) fn take(file: &File, path: &Path) -> Result<(), OpenFileError> {
    take_as(file, path, FlockOperation::NonBlockingLockExclusive)
}

/// The same for one who only reads: there may be several.
pub(super) fn take_shared(file: &File, path: &Path) -> Result<(), OpenFileError> {
    take_as(file, path, FlockOperation::NonBlockingLockShared)
}

fn take_as(file: &File, path: &Path, how: FlockOperation) -> Result<(), OpenFileError> {
    let is_block = file.metadata().is_ok_and(|data| data.file_type().is_block_device());
    let mut tries = 0;
    loop {
        match rustix::fs::flock(file, how) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) => tries += 1,
            Err(errno) => return Err(OpenFileError::from_io(path, errno.into())),
        }
        let by = holder(file);
        let patience = match by {
            Some(pid) if is_dead(pid) => DEAD_TRIES,
            // The list and the lock are not read at one moment: it may just have been released.
            None => UDEV_TRIES,
            Some(_) if is_block => UDEV_TRIES,
            Some(_) => 1,
        };
        if tries >= patience {
            return Err(OpenFileError::InUse { path: path.to_owned(), by });
        }
        std::thread::sleep(UDEV_WAIT);
    }
}

/// True for a process that has ended, also when nobody has asked for its exit code yet.
fn is_dead(pid: u32) -> bool {
    !std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// The process that holds the lock, if the kernel's list has it.
fn holder(file: &File) -> Option<u32> {
    let data = file.metadata().ok()?;
    let device = data.dev();
    let inode = format!("{:02x}:{:02x}:{}", major(device), minor(device), data.ino());
    parse_holder(&std::fs::read_to_string("/proc/locks").ok()?, &inode)
}

/// Lines look like `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
fn parse_holder(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == inode => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_told_from_the_dead() {
        assert!(!is_dead(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        // Ended or not, it is found dead at the latest once it was waited for.
        child.wait().unwrap();
        assert!(is_dead(pid));
    }

    #[test]
    fn the_holder_is_found_by_its_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 22 fe:00:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 23 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 33 fe:00:77 0 EOF\n";
        assert_eq!(parse_holder(locks, "fe:00:77"), Some(33));
        assert_eq!(parse_holder(locks, "fe:01:77"), None);
        assert_eq!(parse_holder("", "fe:00:77"), None);
    }
}
