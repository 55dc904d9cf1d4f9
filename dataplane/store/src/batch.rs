//! A batch of the log: the records that share one write.
//!
//! Positions in the log count bytes from the region's beginning of use and only grow; position `p`
//! lies at byte `p mod log_bytes` of the ring. A batch starts at a multiple of the sector and never
//! wraps around the end of the ring; one that does not fit before it starts at the ring's
//! beginning.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | crc32c of the rest of header and records |
//! | 4 | 4 | magic `OGLB` |
//! | 8 | 8 | region |
//! | 16 | 8 | position of this batch |
//! | 24 | 8 | end of the batch before |
//! | 32 | 8 | persisted mark: every batch that ends at or before this position is persisted |
//! | 40 | 8 | mount: when it was written |
//! | 48 | 4 | crc of the batch before |
//! | 52 | 4 | bytes of the records |
//! | 56 | 4 | number of records |
//! | 60 | 4 | zero |
//! | 64 | .. | records, then zeroes to the end of the sector |

use crate::codec::{Reader, Writer};
use crate::limits::{BATCH_BYTES_MAX, BATCH_SHARE, UNPERSISTED_BYTES_MAX, UNPERSISTED_SHARE};

pub(crate) const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"OGLB";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) region: u64,
    pub(crate) at: u64,
    pub(crate) after: u64,
    pub(crate) persisted: u64,
    pub(crate) mount: u64,
    pub(crate) prev_crc: u32,
    pub(crate) records_bytes: u32,
    pub(crate) records: u32,
    /// Filled in by `seal` and `decode`.
    pub(crate) crc: u32,
}

impl Header {
    /// Bytes of the whole batch on the device.
    pub(crate) fn bytes(&self, sector: u32) -> u64 {
        batch_bytes(self.records_bytes as usize, sector)
    }

    /// Position after the batch.
    pub(crate) fn end(&self, sector: u32) -> u64 {
        self.at + self.bytes(sector)
    }

    /// Writes the header in front of the records that already lie in `batch`, and the checksum over
    /// both.
    pub(crate) fn seal(&mut self, batch: &mut [u8]) {
        let mut head = Vec::with_capacity(HEADER_BYTES);
        let w = &mut Writer(&mut head);
        w.u32(0);
        w.0.extend_from_slice(&MAGIC);
        for v in [self.region, self.at, self.after, self.persisted, self.mount] {
            w.u64(v);
        }
        for v in [self.prev_crc, self.records_bytes, self.records, 0] {
            w.u32(v);
        }
        batch[..HEADER_BYTES].copy_from_slice(&head);
        let end = HEADER_BYTES + self.records_bytes as usize;
        self.crc = crc32c::crc32c(&batch[4..end]);
        batch[..4].copy_from_slice(&self.crc.to_le_bytes());
    }

    /// The header at the front of `bytes`, before its checksum is looked at; `None` when there is
    /// none.
    pub(crate) fn peek(bytes: &[u8]) -> Option<Header> {
        let r = &mut Reader(bytes.get(..HEADER_BYTES)?);
        let crc = r.u32().ok()?;
        if r.bytes(4).ok()? != MAGIC {
            return None;
        }
        let mut next = || r.u64().ok();
        let (region, at, after, persisted, mount) = (next()?, next()?, next()?, next()?, next()?);
        let mut next = || r.u32().ok();
        let (prev_crc, records_bytes, records) = (next()?, next()?, next()?);
        Some(Header { region, at, after, persisted, mount, prev_crc, records_bytes, records, crc })
    }

    /// The header and the records of the batch at the front of `bytes`, checked.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let header = Self::peek(bytes)?;
        let end = HEADER_BYTES.checked_add(header.records_bytes as usize)?;
        let body = bytes.get(4..end)?;
        (crc32c::crc32c(body) == header.crc).then(|| (header, &bytes[HEADER_BYTES..end]))
    }
}

/// Bytes on the device of a batch with so many bytes of records.
pub(crate) fn batch_bytes(records_bytes: usize, sector: u32) -> u64 {
    ((HEADER_BYTES + records_bytes) as u64).next_multiple_of(u64::from(sector))
}

/// Most bytes of a batch in a ring of so many bytes, unless a single record is longer.
pub(crate) fn batch_bytes_max(log_bytes: u64) -> usize {
    BATCH_BYTES_MAX.min((log_bytes / BATCH_SHARE) as usize)
}

/// No batch is sealed while more bytes than this lie between the persisted mark and the head.
pub(crate) fn unpersisted_max(log_bytes: u64) -> u64 {
    UNPERSISTED_BYTES_MAX.min(log_bytes / UNPERSISTED_SHARE)
}

/// Where the next batch of `bytes` goes: at the head, or at the ring's beginning when it would
/// wrap.
pub(crate) fn place(head: u64, bytes: u64, log_bytes: u64) -> u64 {
    let left = log_bytes - head % log_bytes;
    if bytes <= left { head } else { head + left }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    fn sample() -> (Header, Vec<u8>) {
        let mut header = Header {
            region: 1,
            at: 1024,
            after: 512,
            persisted: 512,
            mount: 2,
            prev_crc: 9,
            records_bytes: 3,
            records: 1,
            crc: 0,
        };
        let mut batch = vec![0; 512];
        batch[64..67].copy_from_slice(b"abc");
        header.seal(&mut batch);
        (header, batch)
    }

    #[test]
    fn round_trip_and_damage() {
        let (header, batch) = sample();
        assert_eq!(Header::decode(&batch), Some((header, &b"abc"[..])));
        assert_eq!(header.end(512), 1536);
        for at in 0..67 {
            let mut bad = batch.clone();
            bad[at] ^= 1;
            assert_eq!(Header::decode(&bad), None, "byte {at}");
        }
        assert_eq!(Header::decode(&batch[..65]), None);
        assert_eq!(Header::decode(&[]), None);
    }

    #[test]
    fn the_format_stays() {
        assert_eq!(sample().0.crc, 4_280_287_037, "as version 1 wrote it");
        golden("batch", &sample().1);
    }

    #[test]
    fn batches_do_not_wrap() {
        assert_eq!(place(0, 4096, 4096), 0);
        assert_eq!(place(512, 4096, 4096), 4096);
        assert_eq!(place(4096 * 3 + 3584, 512, 4096), 4096 * 3 + 3584);
        assert_eq!(place(4096 * 3 + 3584, 1024, 4096), 4096 * 4);
    }
}
