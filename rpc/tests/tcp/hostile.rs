use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use ogive_rpc::frame::{
    HEADER_BYTES, Header, KIND_GOODBYE, KIND_HELLO, KIND_PATH, KIND_PING, KIND_UPPER_MIN, VERSION,
};

use ogive_rpc::limits::LINGERING_MAX;

use super::*;

/// A server with one honest client, and a raw socket to do harm with.
struct Stage {
    server: End,
    client: End,
    honest: (ConnId, ConnId),
    raw: TcpStream,
}

impl Stage {
    fn new() -> Stage {
        let (mut server, mut client) = (End::server(), End::client());
        let honest = pair(&mut client, &mut server, seconds(1));
        server.events.clear();
        let raw = TcpStream::connect(server.endpoint().tcp_addr().unwrap()).unwrap();
        raw.set_nodelay(true).unwrap();
        raw.set_nonblocking(true).unwrap();
        Stage { server, client, honest, raw }
    }

    /// Says HELLO properly first.
    fn greeted() -> Stage {
        let mut stage = Stage::new();
        stage.raw.write_all(&control(KIND_HELLO, &greeting())).unwrap();
        settle(&mut [&mut stage.server], seconds(1), |ends| ends[0].connected().len() == 1);
        stage
    }

    /// Runs until the server has closed the raw socket; the code and text of its GOODBYE.
    fn until_closed(&mut self, now: Time) -> (u8, String) {
        let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
        let raw = &mut self.raw;
        settle(&mut [&mut self.server, &mut self.client], now, |_| match raw.read(&mut piece) {
            Ok(0) => true,
            Ok(n) => {
                heard.extend_from_slice(&piece[..n]);
                false
            }
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        });
        goodbye_in(&heard)
    }

    /// Nothing of it has touched the honest client, in either direction.
    fn honest_is_unharmed(&mut self, now: Time) {
        let (out, inn) = self.honest;
        assert!(self.client.closed().is_none() && self.server.tcp.peer_addr(inn).is_some());
        self.client.send(out, 9, false, 10_000, now);
        self.server.send(inn, 9, true, 10_000, now);
        let mut got = 0;
        settle(&mut [&mut self.server, &mut self.client], now, |ends| {
            for end in ends.iter_mut() {
                for (_, frame) in end.received() {
                    check(&frame, 10_000);
                    got += 1;
                }
            }
            got == 2
        });
        assert_eq!((self.server.tcp.connections(), self.client.tcp.connections()), (1, 1));
    }

    /// Sends `bytes`, and expects to be thrown out with `words` in the reason.
    fn thrown_out(mut self, bytes: &[u8], words: &str) {
        let _ = self.raw.write_all(bytes);
        let (_, text) = self.until_closed(seconds(1));
        assert!(text.contains(words), "`{text}` does not say `{words}`");
        self.honest_is_unharmed(seconds(1));
        assert_eq!(self.server.tcp.stats().refused, 1);
    }
}

/// The last frame in what was heard, which is a GOODBYE.
fn goodbye_in(mut heard: &[u8]) -> (u8, String) {
    loop {
        let header: &[u8; HEADER_BYTES] = heard[..HEADER_BYTES].try_into().unwrap();
        let header = Header::decode(header).unwrap();
        let end = HEADER_BYTES + header.body_bytes as usize;
        let body = &heard[HEADER_BYTES..end];
        if header.kind == KIND_GOODBYE {
            assert_eq!(heard.len(), end, "nothing follows GOODBYE");
            return (body[0], String::from_utf8(body[1..].to_vec()).unwrap());
        }
        heard = &heard[end..];
    }
}

fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    [Header::new(kind, body, 0).encode().as_slice(), body].concat()
}

/// A header with lengths or kinds that `Header::new` does not allow, and a good checksum.
fn forged(kind: u8, body_bytes: u32, payload_bytes: u32) -> Vec<u8> {
    let header = Header { body_bytes, payload_bytes, ..Header::new(kind, b"", 0) };
    header.encode().to_vec()
}

#[test]
fn wrong_magic() {
    Stage::new().thrown_out(b"GET / HTTP/1.1\r\n\r\n", "OGV1");
    Stage::greeted().thrown_out(&[0xff; 4096], "OGV1");
}

#[test]
fn unknown_version() {
    let mut bytes = control(KIND_HELLO, &greeting());
    bytes[4] = 2;
    let mut stage = Stage::new();
    stage.raw.write_all(&bytes).unwrap();
    let (code, text) = stage.until_closed(seconds(1));
    assert_eq!(code, 1, "refused");
    assert!(text.contains("version 2") && text.contains(&format!("version {VERSION}")), "{text}");
    stage.honest_is_unharmed(seconds(1));
}

#[test]
fn huge_lengths() {
    Stage::new().thrown_out(&forged(KIND_HELLO, u32::MAX, 0), "body of 4294967295 bytes");
    Stage::new().thrown_out(&forged(KIND_HELLO, 5000, 0), "at most 4096");
    Stage::greeted().thrown_out(&forged(KIND, u32::MAX, 0), "body of 4294967295 bytes");
    Stage::greeted().thrown_out(&forged(KIND, 0, u32::MAX), "payload of 4294967295 bytes");
    Stage::greeted().thrown_out(&forged(KIND, 0, (1 << 20) + 1), "at most 1048576");
}

#[test]
fn bad_checksums() {
    let mut header = forged(KIND, 0, 0);
    header[8] ^= 1;
    Stage::greeted().thrown_out(&header, "header fails");
    let mut body = control(KIND, b"body");
    *body.last_mut().unwrap() ^= 1;
    Stage::greeted().thrown_out(&body, "body fails");
}

#[test]
fn unknown_kinds_and_frames_out_of_turn() {
    Stage::new().thrown_out(&control(KIND_UPPER_MIN - 1, b""), "unknown kind 15");
    Stage::greeted().thrown_out(&control(4, b""), "unknown kind 4");
    Stage::new().thrown_out(&control(KIND_PATH, b""), "kind 3 out of turn");
    // No paths were offered.
    Stage::greeted().thrown_out(&control(KIND_PATH, &[3, 2]), "kind 3 out of turn");
    Stage::new().thrown_out(&control(KIND, b""), "out of turn");
    Stage::new().thrown_out(&control(KIND_PING, b""), "out of turn");
    let hello = control(KIND_HELLO, &greeting());
    Stage::greeted().thrown_out(&hello, "out of turn");
    Stage::new().thrown_out(&[hello.clone(), hello].concat(), "out of turn");
    Stage::new().thrown_out(&control(KIND_HELLO, b"nonsense"), "HELLO");
}

#[test]
fn truncated_frames() {
    let whole = [forged(KIND, 0, 4096), vec![7; 4096]].concat();
    for cut in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, whole.len() - 1] {
        let mut stage = Stage::greeted();
        stage.raw.write_all(&whole[..cut]).unwrap();
        stage.raw.shutdown(Shutdown::Write).unwrap();
        settle(&mut [&mut stage.server], seconds(1), |ends| ends[0].closed().is_some());
        assert_eq!(stage.server.closed().unwrap().1, CloseReason::Peer);
        assert!(stage.server.received().is_empty(), "half a frame is none");
        assert_eq!(stage.server.pool.stats().used_bytes, 0);
        stage.honest_is_unharmed(seconds(1));
    }
}

#[test]
fn slow_loris() {
    let hello = control(KIND_HELLO, &greeting());
    let mut stage = Stage::new();
    for (i, byte) in hello[..20].iter().enumerate() {
        stage.raw.write_all(&[*byte]).unwrap();
        stage.server.poll(Time(1_000_000 + i as u64 * 1000));
    }
    let (_, text) = stage.until_closed(seconds(4));
    assert!(text.contains("no HELLO"), "{text}");
    // It does not help to say HELLO and be slow after it.
    let mut stage = Stage::greeted();
    let frame = control(KIND, &[7; 100]);
    let mut now = seconds(1);
    for byte in &frame[..14] {
        stage.raw.write_all(&[*byte]).unwrap();
        let before = stage.server.tcp.stats().bytes_received;
        settle(&mut [&mut stage.server, &mut stage.client], now, |ends| {
            ends[0].tcp.stats().bytes_received > before
        });
        now = now + Duration::from_millis(900);
        if stage.server.closed().is_some() {
            break;
        }
    }
    let (_, text) = stage.until_closed(now);
    assert!(text.contains("incomplete"), "{text}");
}

#[test]
fn a_crowd_that_says_nothing_makes_room_for_those_who_do() {
    let mut server = End::start(TcpConfig {
        listen: vec![loopback()],
        ungreeted_max: 4,
        ..TcpConfig::new(server_hello(), Pool::new(4 << 20))
    });
    let mut client = End::client();
    let addr = server.endpoint().tcp_addr().unwrap();
    let crowd: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    settle(&mut [&mut server], Time(1), |ends| ends[0].tcp.stats().accepted == 20);
    assert_eq!(server.tcp.connections(), 4);
    pair(&mut client, &mut server, Time(1));
    drop(crowd);
}

#[test]
fn no_more_connections_than_allowed() {
    let mut server = End::start(TcpConfig {
        listen: vec![loopback()],
        connections_max: 2,
        ..TcpConfig::new(server_hello(), Pool::new(4 << 20))
    });
    let mut client = End::client();
    pair(&mut client, &mut server, Time(1));
    pair(&mut client, &mut server, Time(1));
    let third = client.tcp.connect(&server.endpoint(), Time(1));
    settle(&mut [&mut client, &mut server], Time(1), |ends| ends[0].closed().is_some());
    let (conn, reason) = client.closed().unwrap();
    assert_eq!(conn, third);
    assert!(matches!(&reason, CloseReason::Refused(why) if why.contains("2 connections")));
    assert_eq!(server.tcp.connections(), 2);
}

#[test]
fn strangers_who_were_told_to_go_and_stay_take_no_place_for_long() {
    let connections_max = LINGERING_MAX + 2;
    let mut server = End::start(TcpConfig {
        listen: vec![loopback()],
        connections_max,
        ..TcpConfig::new(server_hello(), Pool::new(4 << 20))
    });
    let mut client = End::client();
    let to = server.endpoint().tcp_addr().unwrap();
    let mut strangers = Vec::new();
    for n in 1..=2 * connections_max as u64 {
        let mut raw = TcpStream::connect(to).unwrap();
        raw.write_all(&[0xff; 64]).unwrap();
        // It neither reads what it is told, nor closes its end.
        strangers.push(raw);
        settle(&mut [&mut server], seconds(1), |ends| ends[0].tcp.stats().refused == n);
    }
    // In the same moment there is a place for two.
    for _ in 0..2 {
        pair(&mut client, &mut server, seconds(1));
    }
    for _ in 0..10 {
        server.poll(seconds(3));
    }
    while server.tcp.connections() < connections_max {
        pair(&mut client, &mut server, seconds(3));
    }
}
