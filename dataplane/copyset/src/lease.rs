//! Reads without a round trip, and giving up without a majority.
//!
//! ```text
//! leader's clock   s: round sent ──────────────── s + lease: no reads from here on
//! follower's clock      h: heard ─────────────────────── h + election: may vote again
//! ```
//!
//! Every message of the leader carries `sent`, its own clock, and every answer echoes it. A
//! follower that heard the leader at `h >= s` refuses votes and pre-votes until `h + election` on
//! its own clock. So as long as a majority answered messages sent at `s` or later, no other leader
//! can be elected before `s + election`, measured by the slowest clock. The leader stops
//! `lease_drift_ppm` and `lease_margin` earlier ([`crate::Timing::lease`]). Assumed: rates of
//! clocks differ by no more than `lease_drift_ppm`.
//!
//! | event | effect on the lease |
//! |---|---|
//! | answer in this term | the majority's newest `sent` may move on |
//! | TimeoutNow sent | gone for the rest of the term, see below |
//! | elected, deposed | none |
//! | no majority for `election` | the leader steps down |
//!
//! The votes that TimeoutNow allows ignore stickiness, and it may arrive late.

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

    /// Whether a read may be served from here: reads see what is applied once that reaches
    /// `commit`.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ogive_types::Index;

    use super::*;
    use crate::testkit::{addr, beat, elect, matched, mutant, replica};

    /// A leader whose no-op is committed, and when its lease began.
    fn leader(mut core: Copyset) -> (Copyset, Time) {
        let sent = elect(&mut core);
        core.persisted(Index(1), &mut Vec::new());
        assert_eq!(core.read_state(sent), Err(NotReadable::NotReady));
        matched(&mut core, 2, 1, sent);
        (core, sent)
    }

    #[test]
    fn the_lease_runs_from_the_sending() {
        let ms = Duration::from_millis;
        let lease = crate::Timing::default().lease();
        for (mutant, expected) in [(None, false), (Some(Mutant::LeaseFromReply), true)] {
            let (core, sent) = leader(replica(3, 0, &[]));
            let mut core = core.with_mutant(mutant);
            beat(&mut core, 2, sent, sent + ms(90));
            assert!(core.read_state(sent + lease - Duration::from_micros(1)).is_ok());
            assert_eq!(core.read_state(sent + lease).is_ok(), expected, "{mutant:?}");
        }
    }

    #[test]
    fn one_follower_of_four_is_no_majority() {
        let mut core = replica(5, 0, &[]);
        let now = Time(core.next_deadline().0);
        core.tick(now, &mut Vec::new());
        assert_eq!(core.quorum_acked(now), None);
        core.lead.stamp = now;
        core.acknowledge(0, now, now);
        assert_eq!(core.quorum_acked(now), None);
        core.acknowledge(3, now, now);
        assert_eq!(core.quorum_acked(now), Some(now));
    }

    #[test]
    fn a_leader_without_a_majority_steps_down() {
        let (mut core, sent) = leader(replica(3, 0, &[]));
        let end = sent + core.config.timing.election;
        core.tick(end - Duration::from_micros(1), &mut Vec::new());
        assert_eq!(core.role(), Role::Leader);
        core.tick(end, &mut Vec::new());
        assert_eq!(core.role(), Role::Follower);
    }

    #[test]
    fn a_hand_over_ends_the_lease_for_the_term() {
        for (mutated, expected) in [(false, false), (true, true)] {
            let core = if mutated {
                mutant(3, 0, &[], Mutant::LeaseAfterTransfer)
            } else {
                replica(3, 0, &[])
            };
            let (mut core, sent) = leader(core);
            core.transfer_to(addr(2), sent, &mut Vec::new());
            let later = sent + core.config.timing.election - Duration::from_micros(1);
            beat(&mut core, 2, sent, later);
            core.lead.stamp = later;
            beat(&mut core, 2, later, later);
            core.tick(sent + core.config.timing.election, &mut Vec::new());
            assert!(core.propose(core.now).is_ok(), "the hand-over was given up");
            assert_eq!(core.read_state(core.now).is_ok(), expected);
        }
    }
}
