//! The audit: everything in memory must agree with everything else.

use std::collections::BTreeMap;

use crate::store::Store;

/// Checks that every data block is free, mapped once, or named by retained or truncated entries,
/// and that pages, slots and counters add up. Call it when the store is idle. `Err` names the first
/// contradiction.
pub fn audit(store: &Store) -> Result<(), String> {
    let mut used: BTreeMap<u32, String> = BTreeMap::new();
    let mut claim = |block: u32, by: String| match used.insert(block, by.clone()) {
        Some(other) if other != by => Err(format!("block {block} belongs to {other} and to {by}")),
        _ => Ok(()),
    };
    let (mut pages, mut kept, mut payloads, mut reserved, mut unapplied) = (0, 0, 0, 0, 0);
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
                    claim(place, format!("{id} {chunk} block {block} of i{index}"))?;
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
    let retired = u64::from(store.space.retired());
    let expected = u64::from(store.space.len()) - used.len() as u64 - retired;
    if free != expected {
        return Err(format!("{free} blocks are free, {expected} should be"));
    }
    let counters = [
        ("map pages", store.pages, pages),
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
