//! The judge beside a search through all orders, and by hand.

use proptest::prelude::*;

use super::*;

fn op(action: Action, start: u64, end: impl Into<Option<u64>>, attachment: u64) -> Op {
    Op { block: 7, action, start, end: end.into(), attachment }
}

fn write(value: Value, start: u64, end: impl Into<Option<u64>>) -> Op {
    op(Action::Write(value), start, end, 1)
}

fn read(value: Value, start: u64, end: u64) -> Op {
    op(Action::Read(value), start, end, 1)
}

#[test]
fn what_one_disk_could_have_done_is_right() {
    assert_eq!(check(&[]), []);
    assert_eq!(check(&[read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)]), []);
    // At the same time as the write: both are right, as long as they do not go back.
    assert_eq!(check(&[write(1, 1, 10), read(1, 2, 3), read(1, 4, 5)]), []);
    assert_eq!(check(&[write(1, 1, 10), read(0, 2, 3), read(1, 4, 5)]), []);
    // Of unknown outcome: seen late, or never.
    assert_eq!(check(&[write(1, 1, None), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)]), []);
    assert_eq!(check(&[write(1, 1, None), write(2, 2, 3), read(2, 4, 5)]), []);
}

#[test]
fn lies_are_found() {
    let both = |history: &[Op]| matches!(check(history)[..], [Violation::Both { .. }]);
    assert!(both(&[write(1, 1, 2), read(0, 3, 4)]), "an acknowledged write is lost");
    assert!(both(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]), "a stale read");
    assert!(both(&[write(1, 1, 10), read(1, 2, 3), read(0, 4, 5)]), "a value goes back");
    let back = [write(1, 1, None), write(2, 2, 3), read(1, 4, 5), read(2, 6, 7)];
    assert!(both(&back), "a value comes back");
    assert!(matches!(check(&[read(9, 1, 2)])[..], [Violation::Unwritten { .. }]));
    let early = [read(1, 1, 2), write(1, 3, 4)];
    assert!(matches!(check(&early)[..], [Violation::FromTheFuture { .. }]));
}

#[test]
fn a_newer_attachment_bounds_what_is_unknown() {
    let old = op(Action::Write(1), 1, None, 1);
    let newer = [op(Action::Write(2), 3, 4, 2), op(Action::Read(2), 5, 6, 2)];
    let late = op(Action::Read(1), 7, 8, 2);
    assert_eq!(check(&[old, newer[0], newer[1]]), []);
    assert!(matches!(check(&[old, newer[0], newer[1], late])[..], [Violation::Both { .. }]));
    // Between the two attachments it may have been applied.
    assert_eq!(check(&[old, op(Action::Read(1), 2, 3, 2), newer[0], newer[1]]), []);
    let after = op(Action::Write(1), 5, None, 1);
    let seen = [newer[0], after, late];
    assert!(matches!(check(&seen)[..], [Violation::Unfenced { .. }]));
}

#[test]
fn each_block_is_judged_by_itself() {
    let other = Op { block: 8, ..write(1, 1, 2) };
    let stale = Op { block: 8, ..read(0, 3, 4) };
    assert_eq!(check(&[write(1, 1, 2), read(1, 3, 4), other]), []);
    assert_eq!(check(&[write(2, 1, 2), read(2, 3, 4), other, stale]).len(), 1);
}

/// Some order of `left` explains all answers, from a block that holds `now`.
fn explained(left: &mut Vec<Op>, now: Value) -> bool {
    if left.iter().all(|op| op.end.is_none()) {
        return true; // writes that never took place
    }
    let ends = left.iter().filter_map(|op| op.end).min().unwrap_or(u64::MAX);
    for at in 0..left.len() {
        if left[at].start > ends {
            continue; // another had ended before it began
        }
        let op = left.remove(at);
        let next = match op.action {
            Action::Write(value) => Some(value),
            Action::Read(value) => (value == now).then_some(now),
        };
        let done = next.is_some_and(|next| explained(left, next));
        left.insert(at, op);
        if done {
            return true;
        }
    }
    false
}

/// Up to seven operations with few values, all times different.
fn histories() -> impl Strategy<Value = Vec<Op>> {
    let one = (any::<bool>(), 0u64..4, 0u64..40, 1u64..20, any::<bool>());
    prop::collection::vec(one, 1..7).prop_map(|drawn| {
        let (mut written, mut history) = (0, Vec::new());
        for ((writes, value, start, length, unknown), n) in drawn.into_iter().zip(0..) {
            let (start, end) = (1 + start * 16 + 2 * n, 2 + (start + length) * 16 + 2 * n);
            let (action, end) = match writes {
                true => {
                    written += 1;
                    (Action::Write(written), (!unknown).then_some(end))
                }
                false => (Action::Read(value), Some(end)),
            };
            history.push(op(action, start, end, 1));
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn it_agrees_with_a_search_through_all_orders(history in histories()) {
        let right = explained(&mut history.clone(), 0);
        prop_assert_eq!(check(&history).is_empty(), right, "{:?}", check(&history));
    }
}
