//! Ten thousand connections come and go, well and badly, without a trace in memory, descriptors or
//! tables.

use std::io::{Read, Write};
use std::net::TcpStream;

use ogive_rpc::limits::LINGER_FOR;

use super::process::{Process, descriptors, memory, say};
use super::*;

const CYCLES: usize = 10_000;
/// After these everything that grows once has grown.
const WARM_UP: usize = 2000;
/// What the allocator may keep more; a leak of 1 KiB a connection would be twice as much.
const GROWTH_MAX: u64 = 4 << 20;
/// Several addresses, for the ports of one rest for a minute after each connection.
const ADDRESSES: usize = 8;

fn endpoint(server: &End, i: usize) -> Endpoint {
    server.net.local_endpoints()[i % ADDRESSES].clone()
}

/// One connection of one kind or another, to its end at both sides. The greatest index in a table.
fn cycle(i: usize, server: &mut End, client: &mut End) -> u32 {
    let to = endpoint(server, i);
    if i % 5 == 4 {
        stranger(i, server, &to);
        return 0;
    }
    let (out, accepted) = (client.net.connect(&to, now()), server.net.stats().tcp.accepted);
    if i % 5 == 3 {
        // Given up before it is made.
        client.net.close(out, CloseReason::Local);
        settle("given up", &mut [client, server], |ends| {
            ends[0].ends() == 1
                && ends[1].net.stats().tcp.accepted > accepted
                && ends[1].net.connections() == 0
        });
    } else {
        settle("connected", &mut [client, server], |ends| {
            ends.iter().all(|end| end.connected().len() == 1)
        });
        let inn = server.connected()[0];
        match i % 5 {
            0 => client.net.close(out, CloseReason::Local),
            1 => server.net.close(inn, CloseReason::Local),
            _ => server.net.close(inn, CloseReason::Protocol("no".into())),
        }
        settle("closed", &mut [client, server], |ends| ends.iter().all(|end| end.ends() == 1));
    }
    client.events.clear();
    server.events.clear();
    out.0 as u32
}

/// A socket that never becomes a connection: it leaves at once, or is thrown out.
fn stranger(i: usize, server: &mut End, to: &Endpoint) {
    let before = server.net.stats().tcp.accepted;
    let mut raw = TcpStream::connect(to.addr().unwrap()).unwrap();
    let nonsense = i.is_multiple_of(2);
    if nonsense {
        raw.write_all(&[0xff; 64]).unwrap();
        settle("thrown out", &mut [server], |ends| {
            ends[0].net.stats().tcp.accepted > before && ends[0].net.connections() == 0
        });
        // GOODBYE, and the end.
        raw.read_to_end(&mut Vec::new()).unwrap();
    }
    drop(raw);
    settle("gone", &mut [server], |ends| {
        ends[0].net.stats().tcp.accepted > before && ends[0].net.connections() == 0
    });
    assert!(server.events.is_empty(), "a stranger is not reported");
}

/// Lets the sockets go that linger after GOODBYE.
fn rest(server: &mut End, client: &mut End) {
    let start = now();
    settle("rested", &mut [server, client], |_| now().since(start) > 2 * LINGER_FOR);
}

/// In a child, whose memory is measured.
pub fn cycles() {
    let host = |i| Endpoint(format!("tcp:127.0.0.{}:0", i + 1));
    let listen = (0..ADDRESSES).map(host).collect();
    let mut server = End::start(TcpConfig { listen, ..server_config() });
    let mut client = End::start(client_config());
    let me = std::process::id();
    let (mut fds, mut warm, mut index_max) = (0, 0, 0);
    for i in 0..CYCLES {
        if i == WARM_UP {
            rest(&mut server, &mut client);
            (fds, warm) = (descriptors(me), memory(me, "VmRSS"));
        }
        index_max = index_max.max(cycle(i, &mut server, &mut client));
    }
    rest(&mut server, &mut client);
    let (open, after) = (descriptors(me), memory(me, "VmRSS"));
    assert!(open <= fds, "{open} descriptors after, {fds} when warm");
    assert_eq!((server.net.connections(), client.net.connections()), (0, 0));
    assert_eq!(server.pool.stats().used_bytes + client.pool.stats().used_bytes, 0);
    assert!(after < warm + GROWTH_MAX, "{after} bytes after, {warm} when warm");
    assert!(index_max < 64, "one connection at a time, {index_max} places in the table");
    say(format_args!("{} KiB more after {CYCLES} cycles", after.saturating_sub(warm) >> 10));
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let mut child = Process::start("cycles", "");
    println!("{}", child.hear());
    child.finish();
}
