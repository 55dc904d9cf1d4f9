//! The model against a disk that is honest, and against single wrong answers.

use super::*;
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;

fn data(model: &mut Model, no: BlockNo) -> (Seq, Vec<u8>) {
    let mut out = Vec::new();
    let seq = model.begin_write(no..no + 1, &mut out);
    (seq, out)
}

fn acked(model: &mut Model, no: BlockNo) -> Vec<u8> {
    let (seq, data) = data(model, no);
    model.end_write(no..no + 1, seq, WriteEnd::Acknowledged);
    data
}

fn unknown(model: &mut Model, no: BlockNo) -> Vec<u8> {
    let (seq, data) = data(model, no);
    model.end_write(no..no + 1, seq, WriteEnd::Unknown);
    data
}

/// Reads block 0 and says what was wrong, if anything.
fn read(model: &mut Model, data: &[u8]) -> Option<FaultKind> {
    let before = model.report().fault_count;
    let ticket = model.begin_read(0..1);
    model.end_read(ticket, data, NOW);
    (model.report().fault_count > before).then(|| model.report().faults.last().unwrap().kind)
}

#[test]
fn unknown_writes_may_be_there_or_not_until_one_is_seen() {
    let mut model = Model::new(1);
    let first = acked(&mut model, 0);
    let second = unknown(&mut model, 0);
    let third = unknown(&mut model, 0);
    assert_eq!(read(&mut model, &first), None);
    assert_eq!(read(&mut model, &second), None);
    assert_eq!(read(&mut model, &first), Some(FaultKind::WentBack { seen: 2, found: 1 }));
    assert_eq!(read(&mut model, &third), None);
    assert_eq!(read(&mut model, &second), Some(FaultKind::WentBack { seen: 3, found: 2 }));
}

#[test]
fn an_acknowledged_write_rules_out_every_older_one() {
    let mut model = Model::new(1);
    let late = unknown(&mut model, 0);
    let newer = acked(&mut model, 0);
    assert_eq!(read(&mut model, &late), Some(FaultKind::LostWrite { acknowledged: 2, found: 1 }));
    assert_eq!(
        read(&mut model, &[0; BLOCK]),
        Some(FaultKind::LostWrite { acknowledged: 2, found: 0 })
    );
    assert_eq!(read(&mut model, &newer), None);
}

#[test]
fn a_read_beside_a_write_may_see_either_and_so_may_two() {
    let mut model = Model::new(1);
    let old = acked(&mut model, 0);
    let (seq, new) = data(&mut model, 0);
    let (early, late) = (model.begin_read(0..1), model.begin_read(0..1));
    model.end_write(0..1, seq, WriteEnd::Acknowledged);
    model.end_read(late, &new, NOW);
    // Sent before the write ended: it may have been served before it.
    model.end_read(early, &old, NOW);
    assert_eq!(model.report().fault_count, 0);
    assert!(read(&mut model, &old).is_some());
}

#[test]
fn what_was_there_before_must_stay_until_written() {
    let mut model = Model::new(1);
    assert_eq!(read(&mut model, &[3; BLOCK]), None);
    assert_eq!(read(&mut model, &[3; BLOCK]), None);
    assert_eq!(read(&mut model, &[4; BLOCK]), Some(FaultKind::Changed));
    let new = unknown(&mut model, 0);
    assert_eq!(read(&mut model, &[3; BLOCK]), None);
    assert_eq!(read(&mut model, &new), None);
    assert_eq!(read(&mut model, &[3; BLOCK]), Some(FaultKind::WentBack { seen: 1, found: 0 }));
    assert_eq!(read(&mut model, &[9; BLOCK]), Some(FaultKind::Corrupt { at: None }));
}

#[test]
fn writes_wait_for_the_block() {
    let mut model = Model::new(1);
    assert!(model.may_write(0..4));
    let (seq, _) = data(&mut model, 1);
    assert!(!model.may_write(0..4) && model.may_write(2..4));
    model.end_write(1..2, seq, WriteEnd::Acknowledged);
    let ticket = model.begin_read(1..2);
    assert!(!model.may_write(0..4));
    model.abandon_read(ticket);
    assert!(model.may_write(0..4));
    for _ in 0..MAX_UNKNOWN_PER_BLOCK {
        unknown(&mut model, 1);
    }
    assert!(!model.may_write(1..2));
}

#[test]
fn written_blocks_are_grouped_for_the_read_back() {
    let mut model = Model::new(1);
    for no in [9, 3, 4, 5, 6, 1] {
        acked(&mut model, no);
    }
    let ticket = model.begin_read(7..8);
    model.abandon_read(ticket);
    assert_eq!(model.written(3), [1..2, 3..6, 6..7, 9..10]);
}

/// One step of a client and its disk; the disk keeps unknown writes or not, as told.
#[derive(Clone, Debug)]
enum Step {
    Write(BlockNo),
    Unknown(BlockNo, bool),
    Read(BlockNo),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..4).prop_map(Step::Write),
        (0u64..4, any::<bool>()).prop_map(|(no, kept)| Step::Unknown(no, kept)),
        (0u64..4).prop_map(Step::Read),
    ]
}

proptest! {
    #[test]
    fn an_honest_disk_is_never_blamed(steps in proptest::collection::vec(step(), 0..60)) {
        let mut model = Model::new(1);
        let mut disk = vec![vec![0; BLOCK]; 4];
        for step in steps {
            match step {
                Step::Write(no) | Step::Unknown(no, _) if !model.may_write(no..no + 1) => {}
                Step::Write(no) => disk[no as usize] = acked(&mut model, no),
                Step::Unknown(no, kept) => {
                    let data = unknown(&mut model, no);
                    if kept {
                        disk[no as usize] = data;
                    }
                }
                Step::Read(no) => {
                    let ticket = model.begin_read(no..no + 1);
                    model.end_read(ticket, &disk[no as usize], NOW);
                }
            }
        }
        prop_assert_eq!(&model.report().faults, &[]);
    }

    #[test]
    fn an_older_value_than_the_last_acknowledged_is_always_blamed(
        writes in 2usize..8,
        back in 1usize..8,
    ) {
        let mut model = Model::new(1);
        let history: Vec<Vec<u8>> = (0..writes).map(|_| acked(&mut model, 0)).collect();
        let old = &history[writes - 1 - back.min(writes - 1)];
        let blamed = read(&mut model, old);
        let lost = matches!(blamed, Some(FaultKind::LostWrite { .. }));
        prop_assert!(lost, "{:?}", blamed);
    }
}
