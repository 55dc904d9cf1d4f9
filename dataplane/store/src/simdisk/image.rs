//! What lies on a medium, to be opened: pages of its own over pages that many images share.

use std::io;
use std::sync::Arc;

use crate::io::RegionIo;

use super::SimDisk;
use super::pages::Pages;

/// A medium in memory that is cheap to make and to throw away: it shares what it did not change.
/// Every access ends at once, and nothing fails.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) len: u64,
    pub(super) sector: u64,
    pub(super) below: Arc<Pages>,
    pub(super) own: Pages,
}

impl Image {
    /// A disk that holds this image, durably.
    pub fn to_disk(&self, volatile_cache: bool) -> SimDisk {
        let mut disk = SimDisk::new(self.len, self.sector as u32);
        disk.durable = Pages::clone(&self.below);
        disk.durable.overlay(&self.own);
        disk.volatile_cache = volatile_cache;
        disk
    }

    /// Turns the bits of `mask` over at byte `addr`.
    pub fn flip(&mut self, addr: u64, mask: u8) {
        let mut byte = [0];
        self.own.read_over(&self.below, addr, &mut byte);
        self.own.write_over(&self.below, addr, &[byte[0] ^ mask]);
    }
}

fn within(len: u64, addr: u64, bytes: usize) -> bool {
    addr.checked_add(bytes as u64).is_some_and(|end| end <= len)
}

impl RegionIo for Image {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        if !within(self.len, addr, buf.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.own.read_over(&self.below, addr, buf);
        Ok(())
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        if !within(self.len, addr, data.len()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.own.write_over(&self.below, addr, data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}
