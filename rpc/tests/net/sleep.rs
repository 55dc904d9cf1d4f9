//! Sleeping on the one descriptor of all paths: whatever comes wakes the owner.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// True when the descriptor becomes readable within `ms`.
fn wakes(end: &End, ms: i64) -> bool {
    // SAFETY: the transport owns the descriptor and outlives this call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(end.net.wake_fd()) };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// Polls until nothing is left to do, and arms the descriptors.
fn go_to_sleep(end: &mut End, now: Time) {
    for _ in 0..1000 {
        let mut quiet = 0;
        while quiet < 100 {
            quiet = if end.net.poll(now, &mut end.events) { 0 } else { quiet + 1 };
        }
        if end.net.prepare_sleep() {
            return;
        }
    }
    panic!("never quiet");
}

#[test]
fn frames_over_lanes_and_over_tcp_wake_the_sleeper() {
    let mut stage = Stage::full();
    let (fast, fast_theirs) = stage.works_over(Path::Rdma);
    let addr = stage.server.endpoint().addr().unwrap();
    let slow = stage.client.net.connect(&Endpoint::tcp(addr), stage.now);
    stage.settle("connected", |client, server| {
        client.connected().contains(&slow) && !server.connected().is_empty()
    });
    let slow_theirs = stage.server.connected()[0];
    let mut want = 0;
    stage.server.events.clear();
    for round in 0..300u64 {
        go_to_sleep(&mut stage.server, stage.now);
        // Lingering readiness may wake it once more; then it sleeps soundly.
        if round % 50 == 0 {
            assert!(!wakes(&stage.server, 5), "nothing came");
        }
        let (ours, theirs) = if round % 3 == 0 { (slow, slow_theirs) } else { (fast, fast_theirs) };
        stage.client.send(ours, round, 0, stage.now);
        stage.client.net.flush(stage.now);
        assert!(wakes(&stage.server, 10_000), "round {round}");
        want += 1;
        // Awake, it finds the frame at its first polls, TCP's too.
        for _ in 0..3 {
            stage.server.net.poll(stage.now, &mut stage.server.events);
        }
        let received = stage.server.received();
        assert_eq!((received.len(), received.last()), (want, Some(&(theirs, round))));
    }
}

#[test]
fn what_came_before_the_descriptor_was_armed_is_not_slept_over() {
    let mut stage = Stage::full();
    let (ours, _) = stage.works_over(Path::Rdma);
    go_to_sleep(&mut stage.server, stage.now);
    stage.client.send(ours, 1, 0, stage.now);
    stage.client.net.flush(stage.now);
    assert!(!stage.server.net.prepare_sleep(), "something waits");
    assert!(stage.server.net.poll(stage.now, &mut stage.server.events));
    assert!(stage.server.net.prepare_sleep());
}

#[test]
fn what_is_known_already_is_reported_by_the_next_poll() {
    let mut stage = Stage::full();
    for polls in 0..20 {
        let (ours, _) = stage.works_over(Path::Rdma);
        stage.client.events.clear();
        // Long enough that TCP is asked only from time to time.
        for _ in 0..200 + polls {
            stage.client.net.poll(stage.now, &mut stage.client.events);
        }
        stage.client.net.close(ours, CloseReason::Local);
        assert!(stage.client.net.next_deadline() <= stage.now, "poll at once");
        stage.client.net.poll(stage.now, &mut stage.client.events);
        assert_eq!(stage.client.closed(), [(ours, CloseReason::Local)]);
    }
}

#[test]
fn polls_alone_bring_a_connection_up() {
    let mut stage = Stage::full();
    let ours = stage.connect();
    let begin = Instant::now();
    while begin.elapsed() < GIVE_UP_AFTER {
        for end in [&mut stage.client, &mut stage.server] {
            end.net.poll(stage.now, &mut end.events);
        }
        if !stage.client.connected().is_empty() && !stage.server.connected().is_empty() {
            break;
        }
    }
    assert_eq!(stage.client.net.path(ours), Some(Path::Rdma));
    assert_eq!(stage.server.connected().len(), 1);
}
