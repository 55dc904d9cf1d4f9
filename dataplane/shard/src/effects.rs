//! What a core asks for is done here: messages sent, answers given, entries appended.

use ogive_copyset::{Effect as CoreEffect, Role};
use ogive_types::message::{IoError, IoReply, Op, ReplicaReply, ReplicaRequest, encode};
use ogive_types::{CopysetId, Index, ShardAddr, Time};

use crate::calls::Token;
use crate::event::Effect;
use crate::outbox::{Batch, Sent, Wire};
use crate::peers::{PeerCall, What};
use crate::shard::{Shard, on_grid};

impl Shard {
    /// Runs the effects of a call into a core that collected them on its own.
    pub(crate) fn queue_core(
        &mut self,
        id: CopysetId,
        mut effects: Vec<CoreEffect>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.core_effects.append(&mut effects);
        self.run_core(id, now, out);
    }

    /// Does what the core of a group asked for, and what that leads to.
    pub(crate) fn run_core(&mut self, id: CopysetId, now: Time, out: &mut Vec<Effect>) {
        while !self.core_effects.is_empty() {
            let effects = std::mem::take(&mut self.core_effects);
            for effect in effects {
                self.run_effect(id, effect, now, out);
            }
        }
        if let Some(group) = self.groups.get(&id) {
            // A deadline moves with every call: a new leader must send a sign of life much sooner
            // than a follower would have campaigned.
            self.next_tick = self.next_tick.min(on_grid(group.core.next_deadline()));
        }
    }

    fn run_effect(&mut self, id: CopysetId, effect: CoreEffect, now: Time, out: &mut Vec<Effect>) {
        match effect {
            CoreEffect::SaveHardState(hard) => self.store.save_hard_state(id, hard),
            CoreEffect::SendVote { to, vote } => {
                let call = PeerCall { to, what: What::Vote(id) };
                self.peers.call(call, &ReplicaRequest::Vote(id, vote), Vec::new(), now, out);
            }
            CoreEffect::VoteReply { token, reply, .. } => {
                let body = encode(&ReplicaReply::Vote(id, reply));
                self.calls.answer(Token(token), body, Vec::new(), out);
            }
            CoreEffect::AppendReply { token, reply, .. } => {
                let body = encode(&ReplicaReply::Append(id, reply));
                self.calls.answer(Token(token), body, Vec::new(), out);
            }
            CoreEffect::Replicate { to, prev, from, count, commit, term, sent } => {
                let Some(group) = self.groups.get_mut(&id) else { return };
                let outbox = group.outboxes.entry(to).or_default();
                match outbox.push(Batch { term, prev, from, count, commit, sent }) {
                    Sent::All => self.pump_outbox(id, to, now, out),
                    Sent::Lost => self.lost(PeerCall { to, what: What::Append(id) }, now, out),
                }
            }
            CoreEffect::Heartbeat { to, heartbeat } => {
                self.heartbeats.entry(to).or_default().push((id, heartbeat));
            }
            CoreEffect::SendTimeoutNow { to, term } => {
                let call = PeerCall { to, what: What::TimeoutNow(id) };
                let request = ReplicaRequest::TimeoutNow(id, term);
                self.peers.call(call, &request, Vec::new(), now, out);
            }
            CoreEffect::AppendNoop(pos) => self.append_noop(id, pos.index, now),
            CoreEffect::Commit(commit) => {
                let Some(group) = self.groups.get_mut(&id) else { return };
                let body = encode(&IoReply::Done);
                for token in group.committed(commit) {
                    self.calls.answer(token, body.clone(), Vec::new(), out);
                }
                self.active.insert(id);
            }
            CoreEffect::RoleChanged { role, term, leader } => {
                tracing::info!(copyset = %id, ?role, %term, ?leader, "role changed");
                if role != Role::Leader {
                    self.interrupt(id, out);
                }
            }
            CoreEffect::NeedDelta { to, .. } => self.ask_delta(id, to),
            CoreEffect::ReadReady { token, commit } => {
                self.read_ready(id, Token(token), commit);
            }
            CoreEffect::ReadFailed { token, .. } => self.read_failed(id, Token(token), out),
        }
    }

    fn append_noop(&mut self, id: CopysetId, index: Index, now: Time) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let term = group.core.term();
        group.noop = Some(index);
        group.replicate = true;
        self.active.insert(id);
        if let Err(error) = self.store.append(id, index, term, Op::Noop, None) {
            // A no-op takes no space; without buffers for its log record the shard cannot lead.
            tracing::error!(copyset = %id, %error, "cannot append the entry that starts a term");
            group.core.step_down(now, &mut self.core_effects);
        }
    }

    pub(crate) fn pump_outbox(
        &mut self,
        id: CopysetId,
        to: ShardAddr,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(outbox) = group.outboxes.get_mut(&to) else { return };
        let (store, peers, calls) = (&mut self.store, &mut self.peers, &mut self.calls);
        let sent = outbox.pump(id, to, &mut Wire { store, peers, calls, now, out });
        if let Some(token) = outbox.reading() {
            self.entry_reads.insert(token, (id, to));
        }
        if sent == Sent::Lost {
            self.lost(PeerCall { to, what: What::Append(id) }, now, out);
        }
    }

    fn read_ready(&mut self, id: CopysetId, token: Token, commit: Index) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(read) = group.reads.iter_mut().find(|r| r.token == token) {
            read.after = Some(commit.max(read.floor));
        }
        let applied = self.store.applied(id).index;
        for read in group.readable(applied) {
            self.serve_read(id, read);
        }
    }

    fn read_failed(&mut self, id: CopysetId, token: Token, out: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.reads.retain(|read| read.token != token);
        let leader = group.core.leader();
        self.refuse(token, IoError::NotLeader { leader }, out);
    }
}
