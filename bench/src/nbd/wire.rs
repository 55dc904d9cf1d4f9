//! Numbers and layouts of the NBD protocol that this client uses, all big-endian.
//!
//! ```text
//! request       magic u32 · flags u16 · type u16 · cookie u64 · offset u64 · length u32 · data
//! simple reply  magic u32 · error u32 · cookie u64 · data of a read
//! option        "IHAVEOPT" u64 · option u32 · length u32 · data
//! option reply  magic u64 · option u32 · type u32 · length u32 · data
//! ```

/// "NBDMAGIC": first words of a server.
pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT": the newstyle greeting, and each option.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of an option reply.
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request.
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub(crate) const REPLY_MAGIC: u32 = 0x6744_6698;

/// Greeting: the server speaks the fixed form of newstyle.
pub(crate) const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Client flags: fixed newstyle, no 124 zero bytes.
pub(crate) const CLIENT_FLAGS: u32 = 3;

/// Option: use an export.
pub(crate) const OPT_GO: u32 = 7;
/// Reply: done.
pub(crate) const REP_ACK: u32 = 1;
/// Reply: a piece of information.
pub(crate) const REP_INFO: u32 = 3;
/// Bit that marks replies that are errors.
pub(crate) const REP_ERROR_BIT: u32 = 1 << 31;
/// Information: size and transmission flags.
pub(crate) const INFO_EXPORT: u16 = 0;

/// Transmission flag: no writes.
pub(crate) const EXPORT_READ_ONLY: u16 = 1 << 1;

/// Bytes of a request without its data.
pub(crate) const REQUEST_BYTES: usize = 28;
/// Bytes of a simple reply without its data.
pub(crate) const REPLY_BYTES: usize = 16;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    Write,
    Disconnect,
}

impl Command {
    fn code(self) -> u16 {
        match self {
            Command::Read => 0,
            Command::Write => 1,
            Command::Disconnect => 2,
        }
    }
}

/// The header of a request.
pub(crate) fn request(
    command: Command,
    cookie: u64,
    offset: u64,
    length: u32,
) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.code().to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..28].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The part of a simple reply after its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SimpleReply {
    /// NBD's error number, 0 for success.
    pub(crate) error: u32,
    /// As in the request.
    pub(crate) cookie: u64,
}

/// Reads a simple reply; `None` when the magic is another.
pub(crate) fn simple_reply(bytes: &[u8; REPLY_BYTES]) -> Option<SimpleReply> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (error, rest) = rest.split_first_chunk::<4>()?;
    let cookie = rest.first_chunk::<8>()?;
    (u32::from_be_bytes(*magic) == REPLY_MAGIC).then(|| SimpleReply {
        error: u32::from_be_bytes(*error),
        cookie: u64::from_be_bytes(*cookie),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_request_and_reply() {
        let bytes = request(Command::Write, 0x0102_0304_0506_0708, 0x1000, 4096);
        let golden = [
            0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10, 0,
            0, 0, 0x10, 0,
        ];
        assert_eq!(bytes, golden);
        let mut reply = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(simple_reply(&reply), Some(SimpleReply { error: 5, cookie: 9 }));
        reply[0] = 0x66;
        assert_eq!(simple_reply(&reply), None);
    }
}
