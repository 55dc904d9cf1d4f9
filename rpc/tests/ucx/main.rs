//! Lanes over UCX as they are: two of them in one process, over shared memory, or over RDMA when
//! `OGIVE_TEST_PATH=rdma` says so.
#![cfg(feature = "ucx")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // tests own their clock

mod pair;

use std::time::Duration;

use ogive_buf::{ARENA_BYTES, Pool};
use ogive_rpc::limits::{BODY_BYTES_MAX, EAGER_BYTES_MAX, PAYLOAD_BYTES_MAX};
use ogive_rpc::transport::lane::LaneEvent;
use ogive_rpc::transport::tcp::Timing;
use ogive_rpc::transport::{CloseReason, ConnId};
use pair::{Pair, frame, pattern};

#[test]
fn frames_of_all_sizes_arrive_whole_and_in_order() {
    let mut pair = Pair::new();
    let conn = pair.join(ConnId(1));
    let bodies = [0, 1, 100, 4000, 5000, BODY_BYTES_MAX];
    let payloads: [&[usize]; 9] = [
        &[],
        &[1],
        &[4096],
        &[4096, 4096, 4096],
        &[EAGER_BYTES_MAX],
        &[EAGER_BYTES_MAX + 1],
        &[4096, 65536, 1, 65536, 0, 512],
        &[PAYLOAD_BYTES_MAX / 2, PAYLOAD_BYTES_MAX / 2],
        &[PAYLOAD_BYTES_MAX],
    ];
    let mut sent = Vec::new();
    for (i, body) in bodies.into_iter().enumerate() {
        for (j, pieces) in payloads.into_iter().enumerate() {
            let id = (i * 100 + j) as u64;
            sent.push((id, body, pieces.iter().sum::<usize>()));
            let frame = frame(&pair.a.pool, id, body, pieces);
            pair.a.send(conn, frame);
            // Some one by one, some many at once.
            if j % 3 == 0 {
                pair.turn();
            }
        }
    }
    let received = pair.receive_at_b(sent.len());
    for ((id, body, payload), got) in sent.into_iter().zip(received) {
        assert_eq!((got.id, got.kind, got.deadline_ms), (id, 20, 7));
        assert_eq!(got.body, pattern(id, body), "body of frame {id}");
        let bytes = got.payload.as_ref().map_or(&[][..], |buf| &buf[..]);
        assert!(bytes == pattern(id ^ 1, payload), "payload of frame {id}");
    }
    let copied = pair.b.lane.stats().copied_bytes;
    pair.a.send(conn, frame(&pair.a.pool, 9, 100, &[1 << 20]));
    pair.receive_at_b(1);
    assert_eq!(pair.b.lane.stats().copied_bytes, copied, "a rendezvous is not copied");
}

#[test]
fn both_directions_at_once_and_responses() {
    let mut pair = Pair::new();
    let conn = pair.join(ConnId(7));
    for round in 0..200 {
        pair.a.send(conn, frame(&pair.a.pool, round, 10, &[4096]));
        let mut back = frame(&pair.b.pool, round, 20, &[65536]);
        back.response = true;
        pair.b.send(conn, back);
    }
    let (at_a, at_b) = (pair.receive_at_a(200), pair.receive_at_b(200));
    assert!(at_a.iter().enumerate().all(|(i, f)| f.id == i as u64 && f.response));
    assert!(at_b.iter().enumerate().all(|(i, f)| f.id == i as u64 && !f.response));
}

#[test]
fn without_buffers_frames_wait_and_come_in_order() {
    let mut pair = Pair::with_pools(ARENA_BYTES * 8, ARENA_BYTES);
    let conn = pair.join(ConnId(1));
    let all: Vec<_> = std::iter::from_fn(|| pair.b.pool.alloc(64 << 10)).collect();
    let sizes = [4096, 65536, 512, 8192, 100_000, 4096];
    for (id, &bytes) in sizes.iter().enumerate() {
        pair.a.send(conn, frame(&pair.a.pool, id as u64, 5, &[bytes]));
    }
    for _ in 0..200 {
        pair.turn();
    }
    assert!(pair.b.events.is_empty(), "there is no buffer: {:?}", pair.b.events);
    assert!(pair.b.lane.next_deadline() < pair.now() + Duration::from_millis(10), "it tries again");
    drop(all);
    for (id, got) in pair.receive_at_b(sizes.len()).into_iter().enumerate() {
        assert_eq!(got.id, id as u64);
        assert!(got.payload.unwrap()[..] == pattern(id as u64 ^ 1, sizes[id]));
    }
}

#[test]
fn a_silent_peer_is_found_and_a_live_one_is_not() {
    let timing = Timing {
        ping_after: Duration::from_millis(100),
        // Both ends share a thread, which a busy machine may hold up.
        silent_after: Duration::from_millis(3000),
        ..Timing::default()
    };
    let mut pair = Pair::with_timing(timing);
    let conn = pair.join(ConnId(1));
    let begin = pair.now();
    while pair.now() < begin + Duration::from_millis(3500) {
        pair.turn();
    }
    assert!(pair.a.events.is_empty() && pair.b.events.is_empty(), "PINGs keep it alive");
    // B is not polled any more, like a process that hangs.
    let event = pair.a.wait(|event| matches!(event, LaneEvent::Broken { .. }));
    let LaneEvent::Broken { conn: at, reason } = event else { unreachable!() };
    assert_eq!(at, conn);
    assert!(matches!(reason, CloseReason::Silent(3000..)), "{reason:?}");
}

#[test]
fn messages_with_a_wrong_key_reach_nobody() {
    let mut pair = Pair::new();
    let conn = pair.join(ConnId(1));
    let stranger = ConnId(2);
    pair.a.lane.open(stranger);
    let address = pair.b.lane.address().to_vec();
    let now = pair.now();
    pair.a.lane.attach(stranger, &address, 0x1234_5678_9abc_def0, now).unwrap();
    pair.a.send(stranger, frame(&pair.a.pool, 1, 1, &[4096]));
    pair.a.send(conn, frame(&pair.a.pool, 2, 1, &[4096]));
    let got = pair.receive_at_b(1);
    assert_eq!(got[0].id, 2);
    assert!(pair.b.events.is_empty());
}

#[test]
fn closing_is_silent_and_frames_for_a_closed_end_are_dropped() {
    let mut pair = Pair::new();
    let (one, two) = (pair.join(ConnId(1)), pair.join(ConnId(2)));
    for id in 0..20 {
        pair.a.send(one, frame(&pair.a.pool, id, 0, &[100_000]));
        pair.a.send(two, frame(&pair.a.pool, id, 0, &[100_000]));
    }
    pair.b.lane.close(one);
    let got = pair.receive_at_b(20);
    assert!(got.iter().enumerate().all(|(i, f)| f.id == i as u64));
    pair.a.lane.close(one);
    pair.a.lane.close(two);
    pair.b.lane.close(two);
    for _ in 0..1000 {
        pair.turn();
    }
    assert!(pair.a.events.is_empty() && pair.b.events.is_empty());
}

#[test]
fn connections_come_and_go_without_growth() {
    let mut pair = Pair::new();
    let mut before = 0;
    for round in 0..600 {
        let conn = pair.join(ConnId(round));
        pair.a.send(conn, frame(&pair.a.pool, round, 3, &[4096]));
        assert_eq!(pair.receive_at_b(1)[0].id, round);
        pair.a.lane.close(conn);
        pair.b.lane.close(conn);
        for _ in 0..10 {
            pair.turn();
        }
        if round == 100 {
            before = descriptors();
        }
    }
    assert!(descriptors() <= before + 4, "{} descriptors after {before}", descriptors());
    assert_eq!(pair.a.pool.stats().used_bytes, 0);
    assert_eq!(pair.b.pool.stats().used_bytes, 0);
}

#[test]
fn a_sleeper_is_woken() {
    let mut pair = Pair::new();
    let conn = pair.join(ConnId(1));
    for id in 0..300 {
        pair.b.sleep_ready();
        pair.a.send(conn, frame(&pair.a.pool, id, 3, &[[0, 64, 4096, 100_000][id as usize % 4]]));
        assert!(pair.b.woken(Duration::from_secs(10)), "frame {id} woke nobody");
        assert_eq!(pair.receive_at_b(1)[0].id, id);
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn pools_are_given_back() {
    let pool = Pool::new(ARENA_BYTES);
    drop(frame(&pool, 1, 1, &[4096]));
    assert_eq!(pool.stats().used_bytes, 0);
}
