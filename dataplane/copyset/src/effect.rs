//! What goes into the core and what comes out.

use ogive_types::message::{AppendReply, Heartbeat, Vote, VoteReply};
use ogive_types::{Index, LogPos, ShardAddr, Term, Time};

use crate::election::Role;
use crate::terms::TermRun;

pub use ogive_types::HardState;

/// What the store found when the replica started. All default for a new replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// As last reported by [`crate::Copyset::hard_state_persisted`], or a later one that was being
    /// saved.
    pub hard: HardState,
    /// The terms of the entries behind `prev`, in order; empty for an empty log.
    pub terms: Vec<TermRun>,
    /// Position before the first entry that is kept.
    pub prev: LogPos,
    /// Position of the last entry, all of them on stable storage.
    pub last: LogPos,
    /// Everything up to here is in the map; at least `prev.index`, at most `last.index`.
    pub applied: Index,
}

/// An append as the core sees it: everything but the operations.
#[derive(Clone, Copy, Debug)]
pub struct AppendMeta<'a> {
    /// The sender's term.
    pub term: Term,
    /// Position of the entry before the first one.
    pub prev: LogPos,
    /// The sender's commit.
    pub commit: Index,
    /// The sender's clock, to be echoed.
    pub sent: Time,
    /// Term of each entry.
    pub terms: &'a [Term],
}

/// What to do with an append. Its token is answered exactly once: by [`Appending::Refuse`] here, or
/// by one [`Effect::AppendReply`], in this call's effects or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Appending {
    /// Store nothing and send this answer.
    Refuse(AppendReply),
    /// Store nothing: the answer is an [`Effect::AppendReply`], which may have to wait.
    Deferred,
    /// First drop the entries from `truncate_from` on, then append all but the first `skip`
    /// entries, then report [`crate::Copyset::persisted`]; or, when the store refuses, call
    /// [`crate::Copyset::on_append_failed`] before anything else of this copyset. Nothing to append
    /// when `skip` is the number of entries; then nothing can fail.
    Accept {
        /// Entries that the log holds already.
        skip: usize,
        /// First of the entries that contradict the leader's.
        truncate_from: Option<Index>,
    },
}

/// What the shard must do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put this on stable storage, then call [`crate::Copyset::hard_state_persisted`]; in order.
    SaveHardState(HardState),
    /// Ask for a vote, or for a pre-vote.
    SendVote {
        /// Whom.
        to: ShardAddr,
        /// The request.
        vote: Vote,
    },
    /// The answer to [`crate::Copyset::on_vote`].
    VoteReply {
        /// Who asked.
        to: ShardAddr,
        /// What `on_vote` got.
        token: u64,
        /// The answer.
        reply: VoteReply,
    },
    /// Send the entries `from .. from + count` in an append; only a probe when `count` is 0.
    ///
    /// The shard may send them as several appends, each with the position before its first entry as
    /// `prev`, or send fewer and say so with [`crate::Copyset::replicate_cut`]. Every request must
    /// end in [`crate::Copyset::on_append_reply`] or [`crate::Copyset::on_append_lost`].
    Replicate {
        /// The follower.
        to: ShardAddr,
        /// Position before the first entry.
        prev: LogPos,
        /// Index of the first entry.
        from: Index,
        /// Number of entries.
        count: usize,
        /// What is committed.
        commit: Index,
        /// The leader's term.
        term: Term,
        /// The leader's clock, for [`ogive_types::message::Append::sent`].
        sent: Time,
    },
    /// The answer to an append.
    AppendReply {
        /// What `on_append` got.
        token: u64,
        /// Who sent the append.
        to: ShardAddr,
        /// The answer.
        reply: AppendReply,
    },
    /// Send a sign of life, together with those of other copysets to the same peer.
    Heartbeat {
        /// The follower.
        to: ShardAddr,
        /// The message.
        heartbeat: Heartbeat,
    },
    /// Ask a follower to campaign at once.
    SendTimeoutNow {
        /// The follower.
        to: ShardAddr,
        /// The leader's term.
        term: Term,
    },
    /// This replica has become the leader: append a no-op at this position to the store, then call
    /// [`crate::Copyset::replicate`]. It commits what earlier leaders left. The store keeps room
    /// for it.
    AppendNoop(LogPos),
    /// Everything up to here is committed. Apply it as far as [`crate::Copyset::applicable`] says:
    /// a leader may know of a commit before its own store has the entries.
    Commit(Index),
    /// The role, the term or the known leader changed. Whoever waits for a write on a replica that
    /// no longer leads must be told that the outcome is unknown.
    RoleChanged {
        /// What this replica is now.
        role: Role,
        /// Its term.
        term: Term,
        /// Whom it takes for the leader.
        leader: Option<ShardAddr>,
    },
    /// The log no longer reaches back to what the follower lacks: send it the difference of the
    /// maps, then call [`crate::Copyset::delta_done`] or [`crate::Copyset::delta_failed`].
    NeedDelta {
        /// The follower.
        to: ShardAddr,
        /// The log of the follower is known to hold everything up to here, committed. It must check
        /// that it has also applied that much. 0 when nothing is known: then all blocks are sent.
        base: Index,
    },
    /// The leadership was confirmed: read once this much is applied.
    ReadReady {
        /// What `request_read` got.
        token: u64,
        /// Everything that was acknowledged before the request is at or before this.
        commit: Index,
    },
    /// The leadership was not confirmed.
    ReadFailed {
        /// What `request_read` got.
        token: u64,
        /// Why.
        reason: NotReadable,
    },
}

/// A proposal on a replica that does not lead, or is handing over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the leader; propose to {leader:?}")]
pub struct NotLeader {
    /// Whom to ask instead.
    pub leader: Option<ShardAddr>,
}

/// A read may be served once `commit` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// Everything acknowledged before is at or before this index.
    pub commit: Index,
}

/// Why a read cannot be served from here without a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReadable {
    /// This replica does not lead.
    #[error("not the leader; read from {leader:?}")]
    NotLeader {
        /// Whom to ask instead.
        leader: Option<ShardAddr>,
    },
    /// The lease ran out or was given away: confirm the leadership with a round trip.
    #[error("the lease is in doubt; request a confirmed read")]
    LeaseDoubt,
    /// Nothing of this term is committed yet: what earlier leaders acknowledged may not be known.
    #[error("nothing of this term is committed yet; request a confirmed read, which waits for it")]
    NotReady,
    /// Too many reads wait for confirmation.
    #[error("too many reads wait for confirmation; try again soon")]
    Busy,
}
