//! Sparse memory in pages: what was never written, or is all zero again, takes none.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 4096;

/// Shared between copies of the memory until one of them writes.
type Page = Arc<[u8; PAGE_BYTES]>;

static ZERO: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Pages by number. A missing one is zero, or, for the methods with `_over`, that of the layer
/// below.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Page>,
}

impl Pages {
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }

    pub(super) fn write(&mut self, addr: u64, data: &[u8]) {
        for_each_page(addr, data.len(), |number, within, of_data| {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new(ZERO));
            Arc::make_mut(page)[within].copy_from_slice(&data[of_data]);
            if **page == ZERO {
                self.pages.remove(&number);
            }
        });
    }

    /// Writes into this layer; a page that it lacks starts as that of `below`.
    pub(super) fn write_over(&mut self, below: &Pages, addr: u64, data: &[u8]) {
        for_each_page(addr, data.len(), |number, within, of_data| {
            let page = self.pages.entry(number);
            let page = page.or_insert_with(|| Arc::new(*below.page(number)));
            Arc::make_mut(page)[within].copy_from_slice(&data[of_data]);
        });
    }

    /// Reads this layer, and `below` where it lacks pages.
    pub(super) fn read_over(&self, below: &Pages, addr: u64, buf: &mut [u8]) {
        for_each_page(addr, buf.len(), |number, within, of_buf| {
            let own = self.pages.get(&number).map(|page| &**page);
            let page = own.unwrap_or_else(|| below.page(number));
            buf[of_buf].copy_from_slice(&page[within]);
        });
    }

    /// Puts the pages of `above` into this layer.
    pub(super) fn overlay(&mut self, above: &Pages) {
        let above = above.pages.iter().map(|(number, page)| (*number, Arc::clone(page)));
        self.pages.extend(above);
    }

    pub(super) fn flip(&mut self, addr: u64, mask: u8) {
        let byte = self.page(addr / PAGE_BYTES as u64)[(addr % PAGE_BYTES as u64) as usize];
        self.write(addr, &[byte ^ mask]);
    }

    fn page(&self, number: u64) -> &[u8; PAGE_BYTES] {
        self.pages.get(&number).map_or(&ZERO, |page| page)
    }
}

/// Calls `act` with the number of each page touched, the range within it, and the range of the
/// data.
fn for_each_page(
    addr: u64,
    len: usize,
    mut act: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut at = 0;
    while at < len {
        let (number, within) = {
            let here = addr + at as u64;
            (here / PAGE_BYTES as u64, (here % PAGE_BYTES as u64) as usize)
        };
        let bytes = (PAGE_BYTES - within).min(len - at);
        act(number, within..within + bytes, at..at + bytes);
        at += bytes;
    }
}
