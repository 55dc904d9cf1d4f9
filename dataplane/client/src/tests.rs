//! Tests of the whole client against the small cluster of `harness`.

use ogive_types::message::{IoError, IoOp, IoRequest};
use ogive_types::{
    CHUNK_BYTES, CopysetId, Epoch, Layout, SEGMENT_BYTES, SegmentId, ShardAddr, Term, Time,
};

use crate::harness::{Dice, Faults, Mutant, VOLUME, World, shard};
use crate::{VolumeError, VolumeOp, VolumeOutput};

fn world() -> World {
    World::new(1, Layout::default(), None)
}

fn submit(world: &mut World, token: u64, op: VolumeOp) {
    world.client.submit(token, op, world.now);
    world.effects();
}

fn write(world: &mut World, token: u64, offset: u64, bytes: &[u8]) {
    let data = world.buf(bytes);
    submit(world, token, VolumeOp::Write { offset, data });
}

fn read(world: &mut World, token: u64, offset: u64, len: u64) -> Vec<u8> {
    submit(world, token, VolumeOp::Read { offset, len });
    world.finish([token]);
    world.data(token)
}

#[test]
fn unallocated_segments_read_as_zeroes_without_requests() {
    let mut w = world();
    assert_eq!(read(&mut w, 1, 100, 10_000), vec![0; 10_000]);
    submit(&mut w, 2, VolumeOp::Trim { offset: 0, len: 3 * SEGMENT_BYTES });
    submit(&mut w, 3, VolumeOp::WriteZeroes { offset: 5, len: 2 * SEGMENT_BYTES });
    submit(&mut w, 4, VolumeOp::Map { offset: 7, len: 3 * SEGMENT_BYTES });
    w.finish([2, 3, 4]);
    let Ok(VolumeOutput::Map(runs)) = &w.done[&4] else { panic!("{:?}", w.done[&4]) };
    assert_eq!(runs, &[(3 * SEGMENT_BYTES, false)]);
    assert!(w.requests.is_empty() && w.allocated.is_empty());
    write(&mut w, 5, SEGMENT_BYTES + 10, b"first");
    w.finish([5]);
    assert_eq!(w.allocated.iter().collect::<Vec<_>>(), [&1], "allocated by the first write");
    assert_eq!(read(&mut w, 6, SEGMENT_BYTES + 8, 9), b"\0\0first\0\0");
}

#[test]
fn operations_are_cut_at_chunks_and_spread_over_copysets() {
    let mut w = world();
    let bytes: Vec<u8> = (0..1 << 20).map(|i| (i / 4096) as u8).collect();
    let offset = CHUNK_BYTES - (1 << 19);
    write(&mut w, 1, offset, &bytes);
    w.finish([1]);
    let mut places: Vec<_> = w
        .requests
        .iter()
        .filter(|(_, r)| matches!(r.op, IoOp::Write { .. }))
        .map(|(_, r)| (r.copyset.0, r.op.place().0.number, r.op.place().1.blocks()))
        .collect();
    places.sort();
    assert_eq!(places, [(1, 0, 128), (2, 1, 128)]);
    assert!(read(&mut w, 2, offset, 1 << 20) == bytes);
}

#[test]
fn leaders_and_terms_are_learnt_by_one_small_question_each() {
    let mut w = world();
    for token in 0..20 {
        write(&mut w, token, token * 4096, &[1; 4096]);
    }
    w.finish(0..20);
    let probes = w.requests.iter().filter(|(_, r)| r.fence.term == Term(0)).count();
    let writes = w.requests.iter().filter(|(_, r)| matches!(r.op, IoOp::Write { .. })).count();
    assert!(probes <= 3, "{probes} probes for one copyset");
    assert_eq!(writes, 20, "no payload is sent to a member that does not lead");
    assert!(w.requests.iter().all(|(_, r)| r.fence.incarnation.0 > 0 && r.fence.epoch == Epoch(3)));
}

#[test]
fn a_new_term_is_adopted_from_the_refusal() {
    let mut w = world();
    write(&mut w, 1, 0, &[1; 4096]);
    w.finish([1]);
    w.elect(CopysetId(1), shard(2), 0);
    w.requests.clear();
    write(&mut w, 2, 0, &[2; 4096]);
    w.finish([2]);
    let terms: Vec<Term> = w.requests.iter().map(|(_, r)| r.fence.term).collect();
    assert_eq!(terms, [Term(2), Term(3)], "refused once, then right, without a search");
}

#[test]
fn a_dead_leader_is_replaced() {
    let mut w = world();
    write(&mut w, 1, 0, &[1; 4096]);
    w.finish([1]);
    w.down.insert(shard(2));
    w.close_all(shard(2));
    w.elect(CopysetId(1), shard(3), 0);
    write(&mut w, 2, 0, &[2; 4096]);
    w.finish([2]);
    assert_eq!(read(&mut w, 3, 0, 4096), [2; 4096]);
}

#[test]
fn a_part_write_keeps_the_rest_of_its_blocks() {
    let mut w = world();
    write(&mut w, 1, 0, &[7; 12288]);
    w.finish([1]);
    write(&mut w, 2, 100, &[8; 50]);
    write(&mut w, 3, 4000, &[9; 200]);
    submit(&mut w, 4, VolumeOp::WriteZeroes { offset: 8000, len: 1000 });
    submit(&mut w, 5, VolumeOp::Trim { offset: 4100, len: 8000 });
    w.finish([2, 3, 4, 5]);
    let mut expected = vec![7; 12288];
    expected[100..150].fill(8);
    expected[4000..4200].fill(9);
    expected[8000..9000].fill(0);
    // The trim covers no whole block but the one from 8192 to 12288, less its end: none at all.
    assert!(read(&mut w, 6, 0, 12288) == expected);
    submit(&mut w, 7, VolumeOp::Trim { offset: 4000, len: 5000 });
    w.finish([7]);
    expected[4096..8192].fill(0);
    assert!(read(&mut w, 8, 0, 12288) == expected);
    submit(&mut w, 9, VolumeOp::Map { offset: 1, len: 12286 });
    w.finish([9]);
    let Ok(VolumeOutput::Map(runs)) = &w.done[&9] else { panic!("{:?}", w.done[&9]) };
    assert_eq!(runs, &[(4095, true), (4096, false), (4095, true)]);
}

#[test]
fn a_bad_checksum_is_read_again_once() {
    let mut w = world();
    write(&mut w, 1, 0, &[7; 4096]);
    w.finish([1]);
    w.corrupt_reads = 1;
    assert_eq!(read(&mut w, 2, 0, 4096), [7; 4096]);
    w.corrupt_reads = 2;
    submit(&mut w, 3, VolumeOp::Read { offset: 0, len: 4096 });
    w.finish([3]);
    assert!(matches!(w.done[&3], Err(VolumeError::Io(_))), "{:?}", w.done[&3]);
}

#[test]
fn errors_end_an_operation_or_the_session() {
    let mut w = world();
    write(&mut w, 1, 0, &[7; 4096]);
    w.finish([1]);
    for (token, error, expected) in [
        (2, IoError::NoSpace, VolumeError::NoSpace),
        (3, IoError::Unreadable, VolumeError::Io("blocks unreadable")),
    ] {
        w.answer = Some(error);
        write(&mut w, token, 0, &[8; 4096]);
        w.finish([token]);
        assert_eq!(w.done[&token].as_ref().unwrap_err(), &expected);
    }
    w.epoch = Epoch(4);
    write(&mut w, 4, 0, &[9; 4096]);
    write(&mut w, 5, 0, &[9; 4096]);
    w.finish([4, 5]);
    submit(&mut w, 6, VolumeOp::Read { offset: 0, len: 1 });
    for token in [4, 5, 6] {
        assert_eq!(w.done[&token].as_ref().unwrap_err(), &VolumeError::Fenced);
    }
    assert_eq!(w.session_lost, 1);
    assert_eq!(w.client.next_deadline(), Time::NEVER, "nothing goes on");
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let mut w = world();
    let end = 4 * SEGMENT_BYTES;
    submit(&mut w, 1, VolumeOp::Read { offset: end, len: 1 });
    submit(&mut w, 2, VolumeOp::Trim { offset: 1, len: u64::MAX });
    submit(&mut w, 3, VolumeOp::Read { offset: 0, len: (1 << 20) + 1 });
    submit(&mut w, 4, VolumeOp::Flush);
    submit(&mut w, 5, VolumeOp::Read { offset: end, len: 0 });
    assert!(matches!(w.done[&1], Err(VolumeError::OutOfRange { .. })));
    assert!(matches!(w.done[&2], Err(VolumeError::OutOfRange { .. })));
    assert!(matches!(w.done[&3], Err(VolumeError::TooLong)));
    assert!(matches!(w.done[&4], Ok(VolumeOutput::Done)));
    assert!(matches!(w.done[&5], Ok(VolumeOutput::Data(_))));
    w.client.on_resize(100);
    submit(&mut w, 6, VolumeOp::Read { offset: 99, len: 2 });
    assert!(matches!(w.done[&6], Err(VolumeError::OutOfRange { size_bytes: 100 })));
}

/// Two writes time out while no shard answers, then a third one is made, then everything that old
/// connections still carry arrives. True when the third one is what remains.
fn newest_write_remains(seed: u64, mutant: Option<Mutant>) -> bool {
    let mut w = World::new(seed, Layout::default(), Some(5_000));
    w.client.mutant = mutant;
    w.credit_requests = 64;
    write(&mut w, 1, 0, &[1; 4096]);
    w.finish([1]);
    w.stalled.extend((1..=3).map(shard));
    write(&mut w, 2, 0, &[2; 4096]);
    write(&mut w, 3, 0, &[3; 4096]);
    while !(w.done.contains_key(&2) && w.done.contains_key(&3)) {
        w.step();
    }
    assert_eq!(w.done[&2].as_ref().unwrap_err(), &VolumeError::TimedOut);
    w.stalled.clear();
    let late = w.hold_writes();
    assert!(!late.is_empty(), "what timed out is still on its way");
    write(&mut w, 4, 0, &[4; 4096]);
    w.finish([4]);
    assert!(w.done[&4].is_ok());
    w.let_arrive(late);
    (0..1000).for_each(|_| w.step());
    read(&mut w, 5, 0, 4096) == [4; 4096]
}

#[test]
fn a_timeout_fails_the_operation_and_fences_what_was_sent() {
    for seed in 1..10 {
        assert!(newest_write_remains(seed, None), "seed {seed}");
        for mutant in [Mutant::KeepLateConn, Mutant::OneIncarnation] {
            assert!(!newest_write_remains(seed, Some(mutant)), "{mutant:?} goes unnoticed");
        }
    }
}

#[test]
fn a_part_write_does_not_take_back_what_timed_out_before_it() {
    for seed in 1..10 {
        let mut w = World::new(seed, Layout::default(), Some(5_000));
        write(&mut w, 1, 0, &[1; 4096]);
        w.finish([1]);
        w.no_quorum = true;
        let asked = w.requests.len();
        write(&mut w, 2, 0, &[2; 4096]);
        w.finish([2]);
        assert_eq!(w.done[&2].as_ref().unwrap_err(), &VolumeError::TimedOut);
        let written = |(_, r): &(ShardAddr, IoRequest)| matches!(r.op, IoOp::Write { .. });
        assert!(w.requests[asked..].iter().any(written), "it is in the log of its leader");
        write(&mut w, 3, 100, &[3; 50]);
        // The rest of the block is read before the write of 2 is committed, and written after it.
        let asked = w.requests.len();
        while !w.requests[asked..].iter().any(written) {
            w.step();
        }
        w.no_quorum = false;
        w.finish([3]);
        let mut expected = [2; 4096];
        expected[100..150].fill(3);
        assert!(read(&mut w, 4, 0, 4096) == expected, "seed {seed}");
    }
}

#[test]
fn a_refused_segment_fails_those_who_wait_for_it() {
    let mut w = world();
    write(&mut w, 1, 0, &[1; 4096]);
    w.questions.clear();
    let segment = SegmentId { volume: VOLUME, number: 0 };
    w.client.on_segment_failed(segment, VolumeError::NoSpace, w.now);
    w.effects();
    assert_eq!(w.done[&1].as_ref().unwrap_err(), &VolumeError::NoSpace);
    write(&mut w, 2, 0, &[2; 4096]);
    w.finish([2]);
    assert!(w.done[&2].is_ok(), "asked again");
    let segment = SegmentId { number: 1, ..segment };
    write(&mut w, 3, SEGMENT_BYTES, &[1; 4096]);
    w.client.on_segment_failed(segment, VolumeError::Fenced, w.now);
    w.effects();
    assert_eq!((w.done[&3].as_ref().unwrap_err(), w.session_lost), (&VolumeError::Fenced, 1));
}

/// The bytes of two windows of the volume: for each, the values that a read may give.
struct Model {
    windows: Vec<(u64, Vec<Vec<u8>>)>,
}

const WINDOW: u64 = 16 << 10;

impl Model {
    fn new() -> Model {
        let bytes = || vec![vec![0]; WINDOW as usize];
        Model { windows: vec![(0, bytes()), (SEGMENT_BYTES - WINDOW / 2, bytes())] }
    }

    fn slots(&mut self, at: u64, len: u64) -> &mut [Vec<u8>] {
        let inside = |w: &&mut (u64, Vec<Vec<u8>>)| at >= w.0 && at + len <= w.0 + WINDOW;
        let (base, bytes) = self.windows.iter_mut().find(inside).unwrap();
        &mut bytes[(at - *base) as usize..(at - *base + len) as usize]
    }

    /// A change of bytes `at..` to `values` was completed, or may have been made.
    fn change(&mut self, at: u64, values: &[u8], sure: bool) {
        for (slot, &value) in self.slots(at, values.len() as u64).iter_mut().zip(values) {
            if sure {
                slot.clear();
            }
            if !slot.contains(&value) {
                slot.push(value);
            }
        }
    }

    fn allows(&mut self, at: u64, bytes: &[u8]) -> bool {
        self.slots(at, bytes.len() as u64).iter().zip(bytes).all(|(slot, b)| slot.contains(b))
    }
}

/// A change in flight: where, and to what.
struct Change {
    at: u64,
    values: Vec<u8>,
}

/// Random operations under faults. The first thing that is wrong, if any.
fn play(seed: u64, io_timeout_ms: Option<u64>, mutant: Option<Mutant>) -> Result<(), String> {
    let layouts = [Layout::default(), Layout::new(4096, 4).unwrap(), Layout::new(8192, 2).unwrap()];
    let mut w = World::new(seed, layouts[(seed % 3) as usize], io_timeout_ms);
    w.client.mutant = mutant;
    w.faults = Faults { closes: true, elections: true, refusals: true, stalls: true };
    let mut dice = Dice(seed + 77);
    let mut model = Model::new();
    let mut flying: std::collections::BTreeMap<u64, Change> = Default::default();
    let mut seen = 0;
    for token in 0..80u64 {
        let base = [0, SEGMENT_BYTES - WINDOW / 2][dice.roll(2) as usize];
        let offset = dice.roll(WINDOW - 1);
        let len = 1 + dice.roll((WINDOW - offset).min(9000));
        let (mut at, mut len) = (base + offset, len);
        if dice.chance(50) {
            (at, len) = (
                at / 4096 * 4096,
                4096 * (1 + dice.roll(2)).min((base + WINDOW - at / 4096 * 4096) / 4096),
            );
        }
        let fill = token as u8 + 1;
        let (op, change) = match dice.roll(10) {
            0 => {
                let (from, to) = (at.div_ceil(4096) * 4096, (at + len) / 4096 * 4096);
                let values = vec![0; to.saturating_sub(from) as usize];
                (
                    VolumeOp::Trim { offset: at, len },
                    Some(Change { at: from.min(at + len), values }),
                )
            }
            1 => (
                VolumeOp::WriteZeroes { offset: at, len },
                Some(Change { at, values: vec![0; len as usize] }),
            ),
            2..=7 => {
                let values = vec![fill; len as usize];
                (VolumeOp::Write { offset: at, data: w.buf(&values) }, Some(Change { at, values }))
            }
            _ => (VolumeOp::Read { offset: at, len }, None),
        };
        submit(&mut w, token, op);
        if let Some(change) = change {
            flying.insert(token, change);
        } else if mutant.is_none() && dice.chance(30) && flying.is_empty() {
            w.finish([token]);
        }
        for _ in 0..dice.roll(120) {
            w.step();
        }
        settle(&mut w, &mut model, &mut flying, &mut seen);
    }
    w.finish(0..80);
    settle(&mut w, &mut model, &mut flying, &mut seen);
    w.faults = Faults::default();
    w.stalled.clear();
    (0..3000).for_each(|_| w.step()); // late arrivals from closed connections
    check_all(&mut w, &mut model).map_err(|e| format!("seed {seed}: {e}"))
}

/// Takes what was completed into the model, in the order of completion.
fn settle(
    w: &mut World,
    model: &mut Model,
    flying: &mut std::collections::BTreeMap<u64, Change>,
    seen: &mut usize,
) {
    for &token in &w.order[*seen..] {
        if let Some(change) = flying.remove(&token) {
            model.change(change.at, &change.values, w.done[&token].is_ok());
        }
    }
    *seen = w.order.len();
}

fn check_all(w: &mut World, model: &mut Model) -> Result<(), String> {
    for (token, base) in [(1000, 0), (1001, SEGMENT_BYTES - WINDOW / 2)] {
        let mut tries = 0;
        let got = loop {
            let token = token + 10 * tries;
            submit(w, token, VolumeOp::Read { offset: base, len: WINDOW });
            w.finish([token]);
            match &w.done[&token] {
                Ok(_) => break w.data(token),
                Err(_) if tries < 20 => tries += 1,
                Err(error) => return Err(format!("the last read fails: {error}")),
            }
        };
        for (i, byte) in got.iter().enumerate() {
            if !model.allows(base + i as u64, &[*byte]) {
                return Err(format!("byte {} of window {base} is {byte}", i));
            }
        }
    }
    Ok(())
}

#[test]
fn under_faults_the_volume_holds_what_was_written_last() {
    for seed in 0..60 {
        play(seed, None, None).unwrap();
    }
}

#[test]
fn a_write_that_timed_out_never_lands_after_a_newer_one() {
    for seed in 0..60 {
        play(seed, Some(1_500), None).unwrap();
    }
}

#[test]
fn overlapping_writes_without_the_lock_are_found() {
    let found = (0..400).any(|seed| play(seed, None, Some(Mutant::NoLock)).is_err());
    assert!(found, "two writes of one block at a time go unnoticed");
}
