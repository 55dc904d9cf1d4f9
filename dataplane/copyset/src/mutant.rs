//! Known bugs that the tests put back in, to prove that the checker of the cluster test finds them.
//!
//! Outside tests there is no such switch, and every question is answered no at compile time.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Mutant {
    /// A follower answers before its entries are on stable storage.
    AckBeforePersist,
    /// Votes and answers leave before term and vote are on stable storage.
    AnswerUnsaved,
    /// An entry of an older term is committed by counting its copies.
    CommitOldTerm,
    /// Votes are given while the leader is alive.
    NoStickiness,
    /// A restarted replica votes at once.
    NoRestartWait,
    /// The leader counts its own entries before they are on stable storage.
    CountOwnUnpersisted,
    /// The lease runs from the arrival of the answer instead of the sending of the request.
    LeaseFromReply,
    /// The lease survives a hand-over that may still happen.
    LeaseAfterTransfer,
    /// A vote is given whatever the candidate's log holds.
    VoteForShortLog,
    /// The commit of a message is believed past the entries known to match.
    CommitPastMatch,
}

impl crate::Copyset {
    #[cfg(test)]
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub(crate) fn has(&self, _: Mutant) -> bool {
        false
    }
}
