//! Files that the kernel itself uses, which no lock tells of: the backing file of a loop device,
//! and swap space. What it uses of block devices it opens exclusively, as we do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::OpenFileError;

/// Refuses a regular file that the kernel uses.
pub(super) fn refuse(path: &Path) -> Result<(), OpenFileError> {
    let Ok(data) = fs::metadata(path) else { return Ok(()) };
    if !data.is_file() {
        return Ok(());
    }
    let is_it = |other: &Path| {
        fs::metadata(other).is_ok_and(|o| (o.dev(), o.ino()) == (data.dev(), data.ino()))
    };
    let used = |what: String| Err(OpenFileError::Used { path: path.to_owned(), what });
    if let Some((device, _)) = loops(Path::new("/sys/block")).into_iter().find(|(_, f)| is_it(f)) {
        return used(format!("the disk behind /dev/{device}"));
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    match swap_files(&swaps).any(|file| is_it(&file)) {
        true => used("swap space".to_owned()),
        false => Ok(()),
    }
}

/// Loop devices with their files.
fn loops(sys_block: &Path) -> Vec<(String, PathBuf)> {
    let devices = fs::read_dir(sys_block).into_iter().flatten().flatten();
    let backed = devices.filter_map(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        Some((device.file_name().to_string_lossy().into_owned(), file.trim_end().into()))
    });
    backed.collect()
}

/// The first column of each line but the first.
fn swap_files(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    text.lines().skip(1).filter_map(|line| Some(line.split_whitespace().next()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("loop3/loop")).unwrap();
        fs::create_dir_all(dir.path().join("vda")).unwrap();
        fs::write(dir.path().join("loop3/loop/backing_file"), "/data/disk image\n").unwrap();
        let found = loops(dir.path());
        assert_eq!(found, [("loop3".to_owned(), PathBuf::from("/data/disk image"))]);
        assert_eq!(loops(Path::new("/no/such/folder")), []);
        let swaps = "Filename\tType\n/swapfile file 1 0 -2\n/dev/vdb partition 1 0 -3\n";
        let files: Vec<_> = swap_files(swaps).collect();
        assert_eq!(files, [PathBuf::from("/swapfile"), PathBuf::from("/dev/vdb")]);
    }

    #[test]
    fn ordinary_files_are_not_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(refuse(file.path()).is_ok() && refuse(Path::new("/no/such/file")).is_ok());
    }
}
