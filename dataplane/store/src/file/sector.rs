//! The unit of direct access to a device.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};

use super::ALIGN;
use super::bounce::Bounce;
use super::error::OpenFileError;

/// 512 or 4096 bytes. A block device says; for a file its file system says since Linux 6.1; before
/// that, try.
pub(super) fn of(file: &File, path: &Path) -> Result<u32, OpenFileError> {
    let is_block = file.metadata().is_ok_and(|data| data.file_type().is_block_device());
    let said = if is_block { rustix::fs::ioctl_blksszget(file).ok() } else { statx(file) };
    match said {
        Some(bytes) if u64::from(bytes) > ALIGN => {
            Err(OpenFileError::SectorTooLarge { path: path.to_owned(), bytes })
        }
        Some(bytes) if bytes <= 512 => Ok(512),
        Some(_) => Ok(4096),
        None => Ok(probe(file)),
    }
}

fn statx(file: &File) -> Option<u32> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let known = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    (known && stat.stx_dio_offset_align != 0).then_some(stat.stx_dio_offset_align)
}

/// What is refused at half a block is a device of whole ones.
fn probe(file: &File) -> u32 {
    let mut bounce = Bounce::new(ALIGN);
    if file.read_at(&mut bounce.bytes()[..512], 512).is_ok() { 512 } else { 4096 }
}
