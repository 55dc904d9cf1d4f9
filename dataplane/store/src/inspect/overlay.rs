//! A device to which writes go no further than memory: recovery can mount a region without leaving
//! a trace.

use std::collections::BTreeMap;
use std::io;

use crate::io::RegionIo;

const PAGE: u64 = 4096;

/// `below`, as if what was written here were on it.
pub(super) struct Overlay<'a> {
    below: &'a dyn RegionIo,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(below: &'a dyn RegionIo) -> Overlay<'a> {
        Overlay { below, pages: BTreeMap::new() }
    }
}

impl RegionIo for Overlay<'_> {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.below.read_at(addr, buf)?;
        // In range, or the read above had failed.
        let end = addr + buf.len() as u64;
        for (&page, bytes) in self.pages.range(addr / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = (addr.max(page * PAGE), end.min((page + 1) * PAGE));
            let within = |at: u64, start: u64| (at - start) as usize;
            buf[within(from, addr)..within(to, addr)]
                .copy_from_slice(&bytes[within(from, page * PAGE)..within(to, page * PAGE)]);
        }
        Ok(())
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        let end = addr.checked_add(data.len() as u64).filter(|&end| end <= self.below.len());
        let end = end.ok_or(io::ErrorKind::WriteZero)?;
        let mut at = addr;
        while at < end {
            let (page, to) = (at / PAGE, end.min((at / PAGE + 1) * PAGE));
            if !self.pages.contains_key(&page) {
                let mut bytes = vec![0; PAGE as usize];
                self.below.read_at(page * PAGE, &mut bytes)?;
                self.pages.insert(page, bytes);
            }
            let bytes = self.pages.get_mut(&page).expect("just put in");
            let from = (at - page * PAGE) as usize;
            let part = &data[(at - addr) as usize..(to - addr) as usize];
            bytes[from..from + part.len()].copy_from_slice(part);
            at = to;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> u64 {
        self.below.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simdisk::SimDisk;

    const LEN: usize = 32 << 10;

    proptest! {
        #[test]
        fn it_reads_as_written_and_changes_nothing(
            writes in prop::collection::vec((0usize..LEN, 0usize..9000, any::<u8>()), 1..20),
        ) {
            let mut disk = SimDisk::new(LEN as u64, 512);
            let before: Vec<u8> = (0..LEN).map(|n| n as u8).collect();
            disk.write_at(0, &before).unwrap();
            let mut model = before.clone();
            let mut over = Overlay::new(&disk);
            for (at, len, byte) in writes {
                let fits = at + len <= LEN;
                prop_assert_eq!(over.write_at(at as u64, &vec![byte; len]).is_ok(), fits);
                if fits {
                    model[at..at + len].fill(byte);
                }
                let len = len.min(LEN - at);
                let mut read = vec![0; len];
                over.read_at(at as u64, &mut read).unwrap();
                prop_assert_eq!(&read[..], &model[at..at + len]);
            }
            let mut read = vec![0; LEN];
            over.read_at(0, &mut read).unwrap();
            prop_assert_eq!(read, model);
            let mut below = vec![0; LEN];
            disk.read_at(0, &mut below).unwrap();
            prop_assert_eq!(below, before);
        }
    }
}
