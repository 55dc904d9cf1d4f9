//! The follower's log: match it with the leader's, and answer once it is persisted.
//!
//! ```text
//! append ──► stale, malformed, or no match at prev ──► refused at once, with a hint
//!        └─► matches ──► pending ──(persisted covers it)──────► Ok(last entry of the append)
//!                           ├─────(the store refused)─────────► Err(end of the log)
//!                           └─────(newer term, log reset)─────► Err(end of the log)
//! ```
//!
//! | the log at `prev` and behind | effect |
//! |---|---|
//! | ends before `prev` | Err(its end) |
//! | has another term at `prev` | Err(last position before `prev` whose term is not newer) |
//! | holds the entries | nothing to store |
//! | holds the first `skip` of them and ends | store the rest |
//! | holds other entries behind the first `skip` | truncate there, store the rest |
//! | `prev` lies before what is kept | what is not kept is committed, so it matches |
//!
//! Nothing that is known to be committed is ever truncated.

use std::collections::VecDeque;

use ogive_types::message::{AppendReply, Heartbeat, HeartbeatReply};
use ogive_types::{Index, LogPos, ShardAddr, Term, Time};

use crate::copyset::Copyset;
use crate::effect::{AppendMeta, Appending, Effect};
use crate::election::Role;
use crate::limits::PENDING_APPENDS_MAX;
use crate::mutant::Mutant;

/// An append that matched and waits for its entries to be persisted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    token: u64,
    from: ShardAddr,
    sent: Time,
    /// Last entry of the append.
    upto: Index,
    /// End of the log before it, to return to when the store refuses the entries.
    before: Index,
}

pub(crate) type PendingAppends = VecDeque<Pending>;

impl Copyset {
    /// An append arrived. `token` identifies the request and is answered exactly once, see
    /// [`Appending`].
    pub fn on_append(
        &mut self,
        from: ShardAddr,
        meta: AppendMeta<'_>,
        token: u64,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Appending {
        self.saw(now);
        if meta.term < self.hard.term() || !is_well_formed(&meta) || !self.is_peer(from) {
            return self.refuse(from, token, meta.sent, self.log.last(), out);
        }
        self.hear_leader(from, meta.term, out);
        if let Err(hint) = self.match_at(meta.prev) {
            return self.refuse(from, token, meta.sent, hint, out);
        }
        if self.pending.len() >= PENDING_APPENDS_MAX {
            return self.refuse(from, token, meta.sent, self.log.last(), out);
        }
        let before = self.log.last().index;
        let (skip, truncate_from) = self.extend_log(&meta);
        let upto = Index(meta.prev.index.0 + meta.terms.len() as u64);
        let before = truncate_from.map_or(before, Index::prev);
        self.pending.push_back(Pending { token, from, sent: meta.sent, upto, before });
        let matched = if self.has(Mutant::CommitPastMatch) { self.log.last().index } else { upto };
        self.answer_pending(out);
        self.learn_commit(meta.commit.min(matched), out);
        Appending::Accept { skip, truncate_from }
    }

    /// The store refused the entries that the last [`Copyset::on_append`] accepted, or the device
    /// failed them; they were truncated from it. The leader gets them refused and tries again
    /// later.
    pub fn on_append_failed(&mut self, token: u64, out: &mut Vec<Effect>) {
        let Some(at) = self.pending.iter().position(|pending| pending.token == token) else {
            return;
        };
        let before = self.pending[at].before;
        assert!(before >= self.commit, "committed entries are held already");
        if before < self.log.last().index {
            self.log.truncate_from(before.next());
        }
        self.persisted = self.persisted.min(before);
        self.known = self.known.min(before).max(self.commit);
        let kept = self.pending.iter().take(at).filter(|p| p.upto <= before).count();
        let failed: Vec<Pending> = self.pending.drain(kept..).collect();
        for pending in failed {
            self.answer_append(pending, Err(self.log.last()), out);
        }
    }

    /// A sign of life arrived; send the answer. It carries the newest term that is on stable
    /// storage, which can be older than the message's: the leader then waits for the next.
    pub fn on_heartbeat(
        &mut self,
        from: ShardAddr,
        heartbeat: Heartbeat,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> HeartbeatReply {
        self.saw(now);
        if heartbeat.term >= self.hard.term() && self.is_peer(from) {
            self.hear_leader(from, heartbeat.term, out);
            // The leader names only what this log matched in this term, so it is there.
            self.learn_commit(heartbeat.commit.min(self.log.last().index), out);
        }
        let unsaved = self.has(Mutant::AnswerUnsaved);
        let term = if unsaved { self.hard.term() } else { self.hard.saved_term() };
        HeartbeatReply { term, sent: heartbeat.sent, last: self.persisted }
    }

    /// A message of another kind (a page of a delta) arrived from the leader of `term`. It counts
    /// as a sign of life. False when it is stale: refuse it with [`Copyset::saved_term`].
    pub fn on_leader_contact(
        &mut self,
        from: ShardAddr,
        term: Term,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.saw(now);
        let current = term >= self.hard.term() && self.is_peer(from);
        if current {
            self.hear_leader(from, term, out);
        }
        current
    }

    /// Follower, after a finished delta: the map is at `upto` and the log in the store is empty
    /// behind it.
    ///
    /// Between the end of the delta and this call the shard accepts no appends
    /// ([`Copyset::on_append_failed`]). Ask [`Copyset::accepts_delta`] before the store's log is
    /// replaced.
    pub fn log_reset(&mut self, upto: LogPos, out: &mut Vec<Effect>) {
        assert!(self.accepts_delta(upto), "a delta never leads back");
        self.log.reset(upto);
        self.persisted = upto.index;
        self.applied = upto.index;
        self.known = upto.index;
        self.fail_pending(out);
        self.raise_commit(upto.index, out);
    }

    /// Follower: whether its log may be replaced by an empty one behind `upto`. Not when that would
    /// lead back behind what is committed, or drop entries that match the leader's and may count.
    pub fn accepts_delta(&self, upto: LogPos) -> bool {
        let matches = self.log.term_at(upto.index) == Some(upto.term);
        let drops = matches && upto.index < self.log.last().index;
        self.role != Role::Leader && upto.index >= self.known && !drops
    }

    /// Answers the appends whose entries are persisted by now.
    pub(crate) fn answer_pending(&mut self, out: &mut Vec<Effect>) {
        let early = self.has(Mutant::AckBeforePersist);
        while let Some(&pending) = self.pending.front() {
            if pending.upto > self.persisted && !early {
                break;
            }
            self.pending.pop_front();
            self.answer_append(pending, Ok(pending.upto), out);
        }
    }

    /// The term moved on or the log was replaced: what was pending is void.
    pub(crate) fn fail_pending(&mut self, out: &mut Vec<Effect>) {
        while let Some(pending) = self.pending.pop_front() {
            self.answer_append(pending, Err(self.log.last()), out);
        }
    }

    fn answer_append(
        &mut self,
        pending: Pending,
        matched: Result<Index, LogPos>,
        out: &mut Vec<Effect>,
    ) {
        let Pending { token, from, sent, .. } = pending;
        let reply = AppendReply { term: self.hard.term(), sent, matched };
        self.answer(Effect::AppendReply { token, to: from, reply }, out);
    }

    fn refuse(
        &mut self,
        to: ShardAddr,
        token: u64,
        sent: Time,
        hint: LogPos,
        out: &mut Vec<Effect>,
    ) -> Appending {
        let reply = AppendReply { term: self.hard.term(), sent, matched: Err(hint) };
        if self.hard.is_saved() {
            return Appending::Refuse(reply);
        }
        self.answer(Effect::AppendReply { token, to, reply }, out);
        Appending::Deferred
    }

    /// Whether the log has the entry at `prev`; if not, where the leader should look next.
    fn match_at(&self, prev: LogPos) -> Result<(), LogPos> {
        let kept = self.log.prev();
        match self.log.term_at(prev.index) {
            Some(term) if term == prev.term => Ok(()),
            None if prev.index < kept.index => Ok(()),
            None => Err(self.log.last()),
            Some(_) => {
                assert!(prev.index > kept.index, "what was released is committed, so it matches");
                let earlier = self.log.last_of_term(prev.index.prev(), prev.term);
                Err(earlier.unwrap_or(kept))
            }
        }
    }

    /// Makes the log hold the entries of an append that matches at its `prev`.
    fn extend_log(&mut self, meta: &AppendMeta<'_>) -> (usize, Option<Index>) {
        let skip = self.log.held(meta.prev.index, meta.terms);
        if skip == meta.terms.len() {
            return (skip, None);
        }
        let first = Index(meta.prev.index.0 + 1 + skip as u64);
        let truncate_from = (first <= self.log.last().index).then_some(first);
        if let Some(from) = truncate_from {
            assert!(from > self.known.max(self.commit), "committed entries never change");
            self.log.truncate_from(from);
            self.persisted = self.persisted.min(from.prev());
        }
        for &term in &meta.terms[skip..] {
            self.log.push(term);
        }
        (skip, truncate_from)
    }
}

/// Terms never decrease along a log, and a leader has no entry of a later term than its own.
fn is_well_formed(meta: &AppendMeta<'_>) -> bool {
    let mut before = meta.prev.term;
    let ascend = meta.terms.iter().all(|&term| std::mem::replace(&mut before, term) <= term);
    ascend && before <= meta.term && (meta.prev.index > Index(0) || meta.prev.term == Term(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{answers, append, pos, replica, save};

    /// Over every shape of the log at `prev` and behind: what the table above says.
    #[test]
    fn appends_match_as_the_table_says() {
        let log = [1, 1, 2, 2];
        let accept =
            |skip, from: Option<u64>| Appending::Accept { skip, truncate_from: from.map(Index) };
        let cases: [(LogPos, &[u64], Result<Appending, LogPos>); 9] = [
            (pos(3, 9), &[3], Err(pos(2, 4))),
            (pos(1, 4), &[3], Err(pos(1, 2))),
            (pos(3, 3), &[3], Err(pos(1, 2))),
            (pos(2, 4), &[3], Ok(accept(0, None))),
            (pos(2, 4), &[], Ok(accept(0, None))),
            (pos(1, 2), &[2, 2], Ok(accept(2, None))),
            (pos(1, 2), &[2, 2, 3], Ok(accept(2, None))),
            (pos(1, 2), &[2, 3], Ok(accept(1, Some(4)))),
            (pos(0, 0), &[1, 3], Ok(accept(1, Some(2)))),
        ];
        for (prev, terms, expected) in cases {
            let mut core = replica(3, 3, &log);
            let got = append(&mut core, 3, prev, terms, 1, &mut Vec::new());
            match (got, expected) {
                (Appending::Refuse(reply), Err(hint)) => assert_eq!(reply.matched, Err(hint)),
                (got, expected) => assert_eq!(Ok(got), expected, "{prev} {terms:?}"),
            }
        }
    }

    #[test]
    fn malformed_and_stale_appends_are_refused() {
        let cases: [(u64, LogPos, &[u64]); 5] = [
            (2, pos(1, 1), &[1]),
            (3, pos(1, 1), &[4]),
            (3, pos(1, 1), &[2, 1]),
            (3, pos(4, 1), &[]),
            (3, pos(1, 0), &[1]),
        ];
        for (term, prev, terms) in cases {
            let mut core = replica(3, 3, &[1]);
            let got = append(&mut core, term, prev, terms, 1, &mut Vec::new());
            assert!(matches!(got, Appending::Refuse(_)), "{term} {prev} {terms:?}: {got:?}");
            assert_eq!(core.last(), pos(1, 1));
        }
    }

    #[test]
    fn an_answer_waits_for_the_disk_and_for_the_term() {
        let mut core = replica(3, 1, &[1]);
        let mut out = Vec::new();
        let _ = append(&mut core, 2, pos(1, 1), &[2, 2], 7, &mut out);
        core.persisted(Index(2), &mut out);
        assert_eq!(answers(&out), []);
        core.persisted(Index(3), &mut out);
        assert_eq!(answers(&out), [], "the term is not saved");
        save(&mut core, &mut out);
        assert_eq!(answers(&out), [(7, Ok(Index(3)))]);
    }

    #[test]
    fn a_new_term_fails_what_is_pending_and_a_duplicate_is_answered_at_once() {
        let mut core = replica(3, 2, &[1]);
        let mut out = Vec::new();
        let _ = append(&mut core, 2, pos(1, 1), &[2], 7, &mut out);
        let _ = append(&mut core, 3, pos(1, 1), &[3], 8, &mut out);
        save(&mut core, &mut out);
        assert_eq!(answers(&out), [(7, Err(pos(2, 2)))]);
        core.persisted(Index(2), &mut out);
        let _ = append(&mut core, 3, pos(1, 1), &[3], 9, &mut out);
        assert_eq!(answers(&out)[1..], [(8, Ok(Index(2))), (9, Ok(Index(2)))]);
    }

    #[test]
    fn refused_entries_leave_the_log_and_do_not_count() {
        let mut core = replica(3, 2, &[1]);
        let mut out = Vec::new();
        let _ = append(&mut core, 2, pos(1, 1), &[2], 7, &mut out);
        let _ = append(&mut core, 2, pos(2, 2), &[2, 2], 8, &mut out);
        core.on_append_failed(8, &mut out);
        assert_eq!(answers(&out), [(8, Err(pos(2, 2)))]);
        assert_eq!(core.last(), pos(2, 2));
        core.persisted(Index(2), &mut out);
        assert_eq!(answers(&out)[1..], [(7, Ok(Index(2)))]);
    }

    #[test]
    fn a_follower_commits_what_matches_and_is_persisted() {
        let mut core = replica(3, 2, &[1]);
        let mut out = Vec::new();
        let terms = [Term(2), Term(2)];
        let (term, prev, sent) = (Term(2), pos(1, 1), Time(1));
        let meta = AppendMeta { term, prev, commit: Index(9), sent, terms: &terms };
        let _ = core.on_append(crate::testkit::addr(2), meta, 1, core.now, &mut out);
        assert_eq!(core.commit(), Index(1));
        core.persisted(Index(3), &mut out);
        assert_eq!(core.commit(), Index(3), "not 9: what lies behind may differ");
    }

    #[test]
    fn a_delta_never_leads_back() {
        let mut core = replica(3, 2, &[1, 1, 2]);
        assert!(core.accepts_delta(pos(2, 9)));
        assert!(core.accepts_delta(pos(2, 3)));
        assert!(!core.accepts_delta(pos(1, 2)), "entry 3 may count");
        assert!(core.accepts_delta(pos(2, 2)), "this log is not the leader's");
        core.log_reset(pos(2, 9), &mut Vec::new());
        assert_eq!((core.last(), core.applicable()), (pos(2, 9), Index(9)));
        assert!(!core.accepts_delta(pos(2, 8)));
    }
}
