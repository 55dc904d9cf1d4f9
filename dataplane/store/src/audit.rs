//! The audit: everything in memory must agree with everything else.

use std::collections::BTreeMap;

use ogive_types::{BlockRange, ChunkId};

use crate::replica::{LogEntry, Replica};
use crate::store::Store;

/// Checks that every data block is free, mapped once, or named by retained or truncated entries,
/// and that pages, slots and counters add up. Of map pages that are not in memory only the number
/// of blocks is looked at. Call it when the store is idle. `Err` names the first contradiction.
pub fn audit(store: &Store) -> Result<(), String> {
    let mut used: BTreeMap<u32, String> = BTreeMap::new();
    let mut claim = |block: u32, by: String| match used.insert(block, by.clone()) {
        Some(other) if other != by => Err(format!("block {block} belongs to {other} and to {by}")),
        _ => Ok(()),
    };
    let (mut pages, mut kept, mut payloads, mut reserved, mut unapplied) = (0, 0, 0, 0, 0);
    let (mut out, mut dirty, mut mapped) = (0, 0, 0);
    let mut slots: BTreeMap<u32, String> = BTreeMap::new();
    for (id, replica) in &store.replicas {
        for chunk in replica.map.chunks_after(None) {
            for (block, mapping) in replica.map.blocks(chunk) {
                if let Some(place) = mapping.block() {
                    claim(place, format!("{id} {chunk} block {block} of {}", mapping.index))?;
                }
            }
        }
        for (entry, index) in replica.entries.iter().zip(replica.first().0..) {
            if let ogive_types::message::Op::Write { chunk, .. } = &entry.op {
                for (block, place) in entry.blocks() {
                    kept += 1;
                    let by = format!("{id} {chunk} block {block} of i{index}");
                    if is_mapped(replica, entry, index, place) {
                        check_mapped(replica, *chunk, block, place, &by)?;
                    } else {
                        claim(place, by)?;
                    }
                }
            }
            reserved += entry.pages_reserved;
            payloads += entry.payload.as_ref().map_or(0, |p| p.len());
            if index > replica.applied.index.0 {
                unapplied += entry.record_bytes;
            }
        }
        for &place in &replica.truncated {
            claim(place, format!("truncated entries of {id}"))?;
        }
        for (key, page) in replica.map.iter() {
            pages += 1;
            out += if page.out { u64::from(page.mapped) } else { 0 };
            dirty += usize::from(page.dirty);
            mapped += u64::from(page.mapped);
            let Some(slot) = page.slot() else { continue };
            let by = format!("{id} {key:?}");
            if let Some(other) = slots.insert(slot, by.clone()) {
                return Err(format!("slot {slot} belongs to {other} and to {by}"));
            }
            if store.slots.is_free(slot) {
                return Err(format!("slot {slot} of {by} is free"));
            }
        }
    }
    if let Some((block, by)) = used.iter().find(|(b, _)| store.space.is_free(**b)) {
        return Err(format!("block {block} of {by} is free"));
    }
    let free = u64::from(store.space.free_blocks());
    let expected =
        u64::from(store.space.len()) - used.len() as u64 - out - u64::from(store.space.retired());
    if free != expected {
        return Err(format!("{free} blocks are free, {expected} should be"));
    }
    let counters = [
        ("map pages", store.pages, pages),
        ("changed pages", store.map_use.dirty.get(), dirty),
        ("mapped blocks", store.stats().blocks_mapped as usize, mapped as usize),
        ("reserved pages", store.pages_reserved, reserved),
        ("kept blocks", store.retained.blocks as usize, kept),
        ("kept data", store.retained.payload_bytes, payloads),
        ("records not applied", store.unapplied_bytes, unapplied),
    ];
    match counters.iter().find(|(_, has, should)| has != should) {
        Some((what, has, should)) => Err(format!("{what}: {has}, should be {should}")),
        None => Ok(()),
    }
}

/// Whether the map should show a block of an entry.
fn is_mapped(replica: &Replica, entry: &LogEntry, index: u64, place: u32) -> bool {
    index <= replica.applied.index.0 && !entry.orphans.contains(&place)
}

fn check_mapped(
    replica: &Replica,
    chunk: ChunkId,
    block: u16,
    place: u32,
    by: &str,
) -> Result<(), String> {
    let range = BlockRange::new(block, 1).expect("a block of a chunk");
    let shown = replica.map.get(chunk, block).block();
    if shown == Some(place) || replica.map.out_in(chunk, range).next().is_some() {
        return Ok(());
    }
    Err(format!("block {place} of {by} is neither mapped nor an orphan"))
}
