//! A peer that stops reading: it is given up, and what waits for it stays within bounds.

use ogive_rpc::limits::{BODY_BYTES_MAX, SEND_QUEUE_BYTES_MAX};

use super::process::{Process, argument, memory, say};
use super::*;

/// Of the allocator, and of what else the process does.
const SLACK: u64 = 48 << 20;

/// In a child, whose memory is measured: sends bodies, which come from no pool, to a peer that does
/// not read, until it is told that the peer is stalled.
pub fn sender() {
    let mut config = client_config();
    config.timing.stalled_after = Duration::from_millis(500);
    config.timing.silent_after = Duration::from_secs(60);
    let mut end = End::start(config);
    let conn = end.net.connect(&Endpoint(argument()), now());
    settle("connected", &mut [&mut end], |ends| ends[0].connected().len() == 1);
    say("connected");
    // Goes on when the peer is stopped: this one's input is the parent's terminal, or nothing.
    settle("stopped", &mut [&mut end], |ends| !ends[0].received().is_empty());
    let mut sent = 0u64;
    while end.ends() == 0 {
        let body = vec![7; BODY_BYTES_MAX];
        sent += body.len() as u64;
        let (response, deadline_ms, payload) = (false, 0, Vec::new());
        let frame = Outgoing { kind: KIND, response, id: sent, deadline_ms, body, payload };
        end.net.send(conn, frame, now());
        end.turn();
    }
    let reason = end.end_of(conn).unwrap();
    assert!(matches!(reason, CloseReason::Stalled(_)), "{reason}");
    assert!(sent > SEND_QUEUE_BYTES_MAX as u64 / 4, "{sent} bytes sent");
    assert_eq!(end.net.connections(), 0);
    say("stalled");
    let most = memory(std::process::id(), "VmHWM");
    say(most);
}

#[test]
fn a_peer_that_stops_reading_is_given_up_within_bounds() {
    let mut server = End::start(server_config());
    let mut child = Process::start("sender", &server.endpoint().0);
    settle("connected", &mut [&mut server], |ends| ends[0].connected().len() == 1);
    assert_eq!(child.hear(), "connected");
    let before = memory(child.id(), "VmRSS");
    let conn = server.connected()[0];
    // The go-ahead; from here on nothing is read.
    server.send(conn, 1, false, None);
    server.net.flush(now());
    assert_eq!(child.hear(), "stalled");
    let most: u64 = child.hear().parse().unwrap();
    let bound = before + SEND_QUEUE_BYTES_MAX as u64 + SLACK;
    assert!(most < bound, "{most} bytes at most, {before} before");
    child.finish();
    settle("gone", &mut [&mut server], |ends| ends[0].end_of(conn).is_some());
}
