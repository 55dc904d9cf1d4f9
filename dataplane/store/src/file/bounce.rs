//! Aligned memory between a caller's bytes and a device that takes only whole, aligned blocks.

use std::io;
use std::ops::Range;

use super::ALIGN;

/// Most bytes of one bounce.
const BOUNCE_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; ALIGN as usize]);

const _: () = assert!(size_of::<Page>() == ALIGN as usize && align_of::<Page>() == ALIGN as usize);

/// Zeroed memory, aligned to 4096 bytes.
pub(super) struct Bounce {
    pages: Vec<Page>,
}

impl Bounce {
    /// Memory of `len` bytes, a multiple of 4096.
    pub(super) fn new(len: u64) -> Bounce {
        assert!(len.is_multiple_of(ALIGN));
        Bounce { pages: vec![Page([0; ALIGN as usize]); (len / ALIGN) as usize] }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let len = self.pages.len() * ALIGN as usize;
        // SAFETY: pages are plain bytes without padding, one after the other, and borrowed mutably
        // as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), len) }
    }
}

/// A part of an access: the bytes meant, and the whole blocks around them.
pub(super) struct Part {
    /// First byte of the whole access.
    addr: u64,
    /// The bytes meant, on the device.
    inner: Range<u64>,
    /// The whole blocks that hold them.
    pub(super) outer: Range<u64>,
}

impl Part {
    /// Where the bytes meant lie in the caller's memory.
    pub(super) fn of_caller(&self) -> Range<usize> {
        relative(&self.inner, self.addr)
    }

    /// Where the bytes meant lie in the whole blocks.
    pub(super) fn of_bounce(&self) -> Range<usize> {
        relative(&self.inner, self.outer.start)
    }

    /// Whether the whole blocks hold more than the bytes meant.
    pub(super) fn is_partial(&self) -> bool {
        self.inner != self.outer
    }
}

fn relative(range: &Range<u64>, to: u64) -> Range<usize> {
    (range.start - to) as usize..(range.end - to) as usize
}

/// Calls `act` for the parts of `addr .. addr + len` in order, until one fails.
pub(super) fn for_each_part(
    addr: u64,
    len: usize,
    mut act: impl FnMut(Part) -> io::Result<()>,
) -> io::Result<()> {
    let end = addr + len as u64;
    let mut at = addr;
    while at < end {
        let start = at / ALIGN * ALIGN;
        let to = end.min(start + BOUNCE_BYTES);
        act(Part { addr, inner: at..to, outer: start..to.next_multiple_of(ALIGN) })?;
        at = to;
    }
    Ok(())
}
