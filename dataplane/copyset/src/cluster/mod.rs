//! A whole group in one thread, with everything that can go wrong, checked after every event.
//!
//! Each seed is one history: first faults (loss, duplicates, reordering, delay, partitions in one
//! or both directions, crashes that lose what was not persisted, slow and full stores, drifting
//! clocks, hand-overs, released logs), then none, after which the group must agree within bounded
//! time. The rules are in `check.rs`; `MUTANTS` puts known bugs in, and each must be found.

mod check;
mod figure8;
mod node;
mod world;

use ogive_types::{Index, LogPos};

use self::check::violated;
use self::world::{Event, World};
use crate::Role;
use crate::mutant::Mutant;

const FAULTS_US: u64 = 1_200_000;
const CALM_US: u64 = 700_000;
const QUIET_US: u64 = 300_000;

impl World {
    fn run(&mut self) {
        self.schedule(1, Event::Client);
        self.schedule(20_000, Event::Fault);
        self.run_until(FAULTS_US);
        self.heal();
        self.run_until(FAULTS_US + CALM_US);
        let proposed = self.proposed;
        self.run_until(FAULTS_US + CALM_US + QUIET_US);
        self.check_agreement(proposed);
    }

    fn run_until(&mut self, end: u64) {
        while let Some(event) = self.next_event(end) {
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Request { from, boot, to, id, request } => {
                // A frame of a connection that died with its sender may still arrive.
                let _ = boot;
                if self.nodes[to].core.is_some() {
                    self.serve(to, from, id, request);
                }
            }
            Event::Reply { from, to, boot, id, reply } if self.nodes[to].boot == boot => {
                self.answered(to, from, id, reply);
            }
            Event::RequestLost { node, boot, id } if self.nodes[node].boot == boot => {
                self.request_lost(node, id);
            }
            Event::Disk { node, boot, disk } if self.nodes[node].boot == boot => {
                self.disk_done(node, disk);
            }
            Event::Timer { node, boot } if self.nodes[node].boot == boot => self.timer(node),
            Event::Restart { node } => self.restart(node),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            _ => {}
        }
    }

    /// Somebody writes or reads.
    fn client(&mut self) {
        if self.now > FAULTS_US + CALM_US {
            return;
        }
        let next = 500 + self.below(6_000);
        self.schedule(next, Event::Client);
        let at = self.below(self.nodes.len() as u64) as usize;
        if self.percent(25) {
            let (token, committed) = (self.proposed << 32 | self.now, self.check.committed.len());
            if self.nodes[at].core.is_some() {
                self.nodes[at].reads.insert(token, committed);
            }
            self.act(at, |core, now, out| core.request_read(token, now, out));
            return;
        }
        for _ in 0..=self.below(3) {
            let now = self.local(at);
            let Some(core) = self.nodes[at].core.as_mut() else { return };
            if let Ok(pos) = core.propose(now) {
                self.append_own(at, pos);
            }
        }
        if self.percent(80) {
            self.act(at, |core, now, out| core.replicate(now, out));
        }
    }

    fn fault(&mut self) {
        if self.now > FAULTS_US {
            return;
        }
        let next = 4_000 + self.below(60_000);
        self.schedule(next, Event::Fault);
        let count = self.nodes.len() as u64;
        let (a, b) = (self.below(count) as usize, self.below(count) as usize);
        match self.below(12) {
            0..=2 => {
                let down = [self.below(3_000), self.below(120_000)][self.below(2) as usize];
                self.crash(a);
                self.schedule(down, Event::Restart { node: a });
            }
            3 => self.net.cut[a][b] = true,
            4 if self.percent(80) => self.fault_at_leader(b),
            4 => (0..count as usize).for_each(|c| {
                (self.net.cut[a][c], self.net.cut[c][a]) = (true, true);
            }),
            5 => (0..count as usize).for_each(|c| self.net.cut[a][c] = true),
            6 => {
                self.net.cut.iter_mut().for_each(|row| row.fill(false));
                self.net.lag_us.iter_mut().for_each(|row| row.fill(0));
            }
            7 => {
                self.net.loss_percent = [0, 0, 5, 20, 50][self.below(5) as usize];
                self.net.duplicate_percent = self.below(30);
                self.net.delay_us_max = [300, 2_000, 10_000, 80_000][self.below(4) as usize];
            }
            8 => self.nodes[a].disk_delay_us = [10, 1_000, 20_000, 120_000][self.below(4) as usize],
            9 => self.nodes[a].full = !self.nodes[a].full,
            10 => self.release(a),
            _ => {
                let target = self.nodes[b].addr;
                for at in 0..count as usize {
                    self.act(at, |core, now, out| core.transfer_to(target, now, out));
                }
            }
        }
    }

    /// Faults that random ones rarely hit: the leader and one follower do not hear each other while
    /// the others hear both, or what is sent to the leader is late.
    fn fault_at_leader(&mut self, other: usize) {
        let leads =
            |node: &node::Node| node.core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        let Some(leader) = self.nodes.iter().position(leads) else { return };
        let lag = 10_000 + self.below(60_000);
        match self.below(3) {
            0 => (self.net.cut[leader][other], self.net.cut[other][leader]) = (true, true),
            1 => self.net.lag_us[other][leader] = lag,
            _ => self.net.lag_us.iter_mut().for_each(|row| row[leader] = lag),
        }
    }

    /// Drops all or a part of what is applied from the log.
    fn release(&mut self, at: usize) {
        let Some(core) = self.nodes[at].core.as_ref() else { return };
        let (prev, point) = (core.prev().index, core.release_point());
        let upto = if self.percent(50) { point.0 } else { self.nodes[at].applied.0 };
        let upto = Index(prev.0 + self.below(upto.saturating_sub(prev.0) + 1));
        if upto > prev && !self.nodes[at].resetting {
            self.nodes[at].core.as_mut().expect("up").released(upto);
            self.nodes[at].log.release(upto);
            self.write(at, 1, node::Write::Release(upto));
        }
    }

    fn heal(&mut self) {
        self.net.cut.iter_mut().for_each(|row| row.fill(false));
        self.net.lag_us.iter_mut().for_each(|row| row.fill(0));
        (self.net.loss_percent, self.net.duplicate_percent) = (0, 0);
        self.net.delay_us_max = 1_000;
        for at in 0..self.nodes.len() {
            (self.nodes[at].disk_delay_us, self.nodes[at].full) = (500, false);
            self.restart(at);
        }
    }

    /// After a time without faults there is one leader, and all have and have applied the same.
    fn check_agreement(&mut self, proposed: u64) {
        let cores = || self.nodes.iter().map(|node| node.core.as_ref().expect("up"));
        let leaders: Vec<_> = cores().filter(|core| core.role() == Role::Leader).collect();
        let [leader] = leaders[..] else {
            violated("liveness", format!("{} leaders", leaders.len()))
        };
        let last: LogPos = leader.last();
        for (node, core) in self.nodes.iter().zip(cores()) {
            let status = core.status(node.clock.local(self.now));
            let same = core.leader() == leader.leader() && core.term() == leader.term();
            let whole = status.commit == last.index && status.applied == last.index;
            if !same || !whole || status.last != last || node.log.last() != last {
                let leader = leader.status(node.clock.local(self.now));
                violated("liveness", format!("{status:?} differs from {leader:?}"));
            }
            if !node.tokens.is_empty() || !node.reads.is_empty() {
                let left = (node.tokens.len(), node.reads.len());
                violated("every token once", format!("{left:?} are never answered"));
            }
        }
        if self.check.committed.len() as u64 != last.index.0 || proposed == 0 {
            violated("liveness", format!("{proposed} proposed, committed up to {last}"));
        }
    }
}

/// Runs a seed.
fn run(seed: u64, nodes: usize, mutant: Option<Mutant>) -> Result<World, String> {
    let mut world = World::new(seed, nodes, mutant);
    caught(|| world.run()).map(|()| world)
}

/// The text of the panic of a violation.
fn caught(history: impl FnOnce()) -> Result<(), String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(history)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or(panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
    })
}

/// Seeds from `OGIVE_COPYSET_SEED` (one) or 0 up to `OGIVE_COPYSET_SEEDS`.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OGIVE_COPYSET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OGIVE_COPYSET_SEEDS").unwrap_or(default),
    }
}

fn holds_for(nodes: usize, count: u64) {
    let (mut committed, mut elections, mut reads, mut deltas) = (0, 0, 0, 0);
    for seed in seeds(count) {
        match run(seed, nodes, None) {
            Ok(world) => {
                committed += world.check.committed.len();
                elections += world.check.elections;
                reads += world.reads_done;
                deltas += world.deltas;
            }
            Err(text) => panic!("{nodes} nodes: OGIVE_COPYSET_SEED={seed}: {text}"),
        }
    }
    println!(
        "{nodes} nodes: {committed} commits, {elections} elections, {reads} reads, {deltas} deltas"
    );
    if seeds(count).end >= count {
        assert!(committed > 0 && elections > count && reads > 0, "the histories exercise the core");
        assert!(nodes < 3 || deltas > 0, "the histories exercise the core");
    }
}

#[test]
fn one_replica_keeps_every_promise() {
    holds_for(1, 20);
}

#[test]
fn two_replicas_keep_every_promise() {
    holds_for(2, 60);
}

#[test]
fn three_replicas_keep_every_promise() {
    holds_for(3, 350);
}

#[test]
fn five_replicas_keep_every_promise() {
    holds_for(5, 130);
}

/// The rules find bugs that are put in, and name them. The numbers are seeds that find them soon: a
/// change of the core changes all histories, so a range from there on is tried. `figure8.rs` finds
/// the bug that chance does not.
#[test]
fn the_rules_find_known_bugs() {
    let mutants: [(Mutant, usize, u64, &str); 9] = [
        (Mutant::AckBeforePersist, 3, 0, "persisted before acknowledged"),
        (Mutant::AnswerUnsaved, 3, 0, "saved before answered"),
        (Mutant::NoStickiness, 5, 399, "lease exclusivity"),
        (Mutant::NoRestartWait, 3, 224, "fresh reads"),
        (Mutant::CountOwnUnpersisted, 3, 0, "durable majority"),
        (Mutant::LeaseFromReply, 5, 226, "fresh reads"),
        (Mutant::LeaseAfterTransfer, 5, 142, "fresh reads"),
        (Mutant::VoteForShortLog, 3, 0, "leader completeness"),
        (Mutant::CommitPastMatch, 3, 3, "state machine safety"),
    ];
    for (mutant, nodes, first, rule) in mutants {
        let tries = (first..first + 1_000).map(|seed| (seed, run(seed, nodes, Some(mutant)).err()));
        let found = tries.filter_map(|(seed, text)| text.map(|text| (seed, text))).next();
        let (seed, text) = found.unwrap_or_else(|| panic!("{mutant:?} is not found"));
        println!("{mutant:?}: seed {seed}, {nodes} nodes: {text}; first seen as {rule}");
        assert!(text.starts_with("violated") || text.contains("never change"), "{text}");
    }
}
