//! Have all blocks of a file been written? Until they have, a write of data is followed by one of
//! the file system's metadata, and only a flush makes that stable.
//!
//! Asked with the FIEMAP ioctl (Linux, `Documentation/filesystems/fiemap.rst`).

use std::fs::File;
use std::os::fd::AsRawFd;

/// Extents in one call.
const BATCH: usize = 128;

const FIEMAP_FLAG_SYNC: u32 = 1;
const EXTENT_LAST: u32 = 1;
/// Flags of an extent that is in place and written: these and no others.
const HARMLESS: u32 = EXTENT_LAST | EXTENT_MERGED;
const EXTENT_MERGED: u32 = 0x1000;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}

const _: () = assert!(size_of::<Extent>() == 56);
const _: () = assert!(size_of::<Request>() == 32 + BATCH * 56);

/// `_IOWR('f', 11, struct fiemap)`, whose size is that of the head alone.
const FS_IOC_FIEMAP: libc::Ioctl = libc::_IOWR::<[u64; 4]>(b'f' as u32, 11);

/// True when every byte of `file` lies in a written extent of its own. False when in doubt.
pub(super) fn all_written(file: &File) -> bool {
    let Ok(len) = file.metadata().map(|data| data.len()) else { return false };
    let mut at = 0;
    while at < len {
        let Some(extents) = map(file, at, len - at) else { return false };
        let Some(to) = covered_to(at, &extents) else { return false };
        at = to;
    }
    true
}

/// The end of the written bytes that begin at `at`; `None` at once when there is a hole, or an
/// extent that is unwritten, shared with another file, or anything unusual.
fn covered_to(at: u64, extents: &[Extent]) -> Option<u64> {
    let mut to = at;
    for extent in extents {
        if extent.flags & !HARMLESS != 0 || extent.logical > to {
            return None;
        }
        to = extent.logical.checked_add(extent.length)?;
    }
    (to > at).then_some(to)
}

fn map(file: &File, start: u64, length: u64) -> Option<Vec<Extent>> {
    let mut request = Request {
        start,
        length,
        flags: FIEMAP_FLAG_SYNC,
        mapped: 0,
        count: BATCH as u32,
        reserved: 0,
        extents: [Extent::default(); BATCH],
    };
    // SAFETY: the kernel reads and writes the head and at most `count` extents after it, all inside
    // `request`.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut request) };
    let mapped = request.mapped as usize;
    (result == 0 && mapped <= BATCH).then(|| request.extents[..mapped].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(logical: u64, length: u64, flags: u32) -> Extent {
        Extent { logical, length, flags, ..Extent::default() }
    }

    #[test]
    fn holes_and_unwritten_extents_are_seen() {
        const UNWRITTEN: u32 = 0x800;
        const SHARED: u32 = 0x2000;
        let whole = [extent(0, 8, 0), extent(8, 8, EXTENT_LAST | EXTENT_MERGED)];
        assert_eq!(covered_to(0, &whole), Some(16));
        assert_eq!(covered_to(4, &whole), Some(16), "the first extent may begin before");
        assert_eq!(covered_to(0, &[extent(0, 8, 0), extent(9, 8, 0)]), None, "a hole");
        assert_eq!(covered_to(0, &[extent(8, 8, 0)]), None, "a hole at the start");
        assert_eq!(covered_to(0, &[]), None);
        for flags in [UNWRITTEN, SHARED, EXTENT_LAST | UNWRITTEN] {
            assert_eq!(covered_to(0, &[extent(0, 8, flags)]), None);
        }
    }
}
