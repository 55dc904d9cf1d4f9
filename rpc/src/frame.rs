//! The frame: a header of 48 bytes, then the body, then the payload. Numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `OGV1` |
//! | 4 | 2 | version of the protocol, 1 |
//! | 6 | 1 | kind: 0 HELLO, 1 PING, 2 GOODBYE, 3 PATH, 16 and above for the layers over this one |
//! | 7 | 1 | flags: bit 0 response, others 0 |
//! | 8 | 8 | request id |
//! | 16 | 4 | deadline: milliseconds the requester will wait, 0 without bound |
//! | 20 | 4 | bytes of the body |
//! | 24 | 4 | bytes of the payload |
//! | 28 | 4 | CRC-32C of the body |
//! | 32 | 12 | reserved, 0 |
//! | 44 | 4 | CRC-32C of bytes 0..44 |
//!
//! **Versions.** In every version of the protocol bytes 0..8 have this meaning, and a GOODBYE has
//! exactly this form. So an end can refuse any other version, and tell the peer why, without
//! knowing it.
//!
//! **Integrity.** Header and body carry their own checksums. The payload does not: the layers above
//! carry a checksum for each of its 4 KiB blocks in the body, computed where the data entered the
//! system and checked where it is stored, so a sum here would only repeat that work.
//!
//! HELLO, PING, GOODBYE and PATH have no payload, are no responses, and carry the id 0.

use crate::limits::{
    BODY_BYTES_MAX, GOODBYE_BODY_BYTES_MAX, HELLO_BODY_BYTES_MAX, PATH_BODY_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
};

/// Length of a header in bytes.
pub const HEADER_BYTES: usize = 48;
/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"OGV1";
/// The version spoken here.
pub const VERSION: u16 = 1;
/// Kind of the first frame in both directions, see [`crate::hello`].
pub const KIND_HELLO: u8 = 0;
/// Kind of the sign of life on an idle connection.
pub const KIND_PING: u8 = 1;
/// Kind of the last frame, see [`crate::goodbye`].
pub const KIND_GOODBYE: u8 = 2;
/// Kind of the frames that choose a path, see [`crate::path_frame`].
pub const KIND_PATH: u8 = 3;
/// First kind that belongs to the layers above.
pub const KIND_UPPER_MIN: u8 = 16;

/// Bytes that mean the same in every version, enough to refuse one.
const PREFIX_BYTES: usize = 8;
const FLAG_RESPONSE: u8 = 1;
/// Where the header's own checksum is.
const SUM_AT: usize = 44;
const RESERVED: std::ops::Range<usize> = 32..SUM_AT;

const _: () = assert!(SUM_AT + 4 == HEADER_BYTES);
const _: () = assert!(BODY_BYTES_MAX + PAYLOAD_BYTES_MAX <= u32::MAX as usize);

/// A header that passed all checks, or one to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: u8,
    /// True for a response.
    pub response: bool,
    /// Request id.
    pub id: u64,
    /// Milliseconds that the requester will wait, 0 without bound.
    pub deadline_ms: u32,
    /// Length of the body.
    pub body_bytes: u32,
    /// Length of the payload.
    pub payload_bytes: u32,
    /// CRC-32C of the body.
    pub body_sum: u32,
}

/// Why bytes are not a frame. The connection they came over cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is not this protocol.
    #[error("frame starts with {0:02x?}, not with OGV1; is something else connecting here?")]
    Magic([u8; 4]),
    /// The peer is of another release.
    #[error("peer speaks version {theirs} of the protocol, this end version {ours}; upgrade one")]
    Version {
        /// The version in the frame.
        theirs: u16,
        /// The version spoken here.
        ours: u16,
    },
    /// Bytes changed on the way, or the stream lost its place.
    #[error("header fails its checksum")]
    HeaderSum,
    /// Flags that version 1 does not have.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// Reserved bytes that are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// A kind that does not exist.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// A kind at the wrong time: something before HELLO, or a second HELLO.
    #[error("kind {0} out of turn")]
    OutOfTurn(u8),
    /// A control frame with a payload, a response bit, or an id.
    #[error("malformed control frame of kind {0}")]
    Control(u8),
    /// The body is longer than allowed for its kind.
    #[error("body of {bytes} bytes, at most {max} allowed")]
    BodyTooLong {
        /// Its length.
        bytes: u32,
        /// The limit.
        max: usize,
    },
    /// The payload is longer than allowed.
    #[error("payload of {bytes} bytes, at most {max} allowed")]
    PayloadTooLong {
        /// Its length.
        bytes: u32,
        /// The limit.
        max: usize,
    },
    /// Bytes changed on the way.
    #[error("body fails its checksum")]
    BodySum,
}

/// What a connection may receive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// HELLO or GOODBYE.
    Greeting,
    /// Everything but HELLO.
    Established,
}

impl Header {
    /// The header of a frame with `body` and a payload of `payload_bytes`. Panics when either is
    /// longer than [`crate::limits`] allow, which is a bug of the caller.
    pub fn new(kind: u8, body: &[u8], payload_bytes: usize) -> Header {
        assert!(body.len() <= BODY_BYTES_MAX, "body of {} bytes", body.len());
        assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "payload of {payload_bytes} bytes");
        Header {
            kind,
            response: false,
            id: 0,
            deadline_ms: 0,
            body_bytes: body.len() as u32,
            payload_bytes: payload_bytes as u32,
            body_sum: crc32c::crc32c(body),
        }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        self.encode_into(&mut out);
        out
    }

    /// As [`Header::encode`], to where the bytes belong. Written in words, for what is written in
    /// smaller pieces cannot be read back at once, and it is: by the checksum.
    pub fn encode_into(&self, out: &mut [u8; HEADER_BYTES]) {
        let flags = if self.response { FLAG_RESPONSE } else { 0 };
        let [version_low, version_high] = VERSION.to_le_bytes();
        let [a, b, c, d] = MAGIC;
        let prefix = [a, b, c, d, version_low, version_high, self.kind, flags];
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [
            u64::from_le_bytes(prefix),
            self.id,
            pair(self.deadline_ms, self.body_bytes),
            pair(self.payload_bytes, self.body_sum),
            0,
            0,
        ];
        for (to, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        let sum = crc32c::crc32c(&out[..SUM_AT]);
        out[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads and checks a header. What [`Header::encode`] makes is always accepted.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        check_prefix(bytes)?;
        if crc32c::crc32c(&bytes[..SUM_AT]) != u32_at(bytes, SUM_AT) {
            return Err(FrameError::HeaderSum);
        }
        if bytes[7] & !FLAG_RESPONSE != 0 {
            return Err(FrameError::Flags(bytes[7]));
        }
        if bytes[RESERVED] != [0; RESERVED.end - RESERVED.start] {
            return Err(FrameError::Reserved);
        }
        let low = u32_at(bytes, 8) as u64;
        Ok(Header {
            kind: bytes[6],
            response: bytes[7] & FLAG_RESPONSE != 0,
            id: low | (u32_at(bytes, 12) as u64) << 32,
            deadline_ms: u32_at(bytes, 16),
            body_bytes: u32_at(bytes, 20),
            payload_bytes: u32_at(bytes, 24),
            body_sum: u32_at(bytes, 28),
        })
    }

    /// Checks that a frame with this header may come now, and its lengths against the limits.
    pub fn check(&self, phase: Phase) -> Result<(), FrameError> {
        let (body_max, payload_max) = match (self.kind, phase) {
            (KIND_HELLO, Phase::Greeting) => (HELLO_BODY_BYTES_MAX, 0),
            (KIND_GOODBYE, _) => (GOODBYE_BODY_BYTES_MAX, 0),
            (KIND_PING, Phase::Established) => (0, 0),
            (KIND_PATH, Phase::Established) => (PATH_BODY_BYTES_MAX, 0),
            (KIND_UPPER_MIN.., Phase::Established) => (BODY_BYTES_MAX, PAYLOAD_BYTES_MAX),
            (KIND_HELLO | KIND_PING | KIND_PATH | KIND_UPPER_MIN.., _) => {
                return Err(FrameError::OutOfTurn(self.kind));
            }
            _ => return Err(FrameError::Kind(self.kind)),
        };
        if self.body_bytes as usize > body_max {
            return Err(FrameError::BodyTooLong { bytes: self.body_bytes, max: body_max });
        }
        let control = self.kind < KIND_UPPER_MIN;
        if control && (self.response || self.id != 0 || self.payload_bytes != 0) {
            return Err(FrameError::Control(self.kind));
        }
        if self.payload_bytes as usize > payload_max {
            return Err(FrameError::PayloadTooLong { bytes: self.payload_bytes, max: payload_max });
        }
        Ok(())
    }
}

/// Checks what every version has in common; `bytes` holds at least the prefix.
fn check_prefix(bytes: &[u8]) -> Result<(), FrameError> {
    let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    let theirs = u16::from_le_bytes([bytes[4], bytes[5]]);
    if theirs != VERSION && bytes[6] != KIND_GOODBYE {
        return Err(FrameError::Version { theirs, ours: VERSION });
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Header and body of a frame, both checked; the payload follows in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The header.
    pub header: Header,
    /// The body.
    pub body: Vec<u8>,
}

/// Finds the heads of frames in a stream that arrives in pieces of any size.
///
/// It holds at most one header and one body, and reserves memory for a body only after its length
/// was checked. After an error it must not be fed again.
#[derive(Debug)]
pub struct Decoder {
    phase: Phase,
    head: [u8; HEADER_BYTES],
    have: usize,
    header: Option<Header>,
    body: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Decoder {
        Decoder {
            phase: Phase::Greeting,
            head: [0; HEADER_BYTES],
            have: 0,
            header: None,
            body: Vec::new(),
        }
    }

    /// HELLO was accepted: from the next frame on everything else may come.
    pub fn establish(&mut self) {
        self.phase = Phase::Established;
    }

    /// True when part of a head has been consumed.
    pub fn is_partial(&self) -> bool {
        self.have > 0 || self.header.is_some()
    }

    /// Consumes bytes from the front of `input` up to the end of the next head, and returns it, or
    /// `None` when the input ended first. The caller then takes the payload from the input.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Head>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => match self.feed_header(input)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        let missing = header.body_bytes as usize - self.body.len();
        self.body.extend_from_slice(take(input, missing));
        if self.body.len() < header.body_bytes as usize {
            return Ok(None);
        }
        let body = std::mem::take(&mut self.body);
        if crc32c::crc32c(&body) != header.body_sum {
            return Err(FrameError::BodySum);
        }
        self.header = None;
        Ok(Some(Head { header, body }))
    }

    fn feed_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, FrameError> {
        let part = take(input, HEADER_BYTES - self.have);
        self.head[self.have..self.have + part.len()].copy_from_slice(part);
        self.have += part.len();
        if self.have < HEADER_BYTES {
            // A stranger, or a version with a shorter header, is recognised without waiting.
            if self.have >= PREFIX_BYTES {
                check_prefix(&self.head)?;
            }
            return Ok(None);
        }
        let header = Header::decode(&self.head)?;
        header.check(self.phase)?;
        self.have = 0;
        self.body.reserve_exact(header.body_bytes as usize);
        self.header = Some(header);
        Ok(Some(header))
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

/// Cuts up to `max` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    front
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
