//! Messages of one connection on their way to becoming frames. No I/O, no UCX.
//!
//! Frames are handed out in the order in which they were sent. One whose payload still travels (a
//! rendezvous), or waits for a buffer, holds up those behind it.
//!
//! | message | needs | else |
//! |---|---|---|
//! | any | the next sequence number | violation |
//! | PART, FRAME | the last frame announced all of its payload | violation |
//! | PIECE, OFFER | the last frame wants at least its bytes | violation |
//! | all but FRAME, PIECE | no data | violation |

use std::collections::VecDeque;

use ogive_buf::{Buf, Landing, PartMut, Pool};

use super::wire::{self, LaneHead, Message, WireError};
use crate::frame::{Header, KIND_UPPER_MIN};
use crate::limits::LANE_FRAMES_MAX;
use crate::transport::Incoming;

/// Frame of a connection, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameNo(u64);

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing more.
    None,
    /// Tell the owner that the way is open.
    Probed,
    /// Its data belong to this frame.
    Land(FrameNo),
}

/// Why a message ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("message {got} where {want} is due: the lane lost, repeated or overtook something")]
    Order { got: u64, want: u64 },
    #[error("a message in the middle of a frame")]
    Middle,
    #[error("{0} bytes of data where they do not belong")]
    Data(usize),
    #[error("a control frame over a lane")]
    Control,
    #[error("over {LANE_FRAMES_MAX} frames wait for the end of one")]
    Frames,
}

/// State of the receiving direction. `K` is data that wait for a buffer.
#[derive(Debug)]
pub(super) struct Inbox<K> {
    seq: u64,
    /// Of the next frame's body, what PARTs brought.
    start: Vec<u8>,
    /// Number of the first frame in `frames`.
    first: u64,
    frames: VecDeque<Frame<K>>,
    /// Data in all of `frames` that wait for a buffer.
    waiting: usize,
}

#[derive(Debug)]
struct Frame<K> {
    header: Header,
    body: Vec<u8>,
    space: Option<Landing>,
    /// Payload bytes that messages brought or announced.
    announced: usize,
    /// Payload bytes that are in `space`.
    landed: usize,
    waiting: VecDeque<K>,
}

impl<K> Default for Inbox<K> {
    fn default() -> Inbox<K> {
        Inbox { seq: 0, start: Vec::new(), first: 0, frames: VecDeque::new(), waiting: 0 }
    }
}

impl<K> Inbox<K> {
    /// Takes the header of a message that has `data` bytes of data.
    pub(super) fn take(&mut self, head: LaneHead<'_>, data: usize) -> Result<Act, Violation> {
        if head.seq != self.seq {
            return Err(Violation::Order { got: head.seq, want: self.seq });
        }
        self.seq += 1;
        match head.message {
            Message::Frame(header, end) => return self.begin(header, end, data),
            Message::Piece => return self.go_on(data),
            _ if data > 0 => return Err(Violation::Data(data)),
            Message::Offer(offer) => return self.announce(offer.len),
            Message::Part(bytes) => {
                self.check_between()?;
                wire::part(&mut self.start, bytes)?;
            }
            Message::Probe => return Ok(Act::Probed),
            Message::Ping | Message::Open | Message::Taken(_) => {}
        }
        Ok(Act::None)
    }

    /// A frame that comes whole while none is under way, which is how nearly all come: given to
    /// `out` at once, with `data` copied to its place. False, with nothing changed, when it is not
    /// such a frame or there is no buffer; then [`Inbox::take`], whose results are the same.
    pub(super) fn whole(
        &mut self,
        head: &LaneHead<'_>,
        data: &[u8],
        pool: &Pool,
        out: impl FnOnce(Incoming),
    ) -> Result<bool, Violation> {
        let Message::Frame(header, end) = &head.message else { return Ok(false) };
        let complete = header.payload_bytes as usize == data.len() && self.frames.is_empty();
        if !complete || head.seq != self.seq || header.kind < KIND_UPPER_MIN {
            return Ok(false);
        }
        let payload = match data {
            [] => None,
            data => {
                let Some(mut buf) = pool.alloc(data.len()) else { return Ok(false) };
                buf.copy_from_slice(data);
                Some(buf.freeze())
            }
        };
        self.seq += 1;
        self.first += 1;
        let body = wire::body(&mut self.start, end, header)?;
        out(incoming(header, body, payload));
        Ok(true)
    }

    fn begin(&mut self, header: Header, end: &[u8], data: usize) -> Result<Act, Violation> {
        self.check_between()?;
        if header.kind < KIND_UPPER_MIN {
            return Err(Violation::Control);
        }
        if self.frames.len() == LANE_FRAMES_MAX {
            return Err(Violation::Frames);
        }
        let body = wire::body(&mut self.start, end, &header)?;
        self.frames.push_back(Frame {
            header,
            body,
            space: None,
            announced: 0,
            landed: 0,
            waiting: VecDeque::new(),
        });
        if data == 0 { Ok(Act::None) } else { self.announce(data) }
    }

    fn go_on(&mut self, data: usize) -> Result<Act, Violation> {
        if data == 0 { Err(Violation::Data(0)) } else { self.announce(data) }
    }

    fn announce(&mut self, data: usize) -> Result<Act, Violation> {
        let number = self.first + self.frames.len() as u64;
        let frame = self.frames.back_mut().ok_or(Violation::Data(data))?;
        if data > frame.header.payload_bytes as usize - frame.announced {
            return Err(Violation::Data(data));
        }
        frame.announced += data;
        Ok(Act::Land(FrameNo(number - 1)))
    }

    /// A frame or a part of one may only begin when the last frame is announced whole. A frame
    /// that was handed out was.
    fn check_between(&self) -> Result<(), Violation> {
        match self.frames.back() {
            Some(last) if last.announced < last.header.payload_bytes as usize => {
                Err(Violation::Middle)
            }
            _ => Ok(()),
        }
    }

    /// Where the next `len` bytes of a frame's payload belong; `None` when there is no buffer, or
    /// earlier data of the frame wait for one: then [`Inbox::wait`].
    pub(super) fn space(&mut self, at: FrameNo, len: usize, pool: &Pool) -> Option<PartMut> {
        let frame = self.frame(at);
        if !frame.waiting.is_empty() { None } else { frame.space(len, pool) }
    }

    /// Puts data aside until there is a buffer.
    pub(super) fn wait(&mut self, at: FrameNo, data: K) {
        self.frame(at).waiting.push_back(data);
        self.waiting += 1;
    }

    /// The oldest data that wait, and a place for them; `None` when none wait, or there is still
    /// no buffer. `len` tells the length of data.
    pub(super) fn resume(
        &mut self,
        len: impl Fn(&K) -> usize,
        pool: &Pool,
    ) -> Option<(FrameNo, K, PartMut)> {
        if self.waiting == 0 {
            return None;
        }
        let index = self.frames.iter().position(|frame| !frame.waiting.is_empty())?;
        let frame = &mut self.frames[index];
        let space = frame.space(len(frame.waiting.front()?), pool)?;
        let data = frame.waiting.pop_front()?;
        self.waiting -= 1;
        Some((FrameNo(self.first + index as u64), data, space))
    }

    /// `len` bytes of a frame's payload are where they belong, and their [`PartMut`] is gone.
    pub(super) fn landed(&mut self, at: FrameNo, len: usize) {
        let frame = self.frame(at);
        frame.landed += len;
        assert!(frame.landed <= frame.announced, "no more lands than was announced");
    }

    /// The next frame, when it is complete.
    pub(super) fn pop(&mut self) -> Option<Incoming> {
        let front = self.frames.front()?;
        if front.landed < front.header.payload_bytes as usize {
            return None;
        }
        let Frame { header, body, space, .. } = self.frames.pop_front()?;
        self.first += 1;
        let payload = space.map(|space| space.finish().expect("all parts have landed"));
        Some(incoming(&header, body, payload))
    }

    /// Data that wait for a buffer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn frame(&mut self, at: FrameNo) -> &mut Frame<K> {
        let index = at.0.checked_sub(self.first).expect("the frame was not handed out");
        &mut self.frames[index as usize]
    }
}

#[inline]
fn incoming(header: &Header, body: Vec<u8>, payload: Option<Buf>) -> Incoming {
    let &Header { kind, response, id, deadline_ms, .. } = header;
    Incoming { kind, response, id, deadline_ms, body, payload }
}

impl<K> Frame<K> {
    fn space(&mut self, len: usize, pool: &Pool) -> Option<PartMut> {
        if self.space.is_none() {
            let buf = pool.alloc(self.header.payload_bytes as usize)?;
            self.space = Some(buf.parts());
        }
        let space = self.space.as_mut().expect("allocated above");
        Some(space.take(len).expect("no more is announced than the payload has"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(4 << 20)
    }

    /// Messages of one connection, numbered as a sender does.
    struct Sender(u64);

    impl Sender {
        fn next<'a>(&mut self, message: Message<'a>) -> LaneHead<'a> {
            self.0 += 1;
            LaneHead { key: 5, seq: self.0 - 1, message }
        }

        fn frame<'a>(&mut self, id: u64, body: &'a [u8], payload: usize) -> LaneHead<'a> {
            let header = Header { id, ..Header::new(20, body, payload) };
            self.next(Message::Frame(header, body))
        }
    }

    fn land(inbox: &mut Inbox<Vec<u8>>, act: Act, data: &[u8], pool: &Pool) {
        let Act::Land(at) = act else { panic!("{act:?}") };
        match inbox.space(at, data.len(), pool) {
            Some(mut space) => {
                space.copy_from_slice(data);
                drop(space);
                inbox.landed(at, data.len());
            }
            None => inbox.wait(at, data.to_vec()),
        }
    }

    #[test]
    fn pieces_become_one_payload_and_frames_keep_their_order() {
        let (mut inbox, mut tx, pool) = (Inbox::<Vec<u8>>::default(), Sender(0), pool());
        let Ok(Act::Land(slow)) = inbox.take(tx.frame(1, b"a", 8192), 4096) else { panic!() };
        let first = inbox.space(slow, 4096, &pool).expect("space");
        let act = inbox.take(tx.next(Message::Piece), 4096).expect("piece");
        land(&mut inbox, act, &[2; 4096], &pool);
        assert_eq!(inbox.take(tx.frame(2, b"b", 0), 0), Ok(Act::None));
        assert!(inbox.pop().is_none(), "the first piece is under way, and the second frame waits");
        let mut first = first;
        first.fill(1);
        drop(first);
        inbox.landed(slow, 4096);
        let frame = inbox.pop().expect("complete");
        let payload = frame.payload.expect("payload");
        assert!(frame.id == 1 && payload[..4096] == [1; 4096] && payload[4096..] == [2; 4096]);
        assert_eq!(inbox.pop().map(|f| (f.id, f.body)), Some((2, b"b".to_vec())));
    }

    /// What an inbox hands out for messages of frames, each taken whole where that goes.
    fn hand_out(frames: &[(usize, usize)], whole: bool) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
        let (mut inbox, mut tx, pool) = (Inbox::<Vec<u8>>::default(), Sender(0), pool());
        let mut got = Vec::new();
        for (id, &(body, payload)) in frames.iter().enumerate() {
            let (body, payload) = (vec![id as u8; body], vec![!(id as u8); payload]);
            let head = tx.frame(id as u64, &body, payload.len());
            let out = |frame| got.push(frame);
            if !whole || !inbox.whole(&head, &payload, &pool, out).expect("in order") {
                let act = inbox.take(head, payload.len()).expect("in order");
                if !payload.is_empty() {
                    land(&mut inbox, act, &payload, &pool);
                }
                got.extend(std::iter::from_fn(|| inbox.pop()));
            }
        }
        let bytes = |frame: Incoming| frame.payload.as_deref().unwrap_or_default().to_vec();
        got.into_iter().map(|f| (f.id, f.body.clone(), bytes(f))).collect()
    }

    #[test]
    fn frames_taken_whole_are_as_those_taken_in_steps() {
        let frames = [(0, 0), (3, 0), (0, 1), (48, 4096), (64, 0), (5, 8192)];
        let (whole, steps) = (hand_out(&frames, true), hand_out(&frames, false));
        assert_eq!(whole, steps);
        assert_eq!(whole.iter().map(|f| f.2.len()).sum::<usize>(), 1 + 4096 + 8192);
    }

    #[test]
    fn what_is_not_whole_is_left_alone() {
        let (mut inbox, mut tx, pool) = (Inbox::<Vec<u8>>::default(), Sender(0), pool());
        let never = |_| panic!("nothing is complete");
        let ping = tx.next(Message::Ping);
        assert_eq!(inbox.whole(&ping, &[], &pool, never), Ok(false));
        assert_eq!(inbox.take(ping, 0), Ok(Act::None));
        let late = LaneHead { seq: 5, ..tx.frame(1, b"", 0) };
        assert_eq!(inbox.whole(&late, &[], &pool, never), Ok(false));
        assert_eq!(inbox.take(late, 0), Err(Violation::Order { got: 5, want: 1 }));
        let half = LaneHead { seq: 1, ..tx.frame(2, b"", 8192) };
        assert_eq!(inbox.whole(&half, &[1; 4096], &pool, never), Ok(false));
        let Ok(Act::Land(at)) = inbox.take(half, 4096) else { panic!("space is wanted") };
        let behind = LaneHead { seq: 2, ..tx.frame(3, b"", 0) };
        assert_eq!(inbox.whole(&behind, &[], &pool, never), Ok(false), "it would overtake");
        assert!(inbox.pop().is_none() && inbox.space(at, 4096, &pool).is_some());
        let (mut fresh, all) = (Inbox::<Vec<u8>>::default(), pool.alloc(4 << 20));
        let first = LaneHead { seq: 0, ..tx.frame(4, b"", 4096) };
        assert!(all.is_none(), "a part of the pool is in use");
        let rest: Vec<_> = std::iter::from_fn(|| pool.alloc(4096)).collect();
        assert_eq!(fresh.whole(&first, &[1; 4096], &pool, never), Ok(false), "no buffer");
        drop(rest);
        assert_eq!(fresh.whole(&first, &[1; 4096], &pool, |_| {}), Ok(true));
        let bad = LaneHead { seq: 1, ..tx.next(Message::Frame(Header::new(20, b"a", 0), b"b")) };
        let sum = Violation::Wire(WireError::Frame(crate::frame::FrameError::BodySum));
        assert_eq!(fresh.whole(&bad, &[], &pool, never), Err(sum));
    }

    #[test]
    fn data_wait_for_a_buffer_in_their_order() {
        let (mut inbox, mut tx, pool) = (Inbox::<Vec<u8>>::default(), Sender(0), pool());
        let all = pool.alloc(4 << 20).expect("the whole pool");
        for id in [1, 2] {
            for (head, byte) in [(tx.frame(id, b"", 8192), 1), (tx.next(Message::Piece), 2)] {
                let act = inbox.take(head, 4096).expect("in order");
                land(&mut inbox, act, &[byte; 4096], &pool);
            }
        }
        assert_eq!(inbox.waiting(), 4);
        assert!(inbox.resume(Vec::len, &pool).is_none(), "the pool is empty");
        drop(all);
        while let Some((at, data, mut space)) = inbox.resume(Vec::len, &pool) {
            space.copy_from_slice(&data);
            drop(space);
            inbox.landed(at, data.len());
        }
        for id in [1, 2] {
            let frame = inbox.pop().expect("complete");
            let payload = frame.payload.expect("payload");
            assert!(frame.id == id && payload[..4096] == [1; 4096] && payload[4096..] == [2; 4096]);
        }
    }

    #[test]
    fn long_bodies_come_in_parts() {
        let (mut inbox, mut tx) = (Inbox::<Vec<u8>>::default(), Sender(0));
        let header = Header::new(20, b"one two", 0);
        assert_eq!(inbox.take(tx.next(Message::Part(b"one ")), 0), Ok(Act::None));
        assert_eq!(inbox.take(tx.next(Message::Ping), 0), Ok(Act::None));
        assert_eq!(inbox.take(tx.next(Message::Frame(header, b"two")), 0), Ok(Act::None));
        assert_eq!(inbox.pop().map(|f| f.body), Some(b"one two".to_vec()));
    }

    #[test]
    fn what_breaks_the_protocol_is_told() {
        type Step<'a> = (Message<'a>, usize);
        let whole = |payload| Message::Frame(Header::new(20, b"", payload), b"");
        let control = Message::Frame(Header::new(crate::frame::KIND_PING, b"", 0), b"");
        let cases: [(&[Step<'_>], Violation); 7] = [
            (&[(Message::Ping, 1)], Violation::Data(1)),
            (&[(Message::Piece, 1)], Violation::Data(1)),
            (&[(whole(4096), 4097)], Violation::Data(4097)),
            (&[(whole(4096), 4095), (Message::Piece, 2)], Violation::Data(2)),
            (&[(whole(4096), 0), (whole(0), 0)], Violation::Middle),
            (&[(whole(4096), 9), (Message::Part(b"x"), 0)], Violation::Middle),
            (&[(control, 0)], Violation::Control),
        ];
        for (steps, violation) in cases {
            let (mut inbox, mut tx) = (Inbox::<Vec<u8>>::default(), Sender(0));
            let results = steps.iter().map(|(m, data)| inbox.take(tx.next(m.clone()), *data));
            assert_eq!(results.last(), Some(Err(violation)));
        }
        let mut inbox = Inbox::<Vec<u8>>::default();
        let skipped = LaneHead { key: 5, seq: 1, message: Message::Ping };
        assert_eq!(inbox.take(skipped, 0), Err(Violation::Order { got: 1, want: 0 }));
    }

    #[test]
    fn frames_that_wait_for_one_are_bounded() {
        let (mut inbox, mut tx) = (Inbox::<Vec<u8>>::default(), Sender(0));
        assert!(inbox.take(tx.frame(0, b"", 4096), 4096).is_ok());
        for id in 1..LANE_FRAMES_MAX as u64 {
            assert_eq!(inbox.take(tx.frame(id, b"", 0), 0), Ok(Act::None));
        }
        assert_eq!(inbox.take(tx.frame(9, b"", 0), 0), Err(Violation::Frames));
    }
}
