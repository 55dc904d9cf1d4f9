//! PATH frames that are malformed, or come out of turn: they end their connection, and no other.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use ogive_rpc::frame::{HEADER_BYTES, Header, KIND_HELLO, KIND_PATH, KIND_PING};
use ogive_rpc::hello::Greeting;
use ogive_rpc::limits::PATH_BODY_BYTES_MAX;
use ogive_rpc::offer::Offer;
use ogive_rpc::path_frame::PathFrame;
use ogive_rpc::transport::Incoming;

use super::*;

/// A server with an honest client over RDMA, and a raw socket whose HELLO offers paths.
struct Raw {
    stage: Stage,
    honest: (ConnId, ConnId),
    raw: TcpStream,
}

fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    [&Header::new(kind, body, 0).encode()[..], body].concat()
}

fn path(frame: PathFrame) -> Vec<u8> {
    control(KIND_PATH, &frame.encode())
}

fn propose(path: Path) -> PathFrame {
    PathFrame::Propose { path, address: b"lane 0".to_vec(), key: 99 }
}

impl Raw {
    fn new() -> Raw {
        let mut stage = Stage::full();
        let honest = stage.works_over(Path::Rdma);
        stage.server.events.clear();
        let mut raw = TcpStream::connect(stage.server.endpoint().addr().unwrap()).unwrap();
        raw.set_nodelay(true).unwrap();
        raw.set_nonblocking(true).unwrap();
        let hello = hello(Identity::Client { session: SessionId(6) });
        let offers = vec![Offer::Rdma { version: UCX }, Offer::Shm { version: UCX, host: HERE }];
        raw.write_all(&control(KIND_HELLO, &Greeting { hello, offers }.encode())).unwrap();
        Raw { stage, honest, raw }
    }

    /// Sends `bytes` and expects to be thrown out, with a GOODBYE that says `why`.
    fn thrown_out(mut self, bytes: &[u8], why: &str) {
        self.raw.write_all(bytes).unwrap();
        let heard = self.until_closed();
        let text = String::from_utf8_lossy(&heard);
        assert!(text.contains(why), "{text}");
        let inbound = self.stage.server.connected();
        let closed = self.stage.server.closed();
        assert_eq!(inbound.len(), closed.len(), "reported to the end, or not at all");
        let (ours, theirs) = self.honest;
        self.stage.exchange(ours, theirs);
        assert_eq!(self.stage.server.in_lanes(), 1, "the honest one's");
    }

    fn until_closed(&mut self) -> Vec<u8> {
        let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
        let raw = &mut self.raw;
        self.stage.settle("thrown out", |_, _| match raw.read(&mut piece) {
            Ok(0) => true,
            Ok(n) => {
                heard.extend_from_slice(&piece[..n]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        });
        heard
    }
}

#[test]
fn malformed_frames() {
    Raw::new().thrown_out(&control(KIND_PATH, b""), "PATH: malformed");
    Raw::new().thrown_out(&control(KIND_PATH, &[9, 0]), "PATH: malformed");
    Raw::new().thrown_out(&control(KIND_PATH, &[3, 7]), "PATH: malformed");
    Raw::new().thrown_out(&control(KIND_PATH, &[3, 2, 0]), "PATH: malformed");
    Raw::new().thrown_out(&control(KIND_PATH, &[0, 2, 1, 0, 1]), "TCP is neither");
    Raw::new().thrown_out(&control(KIND_PATH, &[0, 1, 0, 1]), "address of a lane");
    let mut long = Header::new(KIND_PATH, b"", 0);
    long.body_bytes = PATH_BODY_BYTES_MAX as u32 + 1;
    Raw::new().thrown_out(&long.encode(), "body of 8193 bytes");
    let with_id = Header { id: 1, ..Header::new(KIND_PATH, &[3, 2], 0) };
    Raw::new().thrown_out(&[&with_id.encode()[..], &[3, 2]].concat(), "malformed control frame");
}

#[test]
fn frames_out_of_turn() {
    let accept = PathFrame::Accept { path: Path::Shm, address: vec![1], key: 1 };
    let turn = |what: &str| format!("PATH: {what} out of turn");
    Raw::new().thrown_out(&path(accept), &turn("Accept"));
    for wrong in [Path::Rdma, Path::Shm] {
        Raw::new().thrown_out(&path(PathFrame::Use { path: wrong }), &turn("Use"));
    }
    let twice =
        [path(PathFrame::Use { path: Path::Tcp }), path(PathFrame::Use { path: Path::Tcp })];
    Raw::new().thrown_out(&twice.concat(), &turn("Use"));
    let late = [path(PathFrame::Use { path: Path::Tcp }), path(propose(Path::Shm))];
    Raw::new().thrown_out(&late.concat(), &turn("Propose"));
    let again = [path(propose(Path::Shm)), path(propose(Path::Rdma))];
    Raw::new().thrown_out(&again.concat(), &turn("Propose"));
    let unproved = [path(propose(Path::Shm)), path(PathFrame::Use { path: Path::Shm })];
    Raw::new().thrown_out(&unproved.concat(), &turn("Use"));
    let declined = path(PathFrame::decline(Path::Shm, "no"));
    Raw::new().thrown_out(&[declined.clone(), declined.clone()].concat(), &turn("Decline"));
    Raw::new().thrown_out(&[declined, path(propose(Path::Shm))].concat(), &turn("Propose"));
}

#[test]
fn upper_frames_before_the_path_is_chosen() {
    Raw::new().thrown_out(&control(KIND, b"early"), "a frame before its path was chosen");
    let busy = [path(propose(Path::Shm)), control(KIND, b"early")];
    Raw::new().thrown_out(&busy.concat(), "a frame before its path was chosen");
}

#[test]
fn an_address_that_is_none_is_declined_and_the_peer_may_stay() {
    let mut raw = Raw::new();
    let nonsense = PathFrame::Propose { path: Path::Shm, address: vec![0xff; 4096], key: 0 };
    let stays = PathFrame::Use { path: Path::Tcp };
    raw.raw.write_all(&[path(nonsense), path(stays), control(KIND, b"hi")].concat()).unwrap();
    raw.stage.settle("received", |_, server| !server.received().is_empty());
    let conn = raw.stage.server.connected()[0];
    assert_eq!(raw.stage.server.net.path(conn), Some(Path::Tcp));
    assert_eq!(raw.stage.server.why_not(conn, Path::Shm), "not an address of a lane");
}

#[test]
fn a_peer_that_never_chooses_is_closed_in_time() {
    for opening in [Vec::new(), path(propose(Path::Shm))] {
        let mut raw = Raw::new();
        raw.raw.write_all(&opening).unwrap();
        let (mut heard, mut piece) = (0, [0; 4096]);
        let socket = &mut raw.raw;
        raw.stage.settle("HELLO is answered", |_, _| {
            heard += socket.read(&mut piece).unwrap_or(0);
            heard > HEADER_BYTES
        });
        for _ in 0..5 {
            raw.stage.now = raw.stage.now + Duration::from_secs(1);
            // It is not silent, it only does not choose.
            raw.raw.write_all(&control(KIND_PING, b"")).unwrap();
            for _ in 0..200 {
                raw.stage.server.net.poll(raw.stage.now, &mut raw.stage.server.events);
                raw.stage.client.net.poll(raw.stage.now, &mut raw.stage.client.events);
            }
        }
        assert_eq!(raw.stage.server.net.connections(), 2, "not yet");
        raw.stage.now = raw.stage.now + Duration::from_millis(1_100);
        let text = raw.until_closed();
        assert!(String::from_utf8_lossy(&text).contains("no path chosen within 6000 ms"));
        assert!(raw.stage.server.connected().is_empty() && raw.stage.server.closed().is_empty());
        assert_eq!(raw.stage.server.in_lanes(), 1, "the honest one's");
    }
}

#[test]
fn a_lane_brings_frames_of_the_upper_layers_only() {
    let mut stage = Stage::full();
    let (ours, theirs) = stage.works_over(Path::Rdma);
    stage.server.events.clear();
    let (response, id, deadline_ms, payload) = (false, 0, 0, None);
    let body = PathFrame::Use { path: Path::Tcp }.encode();
    let frame = Incoming { kind: KIND_PATH, response, id, deadline_ms, body, payload };
    stage.server.lane(Path::Rdma).forge(theirs, frame);
    stage.settle("closed", |client, server| {
        !client.closed().is_empty() && !server.closed().is_empty()
    });
    let CloseReason::Protocol(text) = &stage.server.closed()[0].1 else {
        panic!("{:?}", stage.server.events)
    };
    assert!(text.contains("kind 3 out of turn"), "{text}");
    assert_eq!(stage.client.closed()[0].0, ours);
    assert!(stage.server.received().is_empty());
    stage.is_empty_after_all();
}

#[test]
fn frames_over_a_lane_before_it_is_proved_end_the_connection() {
    let mut raw = Raw::new();
    raw.raw.write_all(&path(propose(Path::Shm))).unwrap();
    raw.stage.settle("accepted", |_, server| server.lane(Path::Shm).open() == 1);
    let conn = raw.stage.server.lane(Path::Shm).any();
    let (kind, response, id, deadline_ms, payload) = (KIND, false, 1, 0, None);
    let frame = Incoming { kind, response, id, deadline_ms, body: Vec::new(), payload };
    raw.stage.server.lane(Path::Shm).forge(conn, frame);
    let heard = raw.until_closed();
    assert!(String::from_utf8_lossy(&heard).contains("a frame before its path was chosen"));
    assert!(raw.stage.server.connected().is_empty() && raw.stage.server.received().is_empty());
}
