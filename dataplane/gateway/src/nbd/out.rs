//! What is to be sent, and the framing of replies.

use std::collections::VecDeque;
use std::io::IoSlice;

use ogive_buf::Buf;

use super::protocol::{self, Errno};

/// Bytes to send, in order: small heads, and data that is sent from where it lies.
#[derive(Default)]
pub struct OutQueue {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are sent.
    sent: usize,
    bytes: usize,
}

struct Frame {
    head: Vec<u8>,
    data: Vec<Buf>,
}

impl Frame {
    fn len(&self) -> usize {
        self.head.len() + self.data.iter().map(|buf| buf.len()).sum::<usize>()
    }
}

impl OutQueue {
    /// Bytes that are not sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next bytes, as at most `max` slices.
    pub fn slices(&self, max: usize) -> Vec<IoSlice<'_>> {
        let mut skip = self.sent;
        let mut out = Vec::with_capacity(max.min(2 * self.frames.len()));
        for frame in &self.frames {
            for part in std::iter::once(&frame.head[..]).chain(frame.data.iter().map(|b| &b[..])) {
                let from = skip.min(part.len());
                skip -= from;
                if from < part.len() {
                    out.push(IoSlice::new(&part[from..]));
                }
                if out.len() == max {
                    return out;
                }
            }
        }
        out
    }

    /// The first `n` bytes were sent.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.bytes, "no more than was queued");
        self.bytes -= n;
        self.sent += n;
        while let Some(len) = self.frames.front().map(Frame::len).filter(|&len| len <= self.sent) {
            self.frames.pop_front();
            self.sent -= len;
        }
    }

    pub(crate) fn push(&mut self, head: Vec<u8>, data: Vec<Buf>) {
        let frame = Frame { head, data };
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(crate) fn greeting(&mut self) {
        let mut head = protocol::NBD_MAGIC.to_be_bytes().to_vec();
        head.extend(protocol::OPTION_MAGIC.to_be_bytes());
        let flags = protocol::HANDSHAKE_FIXED_NEWSTYLE | protocol::HANDSHAKE_NO_ZEROES;
        head.extend(flags.to_be_bytes());
        self.push(head, Vec::new());
    }

    pub(crate) fn option_reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        let mut head = protocol::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        head.extend(option.to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend((data.len() as u32).to_be_bytes());
        head.extend(data);
        self.push(head, Vec::new());
    }

    pub(crate) fn simple_reply(&mut self, cookie: u64, error: Option<Errno>, data: Vec<Buf>) {
        let mut head = Vec::with_capacity(16);
        head.extend(protocol::SIMPLE_REPLY_MAGIC.to_be_bytes());
        head.extend(error.map_or(0, |e| e as u32).to_be_bytes());
        head.extend(cookie.to_be_bytes());
        self.push(head, data);
    }

    /// A chunk of a structured reply: `head` and then `data` are its content.
    pub(crate) fn chunk(
        &mut self,
        cookie: u64,
        kind: u16,
        done: bool,
        content: &[u8],
        data: Vec<Buf>,
    ) {
        let len = content.len() + data.iter().map(|buf| buf.len()).sum::<usize>();
        let mut head = Vec::with_capacity(20 + content.len());
        head.extend(protocol::CHUNK_MAGIC.to_be_bytes());
        head.extend(if done { protocol::CHUNK_DONE } else { 0 }.to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend(cookie.to_be_bytes());
        head.extend((len as u32).to_be_bytes());
        head.extend(content);
        self.push(head, data);
    }

    pub(crate) fn error_chunk(&mut self, cookie: u64, error: Errno, text: &str) {
        let mut content = (error as u32).to_be_bytes().to_vec();
        content.extend((text.len() as u16).to_be_bytes());
        content.extend(text.as_bytes());
        self.chunk(cookie, protocol::CHUNK_ERROR, true, &content, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use ogive_buf::Pool;

    use super::*;

    #[test]
    fn any_split_of_the_sending_gives_the_same_bytes() {
        let pool = Pool::new(1 << 22);
        let mut buf = pool.alloc(5000).unwrap();
        buf.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
        let buf = buf.freeze();
        let fill = || {
            let mut out = OutQueue::default();
            out.push(vec![1, 2, 3], vec![buf.clone(), buf.slice(7..9)]);
            out.push(vec![4], Vec::new());
            out.push(vec![5; 100], vec![buf.slice(1..2000)]);
            out
        };
        let whole: Vec<u8> = fill().slices(99).iter().flat_map(|s| s.to_vec()).collect();
        for step in [1, 2, 3, 7, 100, 5000, 9000] {
            let (mut out, mut got) = (fill(), Vec::new());
            assert_eq!(out.bytes(), whole.len());
            while out.bytes() > 0 {
                let first: Vec<u8> = out.slices(2).iter().flat_map(|s| s.to_vec()).collect();
                let n = step.min(first.len());
                got.extend_from_slice(&first[..n]);
                out.advance(n);
            }
            assert_eq!(got, whole, "{step}");
        }
    }
}
