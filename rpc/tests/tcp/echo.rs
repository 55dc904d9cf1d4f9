use super::*;

const SIZES: [usize; 9] = [0, 1, 4095, 4096, 4097, 65_536, 65_537, 300_000, 1 << 20];

/// Answers everything that arrived, with the payload in the buffer that it came in.
fn echo(server: &mut End, now: Time) -> usize {
    let received = server.received();
    let count = received.len();
    for (conn, frame) in received {
        assert!(!frame.response);
        let Incoming { kind, id, deadline_ms, body, payload, .. } = frame;
        let payload = payload.into_iter().collect();
        let frame = Outgoing { kind, response: true, id, deadline_ms, body, payload };
        server.tcp.send(conn, frame, now);
    }
    count
}

#[test]
fn both_ends_learn_of_each_other() {
    let (mut server, mut client) = (End::server(), End::client());
    let (out, inn) = pair(&mut client, &mut server, Time(1));
    match &client.events[..] {
        [Event::Connected { conn, peer, inbound: false }] => {
            assert_eq!((*conn, peer), (out, &server_hello()));
        }
        other => panic!("{other:?}"),
    }
    match &server.events[..] {
        [Event::Connected { conn, peer, inbound: true }] => {
            assert_eq!((*conn, peer), (inn, &client_hello()));
        }
        other => panic!("{other:?}"),
    }
    assert!(client.tcp.peer_addr(out).is_some());
}

#[test]
fn every_size_comes_back_whole() {
    let (mut server, mut client) = (End::server(), End::client());
    let now = Time(1);
    let (out, _) = pair(&mut client, &mut server, now);
    for round in 0..3 {
        for (i, &size) in SIZES.iter().enumerate() {
            let id = (round * 100 + i) as u64;
            client.send(out, id, false, size, now);
            let mut back = Vec::new();
            settle(&mut [&mut client, &mut server], now, |ends| {
                echo(ends[1], now);
                back.extend(ends[0].received());
                !back.is_empty()
            });
            assert_eq!((back.len(), back[0].1.id), (1, id));
            assert!(back[0].1.response);
            check(&back[0].1, size);
        }
    }
    drop(server.received());
    assert_eq!(server.pool.stats().used_bytes, 0, "buffers go back to the pool");
    assert!(server.tcp.stats().copied_bytes < server.tcp.stats().bytes_received / 4);
}

#[test]
fn many_frames_in_flight_both_ways_keep_their_order() {
    let (mut server, mut client) = (End::server(), End::client());
    let now = Time(1);
    let (out, inn) = pair(&mut client, &mut server, now);
    let size_of = |id: u64| SIZES[id as usize % 7];
    for id in 0..200 {
        client.send(out, id, false, size_of(id), now);
        server.send(inn, id, false, size_of(id), now);
    }
    let (mut at_client, mut at_server) = (0, 0);
    settle(&mut [&mut client, &mut server], now, |ends| {
        for (end, next) in ends.iter_mut().zip([&mut at_client, &mut at_server]) {
            for (_, frame) in end.received() {
                assert_eq!(frame.id, *next);
                check(&frame, size_of(frame.id));
                *next += 1;
            }
        }
        (at_client, at_server) == (200, 200)
    });
    let stats = client.tcp.stats();
    assert!(stats.writes < stats.frames_sent, "many frames go in one write");
}

#[test]
fn many_connections_are_served_side_by_side() {
    let mut server = End::server();
    let mut client = End::client();
    let now = Time(1);
    let conns: Vec<_> = (0..200).map(|_| client.tcp.connect(&server.endpoint(), now)).collect();
    settle(&mut [&mut client, &mut server], now, |ends| {
        ends.iter().all(|end| end.connected().len() == 200)
    });
    for (i, &conn) in conns.iter().enumerate() {
        client.send(conn, i as u64, false, 5000, now);
    }
    let mut back = Vec::new();
    settle(&mut [&mut client, &mut server], now, |ends| {
        echo(ends[1], now);
        back.extend(ends[0].received());
        back.len() == 200
    });
    for (conn, frame) in back {
        assert_eq!(conns[frame.id as usize], conn, "answers come over their own connection");
        check(&frame, 5000);
    }
    assert_eq!((client.tcp.connections(), server.tcp.connections()), (200, 200));
}

#[test]
fn one_busy_connection_does_not_starve_another() {
    let (mut server, mut client) = (End::server(), End::client());
    let now = Time(1);
    let (busy, _) = pair(&mut client, &mut server, now);
    let (quiet, _) = pair(&mut client, &mut server, now);
    for id in 0..64 {
        client.send(busy, id, false, 4096, now);
    }
    let mut answered = 0;
    settle(&mut [&mut client, &mut server], now, |ends| {
        echo(ends[1], now);
        // Every answer on the busy connection is followed by the next request.
        for (conn, frame) in ends[0].received() {
            if conn == quiet {
                return true;
            }
            answered += 1;
            ends[0].send(busy, frame.id, false, 4096, now);
            if answered == 500 {
                ends[0].send(quiet, 1, false, 100, now);
            }
            assert!(answered < 20_000, "the quiet one waits for ever");
        }
        false
    });
}

#[test]
fn the_wake_descriptor_tells_of_everything() {
    let (mut server, mut client) = (End::server(), End::client());
    let now = Time(1);
    let out = client.tcp.connect(&server.endpoint(), now);
    for _ in 0..3 {
        assert!(readable(&client) || client.connected().contains(&out), "connected, HELLO");
        client.poll(now);
        client.tcp.flush(now);
        if !client.connected().is_empty() {
            break;
        }
        assert!(readable(&server), "a connection, HELLO");
        while server.poll(now) {}
    }
    while server.poll(now) || client.poll(now) {}
    for id in 0..50 {
        client.send(out, id, false, 4096, now);
        client.tcp.flush(now);
        assert!(readable(&server), "a request");
        while server.received().is_empty() {
            server.poll(now);
        }
    }
    client.tcp.close(out, CloseReason::Local);
    assert_eq!(client.tcp.next_deadline(), Time(0), "an event waits inside");
    assert!(readable(&server), "GOODBYE");
}
