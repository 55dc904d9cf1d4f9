//! What travels to the peer outside of UCX: worker addresses and descriptions of remote memory.
//!
//! UCX reads such bytes without being told their length, and stops the process, or worse, when they
//! are not what it wrote. So they are wrapped, and checked before UCX sees them:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `OGUA` (worker address) or `OGUM` (remote memory) |
//! | 4 | 2 | major version of the writer's UCX |
//! | 6 | 2 | minor version of the writer's UCX |
//! | 8 | 4 | bytes of the content |
//! | 12 | 4 | CRC-32C of the content |
//! | 16 |  | the content |
//!
//! That finds bytes that were cut, damaged, or of something else. It is no protection from a peer
//! that means harm: who may send them is decided before (HELLO, its token, the cluster's network).

use crate::{UcxError, version};

const HEAD: usize = 16;

/// What the content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Address,
    Memory,
}

impl Content {
    fn magic(self) -> [u8; 4] {
        match self {
            Content::Address => *b"OGUA",
            Content::Memory => *b"OGUM",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Content::Address => "the address of a worker",
            Content::Memory => "a description of remote memory",
        }
    }
}

fn own_version() -> (u16, u16) {
    let (major, minor, _) = version();
    (major as u16, minor as u16)
}

pub(crate) fn wrap(content: Content, bytes: &[u8]) -> Vec<u8> {
    let (major, minor) = own_version();
    let mut out = Vec::with_capacity(HEAD + bytes.len());
    out.extend_from_slice(&content.magic());
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&minor.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// The content, when it is whole, at most `max` bytes long, and from a UCX of this version.
pub(crate) fn unwrap(content: Content, bytes: &[u8], max: usize) -> Result<&[u8], UcxError> {
    let damaged = UcxError::Damaged(content.name());
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Err(damaged) };
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let len = u32_at(8) as usize;
    let fits = head.starts_with(&content.magic()) && len == rest.len() && (1..=max).contains(&len);
    if !fits || crc32c::crc32c(rest) != u32_at(12) {
        return Err(damaged);
    }
    let (theirs, ours) = ((u16_at(4), u16_at(6)), own_version());
    if theirs != ours {
        return Err(UcxError::PeerVersion { theirs, ours });
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_unwrapped() {
        for len in [1, 2, 100] {
            let bytes: Vec<u8> = (0..len).collect();
            let wrapped = wrap(Content::Address, &bytes);
            assert_eq!(unwrap(Content::Address, &wrapped, 100), Ok(&bytes[..]));
            assert!(unwrap(Content::Memory, &wrapped, 100).is_err());
            assert!(unwrap(Content::Address, &wrapped, len as usize - 1).is_err());
        }
        assert!(unwrap(Content::Address, &wrap(Content::Address, &[]), 100).is_err());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let wrapped = wrap(Content::Memory, b"some content");
        for cut in 0..wrapped.len() {
            assert!(unwrap(Content::Memory, &wrapped[..cut], 100).is_err(), "cut at {cut}");
        }
        for bit in 0..wrapped.len() * 8 {
            let mut bytes = wrapped.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(Content::Memory, &bytes, 100).is_err(), "bit {bit}");
        }
        let longer = [wrapped, vec![0]].concat();
        assert!(unwrap(Content::Memory, &longer, 100).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut wrapped = wrap(Content::Address, b"x");
        wrapped[6] ^= 1;
        let error = unwrap(Content::Address, &wrapped, 10).expect_err("another minor version");
        assert!(matches!(error, UcxError::PeerVersion { .. }), "{error}");
    }
}
