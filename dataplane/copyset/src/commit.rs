//! How far the log is committed.
//!
//! ```text
//! follower:  known to match and committed ──► min(known, persisted) ──► Commit
//! leader:    persisted here, matched there ──► majority, own term ───► Commit
//! ```
//!
//! | role | event | commit becomes |
//! |---|---|---|
//! | follower | append or heartbeat | the leader's, as far as it matches and is persisted |
//! | follower | persisted | as above |
//! | leader | persisted, answer | what a majority persisted, if of its own term |
//! | any | elected | everything known to be committed |
//!
//! A leader counts only entries of its own term (Ongaro's thesis, 3.6.2): copies of an older entry
//! on a majority do not keep a later leader from replacing it. All entries from the leader's no-op
//! on are its own.

use ogive_types::{Index, Time};

use crate::copyset::Copyset;
use crate::effect::Effect;
use crate::election::Role;
use crate::mutant::Mutant;
use crate::quorum::reached_by_majority;

impl Copyset {
    /// Follower: entries up to `index` match the leader's and are committed there.
    pub(crate) fn learn_commit(&mut self, index: Index, out: &mut Vec<Effect>) {
        assert!(index <= self.log.last().index, "only entries that it holds are known to match");
        self.known = self.known.max(index);
        self.raise_commit(self.known.min(self.persisted), out);
    }

    /// Leader: counts who has persisted what.
    pub(crate) fn count_commit(&mut self, now: Time, out: &mut Vec<Effect>) {
        let own = if self.has(Mutant::CountOwnUnpersisted) {
            self.log.last().index
        } else {
            self.persisted
        };
        let others = self.lead.followers.iter().map(|follower| follower.matched);
        let reached = reached_by_majority(others.chain([own]), Index(0));
        if reached > self.commit
            && (reached >= self.lead.term_start || self.has(Mutant::CommitOldTerm))
        {
            self.known = reached;
            self.raise_commit(reached, out);
            self.finish_reads(now, out);
        }
    }

    pub(crate) fn raise_commit(&mut self, index: Index, out: &mut Vec<Effect>) {
        if index > self.commit {
            self.commit = index;
            out.push(Effect::Commit(index));
        }
    }

    /// The store has the entries up to `upto`, which it was given in this order, on stable storage.
    ///
    /// Reports about entries that were truncated since they were given to the store must not reach
    /// this: an entry of the same index may have taken their place.
    pub fn persisted(&mut self, upto: Index, out: &mut Vec<Effect>) {
        assert!(upto <= self.log.last().index, "only entries that were appended are persisted");
        if upto <= self.persisted {
            return;
        }
        self.persisted = upto;
        self.answer_pending(out);
        match self.role {
            Role::Leader => self.count_commit(self.now, out),
            _ => self.raise_commit(self.known.min(self.persisted), out),
        }
    }

    /// Everything up to here may be applied: it is committed, and this replica's store holds it.
    pub fn applicable(&self) -> Index {
        self.commit.min(self.persisted)
    }

    /// The shard applied the entries up to `upto` to its map.
    pub fn applied(&mut self, upto: Index) {
        assert!(upto <= self.applicable(), "only what is committed and persisted is applied");
        self.applied = self.applied.max(upto);
    }

    /// The store dropped the entries up to `upto`, all of them applied.
    pub fn released(&mut self, upto: Index) {
        assert!(upto <= self.applied, "an entry is needed until it is applied");
        self.log.release(upto);
    }

    /// Leader: everything up to here is persisted by all members and applied here, so nobody needs
    /// it from the log. A follower knows this of nobody: there it is the position before the first
    /// entry. The shard may release more (a member that is down must not fill the log); that member
    /// is then caught up by [`Effect::NeedDelta`].
    pub fn release_point(&self) -> Index {
        if self.role != Role::Leader {
            return self.log.prev().index;
        }
        let others = self.lead.followers.iter().map(|follower| follower.matched);
        others.fold(self.applied, Index::min).max(self.log.prev().index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{elect, matched, mutant, replica};

    #[test]
    fn an_older_terms_entry_is_not_committed_by_counting() {
        // Entry 1 of term 1 reaches a majority before the no-op of term 2, at 2, does.
        let mut core = replica(3, 1, &[1]);
        let now = elect(&mut core);
        assert!(!matched(&mut core, 2, 1, now).contains(&Effect::Commit(Index(1))));
        assert_eq!(core.commit(), Index(0));
        core.persisted(Index(2), &mut Vec::new());
        assert!(matched(&mut core, 2, 2, now).contains(&Effect::Commit(Index(2))));

        let mut wrong = mutant(3, 1, &[1], Mutant::CommitOldTerm);
        let now = elect(&mut wrong);
        assert!(matched(&mut wrong, 2, 1, now).contains(&Effect::Commit(Index(1))));
    }

    #[test]
    fn a_majority_without_the_leaders_disk_commits_but_is_not_applied() {
        let mut core = replica(3, 0, &[]);
        let now = elect(&mut core);
        matched(&mut core, 2, 1, now);
        assert_eq!(core.commit(), Index(0));
        assert!(matched(&mut core, 3, 1, now).contains(&Effect::Commit(Index(1))));
        assert_eq!(core.applicable(), Index(0));
        core.persisted(Index(1), &mut Vec::new());
        assert_eq!(core.applicable(), Index(1));
    }

    #[test]
    fn nothing_is_released_that_somebody_may_need() {
        let mut core = replica(3, 0, &[]);
        let now = elect(&mut core);
        core.persisted(Index(1), &mut Vec::new());
        matched(&mut core, 2, 1, now);
        core.applied(Index(1));
        assert_eq!(core.release_point(), Index(0));
        matched(&mut core, 3, 1, now);
        assert_eq!(core.release_point(), Index(1));
    }
}
