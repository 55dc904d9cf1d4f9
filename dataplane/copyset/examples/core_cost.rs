//! What the replication core costs: nanoseconds per committed operation and node, for 1 and 1,000
//! groups of three in one process, with entries one by one and in batches of 16.
//!
//! ```text
//! cargo run --release -p ogive-copyset --example core_cost
//! ```

// A benchmark reads the clock: here the time that this thread had on a processor, so that other
// work on the machine does not count.
#![allow(clippy::disallowed_methods)]

use ogive_copyset::{
    AppendMeta, Appending, Config, Copyset, Effect, Priority, Restored, Role, Timing,
};
use ogive_types::{ChunkserverId, CopysetId, Index, ShardAddr, Term, Time};

const NODES: usize = 3;

fn addr(at: usize) -> ShardAddr {
    ShardAddr { server: ChunkserverId(at as u32), shard: 0 }
}

/// A group whose messages are delivered at once and whose stores persist at once.
struct Group {
    nodes: Vec<Copyset>,
    out: Vec<Effect>,
    queue: Vec<(usize, Effect)>,
    terms: Vec<Term>,
    persisted: [u64; NODES],
    now: Time,
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
        let mut group = Group {
            nodes: (0..NODES).map(start).collect(),
            out: Vec::new(),
            queue: Vec::new(),
            terms: Vec::new(),
            persisted: [0; NODES],
            now: Time(100_000),
        };
        group.nodes[0].tick(group.now, &mut group.out);
        group.drain(0);
        assert_eq!(group.nodes[0].role(), Role::Leader);
        group
    }

    fn write(&mut self, entries: usize) {
        self.now = Time(self.now.0 + 1);
        let mut last = Index(0);
        for _ in 0..entries {
            last = self.nodes[0].propose(self.now).expect("leads").index;
        }
        self.nodes[0].replicate(self.now, &mut self.out);
        self.nodes[0].persisted(last, &mut self.out);
        self.drain(0);
        assert_eq!(self.nodes[0].commit(), last);
    }

    fn drain(&mut self, at: usize) {
        self.queue.extend(self.out.drain(..).map(|effect| (at, effect)));
        while let Some((at, effect)) = self.queue.pop() {
            let to = self.deliver(at, effect);
            self.queue.extend(self.out.drain(..).map(|effect| (to, effect)));
        }
    }

    /// Does what an effect of node `at` asks for; the node whose effects are in `out` afterwards.
    fn deliver(&mut self, at: usize, effect: Effect) -> usize {
        let (now, out) = (self.now, &mut self.out);
        let peer = |to: ShardAddr| to.server.0 as usize;
        match effect {
            Effect::SaveHardState(hard) => self.nodes[at].hard_state_persisted(hard, out),
            Effect::SendVote { to, vote } => {
                self.nodes[peer(to)].on_vote(addr(at), vote, 0, now, out);
                return peer(to);
            }
            Effect::VoteReply { to, reply, .. } => {
                self.nodes[peer(to)].on_vote_reply(addr(at), reply, now, out);
                return peer(to);
            }
            Effect::AppendNoop(pos) => {
                self.nodes[at].replicate(now, out);
                self.nodes[at].persisted(pos.index, out);
            }
            Effect::Replicate { to, prev, from, count, commit, term, sent } => {
                self.terms.clear();
                self.terms.resize(count, term);
                let meta = AppendMeta { term, prev, commit, sent, terms: &self.terms };
                let node = &mut self.nodes[peer(to)];
                match node.on_append(addr(at), meta, 0, now, out) {
                    Appending::Accept { skip, .. } if skip < count => {
                        let last = from.0 + count as u64 - 1;
                        self.persisted[peer(to)] = last;
                        node.persisted(Index(last), out);
                    }
                    Appending::Accept { .. } | Appending::Deferred => {}
                    Appending::Refuse(reply) => panic!("refused: {reply:?}"),
                }
                return peer(to);
            }
            Effect::AppendReply { to, reply, .. } => {
                self.nodes[peer(to)].on_append_reply(addr(at), reply, now, out);
                return peer(to);
            }
            _ => {}
        }
        at
    }
}

/// Nanoseconds on a processor so far.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with procfs");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds come first")
}

fn measure(groups: usize, batch: usize) {
    let mut all: Vec<Group> = (0..groups).map(|at| Group::new(at as u32)).collect();
    let rounds = 600_000 / groups;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = cpu_ns();
        for _ in 0..rounds {
            for group in &mut all {
                group.write(batch);
            }
        }
        let ops = (rounds * groups * batch * NODES) as f64;
        best = best.min((cpu_ns() - start) as f64 / ops);
    }
    println!(
        "{groups:>5} groups, {batch:>2} entries a batch: {best:>6.1} ns per operation and node"
    );
}

fn main() {
    for groups in [1, 1_000] {
        for batch in [1, 16] {
            measure(groups, batch);
        }
    }
}
