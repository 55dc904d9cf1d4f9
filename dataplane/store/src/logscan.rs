//! Reading a log ring: batch by batch, as far as it is needed.
//!
//! Where the chain of batches ends, the log ends, or is damaged. To tell which, the scan looks at
//! all of the ring for batches behind: the mark of a single one is enough, however long the stretch
//! is that is rotten.

use std::io;

use crate::batch::{HEADER_BYTES, Header};
use crate::io::RegionIo;
use crate::region::RegionLayout;
use crate::superblock::Superblock;

/// Bytes of the ring that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// The ring as far as it was read.
pub(crate) struct LogScan<'a> {
    io: &'a dyn RegionIo,
    region: u64,
    sector: u32,
    start: u64,
    ring: Vec<u8>,
    read: Vec<bool>,
}

impl<'a> LogScan<'a> {
    pub(crate) fn new(
        io: &'a dyn RegionIo,
        layout: &RegionLayout,
        region: u64,
        sector: u32,
    ) -> LogScan<'a> {
        let len = layout.log_bytes as usize;
        let read = vec![false; len.div_ceil(PIECE_BYTES)];
        LogScan { io, region, sector, start: layout.log_start, ring: vec![0; len], read }
    }

    /// Bytes of the ring.
    pub(crate) fn len(&self) -> u64 {
        self.ring.len() as u64
    }

    /// Reads what is not there yet of `bytes` from `at` on, as far as the ring goes.
    fn need(&mut self, at: usize, bytes: usize) -> io::Result<()> {
        let end = (at + bytes).min(self.ring.len());
        for piece in at / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
            if !std::mem::replace(&mut self.read[piece], true) {
                let from = piece * PIECE_BYTES;
                let to = (from + PIECE_BYTES).min(self.ring.len());
                self.io.read_at(self.start + from as u64, &mut self.ring[from..to])?;
            }
        }
        Ok(())
    }

    /// The batch at a place of the ring, checked; its header and where its records lie.
    fn batch(&mut self, at: usize) -> io::Result<Option<(Header, &[u8])>> {
        self.need(at, HEADER_BYTES)?;
        let Some(header) = Header::peek(&self.ring[at..]) else { return Ok(None) };
        if header.region != self.region {
            return Ok(None);
        }
        self.need(at, header.bytes(self.sector) as usize)?;
        Ok(Header::decode(&self.ring[at..]))
    }

    /// Whether there is any batch of this region.
    pub(crate) fn any(&mut self) -> io::Result<bool> {
        for at in (0..self.ring.len()).step_by(self.sector as usize) {
            if self.batch(at)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The batch that follows the one that ends at `end` with checksum `crc`, if it is there.
    pub(crate) fn next(
        &mut self,
        end: u64,
        crc: u32,
        mount: u64,
        tail: u64,
    ) -> io::Result<Option<(Header, &[u8])>> {
        let (len, sector) = (self.len(), self.sector);
        let next_lap = end.next_multiple_of(len);
        for at in [end, next_lap] {
            let follows = self.batch((at % len) as usize)?.is_some_and(|(header, _)| {
                header.at == at
                    && header.after == end
                    && header.prev_crc == crc
                    && header.mount >= mount
                    && header.end(sector) - tail <= len
            });
            if follows {
                return self.batch((at % len) as usize);
            }
        }
        Ok(None)
    }

    /// Where the chain of batches ends, and the newest persisted mark: of the superblock, of the
    /// chain, or of any batch behind it.
    pub(crate) fn ends(&mut self, superblock: &Superblock) -> io::Result<(u64, u64)> {
        let (mut end, mut crc, mut mount) = (superblock.tail, superblock.tail_crc, 0);
        let (mut mark, sector) = (superblock.persisted, self.sector);
        while let Some((header, _)) = self.next(end, crc, mount, superblock.tail)? {
            (end, crc, mount) = (header.end(sector), header.crc, header.mount);
            mark = mark.max(header.persisted);
        }
        let (len, last) = (self.len(), superblock.tail + self.len());
        let mut at = end.next_multiple_of(u64::from(sector));
        while at < last {
            let found = self.batch((at % len) as usize)?.map(|(header, _)| header);
            // One of a later lap counts as well.
            let behind = |h: &Header| h.at >= end && h.at % len == at % len && h.persisted <= h.at;
            mark = found.filter(behind).map_or(mark, |header| mark.max(header.persisted));
            at += u64::from(sector);
        }
        Ok((end, mark))
    }
}
