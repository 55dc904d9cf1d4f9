//! The other side of a repair: a peer asks for copies of blocks that are damaged at its place.
//!
//! It names the version that it wants by entry and checksum. Whatever we have of it, in the map or
//! in a retained entry, is read and checked like any other read; what is damaged here, too, is said
//! to be so, and gets a repair of its own.

use std::collections::HashMap;

use ogive_buf::Buf;
use ogive_store::{Damage, PeerRead, ReadError};
use ogive_types::message::{BlockVersion, Found, ReplicaReply, encode};
use ogive_types::{BLOCK_BYTES, CopysetId};

use crate::calls::Token;
use crate::event::Effect;
use crate::shard::Shard;

/// Requests of peers whose blocks are being read. Each is an open call, so credits bound them.
pub(crate) type Serving = HashMap<Token, Serve>;

pub(crate) struct Serve {
    copyset: CopysetId,
    /// The answer for each block; those being read count as here.
    found: Vec<Found>,
    /// Which of them are being read.
    reading: Vec<usize>,
    /// What could be read, when not all could.
    rest: Option<Buf>,
}

impl Shard {
    pub(crate) fn on_fetch(
        &mut self,
        copyset: CopysetId,
        token: Token,
        blocks: &[BlockVersion],
        out: &mut Vec<Effect>,
    ) {
        let applied = self.store.applied(copyset).index;
        let PeerRead { here: reading, unknown } =
            self.store.read_for_peer(token.0, copyset, blocks);
        let absent =
            |b: &BlockVersion| if b.index > applied { Found::Behind } else { Found::Newer };
        let mut found: Vec<Found> = blocks.iter().map(absent).collect();
        unknown.into_iter().for_each(|at| found[at] = Found::Busy);
        reading.iter().for_each(|&at| found[at] = Found::Here);
        if reading.is_empty() {
            return self.answer_fetch(token, copyset, found, Vec::new(), out);
        }
        self.serving.insert(token, Serve { copyset, found, reading, rest: None });
    }

    /// Damage met while reading for a peer: it gets the rest at once, and need not wait for us.
    pub(crate) fn note_for_peer(&mut self, damage: &mut Damage) {
        let Some(serve) = self.serving.get_mut(&Token(damage.token)) else { return };
        for block in &damage.blocks {
            serve.found[serve.reading[block.at]] = Found::Damaged;
        }
        serve.rest = damage.rest.take().map(|rest| rest.freeze());
    }

    /// What a peer wants was read; false when the read was somebody else's.
    pub(crate) fn fetch_read_done(
        &mut self,
        token: Token,
        result: &Result<Buf, ReadError>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(Serve { copyset, mut found, reading, rest }) = self.serving.remove(&token) else {
            return false;
        };
        let data = result.as_ref().ok().or(rest.as_ref());
        let mut payload = Vec::with_capacity(reading.len());
        for (n, at) in reading.into_iter().enumerate() {
            if found[at] != Found::Here {
                continue;
            }
            match data {
                Some(data) => payload.push(data.slice(n * BLOCK_BYTES..(n + 1) * BLOCK_BYTES)),
                None => found[at] = Found::Busy,
            }
        }
        self.answer_fetch(token, copyset, found, payload, out);
        true
    }

    fn answer_fetch(
        &mut self,
        token: Token,
        copyset: CopysetId,
        found: Vec<Found>,
        payload: Vec<Buf>,
        out: &mut Vec<Effect>,
    ) {
        let body = encode(&ReplicaReply::Fetched(copyset, found));
        self.calls.answer(token, body, payload, out);
    }
}
