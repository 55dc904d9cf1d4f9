//! One peer floods, another trickles: the trickle's requests are served all the same.

use std::collections::VecDeque;

use super::process::{Process, argument, say};
use super::*;

/// Connections of the flooding process.
const FLOODS: usize = 4;
const FLOOD_BYTES: usize = 64 << 10;
/// Frames of a flood that may wait in its process.
const FLOOD_AHEAD: u64 = 64;
/// Requests of the trickle, one at a time.
const TRICKLE: u64 = 200;
/// Frames of the flood that must have been served beside it.
const FLOOD_MIN: u64 = 2000;
/// Frames of the flood served for each one of the trickle, on average: in one look at the sockets a
/// connection brings at most 512 KiB (8 frames), and every eighth look is at all of them. Times
/// eight again, for what the kernel delays.
const FLOOD_PER_TRICKLE_MAX: u64 = 8 * FLOODS as u64 * 8 * 8;

/// In a child: sends without regard for credits, as fast as the other end reads.
pub fn flooder() {
    let mut end = End::start(client_config());
    let to = Endpoint(argument());
    let conns: Vec<_> = (0..FLOODS).map(|_| end.net.connect(&to, now())).collect();
    settle("flooder connected", &mut [&mut end], |ends| ends[0].connected().len() == FLOODS);
    say("connected");
    let payload = end.payload(FLOOD_BYTES);
    let mut ahead = vec![0u64; FLOODS];
    let mut id = 0;
    while end.ends() == 0 {
        for (conn, ahead) in conns.iter().zip(&mut ahead) {
            while *ahead < FLOOD_AHEAD {
                *ahead += 1;
                id += 1;
                end.send(*conn, id, false, Some(payload.clone()));
            }
        }
        end.turn();
        // Each answer makes room for one more.
        for (conn, _) in end.received() {
            let index = conns.iter().position(|c| *c == conn).unwrap();
            ahead[index] -= 1;
        }
    }
}

struct Served {
    flood: u64,
    trickle: u64,
    most_held: usize,
}

/// Serves a flooding process and a trickle until the trickle is done. Requests are held, with their
/// buffers, until `held_max` of them wait, or until the pool has none left and so nothing comes.
fn serve(pool_bytes: usize, trickle_bytes: usize, held_max: usize) -> Served {
    let mut server = End::start(TcpConfig { pool: Pool::new(pool_bytes), ..server_config() });
    let mut client = End::start(client_config());
    let (out, inn) = pair(&mut client, &mut server);
    let mut child = Process::start("flooder", &server.endpoint().0);
    settle("flood", &mut [&mut server], |ends| ends[0].connected().len() == 1 + FLOODS);
    assert_eq!(child.hear(), "connected");
    let mut held = VecDeque::new();
    let mut served = Served { flood: 0, trickle: 0, most_held: 0 };
    settle("flood begins", &mut [&mut server], |ends| ends[0].events.len() > 1 + FLOODS);
    let (mut asked, start) = (0, now());
    while served.trickle < TRICKLE || served.flood < FLOOD_MIN {
        if asked == served.trickle {
            asked += 1;
            let payload = (trickle_bytes > 0).then(|| client.payload(trickle_bytes));
            client.send(out, asked, false, payload);
        }
        client.turn();
        let idle = !server.turn();
        held.extend(server.received());
        served.most_held = served.most_held.max(held.len());
        let starved = idle && server.pool.alloc(FLOOD_BYTES).is_none();
        while held.len() > held_max || starved && !held.is_empty() {
            let (conn, frame) = held.pop_front().expect("not empty");
            served.flood += u64::from(conn != inn);
            server.send(conn, frame.id, true, None);
        }
        served.trickle += client.received().len() as u64;
        let late = now().since(start) > Duration::from_secs(100);
        assert!(!late, "{} of the trickle served for ever", served.trickle);
        let flood = served.flood;
        let bound = (served.trickle + 100) * FLOOD_PER_TRICKLE_MAX;
        assert!(flood < bound, "{flood} of the flood, {} of the trickle", served.trickle);
    }
    assert_eq!((server.ends(), client.ends()), (0, 0));
    served
}

#[test]
fn a_trickle_is_served_beside_a_flood() {
    serve(64 << 20, 0, 0);
}

#[test]
fn a_trickle_gets_its_buffers_beside_a_flood_that_takes_all() {
    // 4 MiB hold 64 frames; the server keeps as many as it can get, so that everybody waits for
    // buffers all the time.
    let served = serve(4 << 20, 4096, 1000);
    assert!(served.most_held > 32, "nobody had to wait: {}", served.most_held);
}
