//! What is kept for followers beyond what recovery needs: applied entries with their blocks, and
//! the data of entries in memory.

use std::collections::VecDeque;

use ogive_types::{CopysetId, Index};

use crate::limits::SHED_ENTRIES_MAX;
use crate::replica::LogEntry;
use crate::store::Store;

/// Entries at the front that cannot be let go yet are passed by so many times in one call.
const TRIES: usize = 8;

#[derive(Default)]
pub(crate) struct Retained {
    /// Entries in the order of their arrival; some are gone already.
    entries: VecDeque<(CopysetId, Index)>,
    /// Blocks that entries name.
    pub(crate) blocks: u64,
    /// Entries with data in the order of their arrival; some are gone already.
    payloads: VecDeque<(CopysetId, Index)>,
    pub(crate) payload_bytes: usize,
}

impl Retained {
    pub(crate) fn push(&mut self, id: CopysetId, index: Index, entry: &LogEntry) {
        self.entries.push_back((id, index));
        self.blocks += entry.block_count();
        if let Some(payload) = &entry.payload {
            self.payloads.push_back((id, index));
            self.payload_bytes += payload.len();
        }
    }
}

impl Store {
    pub(crate) fn keep(&mut self, id: CopysetId, index: Index, entry: &LogEntry) {
        self.retained.push(id, index, entry);
    }

    /// Lets go of the oldest entries, and of the oldest data, beyond the limits.
    pub(crate) fn shed_kept(&mut self) {
        let blocks_max = u64::from(self.space.len() / self.options.retain_share.max(1));
        let mut tries = TRIES;
        while self.retained.entries.len() > self.options.retain_entries
            || self.retained.blocks > blocks_max
        {
            if !self.shed_entry(&mut tries) {
                break;
            }
        }
        tries = TRIES;
        while self.retained.payload_bytes > self.options.retain_bytes
            || self.retained.payloads.len() > self.options.retain_entries
        {
            if !self.shed_payload(&mut tries) {
                break;
            }
        }
    }

    /// Lets go of entries until so many blocks are free or about to be; whether they are.
    pub(crate) fn shed_blocks(&mut self, wanted: u32) -> bool {
        let mut tries = TRIES;
        let mut left = SHED_ENTRIES_MAX;
        while self.space.free_blocks() < wanted && left > 0 && self.shed_entry(&mut tries) {
            left -= 1;
        }
        // Asks for the batch that makes freed blocks usable.
        !matches!(self.space.check(wanted), Err(crate::space::Short::Full)) || left == 0
    }

    /// Lets go of the oldest entry; false when there is none, or too many are not applied yet.
    fn shed_entry(&mut self, tries: &mut usize) -> bool {
        let Some((id, index)) = self.retained.entries.pop_front() else { return false };
        let Some(replica) = self.replicas.get(&id) else { return true };
        if replica.entry(index).is_none() {
            return true;
        }
        if index <= replica.applied.index {
            self.release(id, index);
            return true;
        }
        self.retained.entries.push_back((id, index));
        *tries -= 1;
        *tries > 0
    }

    /// Forgets the oldest data; false when there is none, or too many are not persisted yet. Until
    /// then their writes hold the memory anyway, and the device could not be read instead.
    fn shed_payload(&mut self, tries: &mut usize) -> bool {
        let Some((id, index)) = self.retained.payloads.pop_front() else { return false };
        let Some(replica) = self.replicas.get_mut(&id) else { return true };
        let persisted = index <= replica.persisted;
        let Some(entry) = replica.entry_mut(index) else { return true };
        if persisted {
            self.retained.payload_bytes -= entry.payload.take().map_or(0, |data| data.len());
            return true;
        }
        self.retained.payloads.push_back((id, index));
        *tries -= 1;
        *tries > 0
    }
}
