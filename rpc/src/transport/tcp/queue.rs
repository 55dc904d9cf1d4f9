//! Frames on their way into a socket: gathered into slices for one write of many frames, and
//! continued at the byte where the kernel stopped.

use std::collections::VecDeque;
use std::io::IoSlice;

use ogive_buf::Buf;

use crate::frame::{HEADER_BYTES, Header};
use crate::transport::Outgoing;

/// Bodies up to this are copied behind their header: cheaper than another slice for the kernel.
const JOINED_BODY_BYTES: usize = 512;

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
    head: Vec<u8>,
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
        let joined = if body.len() <= JOINED_BODY_BYTES { body.len() } else { 0 };
        let mut head = Vec::with_capacity(HEADER_BYTES + joined);
        head.extend_from_slice(&header.encode());
        if joined > 0 {
            head.append(&mut body);
        }
        self.frames.push_back(Queued { head, body, payload, bytes });
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
        let head = [self.head.as_slice(), self.body.as_slice()];
        head.into_iter().chain(self.payload.iter().map(|buf| &buf[..]))
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
