//! Scrub: reading what nobody reads, to find what has rotted while there are good copies elsewhere.
//!
//! A step checks some mapped blocks of one chunk against their checksums. The owner decides when
//! the next one comes; a walk over all copysets from the first to the last is a lap.

use std::ops::Bound::{Excluded, Unbounded};

use ogive_types::message::BlockVersion;
use ogive_types::{ChunkId, CopysetId};

use crate::limits::SCRUB_CHUNKS_MAX;
use crate::map::{Map, PAGE_BLOCKS};
use crate::reads::{Use, Wanted};
use crate::store::Store;

/// Where a lap goes on; the default is its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    copyset: CopysetId,
    /// Chunks up to here are done.
    after: Option<ChunkId>,
    /// The chunk behind, if a part of it is done, and its next block.
    part: Option<(ChunkId, u16)>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubStep {
    /// Blocks that are being read; [`crate::StoreEvent::Checked`] follows if there are any. None
    /// while a page of the map is read that names them.
    pub blocks: usize,
    /// Where to go on; `None` at the end of the lap.
    pub next: Option<ScrubCursor>,
}

impl Store {
    /// Checks up to `blocks_max` blocks from a cursor on, and reports damage.
    pub fn scrub(&mut self, token: u64, from: ScrubCursor, blocks_max: usize) -> ScrubStep {
        let Some((&copyset, replica)) = self.replicas.range(from.copyset..).next() else {
            return ScrubStep { blocks: 0, next: None };
        };
        let from = if copyset == from.copyset {
            from
        } else {
            ScrubCursor { copyset, ..ScrubCursor::default() }
        };
        let mut at = ScrubCursor { part: None, ..from };
        let mut found = Vec::new();
        for chunk in replica.map.chunks_after(from.after).take(SCRUB_CHUNKS_MAX) {
            let start = from.part.filter(|(c, _)| *c == chunk).map_or(0, |(_, block)| block);
            let part = Part::of(&replica.map, chunk, start, blocks_max);
            match part.stopped_at {
                Some(block) => at.part = Some((chunk, block)),
                None => at.after = Some(chunk),
            }
            if let Some(number) = part.out {
                self.wish(copyset, (chunk, number));
                return ScrubStep { blocks: 0, next: Some(at) };
            }
            if !part.wanted.is_empty() {
                found = part.wanted;
                break;
            }
        }
        if !found.is_empty() {
            let blocks = found.len();
            self.begin_read(token, copyset, found, Use::Check);
            return ScrubStep { blocks, next: Some(at) };
        }
        if at.after != from.after {
            return ScrubStep { blocks: 0, next: Some(at) };
        }
        let mut behind = self.replicas.range((Excluded(copyset), Unbounded));
        let start = |&copyset| ScrubCursor { copyset, ..ScrubCursor::default() };
        ScrubStep { blocks: 0, next: behind.next().map(|(copyset, _)| start(copyset)) }
    }
}

/// What a step reads of a chunk.
#[derive(Default)]
struct Part {
    wanted: Vec<Wanted>,
    /// Where the next step goes on, when this is not all of the chunk.
    stopped_at: Option<u16>,
    /// The page that must be read first, if there is nothing before it.
    out: Option<u8>,
}

impl Part {
    /// Up to `max` mapped blocks of a chunk from `start` on, as far as the map is in memory.
    fn of(map: &Map, chunk: ChunkId, start: u16, max: usize) -> Part {
        let mut part = Part::default();
        for (number, page) in map.pages_in(chunk) {
            let first = u16::from(number) * PAGE_BLOCKS;
            let from = start.max(first);
            if from >= first + PAGE_BLOCKS {
                continue;
            }
            if page.out {
                part.stopped_at = Some(from);
                part.out = part.wanted.is_empty().then_some(number);
                return part;
            }
            for at in from..first + PAGE_BLOCKS {
                let mapping = page.get(at);
                let Some(place) = mapping.block() else { continue };
                if part.wanted.len() == max {
                    part.stopped_at = Some(at);
                    return part;
                }
                let (index, sum) = (mapping.index, mapping.sum);
                let block = BlockVersion { chunk, number: at, index, sum };
                part.wanted.push(Wanted { place: Some(place), block });
            }
        }
        part
    }
}
