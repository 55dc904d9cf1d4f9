//! Replays the fuzzers' corpus, and random changes of it, so that every run of the tests covers
//! what the fuzz targets check. Also keeps the corpus in step with the formats.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test reads its own files

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::PathBuf;

use ogive_rpc::frame::{Header, KIND_GOODBYE, KIND_HELLO, KIND_PATH, KIND_PING};
use ogive_rpc::goodbye;
use ogive_rpc::hello::{Greeting, Hello, Identity};
use ogive_rpc::offer::Offer;
use ogive_rpc::path_frame::PathFrame;
use ogive_rpc::transport::lane::LaneVersion;
use ogive_rpc::transport::{CloseReason, Path};
use ogive_types::message::{
    Append, AppendReply, DeltaChunk, DeltaEnd, DeltaExtent, DeltaPage, Entry, Fence, Heartbeat,
    IoError, IoOp, IoReply, IoRequest, Mapped, Op, ReplicaReply, ReplicaRequest, Vote, VoteReply,
    encode,
};
use ogive_types::{
    BlockRange, BlockSum, ChunkId, ChunkserverId, ClusterId, CopysetId, Epoch, Incarnation, Index,
    LogPos, SessionId, ShardAddr, Term, Time, VolumeId,
};
use proptest::prelude::*;

fn hello() -> Greeting {
    let hello = Hello {
        cluster: ClusterId(77),
        identity: Identity::Shard { server: ChunkserverId(1), shard: 2 },
        features: 0,
        token: b"ticket".to_vec(),
        credit_requests: 128,
        credit_bytes: 16 << 20,
    };
    let version = LaneVersion { major: 1, minor: 13 };
    let newer: Offer = ogive_types::message::decode(&[9, 2, 0, 1]).unwrap();
    let offers = vec![Offer::Rdma { version }, Offer::Shm { version, host: 5 }, newer];
    Greeting { hello, offers }
}

fn propose() -> PathFrame {
    PathFrame::Propose { path: Path::Rdma, address: (0..40).collect(), key: u64::MAX }
}

fn wire(kind: u8, id: u64, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = Header { id, ..Header::new(kind, body, payload.len()) };
    [header.encode().as_slice(), body, payload].concat()
}

/// Seeds of the target `frame`: how to cut, then a stream.
fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let goodbye = goodbye::encode(&CloseReason::Refused("no".into())).unwrap();
    let early = [0, 7, 1];
    let late = [1, 30, 2];
    let requests = [
        wire(16, 1, &encode(&io(read())), &[]),
        wire(16, 2, &encode(&io(write())), &[7; 600]),
        wire(KIND_PING, 0, &[], &[]),
        wire(KIND_PATH, 0, &propose().encode(), &[]),
        wire(17, 3, &encode(&append()), &[9; 100]),
        wire(KIND_GOODBYE, 0, &goodbye, &[]),
    ];
    let mut bad_sum = wire(16, 4, b"body", b"payload");
    *bad_sum.last_mut().unwrap() ^= 1;
    bad_sum[50] ^= 1;
    let mut version = wire(KIND_HELLO, 0, &hello().encode(), &[]);
    version[4] = 2;
    let huge = Header { payload_bytes: u32::MAX, ..Header::new(16, b"", 0) };
    vec![
        ("hello", [&early[..], &wire(KIND_HELLO, 0, &hello().encode(), &[])].concat()),
        ("goodbye", [&early[..], &wire(KIND_GOODBYE, 0, &goodbye, &[])].concat()),
        ("requests", [&late[..], &requests.concat()].concat()),
        ("truncated", [&late[..], &requests.concat()[..700]].concat()),
        ("bad_sum", [&late[..], &bad_sum].concat()),
        ("version", [&early[..], &version].concat()),
        ("magic", [&early[..], b"GET / HTTP/1.1\r\n\r\n"].concat()),
        ("huge", [&late[..], &huge.encode()].concat()),
    ]
}

fn chunk() -> ChunkId {
    ChunkId { volume: VolumeId(3), number: 9 }
}

fn range() -> BlockRange {
    BlockRange::new(5, 2).unwrap()
}

fn sums() -> Vec<BlockSum> {
    vec![BlockSum(1), BlockSum(u32::MAX)]
}

fn pos() -> LogPos {
    LogPos { term: Term(4), index: Index(1000) }
}

fn io(op: IoOp) -> IoRequest {
    let fence = Fence {
        volume: VolumeId(3),
        epoch: Epoch(2),
        session: SessionId(8),
        incarnation: Incarnation(1),
        term: Term(4),
    };
    IoRequest { copyset: CopysetId(1), fence, op }
}

fn read() -> IoOp {
    IoOp::Read { chunk: chunk(), range: range(), settled: true }
}

fn write() -> IoOp {
    IoOp::Write { chunk: chunk(), range: range(), sums: sums() }
}

fn append() -> ReplicaRequest {
    let entry = |op| Entry { term: Term(4), op };
    let entries = vec![
        entry(Op::Noop),
        entry(Op::Write { chunk: chunk(), range: range(), sums: sums() }),
        entry(Op::Trim { chunk: chunk(), range: range() }),
        entry(Op::Fence { volume: VolumeId(3), epoch: Epoch(3) }),
        entry(Op::DropVolume { volume: VolumeId(3) }),
    ];
    let commit = Index(999);
    ReplicaRequest::Append(
        CopysetId(1),
        Append { term: Term(4), prev: pos(), commit, sent: Time(1), entries },
    )
}

fn delta() -> ReplicaRequest {
    let extent = |sums| DeltaExtent { range: range(), index: Index(7), sums };
    let chunks = vec![DeltaChunk { chunk: chunk(), extents: vec![extent(sums()), extent(vec![])] }];
    let (term, upto, base) = (Term(4), pos(), Index(5));
    let (after, through) = (None, Some(chunk()));
    ReplicaRequest::Delta(CopysetId(1), DeltaPage { term, upto, base, after, through, chunks })
}

/// Seeds of the target `messages`: which message, payload length in blocks, then a body.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let seed = |which: u8, blocks: u8, body: Vec<u8>| [&[which, blocks, 0][..], &body].concat();
    let (term, copyset) = (Term(4), CopysetId(1));
    let vote = Vote { term, last: pos(), pre: true, transfer: false };
    let heartbeat = Heartbeat { term, commit: Index(9), sent: Time(1) };
    let end = DeltaEnd { term, upto: pos(), fences: vec![(VolumeId(3), Epoch(2))] };
    let leader = Some(ShardAddr { server: ChunkserverId(1), shard: 0 });
    let answer = AppendReply { term, sent: Time(1), matched: Err(pos()) };
    let voted = VoteReply { term, granted: true, pre: false };
    let replica = |blocks, request: ReplicaRequest| seed(2, blocks, encode(&request));
    let mapped = IoReply::Map(vec![Mapped { range: range(), mapped: true }]);
    let not_leader = IoReply::Failed(IoError::NotLeader { leader });
    vec![
        ("io_read", seed(0, 0, encode(&io(read())))),
        ("io_write", seed(0, 2, encode(&io(write())))),
        ("io_trim", seed(0, 0, encode(&io(IoOp::Trim { chunk: chunk(), range: range() })))),
        ("io_map", seed(0, 0, encode(&io(IoOp::Map { chunk: chunk(), range: range() })))),
        ("reply_data", seed(1, 2, encode(&IoReply::Data(sums())))),
        ("reply_map", seed(1, 0, encode(&mapped))),
        ("reply_failed", seed(1, 0, encode(&not_leader))),
        ("vote", replica(0, ReplicaRequest::Vote(copyset, vote))),
        ("append", replica(2, append())),
        ("heartbeats", replica(0, ReplicaRequest::Heartbeats(vec![(copyset, heartbeat)]))),
        ("delta", replica(2, delta())),
        ("delta_end", replica(0, ReplicaRequest::DeltaEnd(copyset, end))),
        ("append_reply", seed(3, 0, encode(&ReplicaReply::Append(copyset, answer)))),
        ("vote_reply", seed(3, 0, encode(&ReplicaReply::Vote(copyset, voted)))),
        ("hello", seed(4, 0, hello().encode())),
        ("path_propose", seed(6, 0, propose().encode())),
        (
            "path_accept",
            seed(6, 0, PathFrame::Accept { path: Path::Shm, address: vec![7], key: 1 }.encode()),
        ),
        ("path_decline", seed(6, 0, PathFrame::decline(Path::Rdma, "no é").encode())),
        ("path_use", seed(6, 0, PathFrame::Use { path: Path::Tcp }.encode())),
        ("goodbye", seed(5, 0, goodbye::encode(&CloseReason::Refused("é".into())).unwrap())),
    ]
}

/// Seeds of the target `lane`: the header of a message.
#[cfg(feature = "ucx")]
fn lane_heads() -> Vec<(&'static str, Vec<u8>)> {
    use ogive_rpc::transport::ucx::wire::{LaneHead, Message};
    let seed = |seq, message| {
        let mut bytes = Vec::new();
        LaneHead { key: 0x0102_0304_0506_0708, seq, message }.encode(&mut bytes);
        bytes
    };
    let body = encode(&io(write()));
    let frame = Message::Frame(Header { id: 7, ..Header::new(16, &body, 8192) }, &body);
    vec![
        ("probe", seed(0, Message::Probe)),
        ("ping", seed(1, Message::Ping)),
        ("part", seed(2, Message::Part(&body[..5]))),
        ("frame", seed(u64::MAX, frame)),
        ("piece", seed(4, Message::Piece)),
    ]
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The seeds on disk are those that this code makes; `OGIVE_WRITE_CORPUS=1` writes them.
fn keep_in_step(target: &str, seeds: &[(&str, Vec<u8>)]) {
    let folder = folder(target);
    if std::env::var_os("OGIVE_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in seeds {
        let found = std::fs::read(folder.join(name)).unwrap_or_default();
        assert!(found == *bytes, "seed {target}/{name} is stale: set OGIVE_WRITE_CORPUS=1 once");
    }
}

#[test]
fn seeds_are_in_step_with_the_formats() {
    keep_in_step("frame", &streams());
    keep_in_step("messages", &bodies());
}

#[test]
fn good_seeds_are_accepted() {
    for (name, bytes) in bodies() {
        let blocks = usize::from(bytes[1]) * 4096;
        let valid = match bytes[0] {
            0 => ogive_types::message::decode(&bytes[3..])
                .and_then(|m: IoRequest| m.validate(blocks)),
            2 => ogive_types::message::decode(&bytes[3..])
                .and_then(|m: ReplicaRequest| m.validate(blocks)),
            4 => Greeting::decode(&bytes[3..]).map(drop),
            6 => PathFrame::decode(&bytes[3..]).map(drop),
            _ => Ok(()),
        };
        assert_eq!(valid, Ok(()), "{name}");
    }
}

#[test]
fn the_corpus_passes() {
    for (target, check) in [("frame", checks::frame as fn(&[u8])), ("messages", checks::messages)] {
        for entry in std::fs::read_dir(folder(target)).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

/// Some changes of a seed: bytes replaced, a part cut out, something appended.
fn mutate(
    mut bytes: Vec<u8>,
    changes: &[(usize, u8)],
    cut: (usize, usize),
    tail: &[u8],
) -> Vec<u8> {
    for &(at, value) in changes {
        let at = at % bytes.len();
        bytes[at] = value;
    }
    let from = cut.0 % bytes.len();
    let to = (from + cut.1).min(bytes.len());
    bytes.drain(from..to);
    bytes.extend_from_slice(tail);
    bytes
}

#[cfg(feature = "ucx")]
#[test]
fn the_corpus_of_lanes_is_in_step_and_passes() {
    keep_in_step("lane", &lane_heads());
    for entry in std::fs::read_dir(folder("lane")).unwrap() {
        checks::lane(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}

#[cfg(feature = "ucx")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changes_of_lane_headers_pass(
        which in any::<usize>(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in (any::<usize>(), prop_oneof![Just(0usize), 0..40usize]),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let heads = lane_heads();
        checks::lane(&mutate(heads[which % heads.len()].1.clone(), &changes, cut, &tail));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changes_of_the_corpus_pass(
        which in any::<usize>(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in (any::<usize>(), prop_oneof![Just(0usize), 0..40usize]),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (streams, bodies) = (streams(), bodies());
        let stream = streams[which % streams.len()].1.clone();
        checks::frame(&mutate(stream, &changes, cut, &tail));
        let body = bodies[which % bodies.len()].1.clone();
        checks::messages(&mutate(body, &changes, cut, &tail));
    }

    #[test]
    fn any_bytes_pass(data in prop::collection::vec(any::<u8>(), 0..300)) {
        checks::frame(&data);
        checks::messages(&data);
    }
}
