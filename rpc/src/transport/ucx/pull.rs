//! Reading a payload straight out of the memory of a process of this host.
//!
//! UCX can do that (CMA), but not on endpoints that report the failure of a peer; it then moves
//! large payloads in small pieces through its own memory, at a fraction of the speed (figures:
//! `rpc/design/0004-lanes.md`). So the lane does it: the sender says where the payload lies and
//! keeps it there, the receiver has the kernel copy it, once, from buffer to buffer, and says so.
//!
//! Whether one process may read another is for the kernel to say (user, `ptrace_scope`, seccomp).
//! Each end tries when it learns of the other, by reading a mark whose value the address tells; if
//! the mark cannot be read, the sender never hears that it may offer, and UCX moves the payloads.

use std::hash::{BuildHasher, RandomState};
use std::io;

/// Where a lane's mark lies, and what it says. Precedes UCX's address in the lane's.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | process id; 0: reading memory is not for this path |
/// | 8 | 8 | address of the mark |
/// | 16 | 16 | the mark |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pid: u64,
    at: u64,
    value: [u8; MARK_BYTES],
}

/// Length of a mark.
pub(super) const MARK_BYTES: usize = 16;
/// Length of an encoded [`Mark`].
pub(super) const PREFIX_BYTES: usize = 16 + MARK_BYTES;

impl Mark {
    /// The mark of a lane whose memory may be read: `value` stays where it is while the lane lives.
    pub(super) fn here(value: &[u8; MARK_BYTES]) -> Mark {
        allow();
        Mark { pid: u64::from(std::process::id()), at: value.as_ptr() as u64, value: *value }
    }

    /// The mark of a path on which memory is not read.
    pub(super) fn none() -> Mark {
        Mark { pid: 0, at: 0, value: [0; MARK_BYTES] }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.value);
    }

    /// Splits a lane's address into the mark and UCX's part; `None` when it is too short.
    pub(super) fn decode(address: &[u8]) -> Option<(Mark, &[u8])> {
        let (pid, rest) = address.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (pid, at) = (u64::from_le_bytes(*pid), u64::from_le_bytes(*at));
        Some((Mark { pid, at, value: *value }, rest))
    }

    /// The process whose memory this one can read, or why it cannot.
    pub(super) fn try_read(&self) -> Result<Peer, String> {
        let pid = i32::try_from(self.pid).ok().filter(|&pid| pid > 0);
        let peer = Peer { pid: pid.ok_or("the peer names no process")? };
        let mut found = [0; MARK_BYTES];
        peer.read(self.at, &mut found).map_err(|e| e.to_string())?;
        (found == self.value).then_some(peer).ok_or_else(|| "it is another process".into())
    }
}

/// A mark that no other process has.
pub(super) fn random_mark() -> [u8; MARK_BYTES] {
    let [a, b] = [1u64, 2].map(|n| RandomState::new().hash_one(n).to_le_bytes());
    std::array::from_fn(|i| if i < 8 { a[i] } else { b[i - 8] })
}

/// A piece of a payload that lies in the memory of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its address there.
    pub at: u64,
    /// Its length in bytes.
    pub len: usize,
    /// By which the sender knows it.
    pub token: u64,
}

/// A process whose memory can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pid: i32,
}

impl Peer {
    /// Fills `into` with what lies at `at` in the memory of the peer.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: into.len() };
        // SAFETY: the kernel writes to `into` alone, which is ours for the time of the call; what
        // it reads is the peer's, and an address where nothing lies is an error.
        let n = unsafe {
            libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0)
        };
        match usize::try_from(n) {
            Ok(n) if n == into.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// Lets processes of the same user read this one, where the system restricts that to parents.
fn allow() {
    // SAFETY: sets an attribute of this process and touches no memory. On systems without the
    // restriction it fails, and nothing is lost.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_and_a_wrong_one_is_not() {
        let value = *b"0123456789abcdef";
        let mark = Mark::here(&value);
        let mut address = Vec::new();
        mark.encode(&mut address);
        assert_eq!(address.len(), PREFIX_BYTES);
        address.extend_from_slice(b"ucx");
        assert_eq!(Mark::decode(&address), Some((mark, &b"ucx"[..])));
        assert_eq!(Mark::decode(&address[..PREFIX_BYTES - 1]), None);
        let peer = mark.try_read().expect("a process may read itself");
        let bytes = vec![7u8; 100_000];
        let mut copy = vec![0; bytes.len()];
        peer.read(bytes.as_ptr() as u64, &mut copy).expect("readable");
        assert_eq!(copy, bytes);
        assert!(peer.read(8, &mut copy).is_err(), "no memory there");
        assert!(Mark { value: [0; MARK_BYTES], ..mark }.try_read().is_err());
        assert!(Mark { at: 8, ..mark }.try_read().is_err());
        assert!(Mark { pid: u64::MAX, ..mark }.try_read().is_err());
        assert!(Mark::none().try_read().is_err());
    }
}
