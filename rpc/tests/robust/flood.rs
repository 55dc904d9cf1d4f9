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
/// Of the allocator, and for the bodies of one look at all connections: 512 KiB each.
const SLACK: u64 = 24 << 20;

/// In a child, whose memory is measured: keeps every request until the pool is empty, and answers
/// the oldest only when nothing more comes.
pub fn hoarder() {
    let mut end = End::start(TcpConfig { pool: Pool::new(POOL_BYTES), ..server_config() });
    // Its pool counts as memory in use from the start.
    let whole: Vec<_> = std::iter::from_fn(|| end.pool.alloc_zeroed(4 << 20)).collect();
    drop(whole);
    say(end.endpoint());
    let mut held = VecDeque::new();
    let mut most_held = 0;
    while end.ends() < FLOODS {
        let idle = !end.turn();
        held.extend(end.received());
        most_held = most_held.max(held.len());
        // Bodies are no matter of the pool: their number is bounded by credits, here by ten.
        let bodies = held.iter().filter(|(_, f)| f.payload.is_none()).count();
        if idle || bodies > 10 {
            held.drain(..held.len().min(4)).for_each(|(conn, frame): (_, Incoming)| {
                end.send(conn, frame.id, true, None);
            });
        }
    }
    say(most_held);
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
    let (mut sent, mut asked, mut answered) = (0, 0u64, 0u64);
    let mut ahead = [0u64; FLOODS];
    let mut most = 0;
    while sent < FLOOD_BYTES || answered < asked {
        for (conn, ahead) in conns.iter().zip(&mut ahead) {
            // Far more than was granted, yet not so much that this end is stalled by itself.
            while *ahead < 7 && sent < FLOOD_BYTES {
                asked += 1;
                *ahead += 1;
                if asked.is_multiple_of(5) {
                    let (kind, response, deadline_ms, payload) = (KIND, false, 0, Vec::new());
                    let body = vec![1; BODY_BYTES_MAX];
                    let frame = Outgoing { kind, response, id: asked, deadline_ms, body, payload };
                    client.net.send(*conn, frame, now());
                    sent += BODY_BYTES_MAX;
                } else {
                    client.send(*conn, asked, false, Some(payload.clone()));
                    sent += PAYLOAD_BYTES_MAX;
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
    let most_held: usize = child.hear().parse().unwrap();
    assert!(most_held > 8, "it was never in need of buffers: {most_held}");
    assert!(most < before + SLACK, "{most} bytes at most, {before} before");
    child.finish();
}
