//! The leader: sends entries and signs of life, and counts the answers.
//!
//! ```text
//! propose ─► (store) ─► replicate ─► Replicate ... on_append_reply ─► Commit
//!                 └───► persisted ──────────────────────┘
//! ```
//!
//! What is sent when to one follower is the state machine in `progress.rs`; here it is driven.

use ogive_types::message::{AppendReply, Heartbeat, HeartbeatReply};
use ogive_types::{Index, LogPos, ShardAddr, Term, Time};

use crate::copyset::Copyset;
use crate::effect::{Effect, HardState, NotLeader};
use crate::election::Role;
use crate::progress::{Progress, ProgressState};
use crate::reads::Reads;
use crate::transfer::Transfer;

/// What only a leader keeps.
#[derive(Debug)]
pub(crate) struct Lead {
    /// The other voters, in the order of `Config::voters`.
    pub(crate) followers: Vec<Progress>,
    /// Index of the no-op that opened this term.
    pub(crate) term_start: Index,
    pub(crate) elected_at: Time,
    pub(crate) heartbeat_at: Time,
    /// The `sent` of the newest message.
    pub(crate) stamp: Time,
    /// Leadership was offered to another in this term, so there is no lease any more.
    pub(crate) forfeited: bool,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) handover_at: Time,
    pub(crate) reads: Reads,
}

impl Lead {
    pub(crate) fn new(followers: impl Iterator<Item = ShardAddr>) -> Lead {
        Lead {
            followers: followers.map(Progress::new).collect(),
            term_start: Index(0),
            elected_at: Time(0),
            heartbeat_at: Time::NEVER,
            stamp: Time(0),
            forfeited: false,
            transfer: None,
            handover_at: Time::NEVER,
            reads: Reads::default(),
        }
    }
}

impl Copyset {
    /// A majority voted for this replica.
    pub(crate) fn lead(&mut self, out: &mut Vec<Effect>) {
        assert!(self.hard.is_saved(), "its own vote is on stable storage");
        let now = self.now;
        self.role = Role::Leader;
        self.leader = Some(self.config.id);
        self.lead.term_start = self.first_of_reign();
        (self.lead.elected_at, self.lead.stamp) = (now, self.lead.stamp.max(now));
        self.lead.handover_at = now + self.config.timing.handover_after;
        (self.lead.forfeited, self.lead.transfer) = (false, None);
        for follower in &mut self.lead.followers {
            follower.reset(self.lead.term_start);
        }
        self.announce_role(out);
        self.raise_commit(self.known, out);
        let noop = self.log.push(self.hard.term());
        out.push(Effect::AppendNoop(noop));
        self.lead.heartbeat_at = now + self.config.timing.heartbeat;
        self.broadcast_heartbeat(out);
    }

    /// Leader: takes the position of the caller's next entry. The caller appends it to its store,
    /// having reserved the space, and then calls [`Copyset::replicate`], once for any number of
    /// proposals.
    ///
    /// # Errors
    ///
    /// [`NotLeader`] with whom to ask; also while the leadership is being handed over.
    pub fn propose(&mut self, now: Time) -> Result<LogPos, NotLeader> {
        self.saw(now);
        self.proposable()?;
        Ok(self.log.push(self.hard.term()))
    }

    /// Leader: the position that [`Copyset::propose`] would give now.
    pub fn proposable(&self) -> Result<LogPos, NotLeader> {
        if self.role != Role::Leader {
            return Err(NotLeader { leader: self.leader });
        }
        if let Some(transfer) = &self.lead.transfer {
            return Err(NotLeader { leader: Some(transfer.to) });
        }
        Ok(LogPos { term: self.hard.term(), index: self.log.last().index.next() })
    }

    /// Leader: sends what waits to every follower with room in its window.
    pub fn replicate(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.saw(now);
        if self.role == Role::Leader {
            for at in 0..self.lead.followers.len() {
                self.send_entries(at, out);
            }
        }
    }

    /// Leader: of the entries offered to `to` by the last [`Effect::Replicate`]s, only those up to
    /// `last` were sent (for want of credits or buffers). The rest is offered again by the next
    /// [`Copyset::replicate`]; offers to `to` that the shard has not looked at yet are void.
    pub fn replicate_cut(&mut self, to: ShardAddr, last: Index) {
        if let Some(at) = self.follower(to).filter(|_| self.role == Role::Leader) {
            self.lead.followers[at].cut(last, &self.config.timing, self.now);
        }
    }

    /// The answer to an append arrived.
    pub fn on_append_reply(
        &mut self,
        from: ShardAddr,
        reply: AppendReply,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.saw(now);
        let Some(at) = self.current_follower(from, reply.term, out) else { return };
        self.acknowledge(at, reply.sent, self.now);
        match reply.matched {
            Ok(index) if index > self.log.last().index => return,
            Ok(index) => {
                if self.lead.followers[at].matched_upto(index, self.now) {
                    self.count_commit(self.now, out);
                    self.continue_transfer(out);
                }
            }
            Err(hint) => self.rejected(at, hint, out),
        }
        self.send_entries(at, out);
        self.finish_reads(self.now, out);
    }

    fn rejected(&mut self, at: usize, hint: LogPos, out: &mut Vec<Effect>) {
        let (timing, now) = (self.config.timing, self.now);
        match self.log.last_of_term(hint.index, hint.term) {
            Some(pos) => self.lead.followers[at].rejected(pos.index, &timing, now),
            None if self.lead.followers[at].matched < self.log.prev().index => {
                self.need_delta(at, out);
            }
            None => self.lead.followers[at].rejected(self.log.prev().index, &timing, now),
        }
    }

    /// An append to `from` will not be answered: the connection died or the request timed out.
    /// Reported for each of them; one after the other costs nothing more.
    pub fn on_append_lost(&mut self, from: ShardAddr, _out: &mut Vec<Effect>) {
        if let Some(at) = self.follower(from).filter(|_| self.role == Role::Leader) {
            self.lead.followers[at].lost(&self.config.timing, self.now);
        }
    }

    /// The answer to a sign of life arrived.
    pub fn on_heartbeat_reply(
        &mut self,
        from: ShardAddr,
        reply: HeartbeatReply,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.saw(now);
        let Some(at) = self.current_follower(from, reply.term, out) else { return };
        self.acknowledge(at, reply.sent, self.now);
        self.lead.followers[at].alive(reply.last, &self.config.timing, self.now);
        self.send_entries(at, out);
        self.finish_reads(self.now, out);
    }

    /// Leader: a delta brought the follower to `upto`, and its log restarts there.
    pub fn delta_done(&mut self, to: ShardAddr, upto: LogPos, out: &mut Vec<Effect>) {
        if let Some(at) = self.follower(to).filter(|_| self.role == Role::Leader) {
            assert!(upto.index <= self.commit, "a delta carries what is committed");
            self.lead.followers[at].delta_done(upto.index);
            self.send_entries(at, out);
        }
    }

    /// Leader: a delta was refused or lost; the follower is probed again, after a pause.
    pub fn delta_failed(&mut self, to: ShardAddr) {
        if let Some(at) = self.follower(to).filter(|_| self.role == Role::Leader) {
            self.lead.followers[at].delta_failed(&self.config.timing, self.now);
        }
    }

    pub(crate) fn tick_leader(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        if now >= self.quorum_deadline(now) {
            self.step_down(now, out);
            return;
        }
        for at in 0..self.lead.followers.len() {
            if self.lead.followers[at].state == ProgressState::Probe {
                self.send_entries(at, out);
            }
        }
        if now >= self.lead.heartbeat_at {
            self.lead.heartbeat_at = now + self.config.timing.heartbeat;
            let fresh = now - self.config.timing.heartbeat / 2;
            self.lead.stamp = self.lead.stamp.max(now);
            for at in 0..self.lead.followers.len() {
                // Answers to appends prove as much as those to heartbeats.
                if self.lead.followers[at].acked < Some(fresh) {
                    self.send_heartbeat(at, out);
                }
            }
        }
        self.tick_transfer(out);
    }

    pub(crate) fn broadcast_heartbeat(&mut self, out: &mut Vec<Effect>) {
        for at in 0..self.lead.followers.len() {
            self.send_heartbeat(at, out);
        }
    }

    fn send_heartbeat(&self, at: usize, out: &mut Vec<Effect>) {
        let follower = &self.lead.followers[at];
        let commit = self.commit.min(follower.matched);
        let heartbeat = Heartbeat { term: self.hard.term(), commit, sent: self.lead.stamp };
        out.push(Effect::Heartbeat { to: follower.addr, heartbeat });
    }

    /// The follower whose answer of `term` this is; steps down when the term is newer, and ignores
    /// answers of older terms.
    fn current_follower(
        &mut self,
        from: ShardAddr,
        term: Term,
        out: &mut Vec<Effect>,
    ) -> Option<usize> {
        let at = self.follower(from)?;
        if term > self.hard.term() {
            self.follow(HardState { term, voted_for: None }, None, out);
        }
        (self.role == Role::Leader && term == self.hard.term()).then_some(at)
    }

    /// Sends what the follower's state allows.
    fn send_entries(&mut self, at: usize, out: &mut Vec<Effect>) {
        let (timing, now, last) = (&self.config.timing, self.now, self.log.last().index);
        self.lead.stamp = self.lead.stamp.max(now);
        loop {
            let follower = &self.lead.followers[at];
            let waiting = (last.0 + 1).saturating_sub(follower.next.0) as usize;
            let count = match follower.state {
                // A single entry is worth the risk: after most elections only the no-op is missing.
                ProgressState::Probe if follower.retry_at <= now => usize::from(waiting == 1),
                ProgressState::Replicate if waiting > 0 && follower.has_room(timing) => {
                    waiting.min(timing.batch_entries_max)
                }
                _ => return,
            };
            let Some(prev) = self.log.pos_at(follower.next.prev()) else {
                self.need_delta(at, out);
                return;
            };
            let (to, from) = (follower.addr, follower.next);
            let (commit, term, sent) = (self.commit, self.hard.term(), self.lead.stamp);
            out.push(Effect::Replicate { to, prev, from, count, commit, term, sent });
            let follower = &mut self.lead.followers[at];
            if follower.state == ProgressState::Probe {
                follower.probed(timing, now);
                return;
            }
            follower.sent(Index(from.0 + count as u64 - 1), now);
        }
    }

    fn need_delta(&mut self, at: usize, out: &mut Vec<Effect>) {
        let follower = &mut self.lead.followers[at];
        if follower.state != ProgressState::Delta {
            follower.start_delta();
            let base = follower.matched.min(self.commit);
            out.push(Effect::NeedDelta { to: follower.addr, base });
        }
    }
}
