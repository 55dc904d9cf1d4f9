//! Numbers and layouts of the protocol. Everything on the wire is big-endian.
//!
//! | request | bytes | | simple reply | bytes | | structured chunk | bytes |
//! |---|---|---|---|---|---|---|---|
//! | magic `25609513` | 4 | | magic `67446698` | 4 | | magic `668e33ef` | 4 |
//! | flags | 2 | | error | 4 | | flags | 2 |
//! | command | 2 | | cookie | 8 | | type | 2 |
//! | cookie | 8 | | data of a read | … | | cookie | 8 |
//! | offset | 8 | | | | | length | 4 |
//! | length | 4 | | | | | that many bytes | … |
//! | data of a write | … | | | | | | |

use ogive_client::VolumeError;

/// `NBDMAGIC`, the first word of a server.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before the server's flags and before each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before each simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before each chunk of a structured reply.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Handshake flag: fixed newstyle.
pub const HANDSHAKE_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag: no padding after `NBD_OPT_EXPORT_NAME`.
pub const HANDSHAKE_NO_ZEROES: u16 = 1 << 1;

/// Transmission flags, as told to a client for an export.
pub type TransmissionFlags = u16;
/// The flags are meant.
pub const FLAG_HAS_FLAGS: u16 = 1 << 0;
/// Writes are refused.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// `NBD_CMD_FLUSH` is understood.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// `NBD_CMD_FLAG_FUA` is understood.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// `NBD_CMD_TRIM` is understood.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// `NBD_CMD_WRITE_ZEROES` is understood.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// `NBD_CMD_FLAG_DF` is understood.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Several connections see one consistent disk.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// `NBD_CMD_FLAG_FAST_ZERO` is understood.
pub const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// Option: enter transmission, the old way.
pub const OPT_EXPORT_NAME: u32 = 1;
/// Option: end the session.
pub const OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const OPT_LIST: u32 = 3;
/// Option: TLS.
pub const OPT_STARTTLS: u32 = 5;
/// Option: describe an export.
pub const OPT_INFO: u32 = 6;
/// Option: describe an export and enter transmission.
pub const OPT_GO: u32 = 7;
/// Option: use structured replies.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: list metadata contexts.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: select metadata contexts.
pub const OPT_SET_META_CONTEXT: u32 = 10;

/// Option reply: done.
pub const REP_ACK: u32 = 1;
/// Option reply: an export.
pub const REP_SERVER: u32 = 2;
/// Option reply: a fact about an export.
pub const REP_INFO: u32 = 3;
/// Option reply: a metadata context.
pub const REP_META_CONTEXT: u32 = 4;
/// Option reply: not supported.
pub const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
/// Option reply: malformed.
pub const REP_ERR_INVALID: u32 = (1 << 31) + 3;
/// Option reply: no such export.
pub const REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
/// Option reply: too long.
pub const REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;

/// Fact: size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Fact: name.
pub const INFO_NAME: u16 = 1;
/// Fact: description.
pub const INFO_DESCRIPTION: u16 = 2;
/// Fact: block sizes.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// The metadata context that tells what is allocated.
pub const BASE_ALLOCATION: &[u8] = b"base:allocation";
/// Its number in this server's sessions.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// In `base:allocation`: not allocated.
pub const STATE_HOLE: u32 = 1 << 0;
/// In `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;

/// Command: read.
pub const CMD_READ: u16 = 0;
/// Command: write.
pub const CMD_WRITE: u16 = 1;
/// Command: end the session.
pub const CMD_DISC: u16 = 2;
/// Command: make writes durable.
pub const CMD_FLUSH: u16 = 3;
/// Command: free.
pub const CMD_TRIM: u16 = 4;
/// Command: prefetch.
pub const CMD_CACHE: u16 = 5;
/// Command: make zero.
pub const CMD_WRITE_ZEROES: u16 = 6;
/// Command: tell what is allocated.
pub const CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: durable before the reply.
pub const CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag: keep the space.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag: answer in one chunk.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag: one extent is enough.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag: fail rather than write zeroes slowly.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

/// Chunk flag: the last of its reply.
pub const CHUNK_DONE: u16 = 1 << 0;
/// Chunk: nothing.
pub const CHUNK_NONE: u16 = 0;
/// Chunk: data at an offset.
pub const CHUNK_OFFSET_DATA: u16 = 1;
/// Chunk: extents.
pub const CHUNK_BLOCK_STATUS: u16 = 5;
/// Chunk: an error.
pub const CHUNK_ERROR: u16 = (1 << 15) + 1;

/// Errors as the protocol numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not allowed.
    Perm = 1,
    /// Input or output failed.
    Io = 5,
    /// No memory for it now.
    NoMem = 12,
    /// It makes no sense.
    Inval = 22,
    /// No space left.
    NoSpc = 28,
    /// Not supported, or not fast.
    NotSup = 95,
    /// The server stops serving this export.
    Shutdown = 108,
}

impl From<&VolumeError> for Errno {
    fn from(error: &VolumeError) -> Errno {
        match error {
            VolumeError::OutOfRange { .. } | VolumeError::TooLong => Errno::Inval,
            VolumeError::Overloaded => Errno::NoMem,
            VolumeError::NoSpace => Errno::NoSpc,
            VolumeError::Fenced => Errno::Shutdown,
            VolumeError::TimedOut | VolumeError::Io(_) => Errno::Io,
        }
    }
}

/// A request's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// The command.
    pub command: u16,
    /// The client's name for it.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl RequestHeader {
    /// Its length on the wire.
    pub const BYTES: usize = 28;

    /// Reads one; `None` when the magic is wrong.
    pub fn decode(bytes: &[u8; RequestHeader::BYTES]) -> Option<RequestHeader> {
        let mut at = Cursor(bytes);
        (at.u32()? == REQUEST_MAGIC).then_some(())?;
        let (flags, command, cookie) = (at.u16()?, at.u16()?, at.u64()?);
        Some(RequestHeader { flags, command, cookie, offset: at.u64()?, len: at.u32()? })
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = REQUEST_MAGIC.to_be_bytes().to_vec();
        out.extend(self.flags.to_be_bytes());
        out.extend(self.command.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
        out.extend(self.offset.to_be_bytes());
        out.extend(self.len.to_be_bytes());
        out
    }
}

/// Reads numbers and strings from the front of a slice; `None` at its end.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string after its length.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}
