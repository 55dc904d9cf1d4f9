//! What must hold for any bytes. Shared by the fuzz targets and by the test that replays their
//! corpus with the stable toolchain (`rpc/tests/corpus.rs`).

use std::fmt::Debug;

use ogive_buf::{ARENA_BYTES, Pool};
use ogive_rpc::assemble::{Assembler, Step};
use ogive_rpc::frame::FrameError;
use ogive_rpc::goodbye;
use ogive_rpc::hello::Greeting;
use ogive_rpc::path_frame::PathFrame;
use ogive_types::message::{IoReply, IoRequest, Malformed, ReplicaReply, ReplicaRequest};
use ogive_types::message::{decode, encode};

thread_local! {
    static POOL: Pool = Pool::new(ARENA_BYTES);
}

/// A stream gives the same frames and the same error however it is cut, and payloads that are read
/// in place or find no buffer at first make no difference.
///
/// Byte 0: bit 0 says whether HELLO is over. Bytes 1 and 2: how the stream is cut. Then the stream.
pub fn frame(data: &[u8]) {
    let [mode, cut_a, cut_b, stream @ ..] = data else { return };
    let up = mode & 1 != 0;
    let whole = parse(stream, up, &[stream.len().max(1)], false);
    let cuts = [usize::from(*cut_a) + 1, usize::from(*cut_b) * 16 + 1];
    assert_eq!(whole, parse(stream, up, &cuts, false), "copied");
    assert_eq!(whole, parse(stream, up, &cuts, true), "in place, with waits");
}

/// What of a frame can be compared.
type Seen = (u8, bool, u64, u32, Vec<u8>, Option<Vec<u8>>);

fn parse(
    mut stream: &[u8],
    up: bool,
    cuts: &[usize],
    thorny: bool,
) -> (Vec<Seen>, Option<FrameError>) {
    let pool = POOL.with(Pool::clone);
    let (mut assembler, mut seen) = (Assembler::new(), Vec::new());
    if up {
        assembler.establish();
    }
    for cut in cuts.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (mut piece, rest) = stream.split_at(stream.len().min(*cut));
        stream = rest;
        if thorny {
            let space = assembler.payload_space();
            let n = space.len().min(piece.len());
            space[..n].copy_from_slice(&piece[..n]);
            piece = &piece[n..];
            seen.extend(assembler.payload_filled(n).map(see));
        }
        let mut refuse = thorny;
        loop {
            let alloc = |bytes| if refuse { None } else { pool.alloc(bytes) };
            match assembler.next(&mut piece, alloc) {
                Ok(Step::Frame(frame)) => seen.push(see(frame)),
                Ok(Step::More) => break,
                Ok(Step::NoBuffer) => assert!(std::mem::take(&mut refuse), "the pool has space"),
                Err(error) => return (seen, Some(error)),
            }
        }
        assert!(piece.is_empty(), "all input is consumed");
    }
    (seen, None)
}

fn see(frame: ogive_rpc::transport::Incoming) -> Seen {
    let payload = frame.payload.map(|buf| buf.to_vec());
    (frame.kind, frame.response, frame.id, frame.deadline_ms, frame.body, payload)
}

/// Bodies decode or do not, without a panic, and what decodes survives being encoded again.
///
/// Byte 0: which message. Bytes 1 and 2: payload length in blocks. Then the body.
pub fn messages(data: &[u8]) {
    let [which, low, high, body @ ..] = data else { return };
    let payload_bytes = usize::from(u16::from_le_bytes([*low, *high])) * 4096;
    match which % 7 {
        0 => check(decode::<IoRequest>(body), |m| m.validate(payload_bytes)),
        1 => check(decode::<IoReply>(body), |_| Ok(())),
        2 => check(decode::<ReplicaRequest>(body), |m| m.validate(payload_bytes)),
        3 => check(decode::<ReplicaReply>(body), |_| Ok(())),
        4 => check(decode::<Greeting>(body), Greeting::validate),
        5 => drop(goodbye::decode(body)),
        _ => {
            check(decode::<PathFrame>(body), PathFrame::validate);
            // What passes the checks can be sent on, and has no bytes that harm a log.
            if let Ok(frame) = PathFrame::decode(body) {
                assert_eq!(PathFrame::decode(&frame.encode()), Ok(frame));
            }
        }
    }
}

fn check<T>(decoded: Result<T, Malformed>, validate: impl Fn(&T) -> Result<(), Malformed>)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let Ok(message) = decoded else { return };
    let verdict = validate(&message);
    let again: T = decode(&encode(&message)).expect("what was encoded here decodes");
    assert_eq!(again, message);
    assert_eq!(validate(&again), verdict);
}

/// The header of a lane's message decodes or does not, without a panic, and what decodes has no
/// other form.
#[cfg(feature = "ucx")]
pub fn lane(data: &[u8]) {
    use ogive_rpc::limits::PAYLOAD_BYTES_MAX;
    use ogive_rpc::transport::ucx::wire::{self, LaneHead, Message};
    let Ok(head) = LaneHead::decode(data) else { return };
    assert_eq!(wire::key(data), Some(head.key));
    let mut again = Vec::new();
    head.encode(&mut again);
    assert_eq!(again, data);
    match head.message {
        Message::Frame(header, end) => {
            if let Ok(body) = wire::body(&mut Vec::new(), end, &header) {
                assert_eq!(body.len(), header.body_bytes as usize);
            }
        }
        Message::Part(bytes) => {
            let mut start = Vec::new();
            wire::part(&mut start, bytes).expect("one part is shorter than the longest body");
            assert_eq!(start, bytes);
        }
        Message::Offer(offer) => assert!((1..=PAYLOAD_BYTES_MAX).contains(&offer.len)),
        Message::Probe | Message::Ping | Message::Piece | Message::Open | Message::Taken(_) => {}
    }
}
