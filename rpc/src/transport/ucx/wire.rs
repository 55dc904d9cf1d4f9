//! What an active message of a lane says. Numbers are little-endian.
//!
//! The header of an active message:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | key of the receiving end, told to the sender over TCP |
//! | 8 | 8 | sequence number: 0, 1, 2, … in each direction of a connection |
//! | 16 | 1 | kind, see below |
//! | 17 | 7 | reserved, 0 |
//! | 24 | rest | depends on the kind |
//!
//! | kind | | rest of the header | data |
//! |---|---|---|---|
//! | 1 | PROBE | | |
//! | 2 | PING | | |
//! | 3 | PART | bytes of the next frame's body | |
//! | 4 | FRAME | a frame's header, last bytes of its body | first piece of its payload |
//! | 5 | PIECE | | next piece of the last frame's payload |
//! | 6 | OPEN | | |
//! | 7 | OFFER | address 8, length 8, token 8: the next piece lies in the sender's memory | |
//! | 8 | TAKEN | token 8: the piece was read | |
//!
//! A body that fits goes with its frame ([`crate::frame`]); what of it does not fit is sent before,
//! as PARTs. A payload that lies in several buffers is sent in as many pieces, so that none is
//! gathered into one place first. Messages are worked off in the order of their numbers, and a
//! number out of order ends the connection: it means that the lane lost, repeated or overtook
//! something.

use super::pull::Offer;
use crate::frame::{FrameError, HEADER_BYTES, Header, Phase};
use crate::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Bytes of a message's header before the part that depends on its kind.
pub const LANE_HEAD_BYTES: usize = 24;

const PROBE: u8 = 1;
const PING: u8 = 2;
const PART: u8 = 3;
const FRAME: u8 = 4;
const PIECE: u8 = 5;
const OPEN: u8 = 6;
const OFFER: u8 = 7;
const TAKEN: u8 = 8;

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Shows that the way is open.
    Probe,
    /// A sign of life.
    Ping,
    /// Bytes of the next frame's body.
    Part(&'a [u8]),
    /// A frame, with the end of its body.
    Frame(Header, &'a [u8]),
    /// The next bytes of the last frame's payload.
    Piece,
    /// The sender can read the receiver's memory, and may be offered payloads there.
    Open,
    /// The next bytes of the last frame's payload, to be read.
    Offer(Offer),
    /// What was offered under this token was read.
    Taken(u64),
}

/// The header of a message, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneHead<'a> {
    /// Which end it is for.
    pub key: u64,
    /// Its place in the order of messages.
    pub seq: u64,
    /// What it is.
    pub message: Message<'a>,
}

/// Why bytes are not the header of a message. Whoever sent them does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than any header.
    #[error("message header of {0} bytes, at least {LANE_HEAD_BYTES} needed")]
    Short(usize),
    /// A kind that does not exist.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// Reserved bytes that are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// A rest where none belongs.
    #[error("kind {0} with {1} bytes too many")]
    Long(u8, usize),
    /// A rest of the wrong length.
    #[error("kind {0} with {1} bytes")]
    Rest(u8, usize),
    /// An offer of nothing, or of more than a payload may have.
    #[error("offer of {0} bytes")]
    Offer(u64),
    /// The frame in it is malformed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// More body than announced, or than allowed.
    #[error("body of more than {0} bytes")]
    Body(usize),
}

/// The key in a message's header, before anything else of it is looked at; `None` when too short.
pub fn key(header: &[u8]) -> Option<u64> {
    header.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl<'a> LaneHead<'a> {
    /// Appends the bytes on the wire. A frame's header is encoded with its checksum.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.message {
            Message::Probe => self.begin(PROBE, 0, out),
            Message::Ping => self.begin(PING, 0, out),
            Message::Piece => self.begin(PIECE, 0, out),
            Message::Open => self.begin(OPEN, 0, out),
            Message::Part(bytes) => {
                self.begin(PART, bytes.len(), out);
                out.extend_from_slice(bytes);
            }
            Message::Frame(header, body) => {
                self.begin(FRAME, HEADER_BYTES + body.len(), out);
                out.resize(out.len() + HEADER_BYTES, 0);
                let place = out.last_chunk_mut().expect("as long as a header, just made so");
                header.encode_into(place);
                out.extend_from_slice(body);
            }
            Message::Offer(offer) => {
                self.begin(OFFER, 24, out);
                for word in [offer.at, offer.len as u64, offer.token] {
                    out.extend_from_slice(&word.to_le_bytes());
                }
            }
            Message::Taken(token) => {
                self.begin(TAKEN, 8, out);
                out.extend_from_slice(&token.to_le_bytes());
            }
        }
    }

    /// What precedes the `rest` bytes that depend on the kind; makes room for all of it at once.
    fn begin(&self, kind: u8, rest: usize, out: &mut Vec<u8>) {
        let mut head = [0; LANE_HEAD_BYTES];
        head[..8].copy_from_slice(&self.key.to_le_bytes());
        head[8..16].copy_from_slice(&self.seq.to_le_bytes());
        head[16] = kind;
        out.reserve(LANE_HEAD_BYTES + rest);
        out.extend_from_slice(&head);
    }

    /// Reads and checks a header. Lengths of bodies are checked when they are put together.
    pub fn decode(bytes: &'a [u8]) -> Result<LaneHead<'a>, WireError> {
        let Some((head, rest)) = bytes.split_first_chunk::<LANE_HEAD_BYTES>() else {
            return Err(WireError::Short(bytes.len()));
        };
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let (kind, reserved) = (head[16], &head[17..]);
        if reserved != [0; 7] {
            return Err(WireError::Reserved);
        }
        let message = match kind {
            PROBE => Message::Probe,
            PING => Message::Ping,
            PIECE => Message::Piece,
            PART => Message::Part(rest),
            FRAME => frame(rest)?,
            OPEN => Message::Open,
            OFFER => offer(rest)?,
            TAKEN => Message::Taken(words(rest, kind).map(|[token]| token)?),
            _ => return Err(WireError::Kind(kind)),
        };
        let bare = matches!(kind, PROBE | PING | PIECE | OPEN);
        if bare && !rest.is_empty() {
            return Err(WireError::Long(kind, rest.len()));
        }
        Ok(LaneHead { key: word(0), seq: word(8), message })
    }
}

fn frame(rest: &[u8]) -> Result<Message<'_>, WireError> {
    let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
        return Err(WireError::Short(LANE_HEAD_BYTES + rest.len()));
    };
    let header = Header::decode(header)?;
    header.check(Phase::Established)?;
    Ok(Message::Frame(header, body))
}

fn offer(rest: &[u8]) -> Result<Message<'_>, WireError> {
    let [at, len, token] = words(rest, OFFER)?;
    if len == 0 || len > PAYLOAD_BYTES_MAX as u64 {
        return Err(WireError::Offer(len));
    }
    Ok(Message::Offer(Offer { at, len: len as usize, token }))
}

/// A rest that consists of numbers.
fn words<const N: usize>(rest: &[u8], kind: u8) -> Result<[u64; N], WireError> {
    if rest.len() != 8 * N {
        return Err(WireError::Rest(kind, rest.len()));
    }
    let word = |i: usize| u64::from_le_bytes(rest[8 * i..8 * i + 8].try_into().expect("8 bytes"));
    Ok(std::array::from_fn(word))
}

/// Puts the body of a frame together; `start` holds what PARTs brought, and is left empty.
pub fn body(start: &mut Vec<u8>, end: &[u8], header: &Header) -> Result<Vec<u8>, WireError> {
    let body = match start.is_empty() {
        true => end.to_vec(),
        false => {
            start.extend_from_slice(end);
            std::mem::take(start)
        }
    };
    if body.len() != header.body_bytes as usize {
        return Err(WireError::Body(header.body_bytes as usize));
    }
    if crc32c::crc32c(&body) != header.body_sum {
        return Err(WireError::Frame(FrameError::BodySum));
    }
    Ok(body)
}

/// Appends what a PART brought.
pub fn part(start: &mut Vec<u8>, bytes: &[u8]) -> Result<(), WireError> {
    if start.len() + bytes.len() > BODY_BYTES_MAX {
        return Err(WireError::Body(BODY_BYTES_MAX));
    }
    start.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(head: &LaneHead<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        head.encode(&mut out);
        out
    }

    #[test]
    fn bytes_on_the_wire_are_fixed() {
        let head = LaneHead { key: 0x0102, seq: 3, message: Message::Part(&[0xaa, 0xbb]) };
        let hex: String = bytes(&head).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0201000000000000".to_owned() + "0300000000000000" + "0300000000000000" + "aabb"
        );
    }

    #[test]
    fn every_kind_survives_the_wire() {
        let header = Header { id: 9, ..Header::new(20, b"end", 4096) };
        let all = [
            Message::Probe,
            Message::Ping,
            Message::Part(b"some"),
            Message::Frame(header, b"end"),
            Message::Piece,
            Message::Open,
            Message::Offer(Offer { at: 1 << 40, len: 4096, token: 3 }),
            Message::Taken(3),
        ];
        for message in all {
            let head = LaneHead { key: u64::MAX, seq: 7, message };
            let wire = bytes(&head);
            assert_eq!(key(&wire), Some(u64::MAX));
            assert_eq!(LaneHead::decode(&wire), Ok(head));
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let ping = bytes(&LaneHead { key: 1, seq: 2, message: Message::Ping });
        assert_eq!(LaneHead::decode(&ping[..23]), Err(WireError::Short(23)));
        let with = |at: usize, value: u8| {
            let mut wire = ping.clone();
            wire[at] = value;
            LaneHead::decode(&wire).err()
        };
        assert_eq!(with(16, 9), Some(WireError::Kind(9)));
        assert_eq!(with(20, 1), Some(WireError::Reserved));
        let long = [ping.as_slice(), b"x"].concat();
        assert_eq!(LaneHead::decode(&long), Err(WireError::Long(PING, 1)));
        let offer = |len| LaneHead {
            key: 1,
            seq: 2,
            message: Message::Offer(Offer { at: 0, len, token: 0 }),
        };
        assert_eq!(LaneHead::decode(&bytes(&offer(0))), Err(WireError::Offer(0)));
        assert!(LaneHead::decode(&bytes(&offer(PAYLOAD_BYTES_MAX + 1))).is_err());
        let taken = bytes(&LaneHead { key: 1, seq: 2, message: Message::Taken(1) });
        assert_eq!(LaneHead::decode(&taken[..31]), Err(WireError::Rest(TAKEN, 7)));
        let hello = Header::new(crate::frame::KIND_HELLO, b"", 0);
        let late = bytes(&LaneHead { key: 1, seq: 2, message: Message::Frame(hello, b"") });
        assert_eq!(LaneHead::decode(&late), Err(FrameError::OutOfTurn(0).into()));
    }

    #[test]
    fn bodies_are_put_together_and_checked() {
        let header = Header::new(20, b"one two", 0);
        let mut start = Vec::new();
        part(&mut start, b"one ").expect("short");
        assert_eq!(body(&mut start.clone(), b"two", &header).as_deref(), Ok(&b"one two"[..]));
        assert_eq!(body(&mut start.clone(), b"tw", &header), Err(WireError::Body(7)));
        let sum = WireError::Frame(FrameError::BodySum);
        assert_eq!(body(&mut start, b"six", &header), Err(sum));
        assert!(start.is_empty());
        assert!(part(&mut vec![0; BODY_BYTES_MAX], b"x").is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(head) = LaneHead::decode(&bytes) {
                let mut again = Vec::new();
                head.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
