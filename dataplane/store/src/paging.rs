//! Map pages that leave memory, and come back when they are needed.
//!
//! ```text
//! in ─(the clock: over the budget, unused, clean)─▶ out ─(wanted)─▶ queued ─▶ read ─(joined)─▶ in
//!                                                    └─(dropped)─▶ buried: read to free its blocks
//! ```
//!
//! | who needs a page that is out | what happens |
//! |---|---|
//! | an entry is appended | the read starts, beside the data writes |
//! | an entry, a delta or a repair is applied | the page keeps what is new; it is joined when the page was read |
//! | a read, a scrub, a question what is mapped | waits for the page, and sees the map as it was when it was asked (`parked.rs`) |
//! | a scan for a delta, a repair, a peer's question | is told to come again; the page is read and held for it |
//! | its chunk is dropped | it counts as free at once; its blocks are freed when it was read |
//! | a checkpoint | waits: a page that is out and has something new is being read |
//!
//! `design/0003-maps.md` argues why that is right.

use std::collections::VecDeque;

use ogive_buf::BufMut;
use ogive_types::CopysetId;
use ogive_types::message::Op;

use crate::directory::PagePlace;
use crate::entries::touched;
use crate::io::{DiskError, DiskOp};
use crate::limits::{
    CLOCK_STEPS_MAX, MAP_BYTES_OVER, PAGE_READ_TRIES, PAGE_READS_IN_FLIGHT, PAGE_READS_WAITING_MAX,
    PAGES_HELD_MAX,
};
use crate::map::{OutPage, PAGE_BYTES, Page, PageKey};
use crate::parked::ParkedReads;
use crate::replica::Replaced;
use crate::slab::Slab;
use crate::store::{Kind, Store, StoreEvent};

/// Bytes that a page takes in memory at the most, for comparing numbers of pages with the budget.
const PAGE_MEMORY: usize = PAGE_BYTES;

/// A page that is to be read.
struct Fetch {
    place: PagePlace,
    /// Its chunk was dropped; it had so many blocks.
    buried: Option<u16>,
    /// Someone was told to come again for it.
    wished: bool,
    /// How often it was read in vain.
    failures: u32,
    /// Reads that wait for it.
    readers: Vec<u64>,
}

impl Fetch {
    fn new(place: PagePlace, buried: Option<u16>) -> Fetch {
        Fetch { place, buried, wished: false, failures: 0, readers: Vec::new() }
    }
}

#[derive(Default)]
pub(crate) struct Paging {
    fetches: Slab<Fetch>,
    queue: VecDeque<u64>,
    in_flight: usize,
    pub(crate) parked: ParkedReads,
    /// Memory for one read when the pool has none; the last read's.
    reserve: Option<BufMut>,
    /// Pages that do not leave memory yet, the oldest first.
    held: VecDeque<(CopysetId, PageKey)>,
    /// Whose clock turns next.
    turn: Option<CopysetId>,
    /// Pages read since the store was opened.
    pub(crate) pages_read: u64,
}

impl Paging {
    pub(crate) fn is_idle(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Has a read wait for a page that is being fetched.
    pub(crate) fn await_page(&mut self, fetch: u64, reader: u64) {
        self.fetches.get_mut(fetch).expect("being fetched").readers.push(reader);
    }
}

impl Store {
    /// Whether the maps are so far over their budget, or so many pages must be read, that no more
    /// entries should come.
    pub(crate) fn maps_behind(&self) -> bool {
        let most = self.options.map_bytes_max.saturating_mul(2).saturating_add(MAP_BYTES_OVER);
        self.map_use.bytes.get() > most || self.paging.queue.len() > PAGE_READS_WAITING_MAX
    }

    /// Whether a checkpoint should run so that pages can leave memory.
    pub(crate) fn maps_want_checkpoint(&self) -> bool {
        let dirty = self.map_use.dirty.get().saturating_mul(PAGE_MEMORY);
        let over = self.map_use.bytes.get() > self.options.map_bytes_max;
        over && dirty > self.options.map_bytes_max / 2
    }

    /// Asks for the pages that an entry will change.
    pub(crate) fn prefetch(&mut self, id: CopysetId, op: &Op) {
        let Some((chunk, range)) = touched(op) else { return };
        let Some(replica) = self.replicas.get(&id) else { return };
        // Most often none is out, and this takes no memory.
        let out: Vec<PageKey> = replica.map.out_in(chunk, range).collect();
        for key in out {
            self.fetch_page(id, key);
        }
    }

    /// Asks for the pages that have something to be joined with.
    pub(crate) fn fetch_wanted(&mut self, id: CopysetId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        for key in replica.map.take_wanted() {
            self.fetch_page(id, key);
        }
    }

    /// Notes that someone needs a page that is out, and comes again after
    /// [`StoreEvent::MapRead`].
    pub(crate) fn wish(&self, id: CopysetId, key: PageKey) {
        self.wishes.borrow_mut().insert((id, key));
    }

    /// Asks for the pages that were wished for.
    pub(crate) fn take_wishes(&mut self) {
        for (id, key) in std::mem::take(self.wishes.get_mut()) {
            match self.fetch_page(id, key) {
                Some(fetch) => {
                    self.paging.fetches.get_mut(fetch).expect("being fetched").wished = true;
                }
                None => {
                    self.hold(id, key);
                    self.events.push_back(StoreEvent::MapRead { copyset: id });
                }
            }
        }
    }

    /// Asks for a page that is out, unless that was done; the number of its fetch, `None` when it
    /// is in memory or gone.
    pub(crate) fn fetch_page(&mut self, id: CopysetId, key: PageKey) -> Option<u64> {
        let page = self.replicas.get_mut(&id)?.map.page_mut(key).filter(|page| page.out)?;
        if let Some(fetch) = page.fetch {
            return Some(u64::from(fetch));
        }
        let slot = page.slot().expect("pages that are out have a slot");
        let place = PagePlace { copyset: id, key, slot, sum: Some(page.sum()) };
        let fetch = self.paging.fetches.insert(Fetch::new(place, None));
        page.fetch = Some(fetch as u32);
        self.paging.queue.push_back(fetch);
        Some(fetch)
    }

    /// Frees the blocks of a page that was dropped while it was out.
    pub(crate) fn bury(&mut self, id: CopysetId, page: OutPage) {
        let OutPage { key, slot, sum, mapped, fetch } = page;
        self.space.expect(mapped);
        if let Some(fetch) = fetch {
            // Gone only when the device failed.
            if let Some(fetch) = self.paging.fetches.get_mut(u64::from(fetch)) {
                fetch.buried = Some(mapped);
            }
            return;
        }
        let place = PagePlace { copyset: id, key, slot, sum: Some(sum) };
        let fetch = self.paging.fetches.insert(Fetch::new(place, Some(mapped)));
        self.paging.queue.push_back(fetch);
    }

    /// Starts reads of pages, and lets pages go that are over the budget.
    pub(crate) fn advance_paging(&mut self) {
        self.take_wishes();
        while self.paging.in_flight < PAGE_READS_IN_FLIGHT {
            let Some(&fetch) = self.paging.queue.front() else { break };
            let Some(buf) = self.page_memory() else { break };
            self.paging.queue.pop_front();
            let queued = self.paging.fetches.get_mut(fetch).expect("queued until it is read");
            let addr = self.layout.slot_addr(queued.place.slot);
            let id = self.op(Kind::PageRead { fetch });
            self.paging.in_flight += 1;
            self.out.push(DiskOp::Read { id, addr, buf });
        }
        let mut steps = CLOCK_STEPS_MAX;
        while self.map_use.bytes.get() > self.options.map_bytes_max && steps > 0 {
            steps -= 1;
            self.turn_clock();
        }
    }

    fn page_memory(&mut self) -> Option<BufMut> {
        let buf = self.pool.alloc(PAGE_BYTES);
        buf.or_else(|| self.paging.reserve.take())
    }

    /// Moves the clock of the next replica by one page.
    fn turn_clock(&mut self) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.paging.turn.map_or(Unbounded, Excluded);
        let mut next = self.replicas.range_mut((from, Unbounded)).next();
        if next.is_none() {
            next = self.replicas.iter_mut().next();
        }
        let Some((&id, replica)) = next else { return };
        replica.map.turn_clock();
        self.paging.turn = Some(id);
    }

    /// A page was read. One that cannot be used is read again, in case the way here was at fault.
    pub(crate) fn page_read(&mut self, number: u64, result: Result<Option<BufMut>, DiskError>) {
        self.paging.in_flight -= 1;
        if self.failed.is_some() {
            return;
        }
        let fetch = self.paging.fetches.get_mut(number).expect("fetches stay until they end");
        let (region, place) = (self.region, fetch.place);
        let read = result.and_then(|buf| {
            let buf = buf.expect("a read brings its buffer");
            let page = place.page(&buf, region);
            self.paging.reserve = Some(buf);
            page.ok_or(DiskError::Io(libc::EIO))
        });
        match read {
            Ok(page) => {
                let fetch = self.paging.fetches.remove(number).expect("looked up above");
                self.paging.pages_read += 1;
                self.take_page(fetch, page);
            }
            Err(_) if fetch.failures + 1 < PAGE_READ_TRIES => {
                fetch.failures += 1;
                self.paging.queue.push_back(number);
            }
            Err(error) => {
                let (copyset, (chunk, page)) = (place.copyset, place.key);
                tracing::error!(
                    %copyset, %chunk, page, slot = place.slot, %error,
                    "a map page is damaged; format the device and let its replicas be rebuilt"
                );
                self.fail(error);
            }
        }
    }

    fn take_page(&mut self, fetch: Fetch, mut page: Page) {
        let Fetch { place, buried, wished, readers, .. } = fetch;
        let PagePlace { copyset, key, slot, .. } = place;
        let (chunk, number) = key;
        let mut replaced: Replaced = Vec::new();
        if let Some(mapped) = buried {
            readers.into_iter().for_each(|reader| self.unpark(reader, key, &page));
            replaced.extend(page.stored(number).into_iter().map(|(b, m)| (chunk, b, m)));
            assert_eq!(replaced.len(), usize::from(mapped), "as many as were expected");
            self.space.expected(mapped);
            self.checkpoint.dropped_slots.push(slot);
        } else {
            let here = "its page is not buried";
            let replica = self.replicas.get_mut(&copyset).expect(here);
            let mut lost = replica.map.make_moves(key, &mut page);
            // They see blocks where repairs put them, but nothing that was applied since.
            readers.into_iter().for_each(|reader| self.unpark(reader, key, &page));
            let replica = self.replicas.get_mut(&copyset).expect(here);
            lost.append(&mut replica.map.join(key, page));
            replaced.extend(lost.into_iter().map(|(block, old)| (chunk, block, old)));
        }
        if wished {
            self.hold(copyset, key);
            self.events.push_back(StoreEvent::MapRead { copyset });
        }
        self.free_replaced(copyset, &mut replaced);
    }

    /// Keeps a page in memory until as many others are held as may be: whoever wished for it finds
    /// it, whatever the budget.
    fn hold(&mut self, id: CopysetId, key: PageKey) {
        if self.paging.held.len() == PAGES_HELD_MAX {
            let (id, key) = self.paging.held.pop_front().expect("not empty");
            let page = self.replicas.get_mut(&id).and_then(|r| r.map.page_mut(key));
            page.into_iter().for_each(|page| page.held = false);
        }
        let page = self.replicas.get_mut(&id).and_then(|r| r.map.page_mut(key));
        if let Some(page) = page.filter(|page| !page.held) {
            page.held = true;
            self.paging.held.push_back((id, key));
        }
    }
}
