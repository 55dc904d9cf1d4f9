//! Roles and votes (Ongaro's thesis, 3.4, 3.6.1, 4.2.3, 9.6).
//!
//! ```text
//!             silence                 majority would vote             majority voted
//!  Follower ──────────► PreCandidate ─────────────────────► Candidate ──────────────► Leader
//!     ▲ │                  │   ▲ silence                     │   │ silence              │
//!     │ │ TimeoutNow       │   └─────────────────────────────┼───┘                      │
//!     │ └──────────────────┼──────────────────────────────► Candidate                  │
//!     └────────────────────┴──── leader heard, newer term ───┴── or no majority heard ──┘
//! ```
//!
//! | role | silence | vote granted by majority | leader of this term heard | newer term |
//! |---|---|---|---|---|
//! | Follower | PreCandidate | - | stays | Follower |
//! | PreCandidate | asks again | Candidate in the next term | Follower | Follower |
//! | Candidate | PreCandidate | Leader | Follower | Follower |
//! | Leader | Follower when no majority answers | - | impossible | Follower |
//!
//! A vote is refused, and its term ignored, while the leader was heard within an election time-out,
//! by a leader itself (check-quorum ends that), and for an election time-out after a restart, when
//! the replica no longer knows whom it heard. The lease rests on this. Only an election that the
//! leader asked for passes.
//!
//! A candidate asks for votes only after its own vote is on stable storage. Otherwise it could
//! crash, lose the unpersisted end of its log, campaign in the same term again and count votes
//! given to the longer log.

use ogive_types::message::{Vote, VoteReply};
use ogive_types::{Index, ShardAddr, Term, Time};

use crate::copyset::Copyset;
use crate::effect::{Effect, HardState, NotReadable};
use crate::mutant::Mutant;
use crate::quorum::majority;

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would get votes.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

#[derive(Debug)]
pub(crate) struct Election {
    /// When to campaign.
    pub(crate) at: Time,
    /// Until when votes are refused because a leader may hold a lease.
    pub(crate) sticky_until: Time,
    /// Voters that granted, one bit each in the order of `Config::voters`.
    granted: u16,
    /// Candidate: the old leader asked for this election.
    transfer: bool,
    /// Candidate: votes were asked for.
    asked: bool,
}

impl Election {
    pub(crate) fn new(at: Time, sticky_until: Time) -> Election {
        Election { at, sticky_until, granted: 0, transfer: false, asked: false }
    }
}

impl Copyset {
    /// A request for a vote arrived; [`Effect::VoteReply`] answers it, once what it promises is
    /// saved.
    pub fn on_vote(
        &mut self,
        from: ShardAddr,
        vote: Vote,
        token: u64,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.saw(now);
        let newer = vote.term > self.hard.term();
        let admitted = self.is_peer(from) && (vote.transfer || !self.is_sticky());
        let complete = vote.last >= self.log.last() || self.has(Mutant::VoteForShortLog);
        if vote.pre {
            let granted = admitted && newer && complete;
            let term = if granted { vote.term } else { self.hard.term() };
            let reply = VoteReply { term, granted, pre: true };
            let effect = Effect::VoteReply { to: from, token, reply };
            // A granted pre-vote promises nothing.
            if granted {
                out.push(effect)
            } else {
                self.answer(effect, out)
            }
            return;
        }
        let granted = if newer && admitted {
            self.follow(
                HardState { term: vote.term, voted_for: complete.then_some(from) },
                None,
                out,
            );
            complete
        } else {
            !newer && self.vote_in_current_term(from, vote, complete, out)
        };
        if granted {
            self.election.at = self.now + self.random_timeout();
        }
        let reply = VoteReply { term: self.hard.term(), granted, pre: false };
        self.answer(Effect::VoteReply { to: from, token, reply }, out);
    }

    fn vote_in_current_term(
        &mut self,
        from: ShardAddr,
        vote: Vote,
        complete: bool,
        out: &mut Vec<Effect>,
    ) -> bool {
        let HardState { term, voted_for } = self.hard.current();
        let free = self.leader.is_none() && self.role != Role::Leader;
        match voted_for {
            Some(voted) => vote.term == term && voted == from,
            None if vote.term == term && free && complete && self.is_peer(from) => {
                if self.is_sticky() && !vote.transfer {
                    return false;
                }
                self.hard.set(HardState { term, voted_for: Some(from) }, out);
                true
            }
            None => false,
        }
    }

    /// The answer to a request for a vote arrived.
    pub fn on_vote_reply(
        &mut self,
        from: ShardAddr,
        reply: VoteReply,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.saw(now);
        let term = self.hard.term();
        let Some(bit) = self.voter_bit(from) else { return };
        if reply.pre && reply.granted {
            if self.role == Role::PreCandidate && reply.term == term.next() {
                self.election.granted |= bit;
                self.count_votes(out);
            }
        } else if reply.term > term {
            self.follow(HardState { term: reply.term, voted_for: None }, None, out);
        } else if reply.granted && self.role == Role::Candidate && reply.term == term {
            self.election.granted |= bit;
            self.count_votes(out);
        }
    }

    /// `hard` is on stable storage; reported in the order of the [`Effect::SaveHardState`]s.
    pub fn hard_state_persisted(&mut self, hard: HardState, out: &mut Vec<Effect>) {
        self.hard.persisted(hard, out);
        if self.role == Role::Candidate && self.hard.is_saved() && !self.election.asked {
            self.ask_for_votes(out);
        }
    }

    /// Nothing was heard for too long.
    pub(crate) fn pre_campaign(&mut self, out: &mut Vec<Effect>) {
        self.role = Role::PreCandidate;
        self.leader = None;
        self.election.at = self.now + self.random_timeout();
        self.election.granted = self.voter_bit(self.config.id).expect("this replica is a voter");
        self.announce_role(out);
        let term = self.hard.term().next();
        let vote = Vote { term, last: self.log.last(), pre: true, transfer: false };
        self.send_votes(vote, out);
        self.count_votes(out);
    }

    /// Starts an election in the next term.
    pub(crate) fn campaign(&mut self, transfer: bool, out: &mut Vec<Effect>) {
        self.role = Role::Candidate;
        self.leader = None;
        self.election.at = self.now + self.random_timeout();
        (self.election.granted, self.election.transfer) = (0, transfer);
        self.election.asked = false;
        let hard = HardState { term: self.hard.term().next(), voted_for: Some(self.config.id) };
        self.hard.set(hard, out);
        self.fail_pending(out);
        self.announce_role(out);
        if self.has(Mutant::AnswerUnsaved) {
            self.ask_for_votes(out);
        }
    }

    fn ask_for_votes(&mut self, out: &mut Vec<Effect>) {
        self.election.asked = true;
        self.election.granted = self.voter_bit(self.config.id).expect("this replica is a voter");
        self.send_votes(self.transfer_vote(self.election.transfer), out);
        self.count_votes(out);
    }

    fn send_votes(&self, vote: Vote, out: &mut Vec<Effect>) {
        let others = self.lead.followers.iter().map(|follower| follower.addr);
        out.extend(others.map(|to| Effect::SendVote { to, vote }));
    }

    fn count_votes(&mut self, out: &mut Vec<Effect>) {
        if (self.election.granted.count_ones() as usize) < majority(self.config.voters.len()) {
            return;
        }
        match self.role {
            Role::PreCandidate => self.campaign(false, out),
            Role::Candidate => self.lead(out),
            Role::Follower | Role::Leader => {}
        }
    }

    /// A message of the leader of `term`, which is not older than ours, arrived.
    pub(crate) fn hear_leader(&mut self, from: ShardAddr, term: Term, out: &mut Vec<Effect>) {
        if term > self.hard.term() {
            self.follow(HardState { term, voted_for: None }, Some(from), out);
        } else if self.leader != Some(from) || self.role != Role::Follower {
            assert!(self.role != Role::Leader, "a term has one leader");
            assert!(self.leader.is_none_or(|leader| leader == from), "a term has one leader");
            self.role = Role::Follower;
            self.leader = Some(from);
            self.announce_role(out);
        }
        let timing = &self.config.timing;
        self.election.sticky_until = self.election.sticky_until.max(self.now + timing.election);
        self.election.at = self.now + self.timeout;
    }

    /// Follows in a newer term.
    pub(crate) fn follow(
        &mut self,
        hard: HardState,
        leader: Option<ShardAddr>,
        out: &mut Vec<Effect>,
    ) {
        self.hard.set(hard, out);
        self.fail_pending(out);
        self.leave_lead(leader, out);
        self.timeout = self.random_timeout();
        if self.role == Role::Leader {
            self.election.at = self.now + self.timeout;
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.announce_role(out);
    }

    /// Leader: gives up in the same term, because no majority answers or the shard asked for it
    /// (its device failed, it shuts down). Does nothing on another replica.
    pub fn step_down(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.saw(now);
        if self.role == Role::Leader {
            self.leave_lead(None, out);
            self.role = Role::Follower;
            self.leader = None;
            self.election.at = self.now + self.random_timeout();
            self.announce_role(out);
        }
    }

    fn leave_lead(&mut self, leader: Option<ShardAddr>, out: &mut Vec<Effect>) {
        if self.role == Role::Leader {
            self.lead.transfer = None;
            self.lead.reads.fail_all(NotReadable::NotLeader { leader }, out);
        }
    }

    fn is_sticky(&self) -> bool {
        let heard = self.now < self.election.sticky_until && self.config.voters.len() > 1;
        (self.role == Role::Leader || heard) && !self.has(Mutant::NoStickiness)
    }

    fn voter_bit(&self, addr: ShardAddr) -> Option<u16> {
        self.config.voters.iter().position(|&voter| voter == addr).map(|at| 1 << at)
    }

    pub(crate) fn announce_role(&self, out: &mut Vec<Effect>) {
        let (role, term, leader) = (self.role, self.hard.term(), self.leader);
        out.push(Effect::RoleChanged { role, term, leader });
    }

    /// From one to two election time-outs; the preferred replica draws from the first quarter of
    /// that span, the others then from the rest, so that it usually is first and its absence costs
    /// little.
    pub(crate) fn random_timeout(&mut self) -> std::time::Duration {
        let election = self.config.timing.election;
        let (low, high) = match self.config.priority.preferred {
            None => (election, election * 2),
            Some(addr) if addr == self.config.id => (election, election * 5 / 4),
            Some(_) => (election * 5 / 4, election * 2),
        };
        self.rng.between(low, high)
    }

    /// The first entry of this replica's reign; see [`Copyset::lead`].
    pub(crate) fn first_of_reign(&self) -> Index {
        self.log.last().index.next()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ogive_types::LogPos;
    use ogive_types::message::Heartbeat;

    use super::*;
    use crate::testkit::{ELECTION_US, addr, elect, mutant, pos, replica, save, vote};

    const START: Time = Time(1_000_000);

    fn ask(term: u64, last: LogPos) -> Vote {
        Vote { term: Term(term), last, pre: false, transfer: false }
    }

    fn granted(core: &mut Copyset, from: u32, request: Vote, now: Time) -> bool {
        vote(core, from, request, now).expect("answered").granted
    }

    #[test]
    fn votes_follow_the_log_and_are_given_once() {
        let cases = [
            (pos(2, 3), true),
            (pos(2, 4), true),
            (pos(3, 1), true),
            (pos(2, 2), false),
            (pos(1, 9), false),
        ];
        let now = START + Duration::from_micros(ELECTION_US);
        for (last, expected) in cases {
            let mut core = replica(3, 2, &[1, 2, 2]);
            assert_eq!(granted(&mut core, 2, ask(3, last), now), expected, "{last}");
            assert_eq!(granted(&mut core, 2, ask(3, last), now), expected, "again {last}");
            let other = granted(&mut core, 3, ask(3, pos(9, 9)), now);
            assert_eq!(other, !expected, "one vote in a term");
            assert!(!granted(&mut core, 3, ask(2, pos(9, 9)), now), "older terms get none");
        }
    }

    #[test]
    fn a_restarted_replica_waits_before_it_votes() {
        let early = START + Duration::from_micros(ELECTION_US - 1);
        let late = START + Duration::from_micros(ELECTION_US);
        let mut core = replica(3, 1, &[1]);
        assert!(core.next_deadline() >= late, "nor does it campaign");
        assert!(!granted(&mut core, 2, ask(2, pos(1, 1)), early));
        assert_eq!(core.term(), Term(1), "the term of a refused vote is ignored");
        assert!(granted(&mut core, 2, ask(2, pos(1, 1)), late));
        let mut fresh = replica(3, 0, &[]);
        assert!(granted(&mut fresh, 2, ask(1, pos(0, 0)), START), "it never promised anything");
        let mut wrong = mutant(3, 1, &[1], Mutant::NoRestartWait);
        assert!(granted(&mut wrong, 2, ask(2, pos(1, 1)), early));
    }

    #[test]
    fn votes_are_refused_while_the_leader_is_heard() {
        let heard = START + Duration::from_micros(2 * ELECTION_US);
        let early = heard + Duration::from_micros(ELECTION_US - 1);
        for pre in [true, false] {
            let request = Vote { pre, ..ask(2, pos(1, 1)) };
            let follow = |mut core: Copyset| {
                let beat = Heartbeat { term: Term(1), commit: Index(0), sent: Time(1) };
                core.on_heartbeat(addr(3), beat, heard, &mut Vec::new());
                core
            };
            let mut core = follow(replica(3, 1, &[1]));
            assert!(!granted(&mut core, 2, request, early));
            let late = heard + Duration::from_micros(ELECTION_US);
            assert!(granted(&mut core, 2, request, late));
            let mut core = follow(replica(3, 1, &[1]));
            let asked = Vote { transfer: true, ..request };
            assert!(granted(&mut core, 2, asked, early), "the leader asked for it");
            let mut wrong = follow(mutant(3, 1, &[1], Mutant::NoStickiness));
            assert!(granted(&mut wrong, 2, request, early));
        }
        let mut leader = replica(3, 0, &[]);
        let now = elect(&mut leader);
        assert!(!granted(&mut leader, 2, ask(9, pos(9, 9)), now), "a leader hears itself");
    }

    #[test]
    fn votes_are_asked_for_and_answered_only_when_saved() {
        let mut core = replica(3, 0, &[]);
        let now = core.next_deadline();
        let mut out = Vec::new();
        core.tick(now, &mut out);
        let reply = VoteReply { term: Term(1), granted: true, pre: true };
        out.clear();
        core.on_vote_reply(addr(2), reply, now, &mut out);
        assert_eq!(core.role(), Role::Candidate);
        let asks = |out: &[Effect]| out.iter().any(|e| matches!(e, Effect::SendVote { .. }));
        assert!(!asks(&out));
        core.on_vote_reply(addr(2), VoteReply { pre: false, ..reply }, now, &mut Vec::new());
        assert_eq!(core.role(), Role::Candidate, "its own vote does not count yet");
        save(&mut core, &mut out);
        assert!(asks(&out));

        let mut voter = replica(3, 0, &[]);
        let mut out = Vec::new();
        voter.on_vote(addr(2), ask(1, pos(0, 0)), 9, START, &mut out);
        assert!(!out.iter().any(|e| matches!(e, Effect::VoteReply { .. })));
        save(&mut voter, &mut out);
        assert!(out.iter().any(|e| matches!(e, Effect::VoteReply { .. })));
    }

    #[test]
    fn a_group_of_one_leads_at_once() {
        let mut core = replica(1, 3, &[1, 3]);
        let mut out = Vec::new();
        core.tick(core.next_deadline(), &mut out);
        save(&mut core, &mut out);
        assert_eq!((core.role(), core.term()), (Role::Leader, Term(4)));
        core.persisted(Index(3), &mut out);
        assert!(out.contains(&Effect::Commit(Index(3))));
        assert!(core.read_state(core.now).is_ok());
    }
}
