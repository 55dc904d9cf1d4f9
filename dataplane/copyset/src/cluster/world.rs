//! The world: true time, a network, and what the replicas ask of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ogive_types::message::{AppendReply, Heartbeat, HeartbeatReply, Vote, VoteReply};
use ogive_types::{ChunkserverId, CopysetId, Index, LogPos, ShardAddr, Term, Time};

use super::check::{Check, violated};
use super::node::{Clock, Entry, Kind, Node, Write};
use crate::mutant::Mutant;
use crate::rng::Rng;
use crate::{AppendMeta, Appending, Config, Copyset, Effect, Priority, Role, Timing};

#[derive(Clone, Debug)]
pub(super) enum Request {
    Vote(Vote),
    Append { term: Term, prev: LogPos, commit: Index, sent: Time, entries: Vec<Entry> },
    Heartbeat(Heartbeat),
    TimeoutNow(Term),
    Delta { term: Term, upto: LogPos, base: Index },
}

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Vote(VoteReply),
    Append(AppendReply),
    Heartbeat(HeartbeatReply),
    Delta(Option<LogPos>),
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Request { from: usize, boot: u32, to: usize, id: u64, request: Request },
    Reply { from: usize, to: usize, boot: u32, id: u64, reply: Reply },
    RequestLost { node: usize, boot: u32, id: u64 },
    Disk { node: usize, boot: u32, disk: usize },
    Timer { node: usize, boot: u32 },
    Restart { node: usize },
    Client,
    Fault,
}

#[derive(Debug)]
struct Scheduled(u64, u64, Event);

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// How the network treats messages.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// `cut[from][to]`: nothing gets through.
    pub(super) cut: Vec<Vec<bool>>,
    /// `lag_us[from][to]`: what this direction takes longer.
    pub(super) lag_us: Vec<Vec<u64>>,
    /// Appends lose their entries from the first of this term on ...
    pub(super) drop_entries_of: Option<Term>,
    /// ... or all of them.
    pub(super) drop_all_entries: bool,
    pub(super) loss_percent: u64,
    pub(super) duplicate_percent: u64,
    pub(super) delay_us_max: u64,
}

impl Net {
    fn strip(&self, request: &mut Request) {
        if let Request::Append { entries, .. } = request {
            let passes =
                |entry: &&Entry| Some(entry.term) != self.drop_entries_of && !self.drop_all_entries;
            entries.truncate(entries.iter().take_while(passes).count());
        }
    }
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) check: Check,
    pub(super) proposed: u64,
    pub(super) reads_done: u64,
    pub(super) deltas: u64,
    pub(super) timing: Timing,
    preferred: Option<usize>,
    mutant: Option<Mutant>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    seq: u64,
    ids: u64,
}

impl World {
    pub(super) fn new(seed: u64, count: usize, mutant: Option<Mutant>) -> World {
        let mut rng = Rng::new(seed ^ (count as u64) << 56);
        let addr = |at| ShardAddr { server: ChunkserverId(at as u32 + 1), shard: 0 };
        let nodes = (0..count).map(|at| {
            let drift_ppm = (rng.next() % 9400) as i64 * 10 - 47_000;
            Node::new(addr(at), Clock { offset: rng.next() % 1_000_000, drift_ppm })
        });
        let nodes: Vec<Node> = nodes.collect();
        let us = std::time::Duration::from_micros;
        let timing = Timing {
            heartbeat: us(10_000),
            election: us(50_000),
            lease_drift_ppm: 100_000,
            lease_margin: us(500),
            retry: us(1_000),
            stall: us(100_000),
            handover_after: us(200_000),
            inflight_max: 1 + rng.next() as usize % 6,
            batch_entries_max: 1 + rng.next() as usize % 4,
            batch_bytes_max: 1 << 20,
        };
        let preferred = rng.next().is_multiple_of(3).then(|| rng.next() as usize % count);
        let cut = vec![vec![false; count]; count];
        let lag_us = vec![vec![0; count]; count];
        let net = Net {
            cut,
            lag_us,
            drop_entries_of: None,
            drop_all_entries: false,
            loss_percent: 0,
            duplicate_percent: 0,
            delay_us_max: 1_000,
        };
        let mut world = World {
            now: 0,
            nodes,
            net,
            check: Check::default(),
            proposed: 0,
            reads_done: 0,
            deltas: 0,
            timing,
            preferred,
            mutant,
            queue: BinaryHeap::new(),
            seq: 0,
            ids: 0,
            rng,
        };
        for node in 0..count {
            world.restart(node);
        }
        world
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.rng.next() % 100 < percent
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.rng.next() % end.max(1)
    }

    pub(super) fn schedule(&mut self, after_us: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Scheduled(self.now + after_us, self.seq, event)));
    }

    /// The next event that is due by `end`; time moves to it.
    pub(super) fn next_event(&mut self, end: u64) -> Option<Event> {
        if self.queue.peek().is_none_or(|Reverse(next)| next.0 > end) {
            self.now = end;
            return None;
        }
        let Reverse(Scheduled(at, _, event)) = self.queue.pop()?;
        self.now = at;
        Some(event)
    }

    pub(super) fn restart(&mut self, at: usize) {
        if self.nodes[at].core.is_some() {
            return;
        }
        let seed = self.rng.next();
        let voters: Vec<ShardAddr> = self.nodes.iter().map(|node| node.addr).collect();
        let config = Config {
            id: voters[at],
            copyset: CopysetId(1),
            priority: Priority { preferred: self.preferred.map(|at| voters[at]) },
            voters,
            timing: self.timing,
            seed,
        };
        let mut rng = self.rng.clone();
        let restored = self.nodes[at].restored(&mut rng);
        self.rng = rng;
        let core = Copyset::new(config, restored, self.local(at)).with_mutant(self.mutant);
        self.nodes[at].core = Some(core);
        self.act(at, |core, now, out| core.tick(now, out));
    }

    pub(super) fn crash(&mut self, at: usize) {
        let mut rng = self.rng.clone();
        self.nodes[at].crash(&mut rng);
        self.rng = rng;
    }

    pub(super) fn local(&self, at: usize) -> Time {
        self.nodes[at].clock.local(self.now)
    }

    fn index_of(&self, addr: ShardAddr) -> usize {
        addr.server.0 as usize - 1
    }

    /// Calls the core of a replica that is up, does what it asks for, and checks every rule.
    pub(super) fn act<T>(
        &mut self,
        at: usize,
        call: impl FnOnce(&mut Copyset, Time, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let now = self.local(at);
        let mut out = Vec::new();
        let result = call(self.nodes[at].core.as_mut()?, now, &mut out);
        self.execute(at, out);
        self.settle(at);
        Some(result)
    }

    /// After an event: applies what may be applied, arms the timer, checks the leases.
    pub(super) fn settle(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(core) = node.core.as_mut() else { return };
        let upto = core.applicable();
        let (from, local) = (node.applied, core.next_deadline());
        core.applied(upto.max(from).min(upto));
        node.applied = upto.max(from);
        let timer_at = node.clock.when(local).max(self.now + 1);
        let arm = local < Time::NEVER && (timer_at < node.timer_at || node.timer_at <= self.now);
        if arm {
            node.timer_at = timer_at;
        }
        let boot = node.boot;
        if arm {
            self.schedule(timer_at - self.now, Event::Timer { node: at, boot });
        }
        for index in from.0 + 1..=upto.0 {
            self.check.same_as_committed(&self.nodes[at], Index(index));
        }
        self.check.leases(&self.nodes, self.now);
    }

    fn execute(&mut self, at: usize, out: Vec<Effect>) {
        let mut cut_off: Vec<ShardAddr> = Vec::new();
        let mut noop = false;
        for effect in out {
            match effect {
                Effect::Replicate { to, .. } if cut_off.contains(&to) => {}
                Effect::Replicate { to, from, count, .. } if count > 0 && self.percent(5) => {
                    let sent = self.below(count as u64);
                    self.replicate(at, effect, sent);
                    let core = self.nodes[at].core.as_mut().expect("up");
                    core.replicate_cut(to, Index(from.0 + sent - 1));
                    cut_off.push(to);
                }
                Effect::Replicate { count, .. } => self.replicate(at, effect, count as u64),
                Effect::AppendNoop(pos) => {
                    self.append_own(at, pos);
                    noop = true;
                }
                other => self.execute_one(at, other),
            }
        }
        if noop {
            let now = self.local(at);
            let mut out = Vec::new();
            self.nodes[at].core.as_mut().expect("up").replicate(now, &mut out);
            self.execute(at, out);
        }
    }

    fn execute_one(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::SaveHardState(hard) => self.write(at, 0, Write::Hard(hard)),
            Effect::SendVote { to, vote } => self.request(at, to, Kind::Other, Request::Vote(vote)),
            Effect::VoteReply { to, token, reply } => {
                let hard = self.nodes[at].durable.hard;
                if reply.granted && !reply.pre {
                    self.check.voted(self.nodes[at].addr, reply.term, to);
                    if hard.term < reply.term {
                        violated(
                            "saved before answered",
                            format!("vote {reply:?}, saved {hard:?}"),
                        );
                    }
                }
                self.answer(at, token, Reply::Vote(reply));
            }
            Effect::AppendReply { token, reply, .. } => {
                self.check_append_reply(at, reply);
                self.answer(at, token, Reply::Append(reply));
            }
            Effect::Heartbeat { to, heartbeat } => {
                self.request(at, to, Kind::Other, Request::Heartbeat(heartbeat));
            }
            Effect::SendTimeoutNow { to, term } => {
                self.request(at, to, Kind::Other, Request::TimeoutNow(term));
            }
            Effect::Commit(upto) => {
                let leads = self.nodes[at].core.as_ref().expect("up").role() == Role::Leader;
                let news = upto.0 > self.check.committed.len() as u64;
                if news && !leads {
                    violated("commit", format!("a follower learns of {upto} before any leader"));
                }
                let mut check = std::mem::take(&mut self.check);
                check.committed(&self.nodes, at, upto);
                self.check = check;
            }
            Effect::RoleChanged { role: Role::Leader, term, .. } => {
                self.check.elected(&self.nodes[at], term);
            }
            Effect::RoleChanged { .. } => {}
            Effect::NeedDelta { to, base } => {
                self.deltas += 1;
                let core = self.nodes[at].core.as_ref().expect("up");
                let upto = self.nodes[at].log.pos(core.applicable());
                let delta = Request::Delta { term: core.term(), upto, base };
                self.request(at, to, Kind::Delta, delta);
            }
            Effect::ReadReady { token, commit } => {
                let needed = self.nodes[at].reads.remove(&token);
                match needed {
                    Some(needed) if commit.0 >= needed as u64 => self.reads_done += 1,
                    _ => violated("fresh reads", format!("confirmed {commit}, needed {needed:?}")),
                }
            }
            Effect::ReadFailed { token, .. } => {
                if self.nodes[at].reads.remove(&token).is_none() {
                    violated("every token once", format!("read {token}"));
                }
            }
            Effect::Replicate { .. } | Effect::AppendNoop(_) => unreachable!("done by the caller"),
        }
    }

    fn check_append_reply(&self, at: usize, reply: AppendReply) {
        let node = &self.nodes[at];
        if node.durable.hard.term < reply.term && node.durable.log.last().term < reply.term {
            let detail = format!("{reply:?}, saved {:?}", node.durable.hard);
            violated("saved before answered", detail);
        }
        let Ok(index) = reply.matched else { return };
        let current = node.core.as_ref().expect("up").term() == reply.term;
        let (log, durable) = (&node.log, &node.durable.log);
        let same = |entry| index <= log.prev.index || log.get(index) == Some(entry);
        let stored = index <= durable.prev.index || durable.get(index).is_some_and(same);
        if current && !stored {
            let detail = format!("{} acknowledges {index}", node.addr);
            violated("persisted before acknowledged", detail);
        }
    }

    fn answer(&mut self, at: usize, token: u64, reply: Reply) {
        let Some((peer, id)) = self.nodes[at].tokens.remove(&token) else {
            violated("every token once", format!("{token} is answered again: {reply:?}"))
        };
        self.reply(at, peer, id, reply);
    }

    /// The leader's own entry goes to its log and its disk.
    pub(super) fn append_own(&mut self, at: usize, pos: LogPos) {
        self.proposed += 1;
        let entry = Entry { term: pos.term, payload: self.proposed };
        let before = self.nodes[at].log.last();
        assert_eq!(before.index.next(), pos.index, "entries follow each other");
        self.check.appended(pos, entry.payload, before);
        self.nodes[at].log.entries.push_back(entry);
        let first = pos.index;
        self.write(at, 1, Write::Append { first, entries: vec![entry], report: first });
    }

    fn replicate(&mut self, at: usize, effect: Effect, count: u64) {
        let Effect::Replicate { to, prev, from, commit, term, sent, count: offered } = effect
        else {
            unreachable!("called for this effect")
        };
        if count == 0 && offered > 0 {
            return;
        }
        let log = &self.nodes[at].log;
        assert_eq!(log.pos(prev.index), prev, "the position before the batch is the log's");
        let entries = (from.0..from.0 + count).map(|i| log.get(Index(i)).expect("held"));
        let entries = entries.collect();
        self.request(at, to, Kind::Append, Request::Append { term, prev, commit, sent, entries });
    }

    fn request(&mut self, from: usize, to: ShardAddr, kind: Kind, mut request: Request) {
        self.ids += 1;
        let (id, to) = (self.ids, self.index_of(to));
        let term = self.nodes[from].core.as_ref().expect("up").term();
        let boot = self.nodes[from].boot;
        self.nodes[from].requests.insert(id, (to, kind, term));
        self.schedule(60_000, Event::RequestLost { node: from, boot, id });
        self.net.strip(&mut request);
        for _ in 0..self.copies(from, to) {
            let delay = self.net.lag_us[from][to] + 1 + self.below(self.net.delay_us_max);
            let request = request.clone();
            self.schedule(delay, Event::Request { from, boot, to, id, request });
        }
    }

    fn reply(&mut self, from: usize, to: usize, id: u64, reply: Reply) {
        let boot = self.nodes[to].boot;
        for _ in 0..self.copies(from, to) {
            let delay = self.net.lag_us[from][to] + 1 + self.below(self.net.delay_us_max);
            self.schedule(delay, Event::Reply { from, to, boot, id, reply: reply.clone() });
        }
    }

    fn copies(&mut self, from: usize, to: usize) -> u64 {
        let lost = self.percent(self.net.loss_percent) || self.net.cut[from][to];
        u64::from(!lost) * (1 + u64::from(self.percent(self.net.duplicate_percent)))
    }

    pub(super) fn write(&mut self, at: usize, disk: usize, write: Write) {
        let delay = 10 + self.below(self.nodes[at].disk_delay_us);
        let node = &mut self.nodes[at];
        let done = node.disk_free_at[disk].max(self.now + delay);
        node.disk_free_at[disk] = done;
        node.disks[disk].push_back(write);
        let boot = node.boot;
        self.schedule(done - self.now, Event::Disk { node: at, boot, disk });
    }

    pub(super) fn disk_done(&mut self, at: usize, disk: usize) {
        let node = &mut self.nodes[at];
        let write = node.disks[disk].pop_front().expect("a write ends");
        node.durable.write(&write);
        match write {
            Write::Hard(hard) => {
                self.act(at, |core, _, out| core.hard_state_persisted(hard, out));
            }
            Write::Append { report, .. } => {
                self.act(at, |core, _, out| {
                    if report > core.prev().index {
                        core.persisted(report, out);
                    }
                });
            }
            Write::Release(_) => {}
            Write::Reset { upto, from, request } => {
                node.log = node.durable.log.clone();
                node.resetting = false;
                node.applied = upto.index;
                self.act(at, |core, _, out| core.log_reset(upto, out));
                self.reply(at, from, request, Reply::Delta(Some(upto)));
            }
        }
    }

    /// A request arrived.
    pub(super) fn serve(&mut self, at: usize, from: usize, id: u64, request: Request) {
        let peer = self.nodes[from].addr;
        match request {
            Request::Vote(vote) => {
                let token = self.token(at, from, id);
                self.act(at, |core, now, out| core.on_vote(peer, vote, token, now, out));
            }
            Request::Heartbeat(heartbeat) => {
                let call = |core: &mut Copyset, now, out: &mut Vec<Effect>| {
                    core.on_heartbeat(peer, heartbeat, now, out)
                };
                let reply = self.act(at, call).expect("up");
                let saved = self.nodes[at].durable.hard.term;
                if reply.term > saved {
                    violated("saved before answered", format!("{reply:?}, saved {saved}"));
                }
                self.reply(at, from, id, Reply::Heartbeat(reply));
            }
            Request::TimeoutNow(term) => {
                self.act(at, |core, now, out| core.on_timeout_now(peer, term, now, out));
            }
            Request::Append { .. } => self.serve_append(at, from, id, request),
            Request::Delta { term, upto, base } => {
                let last = self.nodes[at].durable.log.last().index;
                if base > last {
                    violated("delta base", format!("{base} is past {last}"));
                }
                let call = |core: &mut Copyset, now, out: &mut Vec<Effect>| {
                    core.on_leader_contact(peer, term, now, out) && core.accepts_delta(upto)
                };
                let accepted = self.act(at, call).expect("up") && !self.nodes[at].resetting;
                if accepted {
                    self.nodes[at].resetting = true;
                    self.write(at, 1, Write::Reset { upto, from, request: id });
                } else {
                    self.reply(at, from, id, Reply::Delta(None));
                }
            }
        }
    }

    fn token(&mut self, at: usize, from: usize, id: u64) -> u64 {
        self.ids += 1;
        self.nodes[at].tokens.insert(self.ids, (from, id));
        self.ids
    }

    fn serve_append(&mut self, at: usize, from: usize, id: u64, request: Request) {
        let Request::Append { term, prev, commit, sent, entries } = request else {
            unreachable!("called for this request")
        };
        let token = self.token(at, from, id);
        let terms: Vec<Term> = entries.iter().map(|entry| entry.term).collect();
        let meta = AppendMeta { term, prev, commit, sent, terms: &terms };
        let (peer, now) = (self.nodes[from].addr, self.local(at));
        let mut out = Vec::new();
        let core = self.nodes[at].core.as_mut().expect("up");
        match core.on_append(peer, meta, token, now, &mut out) {
            Appending::Refuse(reply) => {
                self.check_append_reply(at, reply);
                self.answer(at, token, Reply::Append(reply));
            }
            Appending::Deferred => {}
            Appending::Accept { skip, truncate_from } => {
                if let Some(index) = truncate_from {
                    self.nodes[at].truncate_from(index);
                }
                let first = Index(prev.index.0 + 1 + skip as u64);
                self.store(at, token, first, &entries[skip..], &mut out);
            }
        }
        self.execute(at, out);
        self.settle(at);
    }

    fn store(
        &mut self,
        at: usize,
        token: u64,
        first: Index,
        rest: &[Entry],
        out: &mut Vec<Effect>,
    ) {
        if rest.is_empty() {
            return;
        }
        let refuses = self.nodes[at].full && self.percent(70);
        let node = &mut self.nodes[at];
        if refuses || node.resetting {
            node.core.as_mut().expect("up").on_append_failed(token, out);
            return;
        }
        let mut before = node.log.last();
        assert_eq!(before.index.next(), first, "entries follow each other");
        for entry in rest {
            let pos = LogPos { term: entry.term, index: before.index.next() };
            self.check.appended(pos, entry.payload, before);
            before = pos;
        }
        node.log.entries.extend(rest);
        let report = before.index;
        self.write(at, 1, Write::Append { first, entries: rest.to_vec(), report });
    }

    /// An answer arrived, perhaps for the second time, perhaps after the request was given up.
    pub(super) fn answered(&mut self, at: usize, from: usize, id: u64, reply: Reply) {
        let known = self.nodes[at].requests.remove(&id);
        let peer = self.nodes[from].addr;
        self.act(at, |core, now, out| match reply {
            Reply::Vote(reply) => core.on_vote_reply(peer, reply, now, out),
            Reply::Append(reply) => core.on_append_reply(peer, reply, now, out),
            Reply::Heartbeat(reply) => core.on_heartbeat_reply(peer, reply, now, out),
            Reply::Delta(done) => {
                if known.is_some_and(|(_, _, term)| term == core.term()) {
                    match done {
                        Some(upto) => core.delta_done(peer, upto, out),
                        None => core.delta_failed(peer),
                    }
                }
            }
        });
    }

    pub(super) fn request_lost(&mut self, at: usize, id: u64) {
        let Some((to, kind, term)) = self.nodes[at].requests.remove(&id) else { return };
        let peer = self.nodes[to].addr;
        self.act(at, |core, _, out| match kind {
            Kind::Append => core.on_append_lost(peer, out),
            Kind::Delta if core.term() == term => core.delta_failed(peer),
            Kind::Delta | Kind::Other => {}
        });
    }

    pub(super) fn timer(&mut self, at: usize) {
        self.nodes[at].timer_at = u64::MAX;
        self.act(at, |core, now, out| {
            if core.next_deadline() <= now {
                core.tick(now, out);
            }
        });
    }
}
