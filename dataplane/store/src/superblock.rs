//! The superblock of a region: where the newest checkpoint is and where the log begins.
//!
//! Two slots of 4096 bytes are written in turn, so that the one before is whole while the next is
//! written. The valid one with the greater generation counts. Two slots of zeroes are a region that
//! was never used.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | crc32c of the rest |
//! | 4 | 4 | magic `OGSB` |
//! | 8 | 4 | version |
//! | 12 | 4 | zero |
//! | 16 | 8 | region: identity of the region, in every structure of it |
//! | 24 | 8 | generation |
//! | 32 | 8 | mount: counts the times that the region was opened |
//! | 40 | 8 | tail: position of the first log batch after the checkpoint |
//! | 48 | 8 | persisted: everything in the log before this position is persisted |
//! | 56 | 4 | crc of the batch before the tail, which the first batch names |
//! | 60 | 4 | directory: 0 or 1 for the area used, 2 for none |
//! | 64 | 8 | bytes of the directory |
//! | 72 | 4 | crc32c of the directory |
//! | 76 | 4 | records after the tail that the checkpoint holds already |

use crate::codec::{Reader, Writer};

/// Version of the region's structures. Version 1 knew only the wide form of map pages, version 2
/// wrote the places of pages in one piece and let the log run ahead of its mark without a bound.
pub(crate) const VERSION: u32 = 3;
/// The oldest version that is read; what is written is always of the newest.
pub(crate) const VERSION_MIN: u32 = 1;
pub(crate) const SUPERBLOCK_BYTES: usize = 4096;
const MAGIC: [u8; 4] = *b"OGSB";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Version that it was read with.
    pub(crate) version: u32,
    pub(crate) region: u64,
    pub(crate) generation: u64,
    pub(crate) mount: u64,
    pub(crate) tail: u64,
    pub(crate) persisted: u64,
    pub(crate) tail_crc: u32,
    /// Records after the tail whose effect is in the directory: they waited for a batch when the
    /// checkpoint began.
    pub(crate) skip: u32,
    pub(crate) directory: Option<Directory>,
}

/// Where the directory of the checkpoint lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) area: u8,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Unused,
    Damaged,
    OtherVersion(u32),
    Valid(Superblock),
}

impl Superblock {
    /// The slot that this generation is written to.
    pub(crate) fn slot(&self) -> usize {
        (self.generation % 2) as usize
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES);
        let w = &mut Writer(&mut bytes);
        w.u32(0);
        w.0.extend_from_slice(&MAGIC);
        w.u32(VERSION);
        w.u32(0);
        for v in [self.region, self.generation, self.mount, self.tail, self.persisted] {
            w.u64(v);
        }
        w.u32(self.tail_crc);
        let none = Directory { area: 2, bytes: 0, crc: 0 };
        let directory = self.directory.unwrap_or(none);
        w.u32(u32::from(directory.area));
        w.u64(directory.bytes);
        w.u32(directory.crc);
        w.u32(self.skip);
        bytes.resize(SUPERBLOCK_BYTES, 0);
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Slot {
        if bytes.iter().all(|&b| b == 0) {
            return Slot::Unused;
        }
        Self::fields(bytes).unwrap_or(Slot::Damaged)
    }

    fn fields(bytes: &[u8]) -> Option<Slot> {
        let r = &mut Reader(bytes);
        let crc = r.u32().ok()?;
        if bytes.len() != SUPERBLOCK_BYTES || crc != crc32c::crc32c(&bytes[4..]) {
            return None;
        }
        if r.bytes(4).ok()? != MAGIC {
            return None;
        }
        let version = r.u32().ok()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Some(Slot::OtherVersion(version));
        }
        r.u32().ok()?;
        let mut next = || r.u64().ok();
        let (region, generation, mount, tail, persisted) =
            (next()?, next()?, next()?, next()?, next()?);
        let tail_crc = r.u32().ok()?;
        let area = r.u32().ok()?;
        let (bytes, crc) = (r.u64().ok()?, r.u32().ok()?);
        let skip = r.u32().ok()?;
        let directory = match area {
            0 | 1 => Some(Directory { area: area as u8, bytes, crc }),
            2 => None,
            _ => return None,
        };
        Some(Slot::Valid(Superblock {
            version,
            region,
            generation,
            mount,
            tail,
            persisted,
            tail_crc,
            skip,
            directory,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    const SAMPLE: Superblock = Superblock {
        version: VERSION,
        region: 1,
        generation: 2,
        mount: 3,
        tail: 4,
        persisted: 5,
        tail_crc: 6,
        skip: 9,
        directory: Some(Directory { area: 1, bytes: 7, crc: 8 }),
    };

    #[test]
    fn round_trip_and_damage() {
        let bytes = SAMPLE.encode();
        assert_eq!(Superblock::decode(&bytes), Slot::Valid(SAMPLE));
        let none = Superblock { directory: None, ..SAMPLE };
        assert_eq!(Superblock::decode(&none.encode()), Slot::Valid(none));
        for at in 0..80 {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert_eq!(Superblock::decode(&bad), Slot::Damaged, "byte {at}");
        }
        assert_eq!(Superblock::decode(&[0; SUPERBLOCK_BYTES]), Slot::Unused);
    }

    #[test]
    fn the_format_stays() {
        golden("superblock", &SAMPLE.encode());
    }

    #[test]
    fn version_1_is_read() {
        let mut bytes = SAMPLE.encode();
        bytes[8] = 1;
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(crc32c::crc32c(&bytes), 4_109_362_147, "as version 1 wrote it");
        let former = Superblock { version: 1, ..SAMPLE };
        assert_eq!(Superblock::decode(&bytes), Slot::Valid(former));
    }
}
