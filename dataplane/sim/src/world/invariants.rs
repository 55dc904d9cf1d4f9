//! What must hold at every moment, by the names of the Raft paper, and across restarts.
//!
//! | name | what |
//! |---|---|
//! | election safety | one leader in each term of a copyset |
//! | leader completeness | a leader's log holds every entry committed in an older term |
//! | log matching | entries of one index and term have equal ones before them, in all logs |
//! | state machine safety | committed entries are equal on all replicas |
//! | commit by majority | a leader commits what a majority has promised to hold |
//! | order of steps | applied <= persisted, applied <= commit <= end of the log |
//! | no way back | commit and term never fall while a process lives |
//! | promises kept | a restarted replica has what it said it has, and no older term |

use std::collections::BTreeMap;

use ogive_copyset::Role;
use ogive_shard::Effect;
use ogive_store::Store;
use ogive_types::message::{Kind, ReplicaReply, decode};
use ogive_types::{CopysetId, Index, ShardAddr, Term};

use super::World;

/// Entries at the end of a log that are compared after each turn: more than one append brings.
const NEW_ENTRIES: u64 = 4;

/// What one replica has told others, and shown.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    /// It has the log up to here on stable storage.
    held: Index,
    /// It has answered in this term.
    term: Term,
    /// Shown since its process started.
    commit: Index,
    current_term: Term,
}

/// What the whole cluster has seen so far.
#[derive(Default)]
pub(crate) struct History {
    leaders: BTreeMap<(CopysetId, Term), ShardAddr>,
    /// Term of each committed entry, and a term at or after the one in which it was committed.
    committed: BTreeMap<CopysetId, BTreeMap<Index, (Term, Term)>>,
    promises: BTreeMap<(ShardAddr, CopysetId), Promise>,
    /// The term before each entry, by its index and term.
    before: BTreeMap<(CopysetId, Index, Term), Term>,
}

impl World {
    /// Checks a shard that has just ended a turn.
    pub(super) fn check_turn(&mut self, addr: ShardAddr, effects: &[Effect]) {
        self.note_promises(addr, effects);
        for id in self.here.get(&addr).cloned().unwrap_or_default() {
            if let Err(why) = self.check_replica(addr, id) {
                self.fail(format!("{id} on {addr}: {why}"));
            }
        }
    }

    fn note_promises(&mut self, addr: ShardAddr, effects: &[Effect]) {
        for effect in effects {
            let Effect::Send { frame, .. } = effect else { continue };
            if frame.kind != Kind::Replica as u8 || !frame.response {
                continue;
            }
            let mut note = |id, term, held: Option<Index>| {
                let promise = self.history.promises.entry((addr, id)).or_default();
                promise.term = promise.term.max(term);
                promise.held = promise.held.max(held.unwrap_or_default());
            };
            match decode::<ReplicaReply>(&frame.body) {
                Ok(ReplicaReply::Append(id, reply)) => note(id, reply.term, reply.matched.ok()),
                Ok(ReplicaReply::Delta(id, reply)) if reply.accepted => {
                    note(id, reply.term, Some(reply.last.index));
                }
                Ok(ReplicaReply::Vote(id, reply)) if reply.granted && !reply.pre => {
                    note(id, reply.term, None);
                }
                _ => {}
            }
        }
    }

    fn check_replica(&mut self, addr: ShardAddr, id: CopysetId) -> Result<(), String> {
        let Some(shard) = self.shard(addr) else { return Ok(()) };
        let Some(core) = shard.core(id) else { return Ok(()) };
        let (term, role, commit, last) = (core.term(), core.role(), core.commit(), core.last());
        let applied = shard.store().applied(id).index;
        let persisted = shard.store().log_bounds(id).map(|(_, p)| p).unwrap_or_default();
        if applied > commit || applied > persisted || commit > last.index {
            return Err(format!(
                "order of steps: applied {applied}, persisted {persisted}, commit {commit}, {last}"
            ));
        }
        let key = (addr, id);
        let before = self.history.promises.get(&key).copied().unwrap_or_default();
        if commit < before.commit || term < before.current_term {
            return Err(format!("no way back: {before:?}, now commit {commit}, {term}"));
        }
        let upto = before.commit.max(core.prev().index.prev());
        let fresh = (upto.0 + 1..=commit.0).map(Index);
        let fresh: Vec<_> = fresh.filter_map(|i| core.term_at(i).map(|t| (i, t))).collect();
        let held = if role == Role::Leader { persisted } else { before.held };
        let now = Promise { held: held.min(last.index), commit, current_term: term, ..before };
        self.history.promises.insert(key, now);
        self.check_matching(addr, id)?;
        if role == Role::Leader {
            self.check_leader(addr, id, term)?;
            let known = self.history.committed.get(&id).and_then(|c| c.last_key_value());
            if known.is_none_or(|(&i, _)| i < commit) {
                self.check_majority(id, commit)?;
            }
        }
        let committed = self.history.committed.entry(id).or_default();
        for (index, of) in fresh {
            let (known, _) = *committed.entry(index).or_insert((of, term));
            if known != of {
                return Err(format!("state machine safety: {index} is of {of}, was of {known}"));
            }
        }
        Ok(())
    }

    /// Looks at the end of a log, where it changes. By induction, equal terms before equal entries
    /// make all that lies before them equal.
    fn check_matching(&mut self, addr: ShardAddr, id: CopysetId) -> Result<(), String> {
        let Some(core) = self.shard(addr).and_then(|s| s.core(id)) else { return Ok(()) };
        let last = core.last().index.0;
        let ends = last.saturating_sub(NEW_ENTRIES)..last;
        let pairs = ends
            .filter_map(|i| Some((core.term_at(Index(i))?, core.term_at(Index(i + 1))?, i + 1)));
        let pairs: Vec<(Term, Term, u64)> = pairs.collect();
        for (before, term, index) in pairs {
            let known = *self.history.before.entry((id, Index(index), term)).or_insert(before);
            if known != before {
                return Err(format!(
                    "log matching: behind {before} lies i{index} of {term}, elsewhere {known}"
                ));
            }
        }
        Ok(())
    }

    fn check_leader(&mut self, addr: ShardAddr, id: CopysetId, term: Term) -> Result<(), String> {
        match self.history.leaders.insert((id, term), addr) {
            Some(other) if other == addr => return Ok(()),
            Some(other) => return Err(format!("election safety: {other} leads in {term} too")),
            None => {}
        }
        self.report.elections += 1;
        let core = self.shard(addr).and_then(|s| s.core(id)).ok_or("it is gone")?;
        let Some(committed) = self.history.committed.get(&id) else { return Ok(()) };
        // An older leader may learn late that it was elected, and lack what came after it.
        let lost = |(index, (was, committed_in)): (&Index, &(Term, Term))| {
            let here = core.term_at(*index);
            let differs = *index > core.last().index || here.is_some_and(|is| is != *was);
            *committed_in < term && differs
        };
        let prev = core.prev().index;
        match committed.range(prev..).find(|&entry| lost(entry)) {
            None => Ok(()),
            Some((index, (was, _))) => Err(format!(
                "leader completeness: the leader of {term} lacks {index} of {was}, its log ends \
                 at {}",
                core.last()
            )),
        }
    }

    fn check_majority(&self, id: CopysetId, commit: Index) -> Result<(), String> {
        let members = &self.topology.copysets[&id];
        let holds = |addr: &&ShardAddr| {
            self.history.promises.get(&(**addr, id)).is_some_and(|p| p.held >= commit)
        };
        let holders = members.iter().filter(holds).count();
        match holders * 2 > members.len() {
            true => Ok(()),
            false => Err(format!("commit by majority: {holders} have promised to hold {commit}")),
        }
    }

    /// Checks a store that was just opened against what its replicas had said before.
    pub(super) fn check_restored(&mut self, addr: ShardAddr, store: &Store) {
        for id in self.here.get(&addr).cloned().unwrap_or_default() {
            let key = (addr, id);
            let Some(promise) = self.history.promises.get(&key).copied() else { continue };
            let Some(state) = store.replica(id) else {
                if promise.held > Index(0) || promise.term > Term(0) {
                    self.fail(format!("{id} on {addr}: promises kept: the replica is gone"));
                }
                continue;
            };
            // A term is also known from the entries of it.
            let term = state.hard.term.max(state.last.term);
            if state.last.index < promise.held || term < promise.term {
                let why = format!("promises kept: {promise:?}, but the disk has {state:?}");
                self.fail(format!("{id} on {addr}: {why}"));
            }
            let applied = state.applied;
            let known = self.history.committed.get(&id).and_then(|c| c.get(&applied.index));
            if known.is_some_and(|(t, _)| *t != applied.term) {
                self.fail(format!("{id} on {addr}: applied {applied}, committed is {known:?}"));
            }
            let fresh = Promise { commit: Index(0), current_term: Term(0), ..promise };
            self.history.promises.insert(key, fresh);
        }
    }
}
