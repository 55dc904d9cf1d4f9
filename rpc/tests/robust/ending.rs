//! An end in order: what was sent before it arrives, and so does the reason.

use ogive_rpc::limits::PAYLOAD_BYTES_MAX;

use super::*;

/// Sizes of the payloads: none, copied by UCX, and by rendezvous or out of the other's memory.
const SIZES: [usize; 5] = [0, 100, 4096, 64 << 10, PAYLOAD_BYTES_MAX];
const FRAMES: u64 = 40;

/// The frames and the end, in the order of their arrival; false in the place of a frame that is not
/// what was sent.
fn arrived(server: &mut End) -> Vec<bool> {
    let mut next = 1;
    let ok = |event: Event| match event {
        Event::Received { frame, .. } => {
            let bytes = frame.payload.as_ref().map_or(0, |payload| payload.len());
            let good = frame.id == next && bytes == SIZES[next as usize % SIZES.len()];
            next += 1;
            good
        }
        event => matches!(event, Event::Connected { .. } | Event::Closed { .. }),
    };
    std::mem::take(&mut server.events).into_iter().map(ok).collect()
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    for round in 0..20 {
        let mut server = End::start(server_config());
        let mut client = End::start(client_config());
        let (out, inn) = pair(&mut client, &mut server);
        server.events.clear();
        for id in 1..=FRAMES {
            let bytes = SIZES[id as usize % SIZES.len()];
            let payload = (bytes > 0).then(|| client.payload(bytes));
            client.send(out, id, false, payload);
        }
        client.net.close(out, CloseReason::Local);
        settle("closed", &mut [&mut client, &mut server], |ends| {
            ends[0].ends() == 1 && ends[1].ends() == 1
        });
        assert_eq!(client.end_of(out), Some(&CloseReason::Local));
        assert_eq!(server.end_of(inn), Some(&CloseReason::Peer));
        assert!(matches!(server.events.last(), Some(Event::Closed { .. })), "the end is last");
        let arrived = arrived(&mut server);
        assert_eq!(arrived.len() as u64, FRAMES + 1, "round {round}");
        assert!(arrived.iter().all(|good| *good), "round {round}: {arrived:?}");
        assert_eq!((client.net.connections(), server.net.connections()), (0, 0));
    }
}

#[test]
fn the_reason_arrives_from_either_end() {
    let mut server = End::start(server_config());
    let mut client = End::start(client_config());
    let over = || CloseReason::Protocol("over credit".into());
    let told = CloseReason::Protocol("says the peer: over credit".into());
    let (out, inn) = pair(&mut client, &mut server);
    server.net.close(inn, over());
    settle("told", &mut [&mut client, &mut server], |ends| ends[0].end_of(out).is_some());
    assert_eq!(client.end_of(out), Some(&told));
    let (out, inn) = pair(&mut client, &mut server);
    client.net.close(out, over());
    settle("told", &mut [&mut client, &mut server], |ends| ends[1].end_of(inn).is_some());
    assert_eq!(server.end_of(inn), Some(&told));
}
