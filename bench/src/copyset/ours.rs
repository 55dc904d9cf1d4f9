//! Ogive's core under the harness.

use std::time::Duration;

use ogive_copyset::{
    AppendMeta, Appending, Config, Copyset, Effect, Priority, Restored, Role, Timing,
};
use ogive_types::{ChunkserverId, CopysetId, Index, ShardAddr, Term, Time};

use super::contender::{Contender, IDLE_TICK, NODES, Payload};

fn addr(at: usize) -> ShardAddr {
    ShardAddr { server: ChunkserverId(at as u32), shard: 0 }
}

fn node(addr: ShardAddr) -> usize {
    addr.server.0 as usize
}

/// Groups of Ogive's core.
pub struct Ours {
    groups: Vec<Group>,
    work: Work,
    now: Time,
}

/// What is shared by all groups, as by the copysets of a shard.
#[derive(Default)]
struct Work {
    out: Vec<Effect>,
    queue: Vec<(usize, Effect)>,
    terms: Vec<Term>,
}

struct Group {
    nodes: Vec<Copyset>,
    logs: [Vec<Payload>; NODES],
}

/// Entries that a log keeps before it starts anew: what is measured is the core, not an allocator.
const LOG_KEPT: usize = 64;

impl Ours {
    /// So many groups, each led by its first replica.
    pub fn new(groups: usize) -> Ours {
        let mut ours = Ours { groups: Vec::new(), work: Work::default(), now: Time(100_000) };
        for copyset in 0..groups {
            let mut group = Group::new(copyset as u32);
            group.nodes[0].tick(ours.now, &mut ours.work.out);
            group.drain(0, ours.now, &mut ours.work);
            assert_eq!(group.nodes[0].role(), Role::Leader);
            ours.groups.push(group);
        }
        ours
    }
}

impl Contender for Ours {
    fn commit(&mut self, group: usize, payload: Payload) {
        self.now = Time(self.now.0 + 1);
        let (group, work, now) = (&mut self.groups[group], &mut self.work, self.now);
        let last = group.nodes[0].propose(now).expect("it leads").index;
        group.store(0, payload);
        group.nodes[0].replicate(now, &mut work.out);
        group.nodes[0].persisted(last, &mut work.out);
        group.drain(0, now, work);
        assert_eq!(group.nodes[0].commit(), last);
        for node in &mut group.nodes {
            let upto = node.applicable();
            node.applied(upto);
        }
    }

    fn idle(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + IDLE_TICK;
            for group in &mut self.groups {
                for at in 0..NODES {
                    if group.nodes[at].next_deadline() <= self.now {
                        group.nodes[at].tick(self.now, &mut self.work.out);
                        group.drain(at, self.now, &mut self.work);
                    }
                }
            }
        }
    }

    fn held(&self, group: usize) -> u64 {
        let group = &self.groups[group];
        // Without the entry of the election.
        group.nodes.iter().map(|node| node.last().index.0 - 1).min().unwrap_or(0)
    }
}

impl Group {
    fn new(copyset: u32) -> Group {
        let config = |at: usize| Config {
            id: addr(at),
            copyset: CopysetId(copyset),
            voters: (0..NODES).map(addr).collect(),
            timing: Timing::default(),
            priority: Priority { preferred: Some(addr(0)) },
            seed: u64::from(copyset) * 3 + at as u64,
        };
        let start = |at| Copyset::new(config(at), Restored::default(), Time(0));
        let logs = std::array::from_fn(|_| Vec::with_capacity(LOG_KEPT));
        Group { nodes: (0..NODES).map(start).collect(), logs }
    }

    /// What a store keeps of an entry: the reference.
    fn store(&mut self, at: usize, payload: Payload) {
        let log = &mut self.logs[at];
        if log.len() == LOG_KEPT {
            log.clear();
        }
        log.push(payload);
    }

    fn drain(&mut self, at: usize, now: Time, work: &mut Work) {
        work.queue.extend(work.out.drain(..).map(|effect| (at, effect)));
        while let Some((at, effect)) = work.queue.pop() {
            let to = self.deliver(at, effect, now, work);
            work.queue.extend(work.out.drain(..).map(|effect| (to, effect)));
        }
    }

    /// Does what an effect of node `at` asks for; the node whose effects are in `out` afterwards.
    fn deliver(&mut self, at: usize, effect: Effect, now: Time, work: &mut Work) -> usize {
        let out = &mut work.out;
        match effect {
            Effect::SaveHardState(hard) => self.nodes[at].hard_state_persisted(hard, out),
            Effect::SendVote { to, vote } => {
                self.nodes[node(to)].on_vote(addr(at), vote, 0, now, out);
                return node(to);
            }
            Effect::VoteReply { to, reply, .. } => {
                self.nodes[node(to)].on_vote_reply(addr(at), reply, now, out);
                return node(to);
            }
            Effect::AppendNoop(pos) => {
                self.nodes[at].replicate(now, out);
                self.nodes[at].persisted(pos.index, out);
            }
            Effect::Replicate { to, prev, from, count, commit, term, sent } => {
                work.terms.clear();
                work.terms.resize(count, term);
                let meta = AppendMeta { term, prev, commit, sent, terms: &work.terms };
                self.append(node(to), at, meta, from, now, &mut work.out);
                return node(to);
            }
            Effect::AppendReply { to, reply, .. } => {
                self.nodes[node(to)].on_append_reply(addr(at), reply, now, out);
                return node(to);
            }
            Effect::Heartbeat { to, heartbeat } => {
                let reply = self.nodes[node(to)].on_heartbeat(addr(at), heartbeat, now, out);
                // The follower's effects come first: they are what it did before it answered.
                work.queue.extend(work.out.drain(..).map(|effect| (node(to), effect)));
                self.nodes[at].on_heartbeat_reply(to, reply, now, &mut work.out);
            }
            _ => {}
        }
        at
    }

    fn append(
        &mut self,
        to: usize,
        leader: usize,
        meta: AppendMeta<'_>,
        from: Index,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let count = meta.terms.len();
        match self.nodes[to].on_append(addr(leader), meta, 0, now, out) {
            Appending::Accept { skip, .. } if skip < count => {
                let newest = self.logs[leader].last().copied().unwrap_or_default();
                self.store(to, newest);
                self.nodes[to].persisted(Index(from.0 + count as u64 - 1), out);
            }
            Appending::Accept { .. } | Appending::Deferred => {}
            Appending::Refuse(reply) => panic!("refused: {reply:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_held_by_all_and_idling_keeps_the_leader() {
        let mut ours = Ours::new(3);
        for n in 0..100 {
            for group in 0..3 {
                ours.commit(group, Payload::number(n));
            }
        }
        ours.idle(Duration::from_secs(5));
        ours.commit(1, Payload::number(7));
        assert_eq!([ours.held(0), ours.held(1), ours.held(2)], [100, 101, 100]);
        let led = ours.groups.iter().all(|group| group.nodes[0].role() == Role::Leader);
        assert!(led, "nobody campaigns while the leader gives signs of life");
    }
}
