//! What goes wrong in a lane, before and after it is used.

use super::*;

fn lost() -> Faults {
    Faults { lose_probes: true, ..Faults::default() }
}

fn unattachable() -> Faults {
    Faults { attach: Some("no route to the device".into()), ..Faults::default() }
}

impl Stage {
    /// Connects, and lets the time run until both ends report it. How long that took.
    fn pair_in_time(&mut self) -> (ConnId, ConnId, Duration) {
        let (ours, start, before) = (self.connect(), self.now, self.server.connected().len());
        for _ in 0..80 {
            for _ in 0..50 {
                for end in [&mut self.client, &mut self.server] {
                    end.net.poll(self.now, &mut end.events);
                    end.net.flush(self.now);
                }
                if self.client.connected().contains(&ours) && self.server.connected().len() > before
                {
                    let theirs = *self.server.connected().last().unwrap();
                    return (ours, theirs, self.now.since(start));
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            let due = self.client.net.next_deadline().min(self.server.net.next_deadline());
            self.now = due.max(self.now + Duration::from_millis(1));
        }
        panic!("client {:?}, server {:?}", self.client.events, self.server.events);
    }
}

#[test]
fn a_probe_that_is_lost_on_the_way_there_or_back() {
    for there in [true, false] {
        let mut stage = Stage::full();
        let loser = if there { &stage.server } else { &stage.client };
        loser.faults(Path::Rdma, lost());
        let (ours, theirs, waited) = stage.pair_in_time();
        assert!(waited >= Duration::from_secs(3), "{waited:?}");
        assert_eq!(stage.client.net.path(ours), Some(Path::Shm));
        assert_eq!(stage.server.net.path(theirs), Some(Path::Shm));
        let why = "probe not answered within 3000 ms";
        assert_eq!(stage.client.why_not(ours, Path::Rdma), why);
        assert_eq!(stage.server.why_not(theirs, Path::Rdma), format!("peer: {why}"));
        stage.exchange(ours, theirs);
        assert_eq!((stage.client.in_lanes(), stage.server.in_lanes()), (1, 1));
        // The next connection does not wait for the time-out again, and says so.
        let start = stage.now;
        let (ours, theirs) = stage.works_over(Path::Shm);
        assert_eq!(stage.now, start);
        let avoided = format!("not tried for another 30 s after: {why}");
        assert_eq!(stage.client.why_not(ours, Path::Rdma), avoided);
        assert_eq!(stage.server.why_not(theirs, Path::Rdma), format!("peer: {avoided}"));
    }
}

/// An owner whose patience ends before the transport's own time-out gets a connection in the end.
#[test]
fn an_owner_that_does_not_wait_for_a_path_comes_to_the_next_one() {
    let mut stage = Stage::full();
    stage.server.faults(Path::Rdma, lost());
    for waits_ms in [50, 500] {
        let ours = stage.connect();
        stage.settle("rdma is under way", |client, server| {
            client.in_lanes() == 1 && server.in_lanes() == 1
        });
        stage.now = stage.now + Duration::from_millis(waits_ms);
        stage.client.net.poll(stage.now, &mut stage.client.events);
        stage.client.net.close(ours, CloseReason::Local);
        stage.is_empty_after_all();
    }
    // What was closed after 50 ms says nothing of the path.
    let (ours, _) = stage.works_over(Path::Shm);
    let why = "not tried for another 30 s after: not proved in the 500 ms that its owner waited";
    assert_eq!(stage.client.why_not(ours, Path::Rdma), why);
}

#[test]
fn all_lanes_lose_their_probes() {
    let mut stage = Stage::full();
    stage.server.faults(Path::Rdma, lost());
    stage.server.faults(Path::Shm, lost());
    let (ours, theirs, waited) = stage.pair_in_time();
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
    assert_eq!(stage.client.net.path(ours), Some(Path::Tcp));
    assert_eq!(stage.server.net.path(theirs), Some(Path::Tcp));
    assert_eq!(stage.client.why_not(ours, Path::Shm), "probe not answered within 1000 ms");
    assert_eq!(stage.client.in_lanes() + stage.server.in_lanes(), 0);
    stage.exchange(ours, theirs);
}

#[test]
fn a_lane_that_cannot_attach_at_either_end() {
    let mut stage = Stage::full();
    stage.client.faults(Path::Rdma, unattachable());
    let (ours, theirs) = stage.works_over(Path::Shm);
    assert_eq!(stage.client.why_not(ours, Path::Rdma), "no route to the device");
    assert_eq!(stage.server.why_not(theirs, Path::Rdma), "peer: no route to the device");
    let mut stage = Stage::full();
    stage.server.faults(Path::Rdma, unattachable());
    stage.server.faults(Path::Shm, unattachable());
    let (ours, theirs) = stage.works_over(Path::Tcp);
    assert_eq!(stage.client.why_not(ours, Path::Rdma), "peer: no route to the device");
    assert_eq!(stage.server.why_not(theirs, Path::Shm), "no route to the device");
    assert_eq!(stage.client.in_lanes() + stage.server.in_lanes(), 0);
}

#[test]
fn a_path_that_breaks_in_use_ends_the_connection_and_is_avoided_for_a_while() {
    for at_client in [true, false] {
        let mut stage = Stage::full();
        let (ours, theirs) = stage.works_over(Path::Rdma);
        let (breaks, conn) =
            if at_client { (&stage.client, ours) } else { (&stage.server, theirs) };
        breaks.lane(Path::Rdma).break_now(conn);
        stage.settle("closed at both ends", |client, server| {
            client.closed().len() == 1 && server.closed().len() == 1
        });
        let (here, there) = (stage.client.closed(), stage.server.closed());
        let (broken, told) = if at_client { (here, there) } else { (there, here) };
        assert_eq!(broken[0].1, CloseReason::Silent(4000));
        let text = "path rdma broke at the peer: peer silent for 4000 ms";
        assert_eq!(told[0].1, CloseReason::System(text.into()));
        stage.is_empty_after_all();

        let (ours, _) = stage.works_over(Path::Shm);
        let why = stage.client.why_not(ours, Path::Rdma);
        assert!(why.starts_with("not tried for another 30 s after: "), "{why}");
        stage.client.net.close(ours, CloseReason::Local);
        stage.is_empty_after_all();
        stage.now = stage.now + Duration::from_secs(30);
        stage.works_over(Path::Rdma);
    }
}

#[test]
fn the_death_of_a_process_shows_on_tcp_and_ends_the_lane_at_once() {
    let hub = Hub::default();
    let both = [Path::Rdma, Path::Shm];
    let client = Plan { listens: false, ..Plan::with(&both) }.start(&hub).unwrap();
    let server = Plan::with(&both).start(&hub).unwrap();
    let mut stage = Stage { client, server, now: seconds(1) };
    let (ours, _) = stage.works_over(Path::Rdma);
    // Its sockets are closed as the kernel does it; its lane says nothing.
    stage.server = Plan { listens: false, ..Plan::with(&both) }.start(&hub).unwrap();
    stage.settle("closed", |client, _| !client.closed().is_empty());
    assert_eq!(stage.client.closed(), [(ours, CloseReason::Peer)]);
    assert_eq!((stage.client.in_lanes(), stage.client.net.connections()), (0, 0));
    stage.client.send(ours, 1, 0, stage.now);
    assert_eq!(stage.client.net.path(ours), None);
}

#[test]
fn frames_sent_just_before_the_end_arrive_though_the_end_overtakes_them() {
    let mut stage = Stage::full();
    let (ours, theirs) = stage.works_over(Path::Rdma);
    stage.server.events.clear();
    stage.server.faults(Path::Rdma, Faults { lag: 20, ..Faults::default() });
    for id in 1..=50 {
        stage.client.send(ours, id, 4096, stage.now);
    }
    stage.client.net.close(ours, CloseReason::Local);
    stage.settle("closed", |_, server| !server.closed().is_empty());
    assert_eq!(stage.server.received(), (1..=50).map(|id| (theirs, id)).collect::<Vec<_>>());
    assert!(matches!(stage.server.events.last(), Some(Event::Closed { .. })), "the end is last");
    stage.is_empty_after_all();
}

#[test]
fn a_closed_connection_waits_for_what_was_sent_and_not_for_ever() {
    let mut stage = Stage::full();
    let (ours, theirs) = stage.works_over(Path::Rdma);
    let stuck = Faults { never_drained: true, ..Faults::default() };
    stage.client.faults(Path::Rdma, stuck);
    stage.server.events.clear();
    stage.client.send(ours, 7, 4096, stage.now);
    stage.client.net.close(ours, CloseReason::Local);
    assert_eq!(stage.client.net.path(ours), None, "closed for its owner");
    let until = stage.now + Duration::from_secs(1);
    assert!(stage.client.net.next_deadline() <= until);
    stage.client.send(ours, 8, 0, stage.now);
    stage.settle("received", |_, server| !server.received().is_empty());
    for _ in 0..1000 {
        stage.client.net.poll(stage.now, &mut stage.client.events);
    }
    assert!(stage.client.closed().is_empty() && stage.client.in_lanes() == 1, "it waits");
    stage.now = until;
    stage.settle("closed", |client, server| {
        !client.closed().is_empty() && !server.closed().is_empty()
    });
    assert_eq!(stage.server.received(), [(theirs, 7)], "what was sent after the end is dropped");
    assert_eq!(stage.client.closed(), [(ours, CloseReason::Local)]);
    assert_eq!(stage.server.closed(), [(theirs, CloseReason::Peer)]);
    stage.is_empty_after_all();
}

#[test]
fn in_a_lane_tcp_says_nothing_and_is_not_judged_by_its_silence() {
    let mut stage = Stage::full();
    let (ours, _) = stage.works_over(Path::Rdma);
    let sent = |stage: &Stage| {
        let [a, b] = [&stage.client, &stage.server].map(|end| end.net.stats().tcp.frames_sent);
        a + b
    };
    let before = sent(&stage);
    for _ in 0..100 {
        stage.now = stage.now + Duration::from_secs(1);
        for end in [&mut stage.client, &mut stage.server] {
            end.net.poll(stage.now, &mut end.events);
        }
    }
    assert_eq!(sent(&stage), before, "the lane has PINGs of its own");
    assert!(stage.client.closed().is_empty() && stage.server.closed().is_empty());
    // The end comes over TCP all the same.
    stage.client.net.close(ours, CloseReason::Protocol("enough".into()));
    stage.settle("told", |_, server| !server.closed().is_empty());
    let reason = CloseReason::Protocol("says the peer: enough".into());
    assert_eq!(stage.server.closed()[0].1, reason);
}

#[test]
fn a_connection_as_short_as_one_frame() {
    let mut stage = Stage::full();
    let ours = stage.connect();
    while stage.client.connected().is_empty() {
        stage.server.net.poll(stage.now, &mut stage.server.events);
        stage.client.net.poll(stage.now, &mut stage.client.events);
    }
    assert!(stage.server.connected().is_empty(), "Use is still under way");
    stage.client.send(ours, 7, 0, stage.now);
    stage.client.net.close(ours, CloseReason::Local);
    stage.settle("closed", |client, server| {
        !client.closed().is_empty() && !server.closed().is_empty()
    });
    let [
        Event::Connected { inbound: true, .. },
        Event::Received { frame, .. },
        Event::Closed { .. },
    ] = &stage.server.events[..]
    else {
        panic!("{:?}", stage.server.events);
    };
    assert_eq!(frame.id, 7);
    stage.is_empty_after_all();
}

#[test]
fn closing_while_the_ends_talk_leaves_nothing_behind() {
    for polls in 0..40 {
        let mut stage = Stage::full();
        let ours = stage.connect();
        for _ in 0..polls {
            for end in [&mut stage.client, &mut stage.server] {
                end.net.poll(stage.now, &mut end.events);
            }
        }
        stage.client.net.close(ours, CloseReason::Local);
        stage.settle("closed", |client, _| !client.closed().is_empty());
        stage.now = stage.now + Duration::from_secs(10);
        stage.is_empty_after_all();
        let (ups, ends) = (stage.server.connected().len(), stage.server.closed().len());
        assert_eq!(ups, ends, "what the server reported it reported to the end");
        assert!(stage.client.connected().len() <= 1);
        assert_eq!(stage.client.closed(), [(ours, CloseReason::Local)]);
    }
}

#[test]
fn ten_thousand_connections_one_after_the_other_leave_nothing_behind() {
    let mut stage = Stage::full();
    for _ in 0..2_500 {
        let conns: Vec<_> = (0..4).map(|_| stage.connect()).collect();
        stage.settle("connected", |client, server| {
            client.connected().len() == 4 && server.connected().len() == 4
        });
        for conn in conns {
            assert_eq!(stage.client.net.path(conn), Some(Path::Rdma));
            stage.client.net.close(conn, CloseReason::Local);
        }
        stage.is_empty_after_all();
        stage.settle("reported", |client, server| {
            client.closed().len() == 4 && server.closed().len() == 4
        });
        stage.client.events.clear();
        stage.server.events.clear();
        // Lingering sockets go by time.
        stage.now = stage.now + Duration::from_millis(20);
    }
}
