//! A large device in little memory: pages of zeroes are not kept, and data blocks never are.
//!
//! Data that is written is taken for zeroes, so a load that writes zeroes finds what it wrote.

use std::collections::HashMap;
use std::io;

use ogive_store::RegionIo;

const PAGE: u64 = 4096;

/// A device in memory.
pub(super) struct Sparse {
    len: u64,
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Sparse {
    pub(super) fn new(len: u64) -> Sparse {
        Sparse { len, pages: HashMap::new() }
    }

    /// Bytes that it keeps.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    fn check(&self, addr: u64, len: usize, kind: io::ErrorKind) -> io::Result<()> {
        let inside = addr.checked_add(len as u64).is_some_and(|end| end <= self.len);
        if inside { Ok(()) } else { Err(kind.into()) }
    }
}

/// The parts of a range that lie in one page each: page, from, to.
fn parts(addr: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = addr + len as u64;
    let mut at = addr;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let (page, from) = (at / PAGE, at % PAGE);
            let to = PAGE.min(from + end - at);
            at += to - from;
            (page, from as usize, to as usize)
        })
    })
}

impl RegionIo for Sparse {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(addr, buf.len(), io::ErrorKind::UnexpectedEof)?;
        let mut done = 0;
        for (page, from, to) in parts(addr, buf.len()) {
            let into = &mut buf[done..done + to - from];
            match self.pages.get(&page) {
                Some(page) => into.copy_from_slice(&page[from..to]),
                None => into.fill(0),
            }
            done += to - from;
        }
        Ok(())
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.check(addr, data.len(), io::ErrorKind::WriteZero)?;
        let mut done = 0;
        for (page, from, to) in parts(addr, data.len()) {
            let bytes = &data[done..done + to - from];
            done += to - from;
            if bytes.iter().all(|&b| b == 0) && !self.pages.contains_key(&page) {
                continue;
            }
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[from..to].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_not_zero() {
        let mut disk = Sparse::new(1 << 20);
        disk.write_at(0, &[0; 8192]).unwrap();
        assert_eq!(disk.kept_bytes(), 0);
        disk.write_at(4000, &[7; 200]).unwrap();
        assert_eq!(disk.kept_bytes(), 8192);
        let mut buf = [9; 300];
        disk.read_at(3950, &mut buf).unwrap();
        assert!(buf[..50].iter().chain(&buf[250..]).all(|&b| b == 0));
        assert!(buf[50..250].iter().all(|&b| b == 7));
        disk.write_at(4000, &[0; 200]).unwrap();
        disk.read_at(3950, &mut buf).unwrap();
        assert_eq!(buf, [0; 300]);
        assert!(disk.read_at(1 << 20, &mut buf).is_err() && disk.write_at(u64::MAX, &[1]).is_err());
    }
}
