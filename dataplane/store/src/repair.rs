//! Repair: the right bytes of a damaged block, from a peer, are written anew.
//!
//! They go into a fresh block like those of any write, and a record says where the block of that
//! entry lies now. The map shows the new place once the record is persisted, as with a delta. What
//! the block holds does not change, so the entry's index and checksum stay; replay moves a block
//! only where the map has this very version of it, and so may meet the record any number of times.
//! A block of a page that left memory meanwhile is moved when the page is read again.
//! The former place is freed by the rules of every replaced block (`design/0001-one-log.md`), or
//! retired when the device could not read it.

use ogive_buf::Buf;
use ogive_types::message::{BlockVersion, Op};
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, block_sum};

use crate::codec::Writer;
use crate::limits::REPAIR_BLOCKS_MAX;
use crate::map::{Mapping, Moved, PAGE_BLOCKS, PageKey};
use crate::reads::{Use, Wanted};
use crate::record::{Extent, Piece, encode_repair};
use crate::replica::{Replaced, Replica};
use crate::store::{AppendError, Store};
use crate::writer::{Notify, Seq};

/// Why a block is not repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// The map has another version of the block by now, or none: nothing is to be repaired.
    #[error("the block was replaced meanwhile")]
    Replaced,
    /// The bytes are not those that the entry wrote.
    #[error("the bytes do not match the checksum of the block")]
    Checksum,
    /// There is no room in the store or its log now.
    #[error(transparent)]
    Store(#[from] AppendError),
}

/// What is read for a peer, by position among the blocks that it named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRead {
    /// Blocks that are being read.
    pub here: Vec<usize>,
    /// Blocks of which it is not known yet whether they are here: a page of the map is read first.
    pub unknown: Vec<usize>,
}

impl Store {
    /// Whether the map shows this very version of a block, or may: it is not known while a page of
    /// the map is on its way into memory.
    pub fn may_show(&self, id: CopysetId, block: &BlockVersion) -> bool {
        if self.place_now(id, *block).is_some() {
            return true;
        }
        let out = self.page_out(id, block.chunk, block.number);
        out.into_iter().for_each(|key| self.wish(id, key));
        out.is_some()
    }

    /// The page of a block, if it is not in memory.
    pub(crate) fn page_out(&self, id: CopysetId, chunk: ChunkId, number: u16) -> Option<PageKey> {
        let key = (chunk, (number / PAGE_BLOCKS) as u8);
        self.replicas.get(&id)?.map.page(key).filter(|page| page.out).map(|_| key)
    }

    /// Where the device holds this very version of a block, as a byte offset; `None` when the map
    /// shows another, or is not in memory there.
    pub fn address(&self, id: CopysetId, block: &BlockVersion) -> Option<u64> {
        self.place_now(id, *block).map(|place| self.layout.block_addr(place))
    }

    /// Writes a block anew from the right bytes. [`crate::StoreEvent::Repaired`] follows when they
    /// are on stable storage, and show.
    ///
    /// # Errors
    /// Nothing is changed by bytes that are refused.
    pub fn repair(
        &mut self,
        token: u64,
        id: CopysetId,
        block: &BlockVersion,
        data: &Buf,
    ) -> Result<(), RepairError> {
        assert_eq!(data.len(), BLOCK_BYTES, "one block");
        if block_sum(data) != block.sum {
            return Err(RepairError::Checksum);
        }
        if self.place_now(id, *block).is_none() {
            return Err(match self.may_show(id, block) {
                true => AppendError::Busy.into(),
                false => RepairError::Replaced,
            });
        }
        if self.failed.is_some() {
            return Err(AppendError::Failed.into());
        }
        if self.log.is_full() {
            return Err(AppendError::Busy.into());
        }
        let extents = self.space.take(1).map_err(|short| self.short(short, 1))?;
        let born = self.replicas[&id].born;
        // The block is applied, and a replay must know so before it moves it.
        self.log_hints();
        let writes = self.write_data(&extents, data);
        let range = BlockRange::new(block.number, 1).expect("a block of a chunk");
        let stored = Some((extents, vec![block.sum]));
        let pieces = vec![Piece { chunk: block.chunk, range, index: block.index, stored }];
        self.record.clear();
        encode_repair(&mut Writer(&mut self.record), id, &pieces);
        let seq = self.log.add(&self.record, writes);
        self.log.notify(seq, Notify::Repair { token, copyset: id, born, pieces });
        Ok(())
    }

    /// The blocks of a persisted repair show at their new places now, if they still matter.
    pub(crate) fn repair_persisted(&mut self, id: CopysetId, born: Seq, pieces: Vec<Piece>) {
        let mut done = Relocated::default();
        if self.is_here(id, born) {
            let replica = self.replicas.get_mut(&id).expect("looked at just now");
            relocate(replica, &pieces, &mut done);
        } else {
            let extents = pieces.into_iter().filter_map(|piece| piece.stored);
            done.unused = extents.flat_map(|(e, _)| e).flat_map(Extent::iter).collect();
        }
        done.unused.into_iter().for_each(|place| self.space.give(place));
        self.free_replaced(id, &mut done.replaced);
        self.fetch_wanted(id);
    }

    /// Reads blocks for a peer that has lost them: those versions that the map, or a retained
    /// entry, has. [`crate::StoreEvent::ReadDone`] with their bytes follows when there are any.
    pub fn read_for_peer(
        &mut self,
        token: u64,
        id: CopysetId,
        blocks: &[BlockVersion],
    ) -> PeerRead {
        let mut wanted = Vec::new();
        let (mut here, mut unknown) = (Vec::new(), Vec::new());
        for (at, &block) in blocks.iter().enumerate().take(REPAIR_BLOCKS_MAX) {
            let place = self.place_now(id, block).or_else(|| self.place_in_entry(id, block));
            if place.is_some() {
                wanted.push(Wanted { place, block });
                here.push(at);
            } else if self.may_show(id, &block) {
                unknown.push(at);
            }
        }
        if !wanted.is_empty() {
            self.begin_read(token, id, wanted, Use::Result);
        }
        PeerRead { here, unknown }
    }

    /// Where a retained entry put a block that the map does not show (yet, or any more).
    fn place_in_entry(&self, id: CopysetId, block: BlockVersion) -> Option<u32> {
        let replica = self.replicas.get(&id)?;
        let entry = replica.entry(block.index).filter(|_| block.index <= replica.persisted)?;
        let Op::Write { chunk, range, sums } = &entry.op else { return None };
        let at = block.number.checked_sub(range.start())?;
        let same = *chunk == block.chunk && sums.get(usize::from(at)) == Some(&block.sum);
        let place = entry.blocks().nth(usize::from(at)).map(|(_, place)| place);
        place.filter(|_| same)
    }
}

/// What is left over when blocks are moved.
#[derive(Default)]
pub(crate) struct Relocated {
    pub(crate) replaced: Replaced,
    /// New places of blocks that were replaced meanwhile.
    pub(crate) unused: Vec<u32>,
}

/// Moves blocks to where a repair wrote them.
pub(crate) fn relocate(replica: &mut Replica, pieces: &[Piece], done: &mut Relocated) {
    for Piece { chunk, range, index, stored } in pieces {
        let (extents, sums) = stored.as_ref().expect("repairs are of stored blocks");
        let places = extents.iter().flat_map(|e| e.iter());
        for ((number, place), &sum) in range.iter().zip(places).zip(sums) {
            match replica.map.relocate(*chunk, number, Mapping::stored(place, sum, *index)) {
                Moved::From(old) => done.replaced.push((*chunk, number, old)),
                Moved::Nothing => done.unused.push(place),
                Moved::Later => {}
            }
        }
    }
}
