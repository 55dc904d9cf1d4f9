//! Which path is taken, and what is said of the better ones.

use super::*;

#[test]
fn the_best_shared_path_is_taken_and_tcp_carries_no_frames() {
    let mut stage = Stage::full();
    assert!(stage.server.endpoint().0.starts_with("rdma,shm,tcp:127.0.0.1:"));
    let (ours, theirs) = stage.works_over(Path::Rdma);
    assert!(stage.client.net.passed_over(ours).is_empty());
    let before = stage.client.net.stats().tcp.frames_sent;
    stage.exchange(ours, theirs);
    let stats = stage.client.net.stats();
    assert_eq!(stats.tcp.frames_sent, before);
    assert_eq!(stats.lanes[0].0, Path::Rdma);
    assert_eq!((stats.lanes[0].1.frames_sent, stats.lanes[0].1.frames_received), (40, 40));
    assert_eq!(stats.chosen, [(Path::Rdma, 1), (Path::Shm, 0), (Path::Tcp, 0)]);
    assert_eq!(stage.server.in_lanes(), 1, "one lane is open, the other was not tried");
    stage.client.net.close(ours, CloseReason::Local);
    stage.settle("closed", |client, server| {
        client.closed() == [(ours, CloseReason::Local)]
            && server.closed() == [(theirs, CloseReason::Peer)]
    });
    stage.is_empty_after_all();
}

#[test]
fn a_path_that_one_end_lacks() {
    let both = [Path::Rdma, Path::Shm];
    let mut stage = Stage::new(Plan::with(&both), Plan::with(&[Path::Shm]));
    let (ours, theirs) = stage.works_over(Path::Shm);
    assert_eq!(stage.client.why_not(ours, Path::Rdma), "peer does not offer it");
    assert_eq!(stage.server.why_not(theirs, Path::Rdma), "no rdma here");
    let mut stage = Stage::new(Plan::with(&[]), Plan::with(&both));
    let (ours, theirs) = stage.works_over(Path::Tcp);
    assert_eq!(stage.client.why_not(ours, Path::Shm), "no shm here");
    assert_eq!(stage.server.why_not(theirs, Path::Shm), "peer does not offer it");
    assert_eq!(stage.server.in_lanes(), 0);
    let mut stage = Stage::new(Plan::with(&both), Plan::with(&[]));
    stage.works_over(Path::Tcp);
    assert!(stage.server.endpoint().0.starts_with("tcp:"));
    let mut stage = Stage::new(Plan::with(&[Path::Rdma]), Plan::with(&[Path::Shm]));
    stage.works_over(Path::Tcp);
}

#[test]
fn another_host_and_another_version() {
    let both = [Path::Rdma, Path::Shm];
    let elsewhere = Plan { host: ELSEWHERE, ..Plan::with(&[Path::Shm]) };
    let mut stage = Stage::new(Plan::with(&both), elsewhere);
    let (ours, theirs) = stage.works_over(Path::Tcp);
    for why in [stage.client.why_not(ours, Path::Shm), stage.server.why_not(theirs, Path::Shm)] {
        assert!(why.starts_with("peer is on another host"), "{why}");
    }
    let newer = Plan { version: NEWER, ..Plan::with(&both) };
    let mut stage = Stage::new(Plan::with(&both), newer);
    let (ours, theirs) = stage.works_over(Path::Tcp);
    assert_eq!(stage.client.why_not(ours, Path::Rdma), "peer has UCX 1.16, this end 1.13");
    assert_eq!(stage.server.why_not(theirs, Path::Rdma), "peer has UCX 1.13, this end 1.16");
    assert_eq!(stage.client.in_lanes() + stage.server.in_lanes(), 0, "nothing was tried");
}

#[test]
fn what_the_endpoint_does_not_announce_is_not_tried() {
    let mut stage = Stage::full();
    let addr = stage.server.endpoint().addr().unwrap();
    let ours = stage.client.net.connect(&Endpoint::new(&[Path::Shm, Path::Tcp], addr), stage.now);
    stage.settle("connected", |client, server| {
        client.connected() == [ours] && server.connected().len() == 1
    });
    let theirs = stage.server.connected()[0];
    assert_eq!(stage.client.net.path(ours), Some(Path::Shm));
    assert_eq!(stage.server.net.path(theirs), Some(Path::Shm));
    let why = "the endpoint does not announce it";
    assert_eq!(stage.client.why_not(ours, Path::Rdma), why);
    assert_eq!(stage.server.why_not(theirs, Path::Rdma), format!("peer: {why}"));
}

#[test]
fn shared_memory_without_a_name_of_the_host_is_not_offered() {
    let hub = Hub::default();
    let (lane, _) = hub.lane(Path::Shm, UCX);
    let pool = Pool::new(1 << 20);
    let tcp = TcpConfig::new(hello(Identity::Client { session: SessionId(1) }), pool);
    let config = NetConfig { tcp, choice: PathChoice::Auto };
    let net = NetTransport::with_lanes(config, vec![Ok(lane)], Err("no /proc".into())).unwrap();
    assert_eq!(net.missing(), [Missing { path: Path::Shm, why: "no /proc".into() }]);
}

#[test]
fn connections_choose_each_for_itself() {
    let mut stage = Stage::full();
    let addr = stage.server.endpoint().addr().unwrap();
    let (a, x) = stage.works_over(Path::Rdma);
    let ours = stage.client.net.connect(&Endpoint::tcp(addr), stage.now);
    stage.settle("connected", |client, server| {
        client.connected().contains(&ours) && server.connected().len() == 1
    });
    let theirs = stage.server.connected()[0];
    assert_eq!(stage.server.net.path(theirs), Some(Path::Tcp));
    stage.exchange(ours, theirs);
    stage.exchange(a, x);
    stage.exchange(ours, theirs);
}
