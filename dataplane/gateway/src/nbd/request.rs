//! Requests in flight: each is one or more volume operations whose results become one reply.

use ogive_buf::Buf;
use ogive_client::{VolumeError, VolumeOutput};

use super::out::OutQueue;
use super::protocol::{self as p, Errno};
use crate::limits::EXTENTS_MAX;

/// What kind of reply a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Data from this offset; in one chunk when `whole`.
    Read { offset: u64, whole: bool },
    /// Extents of so many bytes; only the first when `one`.
    Status { one: bool },
    /// A read of nothing: no data, but the reply that reads get.
    Empty,
    /// No more than the outcome.
    Plain,
}

/// A request that is not answered.
pub(crate) struct Request {
    pub(crate) cookie: u64,
    pub(crate) kind: Kind,
    /// Bytes that it holds of what may be in flight.
    pub(crate) bytes: usize,
    /// Pieces that are not done.
    pub(crate) left: u32,
    /// True once no more pieces will be started.
    pub(crate) whole: bool,
    /// The first failure.
    pub(crate) error: Option<(Errno, String)>,
    /// Bytes still to be filled with zeroes, from this offset.
    pub(crate) zeroes: Option<(u64, u64)>,
    /// Data of reads that are answered in one chunk, by piece, with the offset of the piece.
    pieces: Vec<(u64, Vec<Buf>)>,
    extents: Vec<(u64, bool)>,
}

impl Request {
    pub(crate) fn new(cookie: u64, kind: Kind, bytes: usize) -> Request {
        Request {
            cookie,
            kind,
            bytes,
            left: 0,
            whole: false,
            error: None,
            zeroes: None,
            pieces: Vec::new(),
            extents: Vec::new(),
        }
    }

    /// A piece that starts at byte `at` of the export is done.
    pub(crate) fn piece_done(
        &mut self,
        at: u64,
        result: Result<VolumeOutput, VolumeError>,
        structured: bool,
        out: &mut OutQueue,
    ) {
        self.left -= 1;
        match (result, self.kind) {
            (Ok(VolumeOutput::Data(data)), Kind::Read { whole, .. }) => {
                let last = self.whole && self.left == 0 && self.error.is_none();
                if structured && !whole {
                    out.chunk(self.cookie, p::CHUNK_OFFSET_DATA, last, &at.to_be_bytes(), data);
                } else {
                    self.pieces.push((at, data));
                }
            }
            (Ok(VolumeOutput::Map(runs)), Kind::Status { .. }) => self.extents = runs,
            (Ok(_), Kind::Plain) => {}
            (Ok(_), _) => self.fail(Errno::Io, "the volume gave another answer than asked"),
            (Err(error), _) => self.fail(Errno::from(&error), &error.to_string()),
        }
    }

    pub(crate) fn fail(&mut self, error: Errno, text: &str) {
        self.zeroes = None;
        self.error.get_or_insert_with(|| (error, text.to_owned()));
    }

    /// True once the reply can be finished.
    pub(crate) fn is_done(&self) -> bool {
        self.whole && self.left == 0 && self.zeroes.is_none()
    }

    /// Finishes the reply.
    pub(crate) fn reply(mut self, structured: bool, out: &mut OutQueue) {
        let cookie = self.cookie;
        if let Some((error, text)) = self.error {
            return match structured {
                true => out.error_chunk(cookie, error, &text),
                false => out.simple_reply(cookie, Some(error), Vec::new()),
            };
        }
        match self.kind {
            Kind::Empty if structured => {
                out.chunk(cookie, p::CHUNK_NONE, true, &[], Vec::new());
            }
            Kind::Plain | Kind::Empty => out.simple_reply(cookie, None, Vec::new()),
            Kind::Status { one } => {
                out.chunk(
                    cookie,
                    p::CHUNK_BLOCK_STATUS,
                    true,
                    &extents(&self.extents, one),
                    Vec::new(),
                );
            }
            Kind::Read { whole: false, .. } if structured => {} // the last piece ended it
            Kind::Read { offset, .. } => {
                self.pieces.sort_unstable_by_key(|&(at, _)| at);
                let data = self.pieces.into_iter().flat_map(|(_, data)| data).collect();
                match structured {
                    true => {
                        out.chunk(cookie, p::CHUNK_OFFSET_DATA, true, &offset.to_be_bytes(), data)
                    }
                    false => out.simple_reply(cookie, None, data),
                }
            }
        }
    }
}

/// The content of a block status chunk.
fn extents(runs: &[(u64, bool)], one: bool) -> Vec<u8> {
    let count = if one { 1 } else { EXTENTS_MAX };
    let mut content = p::BASE_ALLOCATION_ID.to_be_bytes().to_vec();
    for &(len, mapped) in runs.iter().take(count) {
        let state = if mapped { 0 } else { p::STATE_HOLE | p::STATE_ZERO };
        content.extend((len as u32).to_be_bytes());
        content.extend(state.to_be_bytes());
    }
    content
}
