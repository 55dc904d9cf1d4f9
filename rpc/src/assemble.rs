//! Frames out of a byte stream, with each payload put into a pooled buffer. No I/O.
//!
//! ```text
//!        head complete,            buffer given              payload complete
//!        payload to come
//!  Head ----------------> Waiting ------------> Filling ----------------------> Head (+ frame)
//!    \________________________________________________________________________/
//!                     head complete, no payload (+ frame)
//! ```
//!
//! A payload can be read from the socket straight into [`Assembler::payload_space`]. Only what
//! arrived together with its head is copied.

use ogive_buf::BufMut;

use crate::frame::{Decoder, FrameError, Head};
use crate::transport::Incoming;

/// Puts frames together.
#[derive(Debug, Default)]
pub struct Assembler {
    decoder: Decoder,
    state: State,
    copied_bytes: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Waiting(Head),
    Filling {
        head: Head,
        buf: BufMut,
        have: usize,
    },
}

/// What [`Assembler::next`] found.
#[derive(Debug)]
pub enum Step {
    /// All input is consumed; no frame is complete.
    More,
    /// There is no buffer for the next payload. The rest of the input is not consumed: give it
    /// again once there is one.
    NoBuffer,
    /// A frame. Control frames are reported too.
    Frame(Incoming),
}

impl Assembler {
    /// At the start of a connection.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// HELLO was accepted: from the next frame on everything else may come.
    pub fn establish(&mut self) {
        self.decoder.establish();
    }

    /// True when the stream stands inside a frame.
    pub fn is_partial(&self) -> bool {
        self.decoder.is_partial() || !matches!(self.state, State::Head)
    }

    /// Payload bytes that [`Assembler::next`] copied since the last call of this.
    pub fn take_copied(&mut self) -> u64 {
        std::mem::take(&mut self.copied_bytes)
    }

    /// Consumes `input` up to the end of the next frame. `alloc` gives a buffer of exactly the
    /// length asked for, or `None` when there is none now. After an error the connection is lost.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        alloc: impl FnOnce(usize) -> Option<BufMut>,
    ) -> Result<Step, FrameError> {
        if matches!(self.state, State::Head) {
            let Some(head) = self.decoder.feed(input)? else { return Ok(Step::More) };
            if head.header.payload_bytes == 0 {
                return Ok(Step::Frame(incoming(head, None)));
            }
            self.state = State::Waiting(head);
        }
        if !self.start_payload(alloc) {
            return Ok(Step::NoBuffer);
        }
        let space = self.payload_space();
        let n = space.len().min(input.len());
        let (front, rest) = input.split_at(n);
        space[..n].copy_from_slice(front);
        *input = rest;
        self.copied_bytes += n as u64;
        Ok(self.payload_filled(n).map_or(Step::More, Step::Frame))
    }

    /// Where the rest of the current payload belongs; empty when none is being received.
    pub fn payload_space(&mut self) -> &mut [u8] {
        match &mut self.state {
            State::Filling { buf, have, .. } => &mut buf[*have..],
            _ => &mut [],
        }
    }

    /// `n` bytes were put into [`Assembler::payload_space`]; the frame, when it is complete now.
    pub fn payload_filled(&mut self, n: usize) -> Option<Incoming> {
        let State::Filling { buf, have, .. } = &mut self.state else {
            assert_eq!(n, 0, "no payload is being received");
            return None;
        };
        *have += n;
        assert!(*have <= buf.len(), "more payload than announced");
        if *have < buf.len() {
            return None;
        }
        match std::mem::take(&mut self.state) {
            State::Filling { head, buf, .. } => Some(incoming(head, Some(buf))),
            _ => unreachable!("matched above"),
        }
    }

    /// Gets a buffer for a payload that waits for one. False when there is none.
    fn start_payload(&mut self, alloc: impl FnOnce(usize) -> Option<BufMut>) -> bool {
        let State::Waiting(head) = &self.state else { return true };
        let bytes = head.header.payload_bytes as usize;
        let Some(buf) = alloc(bytes) else { return false };
        assert_eq!(buf.len(), bytes, "the length asked for");
        if let State::Waiting(head) = std::mem::take(&mut self.state) {
            self.state = State::Filling { head, buf, have: 0 };
        }
        true
    }
}

fn incoming(head: Head, payload: Option<BufMut>) -> Incoming {
    Incoming {
        kind: head.header.kind,
        response: head.header.response,
        id: head.header.id,
        deadline_ms: head.header.deadline_ms,
        body: head.body,
        payload: payload.map(BufMut::freeze),
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
