use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ogive_rpc::frame::{Header, KIND_HELLO};
use ogive_rpc::limits::{
    READ_BYTES_PER_POLL, SCRATCH_BYTES, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_BYTES_SOFT,
};

use super::*;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_dead_peer_is_reported_once_and_last() {
    let (mut server, mut client) = (End::server(), End::client());
    let (out, inn) = pair(&mut client, &mut server, Time(1));
    client.send(out, 1, false, 100, Time(1));
    client.tcp.flush(Time(1));
    drop(client);
    settle(&mut [&mut server], Time(1), |ends| ends[0].closed().is_some());
    assert_eq!(server.closed(), Some((inn, CloseReason::Peer)));
    assert!(matches!(server.events.last(), Some(Event::Closed { .. })));
    assert_eq!(server.received().len(), 1, "what it had sent is not lost");
    server.events.clear();
    server.send(inn, 2, true, 100, Time(1));
    server.tcp.close(inn, CloseReason::Local);
    for _ in 0..100 {
        server.poll(Time(1));
    }
    assert!(server.events.is_empty());
    assert_eq!(server.tcp.connections(), 0);
}

#[test]
fn closing_delivers_what_was_queued_and_says_goodbye() {
    let (mut server, mut client) = (End::server(), End::client());
    let (out, inn) = pair(&mut client, &mut server, Time(1));
    client.send(out, 1, false, 4096, Time(1));
    client.tcp.close(out, CloseReason::Local);
    settle(&mut [&mut client, &mut server], Time(1), |ends| {
        ends.iter().all(|end| end.closed().is_some())
    });
    assert_eq!(client.closed(), Some((out, CloseReason::Local)));
    assert_eq!(server.closed(), Some((inn, CloseReason::Peer)));
    check(&server.received()[0].1, 4096);
}

#[test]
fn a_violation_found_above_is_told_to_the_peer() {
    let (mut server, mut client) = (End::server(), End::client());
    let (_, inn) = pair(&mut client, &mut server, Time(1));
    server.tcp.close(inn, CloseReason::Protocol("over credit".into()));
    settle(&mut [&mut client, &mut server], Time(1), |ends| ends[0].closed().is_some());
    let (_, reason) = client.closed().unwrap();
    assert_eq!(reason, CloseReason::Protocol("says the peer: over credit".into()));
}

#[test]
fn an_exhausted_pool_makes_peers_wait_and_loses_nothing() {
    let pool = Pool::new(4 << 20);
    let mut server = End::start(TcpConfig {
        listen: vec![loopback()],
        ..TcpConfig::new(server_hello(), pool.clone())
    });
    let mut client = End::client();
    let conns: Vec<_> = (0..3).map(|_| pair(&mut client, &mut server, Time(1)).0).collect();
    let hog = pool.alloc(4 << 20).unwrap();
    let size_of = |id: u64| if id.is_multiple_of(7) { 1 << 20 } else { 5000 };
    for id in 0..60 {
        client.send(conns[id as usize % 3], id, false, size_of(id), Time(1));
    }
    settle(&mut [&mut client, &mut server], Time(1), |ends| ends[1].tcp.stats().pauses == 3);
    assert!(server.received().is_empty());
    // However long it lasts, it is not the peers' fault. They send PING, and are not read.
    for s in 1..30 {
        client.poll(seconds(s));
        server.poll(seconds(s));
        assert!(server.tcp.next_deadline() <= seconds(s) + Duration::from_millis(1));
    }
    assert!(server.closed().is_none() && client.closed().is_none());
    drop(hog);
    let mut got = vec![0; 3];
    settle(&mut [&mut client, &mut server], seconds(30), |ends| {
        for (_, frame) in ends[1].received() {
            check(&frame, size_of(frame.id));
            let lane = frame.id as usize % 3;
            assert_eq!(frame.id as usize / 3, got[lane], "in order");
            got[lane] += 1;
        }
        got == [20, 20, 20]
    });
    assert_eq!(pool.stats().used_bytes, 0);
}

#[test]
fn a_large_payload_is_not_overtaken_for_ever_by_small_ones() {
    let pool = Pool::new(4 << 20);
    let mut server = End::start(TcpConfig {
        listen: vec![loopback()],
        ..TcpConfig::new(server_hello(), pool.clone())
    });
    let mut client = End::client();
    let (large, _) = pair(&mut client, &mut server, Time(1));
    let (small, _) = pair(&mut client, &mut server, Time(1));
    let (third, _) = pair(&mut client, &mut server, Time(1));
    let mut held: Vec<_> = std::iter::from_fn(|| pool.alloc(64 << 10)).collect();
    client.send(large, 0, false, 1 << 20, Time(1));
    settle(&mut [&mut client, &mut server], Time(1), |ends| ends[1].tcp.stats().pauses == 1);
    for id in 1..40 {
        client.send(small, id, false, 64 << 10, Time(1));
    }
    settle(&mut [&mut client, &mut server], Time(1), |ends| ends[1].tcp.stats().pauses == 2);
    let mut kept = Vec::new();
    let mut late = 100..;
    settle(&mut [&mut client, &mut server], Time(1), |ends| {
        // What is given back would just do for a small one, each time: for those that wait behind
        // the large one, and for those that come only now.
        held.pop();
        ends[0].send(third, late.next().unwrap(), false, 64 << 10, Time(1));
        kept.extend(ends[1].received());
        assert!(kept.is_empty() || held.len() <= 48, "the large one came first");
        kept.iter().any(|(_, frame)| frame.id == 0)
    });
}

#[test]
fn one_look_at_a_connection_takes_no_more_than_its_share() {
    let (mut server, mut client) = (End::server(), End::client());
    let (out, _) = pair(&mut client, &mut server, Time(1));
    // Far more than one look may take, and as much as the kernel holds waits before each look.
    let count = 8000;
    for id in 0..count {
        client.send(out, id, false, 4096, Time(1));
    }
    let (mut most, mut got, mut before) = (0, 0, server.tcp.stats().bytes_received);
    settle(&mut [&mut client, &mut server], Time(1), |ends| {
        let after = ends[1].tcp.stats().bytes_received;
        most = most.max(std::mem::replace(&mut before, after).abs_diff(after));
        got += ends[1].received().len() as u64;
        (0..20).for_each(|_| ends[0].tcp.flush(Time(1)));
        got == count
    });
    // The last read of a look begins within the share, and fills a buffer and the scratch at most.
    let bound = READ_BYTES_PER_POLL + 4096 + SCRATCH_BYTES;
    assert!(most <= bound as u64, "{most} bytes in one look");
    assert!(most > bound as u64 / 2, "too little waited to tell: {most}");
}

#[test]
fn two_thousand_connections_come_and_go_without_a_trace() {
    let (mut server, mut client) = (End::server(), End::client());
    let mut now = Time(1);
    let cycle = |server: &mut End, client: &mut End, now: Time, from_client: bool| {
        let (out, inn) = pair(client, server, now);
        match from_client {
            true => client.tcp.close(out, CloseReason::Local),
            false => server.tcp.close(inn, CloseReason::Local),
        }
        settle(&mut [client, server], now, |ends| ends.iter().all(|end| end.closed().is_some()));
        client.events.clear();
        server.events.clear();
        (out, inn)
    };
    let before = descriptors();
    let mut last = (ConnId(0), ConnId(0));
    for i in 0..2000 {
        now = now + Duration::from_millis(20);
        let ids = cycle(&mut server, &mut client, now, i % 2 == 0);
        assert!(ids.0 != last.0 && ids.1 != last.1, "ids are not used again");
        last = ids;
    }
    for _ in 0..3 {
        now = now + Duration::from_secs(2);
        server.poll(now);
        client.poll(now);
    }
    assert_eq!((server.tcp.connections(), client.tcp.connections()), (0, 0));
    // Tests run side by side in this process: others may hold some, but not thousands.
    assert!(descriptors() < before + 1000, "{} then, {} now", before, descriptors());
}

#[test]
fn idle_peers_stay_connected_by_ping_alone() {
    let (mut server, mut client) = (End::server(), End::client());
    pair(&mut client, &mut server, Time(1));
    for tenth in 0..200 {
        let now = Time(1 + tenth * 100_000);
        client.poll(now);
        server.poll(now);
        // Whatever was sent arrives before the next step.
        settle(&mut [&mut client, &mut server], now, |ends| {
            let [a, b] = [ends[0].tcp.stats(), ends[1].tcp.stats()];
            (a.frames_sent, b.frames_sent) == (b.frames_received, a.frames_received)
        });
    }
    assert!(client.closed().is_none() && server.closed().is_none());
    let pings = client.tcp.stats().frames_sent - 1;
    assert!((15..=25).contains(&pings), "{pings} in 20 s");
}

#[test]
fn a_silent_peer_is_found() {
    let (mut server, mut client) = (End::server(), End::client());
    let (_, inn) = pair(&mut client, &mut server, seconds(1));
    // The client is not polled any more, as if its process were stopped.
    assert!(server.tcp.next_deadline() <= seconds(3));
    for _ in 0..10 {
        server.poll(seconds(3));
    }
    assert!(server.closed().is_none());
    settle(&mut [&mut server], seconds(6), |ends| ends[0].closed().is_some());
    let (conn, reason) = server.closed().unwrap();
    assert_eq!((conn, reason), (inn, CloseReason::Silent(5000)));
}

#[test]
fn whoever_slept_reads_before_it_judges() {
    let (mut server, mut client) = (End::server(), End::client());
    let (out, _) = pair(&mut client, &mut server, seconds(1));
    client.send(out, 1, false, 100, seconds(1));
    client.tcp.flush(seconds(1));
    assert!(readable(&server), "the request arrives");
    server.poll(seconds(100));
    assert!(server.closed().is_none(), "the request was there all the time");
    assert_eq!(server.received().len(), 1);
}

/// A peer that says HELLO and then reads nothing.
fn deaf(client: &mut End) -> (ConnId, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let conn = client.tcp.connect(&Endpoint::tcp(listener.local_addr().unwrap()), seconds(1));
    let (mut raw, _) = listener.accept().unwrap();
    let body = Greeting { hello: server_hello(), offers: Vec::new() }.encode();
    let header = Header::new(KIND_HELLO, &body, 0);
    raw.write_all(&[header.encode().as_slice(), &body].concat()).unwrap();
    settle(&mut [client], seconds(1), |ends| !ends[0].connected().is_empty());
    (conn, raw)
}

#[test]
fn a_peer_that_stops_reading_is_stalled_after_a_while() {
    let mut client = End::client();
    let (conn, mut raw) = deaf(&mut client);
    let payload = client.pool.alloc_zeroed(1 << 20).unwrap().freeze();
    let send = |client: &mut End, now| {
        let payload = vec![payload.clone()];
        let (kind, response, deadline_ms, body) = (KIND, false, 0, Vec::new());
        let frame = Outgoing { kind, response, id: 1, deadline_ms, body, payload };
        client.tcp.send(conn, frame, now);
    };
    while client.tcp.queued_bytes(conn) <= SEND_QUEUE_BYTES_SOFT {
        assert!(client.closed().is_none());
        send(&mut client, seconds(1));
    }
    client.poll(seconds(2));
    assert!(client.closed().is_none(), "it may recover");
    // It speaks, so it is not silent; but it does not read.
    let ping = Header::new(ogive_rpc::frame::KIND_PING, b"", 0).encode();
    raw.write_all(&ping).unwrap();
    settle(&mut [&mut client], seconds(4), |ends| ends[0].closed().is_some());
    let (_, reason) = client.closed().unwrap();
    assert!(matches!(reason, CloseReason::Stalled(n) if n > SEND_QUEUE_BYTES_SOFT), "{reason:?}");
    assert!(raw.read_to_end(&mut Vec::new()).is_err(), "reset, so that the kernel keeps nothing");
}

#[test]
fn a_queue_without_bounds_is_cut_at_once() {
    let mut client = End::client();
    let (conn, _raw) = deaf(&mut client);
    let payload = client.pool.alloc_zeroed(1 << 20).unwrap().freeze();
    for _ in 0..SEND_QUEUE_BYTES_MAX >> 20 << 1 {
        let payload = vec![payload.clone()];
        let (kind, response, deadline_ms, body) = (KIND, false, 0, Vec::new());
        let frame = Outgoing { kind, response, id: 1, deadline_ms, body, payload };
        client.tcp.send(conn, frame, seconds(1));
    }
    client.poll(seconds(1));
    assert!(matches!(client.closed(), Some((_, CloseReason::Stalled(_)))));
}

#[test]
fn a_slow_reader_gets_everything() {
    let (mut server, mut client) = (End::server(), End::client());
    let (out, _) = pair(&mut client, &mut server, Time(1));
    let count = 40;
    for id in 0..count {
        client.send(out, id, false, 1 << 20, Time(1));
    }
    client.tcp.flush(Time(1));
    assert!(client.tcp.queued_bytes(out) > 0, "more than the kernel takes");
    let mut next = 0;
    settle(&mut [&mut client, &mut server], Time(1), |ends| {
        for (_, frame) in ends[1].received() {
            assert_eq!(frame.id, next);
            check(&frame, 1 << 20);
            next += 1;
        }
        next == count
    });
    assert_eq!(client.tcp.queued_bytes(out), 0);
}
