//! A tape of everything that changed a disk, and the media that power cuts could have left behind
//! at every place of it.
//!
//! What a power cut may leave, by assumptions 1 and 2 of `design/0001-one-log.md`: everything that
//! an ended flush covered, and of every other write that was submitted any set of sectors. Where
//! two of those writes overlap, the one that ended first lies below; one that has not ended may lie
//! above or below those that ended since it was submitted.

use std::rc::Rc;
use std::sync::Arc;

use super::image::Image;
use super::pages::Pages;
use super::{Draw, SimDisk};

/// One thing that happened. Numbers count the writes of a tape.
#[derive(Clone, Debug)]
pub enum TapeEvent {
    /// A write was submitted; it gets the next number.
    Write {
        /// Byte offset on the device.
        addr: u64,
        /// What it writes.
        data: Rc<[u8]>,
    },
    /// A write ended.
    Ended {
        /// Which one.
        write: usize,
    },
    /// A flush ended.
    Flushed {
        /// Writes that had ended when it was submitted: so many of the ends on the tape.
        ends: usize,
    },
}

/// A recorded piece of a disk's life.
#[derive(Clone, Debug)]
pub struct Tape {
    base: Image,
    volatile_cache: bool,
    /// What happened since, in order.
    pub events: Vec<TapeEvent>,
    writes: usize,
    pub(super) ends: usize,
}

impl Tape {
    pub(super) fn new(disk: &SimDisk) -> Tape {
        let below = Arc::new(disk.durable.clone());
        let base = Image { len: disk.len, sector: disk.sector, below, own: Pages::default() };
        let volatile_cache = disk.volatile_cache;
        Tape { base, volatile_cache, events: Vec::new(), writes: 0, ends: 0 }
    }

    pub(super) fn write(&mut self, addr: u64, data: &[u8]) -> usize {
        self.events.push(TapeEvent::Write { addr, data: data.into() });
        self.writes += 1;
        self.writes - 1
    }

    pub(super) fn ended(&mut self, write: usize) {
        self.events.push(TapeEvent::Ended { write });
        self.ends += 1;
    }

    pub(super) fn flushed(&mut self, ends: usize) {
        self.events.push(TapeEvent::Flushed { ends });
    }

    /// The tape from its start.
    pub fn play(&self) -> Player<'_> {
        let media = Image { own: Pages::default(), ..self.base.clone() };
        Player { tape: self, at: 0, media, air: Vec::new(), writes: 0, ends: 0, era: 0 }
    }
}

/// A write that a power cut may take, or parts of it.
#[derive(Clone, Debug)]
pub struct InAir {
    /// Its number on the tape.
    pub write: usize,
    /// Byte offset on the device.
    pub addr: u64,
    /// What it writes.
    pub data: Rc<[u8]>,
    /// Its place in the order of ends.
    ended: Option<usize>,
    /// Writes that had ended before it was submitted.
    after: usize,
}

impl InAir {
    /// Whether it ended, so that only the cache can lose it.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }
}

/// A place on a tape, with what is sure to be on the medium there and what may be.
#[derive(Debug)]
pub struct Player<'t> {
    tape: &'t Tape,
    at: usize,
    media: Image,
    air: Vec<InAir>,
    writes: usize,
    ends: usize,
    /// Counts the changes of what is sure to be there.
    era: u64,
}

impl Player<'_> {
    /// Events before this place.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The writes that a power cut here may take, those that ended first, then in the order in
    /// which they were submitted.
    pub fn air(&self) -> &[InAir] {
        &self.air
    }

    /// Sectors in the air.
    pub fn sectors(&self) -> usize {
        self.air.iter().map(|w| w.data.len() / self.media.sector as usize).sum()
    }

    /// Whether the next event can only add to the images of this place: then the next place has all
    /// of them.
    pub fn next_adds(&self) -> bool {
        matches!(self.tape.events.get(self.at), Some(TapeEvent::Write { .. }))
    }

    /// Goes past the next event; `None` at the end of the tape.
    pub fn step(&mut self) -> Option<()> {
        match self.tape.events.get(self.at)? {
            TapeEvent::Write { addr, data } => {
                let (write, addr, data) = (self.writes, *addr, Rc::clone(data));
                self.air.push(InAir { write, addr, data, ended: None, after: self.ends });
                self.writes += 1;
            }
            TapeEvent::Ended { write } => {
                let at = self.air.iter().position(|w| w.write == *write);
                let mut write = self.air.remove(at.expect("a write ends after it was submitted"));
                write.ended = Some(self.ends);
                self.ends += 1;
                let behind = self.air.iter().take_while(|w| w.ended.is_some()).count();
                self.air.insert(behind, write);
                if !self.tape.volatile_cache {
                    self.settle(self.ends);
                }
            }
            TapeEvent::Flushed { ends } => self.settle(*ends),
        }
        self.at += 1;
        Some(())
    }

    /// The first `ends` writes that ended are sure to be there.
    fn settle(&mut self, ends: usize) {
        let count = self.air.iter().take_while(|w| w.ended.is_some_and(|n| n < ends)).count();
        let below = Arc::make_mut(&mut self.media.below);
        for write in self.air.drain(..count) {
            below.write(write.addr, &write.data);
            self.era += 1;
        }
    }

    /// The medium with those sectors of the writes in the air for which `keep` says so; it is asked
    /// for the write's place in [`Player::air`] and the number of the sector within it. The second
    /// result is equal for equal images.
    pub fn image(&self, keep: &mut dyn FnMut(usize, usize) -> bool) -> (Image, u64) {
        let order: Vec<usize> = (0..self.air.len()).collect();
        self.image_in(&order, keep)
    }

    /// [`Player::image`] with the writes in an order that is drawn among those that are possible.
    pub fn image_reordered(
        &self,
        draw: &mut Draw<'_>,
        keep: &mut dyn FnMut(usize, usize) -> bool,
    ) -> (Image, u64) {
        let ended = self.air.iter().take_while(|w| w.ended.is_some()).count();
        let mut order: Vec<usize> = (0..ended).collect();
        for pending in ended..self.air.len() {
            let after = self.air[pending].after;
            let below = |&n: &usize| self.air[n].ended.is_some_and(|end| end < after);
            let earliest = order.iter().rposition(below).map_or(0, |at| at + 1);
            let at = earliest + draw((order.len() - earliest) as u64 + 1) as usize;
            order.insert(at, pending);
        }
        self.image_in(&order, keep)
    }

    fn image_in(
        &self,
        order: &[usize],
        keep: &mut dyn FnMut(usize, usize) -> bool,
    ) -> (Image, u64) {
        let mut image = Image { own: Pages::default(), ..self.media.clone() };
        let mut tops = std::collections::BTreeMap::new();
        let sector = self.media.sector;
        for &n in order {
            let write = &self.air[n];
            for (at, bytes) in write.data.chunks_exact(sector as usize).enumerate() {
                if keep(n, at) {
                    let addr = write.addr + at as u64 * sector;
                    image.own.write_over(&image.below, addr, bytes);
                    tops.insert(addr, write.write as u64);
                }
            }
        }
        let key =
            tops.iter().fold(self.era, |key, (addr, write)| mix(key ^ mix(mix(*addr) ^ write)));
        (image, key)
    }
}

/// Spreads the bits of a number (the finisher of splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
