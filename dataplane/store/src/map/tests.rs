use ogive_types::CopysetId;
use proptest::prelude::*;

use super::body::{Body, DENSE, RUNS, WIDE};
use super::*;
use crate::golden::golden;

const CHUNK: ChunkId = ChunkId { volume: VolumeId(1), number: 2 };
const KEY: PageKey = (CHUNK, 0);
const COPYSET: CopysetId = CopysetId(9);
const REGION: u64 = 3;

fn mapping(block: u32, index: u64) -> Mapping {
    Mapping::stored(block, BlockSum(block ^ 5), Index(index))
}

fn encoded(map: &mut Map) -> Vec<u8> {
    if !std::mem::replace(&mut map.page_mut(KEY).expect("something is there").dirty, true) {
        map.usage.dirty.set(map.usage.dirty.get() + 1);
    }
    let mut bytes = Vec::new();
    assert!(map.encode_page(KEY, REGION, COPYSET, &mut bytes));
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Page> {
    Page::decode(bytes, REGION, COPYSET, KEY, 1)
}

#[test]
fn only_newer_entries_change_a_block() {
    let mut map = Map::default();
    assert!(map.set(CHUNK, 300, mapping(7, 10)).is_some_and(|old| old.block().is_none()));
    assert_eq!(map.set(CHUNK, 300, mapping(8, 10)), None, "the same entry again");
    assert_eq!(map.set(CHUNK, 300, mapping(8, 9)), None, "an older one");
    assert_eq!(map.set(CHUNK, 300, Mapping::trimmed(Index(11))), Some(mapping(7, 10)));
    assert_eq!(map.set(CHUNK, 300, mapping(8, 10)), None, "a trim is remembered");
    assert_eq!((map.mapped(), map.pages()), (0, 1));
    assert_eq!(map.trim(CHUNK, 4000, Index(12)), None, "nothing to trim");
    assert_eq!(map.pages(), 1);
}

#[test]
fn only_the_same_version_of_a_block_is_relocated() {
    let mut map = Map::default();
    map.set(CHUNK, 300, mapping(7, 10));
    let same = |place, index| Mapping::stored(place, BlockSum(7 ^ 5), Index(index));
    let nothing = Moved::Nothing;
    assert_eq!(map.relocate(CHUNK, 300, same(9, 11)), nothing, "of another entry");
    assert_eq!(map.relocate(CHUNK, 300, mapping(9, 10)), nothing, "of other bytes");
    assert_eq!(map.relocate(CHUNK, 301, same(9, 10)), nothing, "nothing is there");
    map.page_mut((CHUNK, 1)).expect("just made").dirty = false;
    assert_eq!(map.relocate(CHUNK, 300, same(9, 10)), Moved::From(mapping(7, 10)));
    assert_eq!(map.get(CHUNK, 300), same(9, 10));
    let page = map.page_mut((CHUNK, 1)).expect("just made");
    assert!(page.dirty, "the next checkpoint writes it");
    assert_eq!(map.mapped(), 1);
    map.set(CHUNK, 300, Mapping::trimmed(Index(12)));
    assert_eq!(map.relocate(CHUNK, 300, same(9, 10)), nothing, "trimmed");
}

/// A block is moved twice while its page is out, and another one that was replaced before.
#[test]
fn blocks_of_a_page_that_is_out_are_moved_when_it_comes_back() {
    let mut pair = Pair::new();
    pair.map.set(CHUNK, 3, mapping(7, 10));
    pair.map.set(CHUNK, 4, mapping(8, 11));
    pair.leave();
    let to = |place| Mapping { block: place, ..mapping(7, 10) };
    assert_eq!(pair.map.relocate(CHUNK, 3, to(20)), Moved::Later);
    assert_eq!(pair.map.relocate(CHUNK, 3, to(21)), Moved::Later);
    pair.map.set(CHUNK, 4, mapping(9, 12));
    let late = Mapping { block: 22, ..mapping(8, 11) };
    assert_eq!(pair.map.relocate(CHUNK, 4, late), Moved::Later);
    assert!(pair.map.page(KEY).is_some_and(|page| page.dirty), "a checkpoint must write it");
    pair.come_back();
    assert_eq!((pair.map.get(CHUNK, 3), pair.map.get(CHUNK, 4)), (to(21), mapping(9, 12)));
    assert_eq!(Vec::from_iter(pair.gone), [7, 8, 20, 22]);
}

/// As in a replay: an entry is applied once more, and its block moved, while the page that already
/// has it is out.
#[test]
fn a_move_is_not_undone_by_the_page_that_comes_back() {
    let mut map = Map::default();
    map.set(CHUNK, 3, mapping(7, 10));
    map.set(CHUNK, 4, mapping(8, 10));
    let slot = encoded(&mut map);
    let mut map = Map::default();
    assert!(map.insert_out(KEY, 1));
    map.set(CHUNK, 3, mapping(7, 10));
    map.set(CHUNK, 4, mapping(9, 10));
    let moved = Mapping { block: 20, ..mapping(7, 10) };
    assert_eq!(map.relocate(CHUNK, 3, moved), Moved::From(mapping(7, 10)));
    let lost = map.join(KEY, decoded(&slot).expect("as written"));
    assert_eq!((map.get(CHUNK, 3), map.get(CHUNK, 4)), (moved, mapping(8, 10)));
    assert_eq!(lost, [(3, mapping(7, 10)), (4, mapping(9, 10))]);
}

fn bytes(map: &Map) -> usize {
    map.usage.bytes.get()
}

/// A map whose first page has a form, and some of everything.
fn sample(form: u8) -> Map {
    let mut map = Map::default();
    let far = if form == WIDE { 1 << 41 } else { 0 };
    for block in 0..40 {
        map.set(CHUNK, block, mapping(1000 + u32::from(block), 5));
    }
    for block in (50..250).step_by(if form == DENSE { 1 } else { 50 }) {
        map.set(CHUNK, block, mapping(9000 - 2 * u32::from(block), 7 + u64::from(block)));
    }
    map.set(CHUNK, 10, Mapping::trimmed(Index(3 << 33)));
    map.set(CHUNK, 255, mapping(77, 8 + far));
    map
}

#[test]
fn pages_of_every_form_stay_readable_and_are_bound_to_their_place() {
    for (form, name) in [(WIDE, "page_wide"), (RUNS, "page_runs"), (DENSE, "page_dense")] {
        let mut map = sample(form);
        let bytes = encoded(&mut map);
        assert_eq!(bytes[34], form, "{name}");
        golden(name, &bytes);
        let page = decoded(&bytes).expect("just encoded");
        let here = map.page_mut(KEY).expect("just made");
        assert_eq!((page.mapped, page.slot()), (here.mapped, Some(1)));
        assert_eq!(page.body.mappings(), here.body.mappings(), "{name}");
        let other = ChunkId { number: 3, ..CHUNK };
        assert!(Page::decode(&bytes, REGION, COPYSET, (other, 0), 1).is_none());
        assert!(Page::decode(&bytes, REGION, CopysetId(8), KEY, 1).is_none());
        assert!(Page::decode(&bytes, 4, COPYSET, KEY, 1).is_none());
        for at in [0, 5, 33, 34, 40, 70, 4095] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decoded(&bad).is_none(), "{name} byte {at}");
        }
    }
}

#[test]
fn removing_a_chunk_gives_back_everything() {
    let mut map = Map::default();
    map.set(CHUNK, 1, mapping(1, 1));
    map.set(CHUNK, 4095, mapping(2, 2));
    let Removed { blocks, slots, out } = map.remove(CHUNK);
    assert!(out.is_empty());
    assert_eq!(blocks.iter().filter_map(|(_, m)| m.block()).collect::<Vec<_>>(), [1, 2]);
    assert!(slots.is_empty());
    assert_eq!((map.pages(), map.mapped(), bytes(&map)), (0, 0, 0));
}

/// Bytes of memory for each mapped block, after it was compacted.
fn bytes_per_block(map: &mut Map) -> f64 {
    encoded(map);
    bytes(map) as f64 / map.mapped() as f64
}

#[test]
fn memory_follows_how_data_was_written() {
    let mut map = Map::default();
    for block in 0..256 {
        map.set(CHUNK, block, mapping(u32::from(block), 1));
    }
    assert!(bytes_per_block(&mut map) <= 4.2, "written at once");
    let scattered = |n: u16| mapping(u32::from(n) * 7919 % 100_003, 1000 + u64::from(n));
    for n in 0..256 {
        map.set(CHUNK, n * 77 % 256, scattered(n));
    }
    assert!(bytes_per_block(&mut map) <= 13.2, "written at random");
    for block in 0..256 {
        map.set(CHUNK, block, mapping(u32::from(block), 9000));
    }
    assert!(bytes_per_block(&mut map) <= 4.2, "written at once again");
}

#[derive(Clone, Debug)]
struct Step {
    start: u16,
    len: u16,
    place: Option<u32>,
    /// How far the index is from the newest one; most go forward.
    ahead: i64,
    reload: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => Just(1u16), 2 => 2u16..20, 1 => 20u16..256];
    let place = prop_oneof![1 => Just(None), 6 => (0u32..1 << 30).prop_map(Some)];
    let ahead = prop_oneof![
        20 => Just(1i64),
        3 => -40i64..2,
        1 => (1i64 << 39)..(1 << 40),
        1 => Just(1i64 << 41),
    ];
    (0u16..256, len, place, ahead, prop::bool::weighted(0.1)).prop_map(
        |(start, len, place, ahead, reload)| Step {
            start,
            len: len.min(256 - start),
            place,
            ahead,
            reload,
        },
    )
}

/// A map with a page that comes and goes, beside a plain array.
struct Pair {
    map: Map,
    plain: [Mapping; 256],
    /// What the page's slot holds.
    slot: Vec<u8>,
    newest: u64,
    /// The next device block, and how many were put in.
    next: u32,
    put: usize,
    /// Device blocks that were replaced.
    gone: std::collections::BTreeSet<u32>,
}

impl Pair {
    fn new() -> Pair {
        let (map, plain) = (Map::default(), [Mapping::NONE; 256]);
        let (slot, gone) = (Vec::new(), Default::default());
        Pair { map, plain, slot, newest: 100, next: 0, put: 0, gone }
    }

    fn lose(&mut self, lost: Mapping) {
        assert!(lost.block().is_none_or(|place| self.gone.insert(place)), "{lost:?} twice");
    }

    fn write(&mut self, step: &Step) {
        let index = Index(self.newest.saturating_add_signed(step.ahead).clamp(1, (1 << 56) - 1));
        self.newest = self.newest.max(index.0);
        for block in step.start..step.start + step.len {
            let new = step.place.map_or(Mapping::trimmed(index), |_| mapping(self.next, index.0));
            self.next += 1;
            self.put += usize::from(step.place.is_some());
            let at = &mut self.plain[usize::from(block)];
            *at = if new.index > at.index { new } else { *at };
            let lost = self.map.set(CHUNK, block, new).unwrap_or(new);
            self.lose(lost);
        }
    }

    /// Moves the block at a step's start.
    fn mend(&mut self, step: &Step) {
        let at = &mut self.plain[usize::from(step.start)];
        if at.block().is_none() {
            return;
        }
        let moved = Mapping { block: self.next, ..*at };
        self.next += 1;
        self.put += 1;
        let before = std::mem::replace(at, moved);
        match self.map.relocate(CHUNK, step.start, moved) {
            Moved::From(old) => {
                assert_eq!(old, before);
                self.lose(old);
            }
            found => assert_eq!(found, Moved::Later, "the map has it"),
        }
    }

    fn leave(&mut self) {
        if self.map.page(KEY).is_some_and(|page| !page.out) {
            self.slot = encoded(&mut self.map);
            self.map.written_to(KEY, 1, &self.slot);
            self.map.page_mut(KEY).expect("it is there").writing = false;
            assert!(self.map.let_out(KEY));
        }
    }

    fn come_back(&mut self) {
        if self.map.page(KEY).is_some_and(|page| page.out) {
            let read = decoded(&self.slot).expect("as written");
            for (_, lost) in self.map.join(KEY, read) {
                self.lose(lost);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_a_plain_array(steps in prop::collection::vec(step(), 1..300)) {
        let mut plain = [Mapping::NONE; 256];
        let mut map = Map::default();
        let mut newest = 100u64;
        for Step { start, len, place, ahead, reload } in steps {
            let index = Index(newest.saturating_add_signed(ahead).clamp(1, (1 << 56) - 1));
            newest = newest.max(index.0);
            for (n, block) in (start..start + len).enumerate() {
                let new = place.map_or(Mapping::trimmed(index), |p| mapping(p + n as u32, index.0));
                let old = plain[usize::from(block)];
                let changes = new.index > old.index;
                if changes {
                    plain[usize::from(block)] = new;
                }
                prop_assert_eq!(map.set(CHUNK, block, new), changes.then_some(old));
            }
            let at = &mut plain[usize::from(start)];
            if at.block().is_some() && ahead % 3 == 0 {
                let moved = Mapping { block: at.block ^ 1, ..*at };
                prop_assert_eq!(map.relocate(CHUNK, start, moved), Moved::From(*at));
                *at = moved;
            }
            if reload {
                let bytes = encoded(&mut map);
                let page = decoded(&bytes).expect("just encoded");
                map = Map::default();
                assert!(map.insert_out(KEY, 1) && map.join(KEY, page).is_empty());
            }
            let body = &map.page_mut(KEY).expect("something is there").body;
            prop_assert_eq!(body.mappings(), plain);
            for (at, &m) in (0..).zip(&plain) {
                prop_assert_eq!(body.get(at), m);
            }
            let mapped = plain.iter().filter(|m| m.block().is_some()).count() as u64;
            let bytes = body.bytes();
            prop_assert!(bytes <= 4 * (3 + 1024) && map.usage.bytes.get() == bytes);
            prop_assert_eq!(map.mapped(), mapped);
        }
        let smallest = Body::build(&plain);
        prop_assert_eq!(smallest.mappings(), plain);
    }

    /// However late a page comes back, each block ends with its newest mapping, and everything that
    /// was ever put in is either there or was named once as replaced.
    #[test]
    fn pages_that_come_and_go_agree_with_a_plain_array(
        steps in prop::collection::vec((step(), 0u8..6), 1..200),
    ) {
        let mut pair = Pair::new();
        for (step, what) in steps {
            pair.write(&step);
            match what {
                0 => pair.leave(),
                1 => pair.come_back(),
                2 | 3 => pair.mend(&step),
                _ => {}
            }
        }
        pair.come_back();
        let page = pair.map.page(KEY).expect("something is there");
        prop_assert_eq!(page.body.mappings(), pair.plain);
        let shown: Vec<u32> = pair.plain.iter().filter_map(Mapping::block).collect();
        prop_assert_eq!(shown.len() + pair.gone.len(), pair.put);
        prop_assert!(shown.iter().all(|place| !pair.gone.contains(place)));
        prop_assert_eq!(pair.map.mapped(), shown.len() as u64);
        prop_assert_eq!(bytes(&pair.map), page.body.bytes());
    }

    #[test]
    fn hostile_pages_never_panic(
        form in 0u8..4,
        bytes in prop::collection::vec(any::<u8>(), 4096..4097),
        runs in 0u16..260,
        flips in prop::collection::vec((40usize..4096, any::<u8>()), 0..8),
        from_valid in any::<bool>(),
    ) {
        let mut page = if from_valid { encoded(&mut sample(form.min(2))) } else { bytes };
        if !from_valid {
            page[..34].copy_from_slice(&encoded(&mut sample(RUNS))[..34]);
            page[34] = form;
            page[36..38].copy_from_slice(&runs.to_le_bytes());
            page[48..56].fill(0);
        }
        flips.iter().for_each(|&(at, byte)| page[at] = byte);
        let crc = crc32c::crc32c(&page[4..]);
        page[..4].copy_from_slice(&crc.to_le_bytes());
        if let Some(page) = decoded(&page) {
            let mut map = Map::default();
            assert!(map.insert_out(KEY, 1));
            map.join(KEY, page);
            for block in 0..256 {
                map.set(CHUNK, block, mapping(5, 1 << 57));
            }
            prop_assert_eq!(map.mapped(), 256);
        }
    }
}
