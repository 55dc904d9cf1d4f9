//! A receiver under a flood stays within the limit of its pool.

use std::collections::VecDeque;

use ogive_rpc::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::process::{Process, memory, say};
use super::*;

/// What the receiver's pool may take.
const POOL_BYTES: usize = 16 << 20;
/// Connections that flood.
const FLOODS: usize = 8;
/// Bytes of the whole flood: many times the pool.
const FLOOD_BYTES: usize = 768 << 20;
/// Requests of one connection that wait for their answers: far more than was granted, and all
/// together three times the pool, yet not so much that the sender is stalled by itself.
const AHEAD: u64 = 7;
/// Of the allocator, and for the bodies of one look at all connections: 512 KiB each.
const SLACK: u64 = 24 << 20;

/// Every fifth request has its bytes in the body, which comes from no pool.
fn is_body(id: u64) -> bool {
    id.is_multiple_of(5)
}

fn bytes_of(id: u64) -> usize {
    if is_body(id) { BODY_BYTES_MAX } else { PAYLOAD_BYTES_MAX }
}

/// Requests of the whole flood.
fn requests() -> u64 {
    let (mut count, mut bytes) = (0, 0);
    while bytes < FLOOD_BYTES {
        count += 1;
        bytes += bytes_of(count);
    }
    count
}

/// In a child, whose memory is measured: keeps every request, and answers the oldest only when its
/// pool has nothing left and everybody waits, or when nothing more can come. So what it keeps does
/// not depend on anybody's speed.
pub fn hoarder() {
    let mut end = End::start(TcpConfig { pool: Pool::new(POOL_BYTES), ..server_config() });
    // Its pool counts as memory in use from the start.
    let whole: Vec<_> = std::iter::from_fn(|| end.pool.alloc_zeroed(4 << 20)).collect();
    drop(whole);
    say(end.endpoint());
    let mut held: VecDeque<(ConnId, Incoming)> = VecDeque::new();
    let (requests, mut taken, mut needs) = (requests(), 0, 0u64);
    while end.ends() < FLOODS {
        let idle = !end.turn();
        let received = end.received();
        taken += received.len() as u64;
        held.extend(received);
        // Bodies are no matter of the pool: their number is bounded by credits, here by ten.
        let bodies = held.iter().filter(|(_, f)| f.payload.is_none()).count();
        let need = idle && end.pool.alloc(PAYLOAD_BYTES_MAX).is_none();
        needs += u64::from(need);
        // Without a limit all that may be under way would be kept.
        let all = held.len() as u64 == FLOODS as u64 * AHEAD || taken == requests;
        if need || bodies > 10 || all {
            held.drain(..held.len().min(4)).for_each(|(conn, frame)| {
                end.send(conn, frame.id, true, None);
            });
        }
    }
    say(needs);
}

#[test]
fn a_receiver_under_a_flood_stays_within_its_limit() {
    let mut child = Process::start("hoarder", "");
    let to = Endpoint(child.hear());
    let before = memory(child.id(), "VmRSS");
    let mut client = End::start(client_config());
    let conns: Vec<_> = (0..FLOODS).map(|_| client.net.connect(&to, now())).collect();
    settle("connected", &mut [&mut client], |ends| ends[0].connected().len() == FLOODS);
    let payload = client.payload(PAYLOAD_BYTES_MAX);
    let (requests, mut asked, mut answered) = (requests(), 0, 0);
    let mut ahead = [0u64; FLOODS];
    let mut most = 0;
    while answered < requests {
        for (conn, ahead) in conns.iter().zip(&mut ahead) {
            while *ahead < AHEAD && asked < requests {
                asked += 1;
                *ahead += 1;
                if is_body(asked) {
                    let (kind, response, deadline_ms, payload) = (KIND, false, 0, Vec::new());
                    let body = vec![1; BODY_BYTES_MAX];
                    let frame = Outgoing { kind, response, id: asked, deadline_ms, body, payload };
                    client.net.send(*conn, frame, now());
                } else {
                    client.send(*conn, asked, false, Some(payload.clone()));
                }
            }
        }
        client.turn();
        for (conn, _) in client.received() {
            answered += 1;
            let index = conns.iter().position(|c| *c == conn).unwrap();
            ahead[index] -= 1;
        }
        assert_eq!(client.ends(), 0, "{:?}", client.events);
        if answered.is_multiple_of(16) {
            most = most.max(memory(child.id(), "VmHWM"));
        }
    }
    most = most.max(memory(child.id(), "VmHWM"));
    conns.iter().for_each(|conn| client.net.close(*conn, CloseReason::Local));
    settle("closed", &mut [&mut client], |ends| ends[0].ends() == FLOODS);
    let needs: u64 = child.hear().parse().unwrap();
    assert!(needs > 0, "it was never in need of buffers");
    assert!(most < before + SLACK, "{most} bytes at most, {before} before");
    child.finish();
}
