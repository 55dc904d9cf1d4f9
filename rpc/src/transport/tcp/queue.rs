//! Frames on their way into a socket: gathered into slices for one write of many frames, and
//! continued at the byte where the kernel stopped.

use std::collections::VecDeque;
use std::io::IoSlice;

use ogive_buf::Buf;

use crate::frame::{HEADER_BYTES, Header};
use crate::transport::Outgoing;

/// Bodies up to this are copied behind their header, in the place that every frame has for it: no
/// allocation, and one slice less for the kernel. Requests and answers about 4 KiB fit.
const JOINED_BODY_BYTES: usize = 112;
/// Up to this many bytes, all that waits is copied together and given to the kernel as one piece: a
/// frame with 4 KiB, or a batch of small ones. The kernel takes longer to look at several slices
/// than 4 KiB take to copy (figures: `rpc/design/0001-tcp-polling.md`).
pub(super) const JOINED_SEND_BYTES: usize = 6 << 10;

/// Frames of one connection that are not, or not fully, handed to the kernel.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    frames: VecDeque<Queued>,
    /// Bytes of the first frame that the kernel has taken.
    sent: usize,
    /// Bytes that it has not taken, of all frames.
    bytes: usize,
}

#[derive(Debug)]
struct Queued {
    /// The header, and behind it a short body.
    head: [u8; HEADER_BYTES + JOINED_BODY_BYTES],
    /// Bytes of `head` in use.
    head_bytes: usize,
    /// A body that is too long to be copied behind the header.
    body: Vec<u8>,
    payload: Vec<Buf>,
    bytes: usize,
}

impl SendQueue {
    /// Appends a frame of an upper layer.
    pub(super) fn push(&mut self, frame: Outgoing) {
        let payload_bytes = frame.payload.iter().map(|buf| buf.len()).sum();
        let header = Header {
            response: frame.response,
            id: frame.id,
            deadline_ms: frame.deadline_ms,
            ..Header::new(frame.kind, &frame.body, payload_bytes)
        };
        self.append(header, frame.body, frame.payload);
    }

    /// Appends a control frame.
    pub(super) fn push_control(&mut self, kind: u8, body: Vec<u8>) {
        self.append(Header::new(kind, &body, 0), body, Vec::new());
    }

    fn append(&mut self, header: Header, mut body: Vec<u8>, payload: Vec<Buf>) {
        let bytes = HEADER_BYTES + body.len() + header.payload_bytes as usize;
        self.bytes += bytes;
        let mut head = [0; HEADER_BYTES + JOINED_BODY_BYTES];
        head[..HEADER_BYTES].copy_from_slice(&header.encode());
        let mut head_bytes = HEADER_BYTES;
        if body.len() <= JOINED_BODY_BYTES {
            head_bytes += body.len();
            head[HEADER_BYTES..head_bytes].copy_from_slice(&body);
            body = Vec::new();
        }
        self.frames.push_back(Queued { head, head_bytes, body, payload, bytes });
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Drops everything, for a connection that cannot send any more.
    pub(super) fn clear(&mut self) {
        *self = SendQueue::default();
    }

    /// Drops the frames of which nothing was sent, so that the stream stays whole.
    pub(super) fn clear_unsent(&mut self) {
        self.frames.truncate(usize::from(self.sent > 0));
        self.bytes = self.frames.front().map_or(0, |first| first.bytes - self.sent);
    }

    /// Fills `slices` with what comes next; how many slices, and bytes in them.
    pub(super) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut total, mut skip) = (0, 0, self.sent);
        for frame in &self.frames {
            for part in frame.parts() {
                if skip >= part.len() {
                    skip -= part.len();
                    continue;
                }
                if count == slices.len() {
                    return (count, total);
                }
                slices[count] = IoSlice::new(&part[skip..]);
                count += 1;
                total += part.len() - skip;
                skip = 0;
            }
        }
        (count, total)
    }

    /// Copies all that waits, at most [`JOINED_SEND_BYTES`], to the front of `out`. How many bytes,
    /// and how many of them are payload.
    pub(super) fn join(&self, out: &mut [u8]) -> (usize, usize) {
        let (mut total, mut skip, mut payload) = (0, self.sent, 0);
        for frame in &self.frames {
            for part in frame.parts() {
                let from = skip.min(part.len());
                skip -= from;
                let rest = &part[from..];
                out[total..total + rest.len()].copy_from_slice(rest);
                total += rest.len();
            }
            payload += frame.payload.iter().map(|buf| buf.len()).sum::<usize>();
        }
        assert_eq!(total, self.bytes, "all that waits");
        (total, payload.min(total))
    }

    /// What waits, when it is one piece.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        let first = self.frames.front()?;
        let alone = self.frames.len() == 1 && first.head_bytes == first.bytes;
        alone.then(|| &first.head[self.sent..first.head_bytes])
    }

    /// The kernel took `n` bytes. Frees the frames that are sent; how many.
    pub(super) fn advance(&mut self, n: usize) -> u64 {
        assert!(n <= self.bytes, "no more is sent than was queued");
        self.bytes -= n;
        self.sent += n;
        let mut done = 0;
        while let Some(first) = self.frames.front() {
            if self.sent < first.bytes {
                break;
            }
            self.sent -= first.bytes;
            self.frames.pop_front();
            done += 1;
        }
        assert!(self.sent == 0 || !self.frames.is_empty());
        done
    }
}

impl Queued {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let head = [&self.head[..self.head_bytes], self.body.as_slice()];
        head.into_iter().chain(self.payload.iter().map(|buf| &buf[..]))
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
