//! The device itself: a block device or a preallocated file, opened with O_DIRECT and locked.
//!
//! The one place of the store that touches the operating system. The data path does not go through
//! here: it takes the descriptor to the disk ring. What is here serves format, recovery and
//! inspection.
#![allow(clippy::disallowed_methods)] // a shell: owns the device

mod bounce;
mod cache;
mod error;
mod extents;
mod lock;
mod sector;
mod users;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::bounce::Bounce;
pub use self::error::OpenFileError;
use crate::io::RegionIo;

/// Alignment of addresses, lengths and memory in every direct access: the largest that an accepted
/// device asks for.
const ALIGN: u64 = 4096;

/// An open, locked device. The lock and the device are held until this and every handle cloned from
/// it are dropped.
#[derive(Debug)]
pub struct DeviceFile {
    file: File,
    len: u64,
    sector: u32,
    volatile_cache: bool,
}

impl DeviceFile {
    /// Opens the block device or regular file at `path` for direct reads and writes and locks it
    /// against every other process that does the same; a block device also against being mounted.
    ///
    /// # Errors
    /// When it does not exist, is in use, may not be opened, or cannot be used with O_DIRECT in
    /// 4096-byte units.
    pub fn open(path: &Path) -> Result<DeviceFile, OpenFileError> {
        let fail = |error: io::Error| OpenFileError::from_io(path, error);
        users::refuse(path)?;
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenFileError::WrongKind { path: path.to_owned() });
        }
        let mut flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        if kind.is_block_device() {
            flags |= OFlags::EXCL;
        }
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(opened.map_err(|errno| open_error(path, errno))?);
        DeviceFile::from_file(file, path)
    }

    /// Opens a device to look at it: nothing can be written through it. Others may look at the same
    /// time, and nobody may serve it, unless `force` is set: then neither is checked, and what is
    /// seen may change under the reader.
    ///
    /// # Errors
    /// Those of [`DeviceFile::open`].
    pub fn open_read_only(path: &Path, force: bool) -> Result<DeviceFile, OpenFileError> {
        let fail = |error: io::Error| OpenFileError::from_io(path, error);
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenFileError::WrongKind { path: path.to_owned() });
        }
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(opened.map_err(|errno| open_error(path, errno))?);
        if !force {
            lock::take_shared(&file, path)?;
        }
        DeviceFile::of(file, path)
    }

    /// Makes a file of `size` bytes (rounded up to 4096) at `path` with all its space allocated,
    /// readable by its owner alone, and opens it. With `force` an existing regular file that is not
    /// in use is replaced.
    ///
    /// # Errors
    /// When the file exists (and `force` is not set) or is in use; when its file system has no room
    /// or does not allocate in advance. A file that this made is removed again.
    pub fn create(path: &Path, size: u64, force: bool) -> Result<DeviceFile, OpenFileError> {
        let fail = |error: io::Error| OpenFileError::from_io(path, error);
        if force {
            remove_unused(path)?;
        }
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        let opened = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
        let opened = opened.map_err(|errno| {
            if errno == Errno::INVAL {
                // Linux makes the file before it finds that its file system has no O_DIRECT.
                let _ = std::fs::remove_file(path);
            }
            open_error(path, errno)
        });
        let file = File::from(opened?);
        let size = size.next_multiple_of(ALIGN);
        let made = allocate(&file, path, size)
            .and_then(|()| sync_parent(path).map_err(fail))
            .and_then(|()| DeviceFile::from_file(file, path));
        if made.is_err() {
            // The first error is the one to tell; a file that cannot be removed is seen by whoever
            // looks.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Another handle of the same open device. It shares the lock.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn try_clone(&self) -> io::Result<DeviceFile> {
        Ok(DeviceFile { file: self.file.try_clone()?, ..*self })
    }

    /// Bytes that the device writes at once, and the unit of direct access: 512 or 4096.
    pub fn sector(&self) -> u32 {
        self.sector
    }

    /// Whether an ended write may still be lost in a power cut, so that only a flush makes it
    /// stable. True when in doubt.
    ///
    /// It is false for a block device that reports no volatile cache, and for a file on such a
    /// device whose blocks have all been written before; for others the file system must still
    /// record that they were.
    pub fn volatile_cache(&self) -> bool {
        self.volatile_cache
    }

    fn from_file(file: File, path: &Path) -> Result<DeviceFile, OpenFileError> {
        lock::take(&file, path)?;
        DeviceFile::of(file, path)
    }

    fn of(mut file: File, path: &Path) -> Result<DeviceFile, OpenFileError> {
        let fail = |error: io::Error| OpenFileError::from_io(path, error);
        // A block device has no length in its metadata.
        let len = file.seek(SeekFrom::End(0)).map_err(fail)? / ALIGN * ALIGN;
        let sector = sector::of(&file, path)?;
        let volatile_cache = cache::is_volatile(&file);
        Ok(DeviceFile { file, len, sector, volatile_cache })
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for DeviceFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl RegionIo for DeviceFile {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        if !self.holds(addr, buf.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if is_aligned(addr, buf) {
            return self.file.read_exact_at(buf, addr);
        }
        bounce::for_each_part(addr, buf.len(), |part| {
            let mut bounce = Bounce::new(part.outer.end - part.outer.start);
            self.file.read_exact_at(bounce.bytes(), part.outer.start)?;
            buf[part.of_caller()].copy_from_slice(&bounce.bytes()[part.of_bounce()]);
            Ok(())
        })
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        if !self.holds(addr, data.len()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if is_aligned(addr, data) {
            return self.file.write_all_at(data, addr);
        }
        bounce::for_each_part(addr, data.len(), |part| {
            let mut bounce = Bounce::new(part.outer.end - part.outer.start);
            if part.is_partial() {
                self.file.read_exact_at(bounce.bytes(), part.outer.start)?;
            }
            bounce.bytes()[part.of_bounce()].copy_from_slice(&data[part.of_caller()]);
            self.file.write_all_at(bounce.bytes(), part.outer.start)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> u64 {
        self.len
    }
}

impl DeviceFile {
    fn holds(&self, addr: u64, len: usize) -> bool {
        addr.checked_add(len as u64).is_some_and(|end| end <= self.len)
    }
}

fn is_aligned(addr: u64, memory: &[u8]) -> bool {
    [addr, memory.len() as u64, memory.as_ptr() as u64].iter().all(|n| n.is_multiple_of(ALIGN))
}

fn open_error(path: &Path, errno: Errno) -> OpenFileError {
    let path = path.to_owned();
    match errno {
        Errno::BUSY => OpenFileError::InUse { path, by: None },
        Errno::INVAL => OpenFileError::NoDirect { path },
        Errno::EXIST => OpenFileError::Exists { path },
        errno => OpenFileError::from_io(&path, errno.into()),
    }
}

/// Takes the lock before it removes, so that a running server does not lose its file.
fn remove_unused(path: &Path) -> Result<(), OpenFileError> {
    let fail = |error: io::Error| OpenFileError::from_io(path, error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(data) if !data.is_file() => {
            return Err(OpenFileError::WrongKind { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let file = File::options().write(true).open(path).map_err(fail)?;
    lock::take(&file, path)?;
    std::fs::remove_file(path).map_err(fail)
}

fn allocate(file: &File, path: &Path, size: u64) -> Result<(), OpenFileError> {
    let free = || rustix::fs::fstatvfs(file).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    let full =
        |free_bytes| OpenFileError::Full { path: path.to_owned(), size_bytes: size, free_bytes };
    // Looked at before, because allocation takes all that is left before it fails, and others may
    // need it meanwhile.
    if let Ok(free_bytes) = free()
        && free_bytes < size
    {
        return Err(full(free_bytes));
    }
    let allocated = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size);
    allocated.map_err(|errno| match errno {
        Errno::NOSPC | Errno::DQUOT => full(free().unwrap_or(0)),
        Errno::FBIG => OpenFileError::TooLong { path: path.to_owned(), size_bytes: size },
        Errno::OPNOTSUPP => OpenFileError::NoAllocation { path: path.to_owned() },
        errno => OpenFileError::from_io(path, errno.into()),
    })
}

/// A new name is stable once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
