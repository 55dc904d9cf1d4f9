//! One replica of one copyset: its parts, its timer, and what can be asked of it.

use std::time::Duration;

use ogive_types::{CopysetId, Index, LogPos, ShardAddr, Term, Time};

use crate::config::{Config, Priority};
use crate::effect::{Effect, Restored};
use crate::election::{Election, Role};
use crate::hard::Hard;
use crate::leading::Lead;
use crate::matching::PendingAppends;
use crate::mutant::Mutant;
use crate::progress::ProgressState;
use crate::rng::Rng;
use crate::terms::LogShape;

/// One replica of one copyset. See the crate's documentation.
#[derive(Debug)]
pub struct Copyset {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    /// The newest moment seen; time never goes back, even if a caller's does.
    pub(crate) now: Time,
    pub(crate) role: Role,
    pub(crate) leader: Option<ShardAddr>,
    pub(crate) hard: Hard,
    pub(crate) log: LogShape,
    /// Entries up to here are on this replica's stable storage.
    pub(crate) persisted: Index,
    /// Entries up to here are committed and, on a follower, persisted.
    pub(crate) commit: Index,
    /// Entries up to here are committed and match.
    pub(crate) known: Index,
    pub(crate) applied: Index,
    pub(crate) pending: PendingAppends,
    pub(crate) election: Election,
    /// The random time-out of this term.
    pub(crate) timeout: Duration,
    pub(crate) lead: Lead,
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

impl Copyset {
    /// A replica that starts with what its store found. Call [`Copyset::tick`] at once.
    ///
    /// Panics when the configuration or what was restored contradicts itself.
    pub fn new(config: Config, restored: Restored, now: Time) -> Copyset {
        config.check();
        let Restored { hard, terms, prev, last, applied } = restored;
        assert!(prev.index <= applied && applied <= last.index, "applied lies inside the log");
        let others = config.voters.iter().copied().filter(|&voter| voter != config.id);
        let lead = Lead::new(others);
        let hard = Hard::restore(hard, last.term);
        let mut copyset = Copyset {
            rng: Rng::new(config.seed),
            now,
            role: Role::Follower,
            leader: None,
            hard,
            log: LogShape::restore(prev, terms, last),
            persisted: last.index,
            commit: applied,
            known: applied,
            applied,
            pending: PendingAppends::new(),
            election: Election::new(now, now),
            timeout: config.timing.election,
            lead,
            config,
            #[cfg(test)]
            mutant: None,
        };
        copyset.start_clocks();
        copyset
    }

    /// A replica that never answered in any term has promised nothing and may campaign at once, and
    /// so may one without peers. Every other waits: it no longer knows whose lease it confirmed.
    fn start_clocks(&mut self) {
        let election = self.config.timing.election;
        self.timeout = self.random_timeout();
        let alone = self.config.voters.len() == 1;
        if alone || self.hard.term() == Term(0) {
            let spread = if alone { Duration::ZERO } else { self.timeout - election };
            self.election.at = self.now + spread;
        } else {
            self.election.at = self.now + self.timeout;
            self.election.sticky_until = self.now + election;
        }
    }

    /// Lets time pass. To be called at [`Copyset::next_deadline`]; earlier does no harm.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.saw(now);
        self.hard.announce(out);
        match self.role {
            Role::Leader => self.tick_leader(out),
            _ if self.now >= self.election.at => self.pre_campaign(out),
            _ => {}
        }
    }

    /// When [`Copyset::tick`] has something to do. It moves with every call: ask again after each.
    pub fn next_deadline(&self) -> Time {
        if self.hard.is_unannounced() {
            return self.now;
        }
        if self.role != Role::Leader {
            return self.election.at;
        }
        let probes = self.lead.followers.iter().filter(|f| f.state == ProgressState::Probe);
        let probe = probes.map(|follower| follower.retry_at).min().unwrap_or(Time::NEVER);
        let transfer = self.lead.transfer.map_or(Time::NEVER, |transfer| transfer.deadline);
        let heartbeat = self.lead.heartbeat_at;
        heartbeat.min(self.quorum_deadline(self.now)).min(transfer).min(probe)
    }

    /// Changes whom placement prefers as the leader.
    pub fn set_priority(&mut self, priority: Priority) {
        self.config.priority = priority;
    }

    /// The copyset that this is a replica of.
    pub fn id(&self) -> CopysetId {
        self.config.copyset
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The current term. For messages that the shard answers itself see [`Copyset::saved_term`].
    pub fn term(&self) -> Term {
        self.hard.term()
    }

    /// The newest term that is on stable storage: the one that may stand in an answer.
    pub fn saved_term(&self) -> Term {
        self.hard.saved_term()
    }

    /// Whom this replica takes for the leader, itself included.
    pub fn leader(&self) -> Option<ShardAddr> {
        self.leader
    }

    /// What is committed, as far as this replica knows. See [`Copyset::applicable`].
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The end of the log.
    pub fn last(&self) -> LogPos {
        self.log.last()
    }

    /// The position before the first entry that is kept.
    pub fn prev(&self) -> LogPos {
        self.log.prev()
    }

    /// Term of the entry at `index`; `None` when the log does not hold it.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    pub(crate) fn saw(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    pub(crate) fn is_peer(&self, addr: ShardAddr) -> bool {
        self.follower(addr).is_some()
    }

    pub(crate) fn answer(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        if self.has(Mutant::AnswerUnsaved) {
            out.push(effect);
        } else {
            self.hard.answer(effect, out);
        }
    }

    /// Makes this replica behave wrongly.
    #[cfg(test)]
    pub(crate) fn with_mutant(mut self, mutant: Option<Mutant>) -> Copyset {
        self.mutant = mutant;
        if mutant == Some(Mutant::NoRestartWait) {
            self.election.sticky_until = self.now;
            self.election.at = self.now;
        }
        self
    }
}
