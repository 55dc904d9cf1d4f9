//! Storage: what lies under a path, and whether direct I/O works there, by trying it.

// A shell: it opens files and devices.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;

use crate::facts::{Attempt, Storage, StorageKind};
use crate::limits::PROBE_BYTES;
use crate::probe::Root;
use crate::probe::sysfs::{lowest_devices, mount_source};

/// Memory for direct I/O, aligned to 4096 bytes.
pub(crate) struct AlignedBlock {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBlock {
    const ALIGN: usize = 4096;

    /// `PROBE_BYTES` of zeroes.
    pub(crate) fn new() -> AlignedBlock {
        let memory = vec![0; PROBE_BYTES + Self::ALIGN];
        let start = memory.as_ptr().align_offset(Self::ALIGN);
        assert!(start < Self::ALIGN, "a byte pointer can always be aligned");
        AlignedBlock { memory, start }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + PROBE_BYTES]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + PROBE_BYTES]
    }
}

/// A step that the system refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) step: &'static str,
    pub(crate) errno: Errno,
}

fn refusal(step: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal { step, errno }
}

/// A file opened for direct I/O.
pub(crate) struct DirectFile(pub(crate) OwnedFd);

impl DirectFile {
    pub(crate) fn write(&self, block: &AlignedBlock, offset: u64) -> Result<(), Refusal> {
        match rustix::io::pwrite(&self.0, block.bytes(), offset) {
            Ok(PROBE_BYTES) => Ok(()),
            Ok(_) => Err(Refusal { step: "write in full", errno: Errno::NOSPC }),
            Err(errno) => Err(Refusal { step: "write", errno }),
        }
    }

    pub(crate) fn read(&self, block: &mut AlignedBlock, offset: u64) -> Result<(), Refusal> {
        match rustix::io::pread(&self.0, block.bytes_mut(), offset) {
            Ok(PROBE_BYTES) => Ok(()),
            Ok(_) => Err(Refusal { step: "read in full", errno: Errno::IO }),
            Err(errno) => Err(Refusal { step: "read", errno }),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), Refusal> {
        rustix::fs::fdatasync(&self.0).map_err(refusal("fdatasync"))
    }

    /// Length in bytes, of a file or a device.
    pub(crate) fn len(&self) -> Result<u64, Refusal> {
        rustix::fs::seek(&self.0, SeekFrom::End(0)).map_err(refusal("seek"))
    }
}

/// Opens an existing file or device for direct I/O, without changing it.
pub(crate) fn open_direct(path: &Path) -> Result<DirectFile, Refusal> {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    file.map(DirectFile).map_err(refusal("open with O_DIRECT"))
}

/// A file without a name: it is gone when closed, whatever becomes of the process.
pub(crate) struct TempFile;

impl TempFile {
    pub(crate) fn create(dir: &Path) -> Result<DirectFile, Refusal> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".ogive-probe-{}-{count}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // O_DIRECT is refused after the file was made: the name must go in any case.
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        match (file, rustix::fs::unlink(&path)) {
            (Ok(file), Ok(())) => Ok(DirectFile(file)),
            (Ok(_), Err(errno)) => Err(Refusal { step: "remove a temporary file", errno }),
            (Err(errno), Ok(())) => Err(Refusal { step: "open with O_DIRECT", errno }),
            (Err(errno), Err(_)) => Err(Refusal { step: "create a temporary file", errno }),
        }
    }
}

pub(super) fn probe(root: &Root, path: &Path) -> Storage {
    let (kind, tried_at) = resolve(path);
    let direct = match kind {
        StorageKind::Directory => try_directory(&tried_at),
        StorageKind::File | StorageKind::BlockDevice => try_existing(&tried_at),
        StorageKind::Other => Err(Refusal { step: "use as storage", errno: Errno::INVAL }),
    };
    let direct = match direct {
        Ok(()) => Attempt::Works,
        Err(Refusal { step, errno }) => {
            Attempt::Refused { step: step.into(), errno: errno.raw_os_error() }
        }
    };
    let (free_bytes, total_bytes) = space(kind, &tried_at);
    let number = device_number(kind, &tried_at);
    let source = number.and_then(|number| mount_source(root, number));
    let devices = number.map(|(major, minor)| lowest_devices(root, major, minor));
    let devices = devices.filter(|found| !found.is_empty()).or_else(|| {
        let (major, minor) = device_number(StorageKind::BlockDevice, &source.as_ref()?.1)?;
        Some(lowest_devices(root, major, minor))
    });
    Storage {
        path: path.to_owned(),
        kind,
        direct,
        direct_align: direct_align(&tried_at),
        tried_at,
        free_bytes,
        total_bytes,
        file_system: source.filter(|_| kind != StorageKind::BlockDevice).map(|(name, _)| name),
        devices: devices.unwrap_or_default(),
    }
}

/// What the path is, and what to try: itself, or the nearest parent that exists.
fn resolve(path: &Path) -> (StorageKind, PathBuf) {
    let start = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    for candidate in start.ancestors() {
        let Ok(stat) = rustix::fs::stat(candidate) else { continue };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => StorageKind::Directory,
            FileType::RegularFile if candidate == start => StorageKind::File,
            FileType::BlockDevice if candidate == start => StorageKind::BlockDevice,
            _ => StorageKind::Other,
        };
        return (kind, candidate.to_owned());
    }
    (StorageKind::Other, start)
}

/// Writes, syncs and reads back a file of its own.
fn try_directory(dir: &Path) -> Result<(), Refusal> {
    let file = TempFile::create(dir)?;
    let mut block = AlignedBlock::new();
    block.bytes_mut().fill(0xa5);
    file.write(&block, 0)?;
    file.sync()?;
    block.bytes_mut().fill(0);
    file.read(&mut block, 0)?;
    match block.bytes().iter().all(|byte| *byte == 0xa5) {
        true => Ok(()),
        false => Err(Refusal { step: "read what was written", errno: Errno::IO }),
    }
}

/// Reads and syncs only: the file or device may hold data.
fn try_existing(path: &Path) -> Result<(), Refusal> {
    let file = open_direct(path)?;
    if file.len()? >= PROBE_BYTES as u64 {
        file.read(&mut AlignedBlock::new(), 0)?;
    }
    file.sync()
}

/// Free and total bytes.
fn space(kind: StorageKind, path: &Path) -> (u64, u64) {
    if kind == StorageKind::BlockDevice {
        let opened = File::open(path).map(|file| rustix::fs::seek(&file, SeekFrom::End(0)));
        let bytes = opened.ok().and_then(Result::ok).unwrap_or(0);
        return (bytes, bytes);
    }
    let Ok(stat) = rustix::fs::statvfs(path) else { return (0, 0) };
    (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Number of the device itself, or of the one that a file lies on.
fn device_number(kind: StorageKind, path: &Path) -> Option<(u32, u32)> {
    let stat = rustix::fs::stat(path).ok()?;
    let number = match kind {
        StorageKind::BlockDevice => stat.st_rdev,
        _ => stat.st_dev,
    };
    Some((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// What statx states for a file; for a directory, for a temporary file in it.
fn direct_align(path: &Path) -> Option<u32> {
    let ask = |fd: std::os::fd::BorrowedFd<'_>, path: &Path, flags| {
        let stat = rustix::fs::statx(fd, path, flags, StatxFlags::DIOALIGN).ok()?;
        let stated = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
        (stated && stat.stx_dio_offset_align > 0).then_some(stat.stx_dio_offset_align)
    };
    match TempFile::create(path) {
        Ok(file) => ask(file.0.as_fd(), Path::new(""), AtFlags::EMPTY_PATH),
        Err(_) => ask(CWD, path, AtFlags::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_tried_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let found = probe(&Root::system(), &dir.path().join("not/yet/there"));
        assert_eq!(found.tried_at, dir.path());
        assert_eq!(found.kind, StorageKind::Directory);
        assert!(found.free_bytes > 0 && found.free_bytes <= found.total_bytes);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        let content: Vec<u8> = (0..8192u32).map(|i| i as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let found = probe(&Root::system(), &path);
        assert_eq!(found.kind, StorageKind::File);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        let below = probe(&Root::system(), &path.join("x"));
        assert_eq!(below.kind, StorageKind::Other);
        assert!(!below.direct.works());
    }

    #[test]
    fn memory_is_aligned() {
        let block = AlignedBlock::new();
        assert_eq!(block.bytes().as_ptr() as usize % 4096, 0);
        assert_eq!(block.bytes().len(), PROBE_BYTES);
    }
}
