//! A crowd that connects faster than it can be served: the limits hold, and those who are connected
//! notice nothing.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;

use super::process::{Process, argument, descriptors, say};
use super::*;

const CROWD: usize = 5000;
/// Connections that the crowd keeps open.
const CROWD_OPEN: usize = 500;
const CONNECTIONS_MAX: usize = 32;
const UNGREETED_MAX: usize = 8;

/// In a child: connects again and again; says nothing, half a HELLO, or nonsense.
pub fn crowd() {
    let to = Endpoint(argument()).addr().unwrap();
    let mut open = VecDeque::new();
    for i in 0..CROWD {
        // The server may refuse or reset it at any point.
        let Ok(mut stream) = TcpStream::connect(to) else { continue };
        let _ = match i % 4 {
            0 => stream.write_all(b"OGV1"),
            1 => stream.write_all(&[0xff; 64]),
            _ => Ok(()),
        };
        open.push_back(stream);
        if open.len() > CROWD_OPEN {
            open.pop_front();
        }
    }
    say("done");
    std::thread::park();
}

#[test]
fn a_crowd_stays_outside_and_those_inside_are_served() {
    let mut server = End::start(TcpConfig {
        connections_max: CONNECTIONS_MAX,
        ungreeted_max: UNGREETED_MAX,
        ..server_config()
    });
    let mut client = End::start(client_config());
    let pairs: Vec<_> = (0..4).map(|_| pair(&mut client, &mut server)).collect();
    let me = std::process::id();
    let before = descriptors(me);
    let child = Process::start("crowd", &server.endpoint().0);
    let (mut served, mut most) = (0, 0);
    // Until the whole crowd was seen; the kernel may have turned a few away by itself.
    while (server.net.stats().tcp.accepted as usize) < CROWD * 9 / 10 {
        if served % 4 == 0 {
            pairs.iter().for_each(|(out, _)| client.send(*out, served, false, None));
        }
        server.turn();
        assert!(server.net.connections() <= pairs.len() + UNGREETED_MAX, "too many ungreeted");
        for (conn, frame) in server.received() {
            server.send(conn, frame.id, true, None);
        }
        client.turn();
        served += client.received().len() as u64;
        most = most.max(descriptors(me));
    }
    assert!(served > 100, "those inside were not served: {served}");
    assert_eq!(client.ends(), 0);
    assert!(server.events.iter().all(|e| matches!(e, Event::Connected { .. })), "strangers");
    let bound = before + UNGREETED_MAX + ogive_rpc::limits::LINGERING_MAX + OTHERS;
    assert!(most < bound, "{most} descriptors at most, {before} before");
    drop(child);
    // Those that the kernel had taken in come, and go, yet: not every poll asks for them.
    let mut quiet = 0;
    settle("the crowd is gone", &mut [&mut client, &mut server], |ends| {
        quiet = if ends[1].net.connections() == pairs.len() { quiet + 1 } else { 0 };
        quiet > 100
    });
    // There is room again, up to the limit and no further.
    let mut late = Vec::new();
    while late.len() < CONNECTIONS_MAX - pairs.len() {
        late.push(pair(&mut client, &mut server));
    }
    let surplus = client.net.connect(&server.endpoint(), now());
    settle("refused", &mut [&mut client, &mut server], |ends| ends[0].end_of(surplus).is_some());
    let reason = client.end_of(surplus).unwrap();
    assert!(matches!(reason, CloseReason::Refused(why) if why.contains("32")), "{reason}");
    assert_eq!(server.net.connections(), CONNECTIONS_MAX);
}

/// Tests run side by side in this process and hold descriptors too, though not thousands.
const OTHERS: usize = 400;
