//! What must be true, whatever happens. Each rule has a name, which a violation starts with.

use std::collections::HashMap;

use ogive_types::{Index, LogPos, ShardAddr, Term};

use super::node::{Entry, Node};

/// Everything that any replica ever did, seen from outside.
#[derive(Default)]
pub(super) struct Check {
    leaders: HashMap<Term, ShardAddr>,
    votes: HashMap<(Term, ShardAddr), ShardAddr>,
    /// Each entry by its position, with the position before it.
    entries: HashMap<LogPos, (u64, LogPos)>,
    /// The committed entries from index 1.
    pub(super) committed: Vec<Entry>,
    pub(super) elections: u64,
}

pub(super) fn violated(rule: &str, detail: String) -> ! {
    panic!("violated: {rule}: {detail}")
}

impl Check {
    /// A term has at most one leader, and it has everything that is committed.
    pub(super) fn elected(&mut self, node: &Node, term: Term) {
        self.elections += 1;
        let leader = *self.leaders.entry(term).or_insert(node.addr);
        if leader != node.addr {
            violated("election safety", format!("{leader} and {} lead {term}", node.addr));
        }
        for (i, entry) in self.committed.iter().enumerate() {
            let index = Index(i as u64 + 1);
            if index > node.log.prev.index && node.log.get(index) != Some(*entry) {
                violated("leader completeness", format!("{} lacks {index} in {term}", node.addr));
            }
        }
    }

    /// A voter votes once in a term.
    pub(super) fn voted(&mut self, voter: ShardAddr, term: Term, candidate: ShardAddr) {
        let first = *self.votes.entry((term, voter)).or_insert(candidate);
        if first != candidate {
            violated("one vote", format!("{voter} votes for {first} and {candidate} in {term}"));
        }
    }

    /// The same position holds the same entry behind the same position, on every replica.
    pub(super) fn appended(&mut self, pos: LogPos, payload: u64, before: LogPos) {
        let first = *self.entries.entry(pos).or_insert((payload, before));
        if first != (payload, before) {
            violated("log matching", format!("{pos} is {first:?} and {:?}", (payload, before)));
        }
    }

    /// What is committed never changes, and lies on the stable storage of a majority.
    pub(super) fn committed(&mut self, nodes: &[Node], at: usize, upto: Index) {
        let node = &nodes[at];
        for index in self.committed.len() as u64 + 1..=upto.0 {
            let Some(entry) = node.log.get(Index(index)) else {
                violated("commit", format!("{} commits {index}, which it lacks", node.addr))
            };
            let holds = |other: &&Node| other.durable.log.holds(Index(index), entry);
            let copies = nodes.iter().filter(holds).count();
            if copies <= nodes.len() / 2 {
                violated("durable majority", format!("{index} is committed with {copies} copies"));
            }
            self.committed.push(entry);
        }
        let recent = upto.0.saturating_sub(16).max(node.log.prev.index.0) + 1;
        for index in recent..=upto.0 {
            self.same_as_committed(node, Index(index));
        }
    }

    /// What a replica applies is what was committed at that index.
    pub(super) fn same_as_committed(&self, node: &Node, index: Index) {
        let committed = self.committed.get(index.0 as usize - 1).copied();
        if index > node.log.prev.index && (committed.is_none() || node.log.get(index) != committed)
        {
            let found = node.log.get(index);
            let detail = format!("{} has {found:?} at {index}, not {committed:?}", node.addr);
            violated("state machine safety", detail);
        }
    }

    /// At most one replica believes in its lease, and it knows everything that is committed.
    pub(super) fn leases(&self, nodes: &[Node], now: u64) {
        let mut holder = None;
        for node in nodes {
            let Some(Ok(state)) = node.core.as_ref().map(|c| c.read_state(node.clock.local(now)))
            else {
                continue;
            };
            if let Some(other) = holder.replace(node.addr) {
                violated("lease exclusivity", format!("{other} and {} at {now}", node.addr));
            }
            if state.commit.0 < self.committed.len() as u64 {
                let newest = self.committed.len();
                violated(
                    "fresh reads",
                    format!("{} reads {}, not {newest}", node.addr, state.commit),
                );
            }
        }
    }
}
