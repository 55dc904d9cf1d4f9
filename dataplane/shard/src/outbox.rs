//! Appends on their way to one follower, in order.
//!
//! The core names entries by index; here they become a message with the data behind it. An entry
//! that has left memory is read back from the device first, and the appends behind it wait, so that
//! the follower sees them in order.

use std::collections::VecDeque;

use ogive_buf::Buf;
use ogive_store::Store;
use ogive_types::message::{Append, Entry, ReplicaRequest};
use ogive_types::{CopysetId, Index, LogPos, MAX_IO_BYTES, ShardAddr, Term, Time};

use crate::calls::{Calls, Token};
use crate::event::Effect;
use crate::limits::OUTBOX_MAX;
use crate::peers::{PeerCall, Peers, What};

/// What the core wants sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) term: Term,
    pub(crate) prev: LogPos,
    pub(crate) from: Index,
    pub(crate) count: usize,
    pub(crate) commit: Index,
    pub(crate) sent: Time,
}

impl Batch {
    /// What is left of the batch when only `entries` of it fit a message.
    fn behind(self, entries: &[Entry]) -> Option<Batch> {
        let last = entries.last().filter(|_| entries.len() < self.count)?;
        let index = Index(self.from.0 + entries.len() as u64);
        let prev = LogPos { term: last.term, index: index.prev() };
        Some(Batch { prev, from: index, count: self.count - entries.len(), ..self })
    }
}

#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Batch>,
    /// Data read back for the first waiting batch.
    fetched: Vec<(Index, Buf)>,
    reading: Option<(Token, Index)>,
}

/// Whether the follower must be probed again, since something for it was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    Lost,
}

/// The parts of a shard that sending needs.
pub(crate) struct Wire<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) peers: &'a mut Peers,
    pub(crate) calls: &'a mut Calls,
    pub(crate) now: Time,
    pub(crate) out: &'a mut Vec<Effect>,
}

impl Outbox {
    /// Adds a batch; send it with `pump`.
    pub(crate) fn push(&mut self, batch: Batch) -> Sent {
        if self.waiting.len() >= OUTBOX_MAX {
            return Sent::Lost;
        }
        self.waiting.push_back(batch);
        Sent::All
    }

    /// The data of an entry arrived, or cannot be had, and the appends that need it are dropped;
    /// `None` when it is not ours, otherwise which entry.
    pub(crate) fn fetched(&mut self, token: Token, data: Option<&Buf>) -> Option<Index> {
        let (_, index) = self.reading.take_if(|(reading, _)| *reading == token)?;
        match data {
            Some(data) => self.fetched.push((index, data.clone())),
            None => self.waiting.clear(),
        }
        Some(index)
    }

    /// The read that the first waiting batch needs, if one is under way.
    pub(crate) fn reading(&self) -> Option<Token> {
        self.reading.map(|(token, _)| token)
    }

    /// Sends what can be sent.
    pub(crate) fn pump(&mut self, copyset: CopysetId, to: ShardAddr, wire: &mut Wire) -> Sent {
        while self.reading.is_none() {
            let Some(&batch) = self.waiting.front() else { break };
            let Some((entries, payload)) = self.collect(copyset, batch, wire) else {
                return match self.reading {
                    Some(_) => Sent::All,
                    None => self.lose(),
                };
            };
            self.waiting.pop_front();
            self.fetched.clear();
            if let Some(rest) = batch.behind(&entries) {
                self.waiting.push_front(rest);
            }
            let Batch { term, prev, commit, sent, .. } = batch;
            let append = Append { term, prev, commit, sent, entries };
            let request = ReplicaRequest::Append(copyset, append);
            let call = PeerCall { to, what: What::Append(copyset) };
            if !wire.peers.call(call, &request, payload, wire.now, wire.out) {
                return self.lose();
            }
        }
        Sent::All
    }

    fn lose(&mut self) -> Sent {
        self.waiting.clear();
        self.fetched.clear();
        Sent::Lost
    }

    /// The entries of a batch with their data; `None` when one is gone from the log, or must be
    /// read first.
    fn collect(
        &mut self,
        copyset: CopysetId,
        batch: Batch,
        wire: &mut Wire,
    ) -> Option<(Vec<Entry>, Vec<Buf>)> {
        let mut entries = Vec::with_capacity(batch.count);
        let mut payload = Vec::with_capacity(batch.count);
        let mut bytes = 0;
        for index in (batch.from.0..).take(batch.count).map(Index) {
            let entry = wire.store.entry(copyset, index)?;
            let data_bytes = entry.op.data_bytes();
            if data_bytes > 0 {
                bytes += data_bytes;
                if bytes > MAX_IO_BYTES {
                    break; // the rest goes into a message of its own
                }
                let cached = entry.payload.clone();
                let fetched = || self.fetched.iter().find(|(i, _)| *i == index);
                match cached.or_else(|| fetched().map(|(_, data)| data.clone())) {
                    Some(data) => payload.push(data),
                    None => {
                        let token = wire.calls.token();
                        wire.store.read_entry(token.0, copyset, index);
                        self.reading = Some((token, index));
                        return None;
                    }
                }
            }
            entries.push(Entry { term: entry.term, op: entry.op.clone() });
        }
        Some((entries, payload))
    }
}

#[cfg(test)]
mod tests {
    use ogive_types::message::Op;

    use super::*;

    #[test]
    fn what_does_not_fit_a_message_follows_in_the_next() {
        let pos = |term, index| LogPos { term: Term(term), index: Index(index) };
        let (prev, commit) = (pos(2, 9), Index(9));
        let batch = Batch { term: Term(3), prev, from: Index(10), count: 3, commit, sent: Time(7) };
        let entries = [2, 3].map(|term| Entry { term: Term(term), op: Op::Noop });
        let rest = batch.behind(&entries).expect("one entry is left");
        assert_eq!((rest.prev, rest.from, rest.count), (pos(3, 11), Index(12), 1));
        let whole = Batch { count: 2, ..batch };
        assert!(whole.behind(&entries).is_none(), "nothing is left");
        assert!(Batch { count: 0, ..batch }.behind(&[]).is_none(), "a probe is sent once");
    }
}
