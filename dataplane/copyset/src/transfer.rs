//! Handing leadership over (Ongaro's thesis, 3.10).
//!
//! ```text
//! None ──(transfer_to, or the preferred replica is near)──► Waiting ──(it has everything)──► Asked
//!   ▲                 deadline                                 │            deadline            │
//!   └──────────────────────────────────────────────────────────┴─────────────────────────────────┘
//! ```
//!
//! | state | proposals | lease |
//! |---|---|---|
//! | None | taken | as usual |
//! | Waiting | refused, so that the target can catch up | as usual |
//! | Asked | refused | gone for the rest of the term, see `lease.rs` |
//! | None after Asked | taken | gone: the request may still arrive |
//!
//! The deadline is one election time-out.

use ogive_types::message::Vote;
use ogive_types::{Index, ShardAddr, Term, Time};

use crate::copyset::Copyset;
use crate::effect::Effect;
use crate::election::Role;
use crate::limits::HANDOVER_LAG_MAX;
use crate::progress::ProgressState;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: ShardAddr,
    pub(crate) deadline: Time,
    asked: bool,
}

impl Copyset {
    /// Leader: hands over to another member as soon as it has the whole log; gives up after an
    /// election time-out. Does nothing on another replica, or while a hand-over is under way.
    pub fn transfer_to(&mut self, to: ShardAddr, now: Time, out: &mut Vec<Effect>) {
        self.saw(now);
        if self.role != Role::Leader || self.lead.transfer.is_some() {
            return;
        }
        if self.follower(to).is_some() {
            let deadline = self.now + self.config.timing.election;
            self.lead.transfer = Some(Transfer { to, deadline, asked: false });
            self.continue_transfer(out);
        }
    }

    /// Leader: asks the target to campaign once it has everything.
    pub(crate) fn continue_transfer(&mut self, out: &mut Vec<Effect>) {
        let last = self.log.last().index;
        let Some(transfer) = self.lead.transfer.as_mut().filter(|transfer| !transfer.asked) else {
            return;
        };
        let to = transfer.to;
        if self.lead.followers.iter().any(|f| f.addr == to && f.matched == last) {
            transfer.asked = true;
            self.lead.forfeited = true;
            out.push(Effect::SendTimeoutNow { to, term: self.hard.term() });
        }
    }

    /// Leader, now and then: gives up a hand-over that takes too long, begins one to the preferred
    /// replica.
    pub(crate) fn tick_transfer(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        if self.lead.transfer.is_some_and(|transfer| now >= transfer.deadline) {
            self.lead.transfer = None;
        }
        if now < self.lead.handover_at || self.lead.transfer.is_some() {
            return;
        }
        let Some(at) = self.config.priority.preferred.and_then(|addr| self.follower(addr)) else {
            return;
        };
        let timing = &self.config.timing;
        let follower = &self.lead.followers[at];
        let near = Index(follower.matched.0 + HANDOVER_LAG_MAX) >= self.log.last().index;
        let alive = follower.acked.is_some_and(|sent| sent + timing.heartbeat * 2 > now);
        if near && alive && follower.state == ProgressState::Replicate {
            let to = follower.addr;
            self.lead.handover_at = now + timing.handover_after;
            self.transfer_to(to, now, out);
        }
    }

    /// The leader asks this replica to take over.
    ///
    /// Only a follower of exactly this leader and term obeys, and campaigns in the next term: that
    /// term's votes may ignore the lease of the old leader, which gave it up, and of no other.
    pub fn on_timeout_now(
        &mut self,
        from: ShardAddr,
        term: Term,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.saw(now);
        let asked = self.role == Role::Follower && term == self.hard.term();
        if asked && self.leader == Some(from) {
            self.campaign(true, out);
        }
    }

    pub(crate) fn transfer_vote(&self, transfer: bool) -> Vote {
        Vote { term: self.hard.term(), last: self.log.last(), pre: false, transfer }
    }
}
