//! Reads without a round trip, and giving up without a majority.
//!
//! ```text
//! leader's clock   s: round sent ──────────────── s + lease: no reads from here on
//! follower's clock      h: heard ─────────────────────── h + election: may vote again
//! ```
//!
//! Every message of the leader carries `sent`, its own clock, and every answer echoes it. A follower that
//! heard the leader at `h >= s` refuses votes and pre-votes until `h + election` on its own clock. So as long
//! as a majority answered messages sent at `s` or later, no other leader can be elected before
//! `s + election`, measured by the slowest clock. The leader stops `lease_drift_ppm` and `lease_margin`
//! earlier ([`crate::Timing::lease`]). Assumed: rates of clocks differ by no more than `lease_drift_ppm`.
//!
//! | event | effect on the lease |
//! |---|---|
//! | answer in this term | the majority's newest `sent` may move on |
//! | TimeoutNow sent | gone for the rest of the term: the vote that it allows ignores stickiness, and may come late |
//! | elected, deposed | none |
//! | no majority for `election` | the leader steps down |

use ogive_types::{ShardAddr, Time};

use crate::copyset::Copyset;
use crate::effect::{NotReadable, ReadState};
use crate::election::Role;
use crate::mutant::Mutant;
use crate::quorum::reached_by_majority;

impl Copyset {
    /// Leader: a message stamped `sent` was answered in this term.
    pub(crate) fn acknowledge(&mut self, follower: usize, sent: Time, now: Time) {
        let sent = if self.has(Mutant::LeaseFromReply) { now } else { sent };
        if sent <= self.lead.stamp || self.has(Mutant::LeaseFromReply) {
            let acked = &mut self.lead.followers[follower].acked;
            *acked = (*acked).max(Some(sent));
        }
    }

    /// The newest moment since which a majority has answered; `None` when none has in this term.
    pub(crate) fn quorum_acked(&self, now: Time) -> Option<Time> {
        let others = self.lead.followers.iter().map(|follower| follower.acked);
        reached_by_majority(others.chain([Some(now)]), None)
    }

    /// When a leader that hears nothing more must step down.
    pub(crate) fn quorum_deadline(&self, now: Time) -> Time {
        let since = self.quorum_acked(now).unwrap_or(self.lead.elected_at);
        since.max(self.lead.elected_at) + self.config.timing.election
    }

    fn has_lease(&self, now: Time) -> bool {
        let forfeited = self.lead.forfeited && !self.has(Mutant::LeaseAfterTransfer);
        let acked = self.quorum_acked(now);
        !forfeited && acked.is_some_and(|sent| now < sent + self.config.timing.lease())
    }

    /// Whether a read may be served from here: reads see what is applied once that reaches `commit`.
    ///
    /// `now` must not be older than the read's arrival by more than the margin of the lease.
    ///
    /// # Errors
    ///
    /// [`NotReadable`]; but for `NotLeader`, [`Copyset::request_read`] helps.
    pub fn read_state(&self, now: Time) -> Result<ReadState, NotReadable> {
        if self.role != Role::Leader {
            return Err(NotReadable::NotLeader { leader: self.leader });
        }
        if self.commit < self.lead.term_start {
            return Err(NotReadable::NotReady);
        }
        if !self.has_lease(now.max(self.now)) {
            return Err(NotReadable::LeaseDoubt);
        }
        Ok(ReadState { commit: self.commit })
    }

    pub(crate) fn follower(&self, addr: ShardAddr) -> Option<usize> {
        self.lead.followers.iter().position(|follower| follower.addr == addr)
    }
}
