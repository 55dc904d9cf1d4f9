//! Deltas and the entries around them.

use std::rc::Rc;

use ogive_crash::model::Entry;
use ogive_crash::world::{FIRST, World, range};
use ogive_store::{StoreEvent, audit};
use ogive_types::message::{DeltaChunk, DeltaExtent, DeltaPage, Mapped, Op};
use ogive_types::{BlockRange, ChunkId, CopysetId, Index, LogPos, Term, VolumeId, block_sums};

const ID: CopysetId = CopysetId(1);

/// What the store says is mapped.
fn mapped(world: &mut World, chunk: ChunkId, range: BlockRange) -> Vec<Mapped> {
    world.store.mapped(0, ID, chunk, range);
    for event in super::repair::rest(world) {
        if let StoreEvent::Mapped { result, .. } = event {
            return result.expect("nothing is damaged");
        }
    }
    panic!("no answer");
}

/// A delta says that a block is trimmed; an entry from before the trim is applied only then.
#[test]
fn a_trim_of_a_delta_outlives_older_entries() {
    let mut to = World::new(1);
    to.create(ID);
    let chunk = ChunkId { volume: VolumeId(1), number: 0 };
    let one = range(FIRST, 1);
    let op = Op::Write { chunk, range: one, sums: block_sums(&to.data(7, 1)) };
    to.append(ID, Rc::new(Entry { term: Term(1), op, tag: 7 })).expect("room for one");
    to.settle();
    let trimmed = DeltaExtent { range: one, index: Index(2), sums: Vec::new() };
    let page = DeltaPage {
        term: Term(1),
        upto: LogPos { term: Term(1), index: Index(2) },
        base: Index(0),
        after: None,
        through: None,
        chunks: vec![DeltaChunk { chunk, extents: vec![trimmed] }],
    };
    let token = to.fresh();
    to.store.delta_apply(token, ID, &page, None).expect("it takes no blocks");
    to.settle();
    to.apply(ID, 1);
    to.store.reset_log(token, ID, page.upto, &[]);
    to.settle();
    assert_eq!(mapped(&mut to, chunk, one), [Mapped { range: one, mapped: false }]);
    audit(&to.store).expect("the block of the old entry is free");
}

/// An entry is applied while a checkpoint writes the page that it changes, so that only the
/// directory knows; a delta then restarts the log behind the entry. The entry stays applied.
#[test]
fn what_only_a_checkpoint_knew_to_be_applied_outlives_a_reset() {
    // How far the checkpoint is when the entry is applied.
    for ends in 0..6 {
        let mut to = World::new(1);
        to.create(ID);
        let chunk = ChunkId { volume: VolumeId(1), number: 0 };
        for tag in [7, 8] {
            let one = range(FIRST + tag as u16, 1);
            let op = Op::Write { chunk, range: one, sums: block_sums(&to.data(tag, 1)) };
            let entry = Rc::new(Entry { term: Term(1), op, tag });
            to.append(ID, entry).expect("room for one");
        }
        to.settle();
        to.apply(ID, 1);
        to.store.start_checkpoint();
        to.pump(0);
        (0..ends).for_each(|_| to.pump(1));
        to.apply(ID, 2);
        to.settle();
        to.reopen();
        let token = to.fresh();
        to.apply(ID, 2);
        let upto = LogPos { term: Term(1), index: Index(3) };
        to.store.reset_log(token, ID, upto, &[]);
        to.settle();
        to.reopen();
        assert_eq!(to.store.applied(ID), upto);
        for block in [FIRST + 7, FIRST + 8] {
            let one = range(block, 1);
            let mapped = mapped(&mut to, chunk, one);
            assert_eq!(mapped, [Mapped { range: one, mapped: true }], "after {ends} ends");
        }
        audit(&to.store).expect("consistent");
    }
}
