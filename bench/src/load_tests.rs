//! The state machine of a run, without sockets and clocks.

use super::*;
use crate::rng::Rng;
use proptest::prelude::*;
use std::collections::HashMap;

const A: Link = Link(0);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn spec() -> VolumeBench {
    let uri = "nbd://h/v".parse().unwrap();
    VolumeBench { read_percent: 0, verify: true, ..VolumeBench::new(uri) }
}

fn load(spec: &VolumeBench) -> Load {
    Load::new(spec, 0..16 * 4096, 1)
}

/// Sends what can be sent at a time.
fn send(load: &mut Load, now: Duration) -> Vec<(Issue, Vec<u8>)> {
    load.tick(now);
    let mut sent = Vec::new();
    loop {
        let mut data = Vec::new();
        let Some(issue) = load.next(now, A, &mut data) else { return sent };
        sent.push((issue, data));
    }
}

#[test]
fn depth_bounds_what_is_in_flight_and_each_block_is_written_once_at_a_time() {
    let mut load = load(&VolumeBench { depth: 8, ..spec() });
    let sent = send(&mut load, ms(0));
    let mut offsets: Vec<u64> = sent.iter().map(|(issue, _)| issue.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!((sent.len(), offsets.len(), load.in_flight()), (8, 8, 8));
    load.complete(ms(1), sent[3].0.cookie, 0, &[]);
    assert_eq!(send(&mut load, ms(1)).len(), 1);
}

#[test]
fn an_open_loop_counts_from_the_intended_time() {
    let spec = VolumeBench { rate: Some(1000.0), duration: Some(ms(20)), ..spec() };
    let mut load = load(&spec);
    let first = send(&mut load, ms(0))[0].0;
    assert_eq!(load.wake_at(), Some(ms(1)));
    // Due at 1, 2, ... 10 ms, but the only slot is taken.
    assert!(send(&mut load, ms(10)).is_empty());
    load.complete(ms(10), first.cookie, 0, &[]);
    let second = send(&mut load, ms(10))[0].0;
    load.complete(ms(12), second.cookie, 0, &[]);
    assert_eq!(load.counters().gap.longest().length, ms(10));
    // The second was due at 1 ms: 11 ms, not 2.
    let report = load.counters().write.report(1.0, true).unwrap();
    assert!((10_900.0..11_100.0).contains(&report.latency.max_us), "{report:?}");
    load.tick(ms(20));
    // 2 to 19 ms were due before the end and never sent.
    assert_eq!(load.counters().missed, 18);
}

#[test]
fn stages_follow_each_other() {
    let mut load = load(&VolumeBench { depth: 2, ops: Some(3), ..spec() });
    let sent = send(&mut load, ms(0));
    let disk: HashMap<u64, Vec<u8>> =
        sent.iter().map(|(issue, data)| (issue.offset, data.clone())).collect();
    load.complete(ms(1), sent[0].0.cookie, 0, &[]);
    load.stop(ms(1));
    assert_eq!(load.stage(), Stage::Drain);
    assert!(send(&mut load, ms(2)).is_empty());
    load.complete(ms(3), sent[1].0.cookie, 0, &[]);
    load.tick(ms(3));
    assert_eq!(load.stage(), Stage::ReadBack);
    let read = send(&mut load, ms(3));
    for (issue, _) in read {
        let blocks = (issue.offset..issue.offset + u64::from(issue.bytes)).step_by(4096);
        let data: Vec<u8> = blocks.flat_map(|at| disk[&at].clone()).collect();
        load.complete(ms(4), issue.cookie, 0, &data);
    }
    send(&mut load, ms(4));
    load.tick(ms(4));
    assert_eq!(load.stage(), Stage::Done);
    let findings = load.findings().unwrap();
    assert_eq!((findings.read_back, findings.is_ok()), (2, true));
    assert_eq!(load.counters().ended, Some(ms(3)));
}

#[test]
fn a_silent_server_is_given_up() {
    let mut load = load(&VolumeBench { ops: Some(1), reconnect: ms(5000), ..spec() });
    send(&mut load, ms(0));
    load.stop(ms(10));
    let until = DRAIN_TIMEOUT + ms(5010);
    load.tick(until - ms(1));
    assert_eq!(load.stage(), Stage::Drain);
    assert_eq!(load.wake_at(), Some(until));
    load.tick(until);
    assert_eq!(load.stage(), Stage::Done);
    assert!(load.counters().abandoned.is_some());
    assert_eq!(load.findings().unwrap().unread, 1);
}

#[test]
fn blocks_full_of_unknown_writes_are_read_instead() {
    let uri = "nbd://h/v".parse().unwrap();
    let spec = VolumeBench { read_percent: 0, verify: true, ..VolumeBench::new(uri) };
    let mut load = Load::new(&spec, 0..4096, 1);
    for _ in 0..crate::limits::MAX_UNKNOWN_PER_BLOCK {
        let sent = send(&mut load, ms(1));
        assert_eq!(sent[0].0.op, Op::Write);
        load.complete(ms(1), sent[0].0.cookie, 5, &[]);
    }
    assert_eq!(send(&mut load, ms(2))[0].0.op, Op::Read);
}

proptest! {
    /// Replies in any order, errors and lost connections: an honest disk is never blamed, every
    /// slot comes back, and the run ends.
    #[test]
    fn any_order_of_replies(seed in any::<u64>(), depth in 1usize..6, read_percent in 0u8..=100) {
        let spec = VolumeBench { depth, read_percent, seed, ops: Some(60), ..spec() };
        let mut load = load(&spec);
        let mut rng = Rng::new(seed);
        let mut disk = vec![0; 16 * 4096];
        let mut flying: Vec<(Issue, Vec<u8>)> = Vec::new();
        let mut now = ms(0);
        while load.stage() != Stage::Done {
            now += ms(1);
            flying.extend(send(&mut load, now));
            prop_assert!(flying.len() <= depth && flying.len() == load.in_flight());
            prop_assert!(now < ms(10_000), "the run ends");
            if flying.is_empty() {
                continue;
            }
            let (issue, data) = flying.swap_remove(rng.below(flying.len() as u64) as usize);
            let at = issue.offset as usize..issue.offset as usize + issue.bytes as usize;
            let applied = rng.below(4) != 0;
            if issue.op == Op::Write && applied {
                disk[at.clone()].copy_from_slice(&data);
            }
            match rng.below(10) {
                0 => load.complete(now, issue.cookie, 5, &[]),
                1 => {
                    load.lost(A, "lost".into());
                    flying.clear();
                }
                _ if issue.op == Op::Read => load.complete(now, issue.cookie, 0, &disk[at]),
                _ if applied => load.complete(now, issue.cookie, 0, &[]),
                _ => load.complete(now, issue.cookie, 5, &[]),
            }
        }
        prop_assert_eq!(load.in_flight(), 0);
        prop_assert_eq!(&load.findings().unwrap().faults, &[]);
    }
}
