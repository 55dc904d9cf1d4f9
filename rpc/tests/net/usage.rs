//! What an owner may do, and the line that it finds in its log.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `body` logs about connections that are up.
fn lines_of(body: impl FnOnce()) -> Vec<String> {
    // Whether anybody wants a line is found out when it is first logged, by whichever test that is:
    // that must lie behind us.
    Stage::full().works_over(Path::Rdma);
    Stage::new(Plan::with(&[]), Plan::with(&[])).works_over(Path::Tcp);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, body);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| line.contains("connection up")).map(String::from).collect()
}

#[test]
fn one_line_says_which_path_and_why_no_better_one() {
    let lines = lines_of(|| {
        let newer = Plan { version: NEWER, ..Plan::with(&[Path::Shm]) };
        Stage::new(Plan::with(&[Path::Shm]), newer).works_over(Path::Tcp);
    });
    let [client, server] = &lines[..] else { panic!("{lines:?}") };
    for line in [client, server] {
        assert!(line.contains(" INFO "), "{line}");
        assert!(line.contains("peer=127.0.0.1:") && line.contains("path=tcp"), "{line}");
    }
    let why = "rdma: no rdma here; shm: peer has UCX 1.16, this end 1.13";
    assert!(client.contains(why) && client.contains("inbound=false"), "{client}");
    assert!(client.contains("Shard { server: ChunkserverId(1), shard: 0 }"), "{client}");
    let why = "rdma: no rdma here; shm: peer has UCX 1.13, this end 1.16";
    assert!(server.contains(why) && server.contains("inbound=true"), "{server}");
    let lines = lines_of(|| {
        Stage::full().works_over(Path::Rdma);
    });
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.contains("path=rdma") && !line.contains("why")));
}

#[test]
fn without_lanes_it_is_tcp_and_says_why() {
    let lines = lines_of(|| {
        Stage::new(Plan::with(&[]), Plan::with(&[])).works_over(Path::Tcp);
    });
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.contains("rdma: no rdma here; shm: no shm here")));
}

#[test]
fn an_owner_that_connects_nowhere_hears_of_it_once() {
    let mut stage = Stage::full();
    let bad = stage.client.net.connect(&Endpoint("shm:nowhere".into()), stage.now);
    stage.settle("closed", |client, _| !client.closed().is_empty());
    let [(conn, CloseReason::Connect(text))] = &stage.client.closed()[..] else {
        panic!("{:?}", stage.client.events)
    };
    assert_eq!(*conn, bad);
    assert!(text.contains("no valid port"), "{text}");
    stage.client.send(bad, 1, 0, stage.now);
    stage.client.net.close(bad, CloseReason::Local);
    for _ in 0..100 {
        stage.client.net.poll(stage.now, &mut stage.client.events);
    }
    assert_eq!(stage.client.events.len(), 1);
}

#[test]
fn frames_sent_before_the_connection_is_up_are_dropped() {
    let mut stage = Stage::full();
    let ours = stage.connect();
    stage.client.send(ours, 1, 0, stage.now);
    stage.settle("connected", |client, server| {
        !client.connected().is_empty() && !server.connected().is_empty()
    });
    let theirs = stage.server.connected()[0];
    stage.exchange(ours, theirs);
}

#[test]
#[should_panic(expected = "kind 3 is the transport's")]
fn kinds_of_the_transport_cannot_be_sent() {
    let mut stage = Stage::full();
    let (ours, _) = stage.works_over(Path::Rdma);
    let (response, id, deadline_ms, body) = (false, 0, 0, Vec::new());
    let frame = Outgoing { kind: 3, response, id, deadline_ms, body, payload: Vec::new() };
    stage.client.net.send(ours, frame, stage.now);
}
