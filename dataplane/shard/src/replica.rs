//! What other replicas ask of us, and what they answer.

use ogive_buf::Buf;
use ogive_copyset::{AppendMeta, Appending};
use ogive_rpc::hello::Identity;
use ogive_rpc::transport::{ConnId, Incoming};
use ogive_store::Store;
use ogive_types::message::{
    Append, Entry, HeartbeatReply, Op, ReplicaReply, ReplicaRequest, decode, encode,
};
use ogive_types::{CopysetId, Index, ShardAddr, Term, Time, block_sums};

use crate::calls::Token;
use crate::event::Effect;
use crate::io::note_space;
use crate::peers::{PeerCall, What};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn on_replica_request(
        &mut self,
        conn: ConnId,
        token: Token,
        frame: Incoming,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let payload_bytes = frame.payload.as_ref().map_or(0, |p| p.len());
        let request: ReplicaRequest = decode(&frame.body).map_err(|e| e.to_string())?;
        request.validate(payload_bytes).map_err(|e| e.to_string())?;
        let from = match self.conns.get(&conn).map(|c| c.identity) {
            Some(Identity::Shard { server, shard }) => ShardAddr { server, shard },
            other => return Err(format!("replication request from {other:?}")),
        };
        let payload = frame.payload;
        match request {
            ReplicaRequest::Heartbeats(beats) => self.on_heartbeats(from, token, beats, now, out),
            ReplicaRequest::Vote(id, vote) => {
                let Some(group) = self.member(id, from) else { return self.ignore(token, out) };
                let core = &mut group.core;
                let mut effects = Vec::new();
                core.on_vote(from, vote, token.0, now, &mut effects);
                self.queue_core(id, effects, now, out);
            }
            ReplicaRequest::Append(id, append) => {
                if self.member(id, from).is_none() {
                    return self.ignore(token, out);
                }
                self.on_append(id, from, token, append, payload, now, out);
            }
            ReplicaRequest::Delta(id, page) => {
                self.on_delta(id, from, token, page, payload, now, out)
            }
            ReplicaRequest::DeltaEnd(id, end) => self.on_delta_end(id, from, token, end, now, out),
            ReplicaRequest::TimeoutNow(id, term) => {
                let Some(group) = self.member(id, from) else { return self.ignore(token, out) };
                let mut effects = Vec::new();
                group.core.on_timeout_now(from, term, now, &mut effects);
                self.queue_core(id, effects, now, out);
                return self.ignore(token, out);
            }
            ReplicaRequest::Fetch(id, blocks) if self.member(id, from).is_some() => {
                self.on_fetch(id, token, &blocks, out);
            }
            ReplicaRequest::Fetch(..) => return self.ignore(token, out),
        }
        Ok(())
    }

    /// The group, if it is here and `from` is one of its members.
    pub(crate) fn member(
        &mut self,
        id: CopysetId,
        from: ShardAddr,
    ) -> Option<&mut crate::group::Group> {
        self.groups.get_mut(&id).filter(|g| g.members.contains(&from))
    }

    pub(crate) fn ignore(&mut self, token: Token, out: &mut Vec<Effect>) -> Result<(), String> {
        self.calls.answer(token, encode(&ReplicaReply::Nothing), Vec::new(), out);
        Ok(())
    }

    fn on_heartbeats(
        &mut self,
        from: ShardAddr,
        token: Token,
        beats: Vec<(CopysetId, ogive_types::message::Heartbeat)>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mut replies: Vec<(CopysetId, HeartbeatReply)> = Vec::with_capacity(beats.len());
        for (id, beat) in beats {
            let Some(group) = self.member(id, from) else { continue };
            let mut effects = Vec::new();
            replies.push((id, group.core.on_heartbeat(from, beat, now, &mut effects)));
            self.queue_core(id, effects, now, out);
        }
        self.calls.answer(token, encode(&ReplicaReply::Heartbeats(replies)), Vec::new(), out);
    }

    #[allow(clippy::too_many_arguments)] // the parts of one message and the context of `apply`
    fn on_append(
        &mut self,
        id: CopysetId,
        from: ShardAddr,
        token: Token,
        append: Append,
        payload: Option<Buf>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(data) = split_payload(&append, payload) else {
            tracing::error!(copyset = %id, %from, "append refused: data against its checksums");
            self.calls.answer(token, encode(&ReplicaReply::Nothing), Vec::new(), out);
            return;
        };
        let Some(group) = self.groups.get_mut(&id) else { return };
        let terms: Vec<Term> = append.entries.iter().map(|e| e.term).collect();
        let Append { term, prev, commit, sent, .. } = append;
        let meta = AppendMeta { term, prev, commit, sent, terms: &terms };
        let mut effects = Vec::new();
        match group.core.on_append(from, meta, token.0, now, &mut effects) {
            Appending::Refuse(reply) => {
                let body = encode(&ReplicaReply::Append(id, reply));
                self.calls.answer(token, body, Vec::new(), out);
            }
            Appending::Deferred => {}
            Appending::Accept { skip, truncate_from } => {
                if let Some(from) = truncate_from {
                    self.store.truncate_from(id, from);
                }
                let first = Index(append.prev.index.0 + 1 + skip as u64);
                let new = append.entries.into_iter().zip(data).skip(skip);
                if !keep_entries(&mut self.store, &mut self.full, id, first, new) {
                    group.core.on_append_failed(token.0, &mut effects);
                }
            }
        }
        self.queue_core(id, effects, now, out);
    }

    pub(crate) fn on_replica_reply(
        &mut self,
        conn: ConnId,
        frame: Incoming,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(call) = self.peers.answered(conn, frame.id) else {
            return Ok(()); // given up before
        };
        let payload_bytes = frame.payload.as_ref().map_or(0, |p| p.len());
        let reply: ReplicaReply = decode(&frame.body).map_err(|e| e.to_string())?;
        reply.validate(payload_bytes).map_err(|e| e.to_string())?;
        let from = call.to;
        let mut effects = Vec::new();
        match (call.what, reply) {
            (What::Vote(id), ReplicaReply::Vote(said, reply)) if said == id => {
                let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                group.core.on_vote_reply(from, reply, now, &mut effects);
                self.queue_core(id, effects, now, out);
            }
            (What::Append(id), ReplicaReply::Append(said, reply)) if said == id => {
                let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                group.core.on_append_reply(from, reply, now, &mut effects);
                self.queue_core(id, effects, now, out);
            }
            (What::Heartbeats, ReplicaReply::Heartbeats(replies)) => {
                for (id, reply) in replies {
                    let Some(group) = self.groups.get_mut(&id) else { continue };
                    let mut effects = Vec::new();
                    group.core.on_heartbeat_reply(from, reply, now, &mut effects);
                    self.queue_core(id, effects, now, out);
                }
            }
            (What::Delta(id), ReplicaReply::Delta(said, reply)) if said == id => {
                self.on_delta_reply(id, from, false, reply, now, out);
            }
            (What::DeltaEnd(id), ReplicaReply::Delta(said, reply)) if said == id => {
                self.on_delta_reply(id, from, true, reply, now, out);
            }
            (What::Fetch(number), ReplicaReply::Fetched(_, found)) => {
                return self.on_fetched(number, &found, frame.payload, now, out);
            }
            (_, ReplicaReply::Nothing) => self.lost(call, now, out),
            (what, _) => return Err(format!("answer of another kind to {what:?}")),
        }
        Ok(())
    }

    /// A call that will not be answered, or that the peer did not serve.
    pub(crate) fn lost(&mut self, call: PeerCall, now: Time, out: &mut Vec<Effect>) {
        match call.what {
            What::Append(id) => {
                let Some(group) = self.groups.get_mut(&id) else { return };
                // It may have been lost because the store let go of its entries, to make room for
                // those of other copysets: then only a delta can help this follower.
                group.core.released(self.store.prev(id).index);
                let mut effects = Vec::new();
                group.core.on_append_lost(call.to, &mut effects);
                self.queue_core(id, effects, now, out);
            }
            What::Delta(id) | What::DeltaEnd(id) => self.delta_failed(id, call.to),
            What::Fetch(number) => self.fetch_lost(number, now),
            What::Vote(_) | What::Heartbeats | What::TimeoutNow(_) => {}
        }
    }
}

/// Appends entries from `first` on; none of them, and false, when the store refuses one.
fn keep_entries(
    store: &mut Store,
    full: &mut bool,
    id: CopysetId,
    first: Index,
    new: impl Iterator<Item = (Entry, Option<Buf>)>,
) -> bool {
    for ((entry, data), index) in new.zip(first.0..) {
        let writes = data.is_some();
        let appended = store.append(id, Index(index), entry.term, entry.op, data);
        note_space(full, writes, appended);
        if let Err(error) = appended {
            tracing::warn!(copyset = %id, %error, "append refused by the store");
            store.truncate_from(id, first);
            return false;
        }
    }
    true
}

/// The data of each entry, checked against its checksums; `None` when something does not match.
fn split_payload(append: &Append, payload: Option<Buf>) -> Option<Vec<Option<Buf>>> {
    let mut at = 0;
    let mut data = Vec::with_capacity(append.entries.len());
    for entry in &append.entries {
        let Op::Write { range, sums, .. } = &entry.op else {
            data.push(None);
            continue;
        };
        let part = payload.as_ref()?.slice(at..at + range.bytes());
        if block_sums(&part) != *sums {
            return None;
        }
        at += range.bytes();
        data.push(Some(part));
    }
    Some(data)
}
