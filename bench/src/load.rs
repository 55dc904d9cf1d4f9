//! A run as a state machine: which request goes next, and what becomes of completions.
//!
//! ```text
//!   Load ──end or stop──► Drain ──nothing in flight──► ReadBack ──all read──► Done
//!                           └────────────── nothing to verify ──────────────────▲
//! ```
//!
//! Each connection owns `depth` slots; a slot holds a request from `next` until `complete` or
//! `lost`. A request that cannot begin because its blocks are busy waits in `held`.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::gap::GapMeter;
use crate::limits::{DRAIN_TIMEOUT, READ_BACK_BYTES};
use crate::nbd::Expect;
use crate::places::{Op, Places};
use crate::report::Stage;
use crate::rng::Rng;
use crate::spec::VolumeBench;
use crate::stats::OpStats;
use crate::verify::{BLOCK, Model, ReadTicket, Seq, VerifyReport, WriteEnd};

/// Places tried for a request of a verifying run before it waits for a completion.
const PLACE_TRIES: usize = 8;
/// Times that the final read-back asks for the same blocks when the server answers with errors.
const READ_BACK_TRIES: u32 = 5;
/// Random bytes that unverified writes take their data from, at a random place.
const POOL_BYTES: usize = 1 << 20;

/// Number of a connection of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link(pub(crate) usize);

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    pub(crate) op: Op,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// A request in flight.
#[derive(Debug)]
struct Request {
    /// Time from which its latency counts.
    since: Duration,
    offset: u64,
    bytes: usize,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Read(Option<ReadTicket>),
    Write(Option<Seq>),
    ReadBack { ticket: ReadTicket, tries: u32 },
}

/// Counters that a report shows.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) read: OpStats,
    pub(crate) write: OpStats,
    pub(crate) gap: GapMeter,
    pub(crate) errors: u64,
    pub(crate) lost: u64,
    pub(crate) missed: u64,
    pub(crate) last_error: Option<String>,
    /// Why the run was ended by force.
    pub(crate) abandoned: Option<String>,
    /// Time at which the load ended and no more was measured.
    pub(crate) ended: Option<Duration>,
}

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Load {
    depth: usize,
    unit: usize,
    interval: Option<Duration>,
    ops_left: Option<u64>,
    end: Option<Duration>,
    /// Open loop: when the next request is due.
    due: Duration,
    places: Places,
    held: Option<(Op, u64)>,
    slots: Vec<Option<Request>>,
    /// Empty slots of each connection.
    free: Vec<Vec<usize>>,
    in_flight: usize,
    model: Option<Model>,
    unread: VecDeque<(Range<u64>, u32)>,
    pool: Vec<u8>,
    rng: Rng,
    stage: Stage,
    /// How long the server may take to answer after the load.
    patience: Duration,
    give_up: Option<Duration>,
    counters: Counters,
}

impl Load {
    /// `range` comes from [`VolumeBench::check`]; `run` names this run's blocks.
    pub(crate) fn new(spec: &VolumeBench, range: Range<u64>, run: u64) -> Load {
        let mut rng = Rng::new(spec.seed ^ 0x5eed);
        let mut pool = Vec::new();
        if !spec.verify && spec.read_percent < 100 {
            rng.fill(POOL_BYTES + spec.block_bytes, &mut pool);
        }
        let unit = spec.block_bytes as u64;
        Load {
            depth: spec.depth,
            unit: spec.block_bytes,
            interval: spec.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            ops_left: spec.ops,
            end: spec.duration,
            due: Duration::ZERO,
            places: Places::new(spec.seed, range, unit, spec.pattern, spec.read_percent),
            held: None,
            slots: (0..spec.depth * spec.connections).map(|_| None).collect(),
            free: (0..spec.connections).map(|c| slots_of(c, spec.depth).collect()).collect(),
            in_flight: 0,
            model: spec.verify.then(|| Model::new(run)),
            unread: VecDeque::new(),
            pool,
            rng,
            stage: Stage::Load,
            patience: DRAIN_TIMEOUT + spec.reconnect,
            give_up: None,
            counters: Counters {
                read: OpStats::new(),
                write: OpStats::new(),
                gap: GapMeter::default(),
                errors: 0,
                lost: 0,
                missed: 0,
                last_error: None,
                abandoned: None,
                ended: None,
            },
        }
    }

    /// Moves on to the next stage when it is time. To be called once per turn.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.stage == Stage::Load {
            let over = self.end.is_some_and(|end| now >= end) || self.ops_left == Some(0);
            if over {
                self.stop(now);
            } else if self.due_at() <= now {
                self.counters.gap.wanted(self.due_at().max(self.last_wish(now)));
            }
        }
        if self.stage == Stage::Drain && self.in_flight == 0 {
            self.begin_read_back(now);
        }
        if self.stage == Stage::ReadBack && self.unread.is_empty() && self.in_flight == 0 {
            self.stage = Stage::Done;
        }
        if self.stage != Stage::Load && self.give_up.is_some_and(|at| now >= at) {
            self.abandon(now, "the server did not answer in time");
        }
    }

    /// In an open loop a wish dates from when it was due, in a closed loop from now.
    fn last_wish(&self, now: Duration) -> Duration {
        if self.interval.is_some() { self.due } else { now }
    }

    /// Ends the load; requests in flight are waited for, and a verifying run reads back.
    pub(crate) fn stop(&mut self, now: Duration) {
        if self.stage == Stage::Load {
            self.stage = Stage::Drain;
            self.give_up = Some(now + self.patience);
            let until = self.end.map_or(now, |end| end.min(now));
            if let Some(interval) = self.interval
                && self.due < until
                && self.ops_left != Some(0)
            {
                let missed = (until - self.due).as_secs_f64() / interval.as_secs_f64();
                self.counters.missed = missed.ceil() as u64;
            }
        }
    }

    /// Ends everything at once: what is in flight is lost, what is not read back stays unread.
    pub(crate) fn abandon(&mut self, now: Duration, why: &str) {
        if self.stage == Stage::Done {
            return;
        }
        self.counters.abandoned = Some(why.to_owned());
        for index in 0..self.slots.len() {
            self.lose_slot(index);
        }
        let unread: u64 = match self.stage {
            Stage::ReadBack => self.unread.iter().map(|(run, _)| run.end - run.start).sum(),
            _ => self.model.iter().flat_map(|m| m.written(u64::MAX)).map(|r| r.end - r.start).sum(),
        };
        self.unread.clear();
        if let Some(model) = &mut self.model {
            model.report().unread += unread;
        }
        self.end_measure(now);
        self.stage = Stage::Done;
    }

    fn end_measure(&mut self, now: Duration) {
        self.counters.gap.end(now);
        self.counters.ended.get_or_insert(now);
    }

    fn begin_read_back(&mut self, now: Duration) {
        self.end_measure(now);
        self.give_up = Some(now + self.patience);
        let most = (READ_BACK_BYTES / BLOCK) as u64;
        if let Some(model) = &mut self.model {
            self.unread = model.written(most).into_iter().map(|run| (run, 0)).collect();
        }
        self.stage = Stage::ReadBack;
    }

    fn due_at(&self) -> Duration {
        if self.interval.is_some() { self.due } else { Duration::ZERO }
    }

    /// The next request for a connection, if it is time and a slot is free; its data, for a write,
    /// is appended to `data`.
    pub(crate) fn next(&mut self, now: Duration, link: Link, data: &mut Vec<u8>) -> Option<Issue> {
        let free = *self.free[link.0].last()?;
        let request = match self.stage {
            Stage::Load => self.next_of_load(now, data)?,
            Stage::ReadBack => self.next_of_read_back(now)?,
            Stage::Drain | Stage::Done => return None,
        };
        let op = match request.role {
            Role::Write(_) => Op::Write,
            Role::Read(_) | Role::ReadBack { .. } => Op::Read,
        };
        let (offset, bytes) = (request.offset, request.bytes as u32);
        assert!(self.slots[free].is_none(), "the slot is free");
        self.slots[free] = Some(request);
        self.free[link.0].pop();
        self.in_flight += 1;
        Some(Issue { op, cookie: free as u64, offset, bytes })
    }

    fn next_of_load(&mut self, now: Duration, data: &mut Vec<u8>) -> Option<Request> {
        if self.ops_left == Some(0) || self.due_at() > now {
            return None;
        }
        let (op, offset) = self.place()?;
        let since = match self.interval {
            Some(interval) => {
                let since = self.due;
                self.due += interval;
                since
            }
            None => now,
        };
        self.ops_left = self.ops_left.map(|left| left - 1);
        self.counters.gap.wanted(since);
        let blocks = self.blocks(offset, self.unit);
        let role = match (op, &mut self.model) {
            (Op::Read, model) => Role::Read(model.as_mut().map(|m| m.begin_read(blocks))),
            (Op::Write, Some(model)) => Role::Write(Some(model.begin_write(blocks, data))),
            (Op::Write, None) => {
                let at = self.rng.below(POOL_BYTES as u64 / 8) as usize * 8;
                data.extend_from_slice(&self.pool[at..at + self.unit]);
                Role::Write(None)
            }
        };
        Some(Request { since, offset, bytes: self.unit, role })
    }

    /// Where the next request goes; `None` while every place tried is busy.
    fn place(&mut self) -> Option<(Op, u64)> {
        for _ in 0..PLACE_TRIES {
            let (op, offset) = match self.held.take() {
                Some(held) => held,
                None => (self.places.op(), self.places.offset()),
            };
            let blocks = self.blocks(offset, self.unit);
            let busy = |model: &Model| op == Op::Write && !model.may_write(blocks);
            if !self.model.as_ref().is_some_and(busy) {
                return Some((op, offset));
            }
            if self.in_flight == 0 {
                // Nothing will free the blocks: they carry too many unknown writes. A read helps.
                return Some((Op::Read, offset));
            }
            self.held = Some((op, self.places.offset()));
        }
        None
    }

    fn next_of_read_back(&mut self, now: Duration) -> Option<Request> {
        let (run, tries) = self.unread.pop_front()?;
        let offset = run.start * BLOCK as u64;
        let bytes = (run.end - run.start) as usize * BLOCK;
        let model = self.model.as_mut().expect("only verifying runs read back");
        let role = Role::ReadBack { ticket: model.begin_read(run), tries };
        Some(Request { since: now, offset, bytes, role })
    }

    fn blocks(&self, offset: u64, bytes: usize) -> Range<u64> {
        let first = offset / BLOCK as u64;
        first..first + (bytes / BLOCK) as u64
    }

    /// A reply has come.
    pub(crate) fn complete(&mut self, now: Duration, cookie: u64, error: u32, data: &[u8]) {
        let request = self.take(cookie as usize).expect("replies to requests only");
        if error != 0 {
            self.counters.errors += 1;
            self.counters.last_error = Some(format!("{} at {}", describe(error), request.offset));
            return self.fail(request, true);
        }
        let latency = now.saturating_sub(request.since);
        let blocks = self.blocks(request.offset, request.bytes);
        match request.role {
            Role::Write(seq) => {
                self.counters.write.record(latency, request.bytes);
                if let (Some(model), Some(seq)) = (&mut self.model, seq) {
                    model.end_write(blocks, seq, WriteEnd::Acknowledged);
                }
            }
            Role::Read(ticket) => {
                self.counters.read.record(latency, request.bytes);
                if let (Some(model), Some(ticket)) = (&mut self.model, ticket) {
                    model.end_read(ticket, data, now);
                }
            }
            Role::ReadBack { ticket, .. } => {
                self.give_up = Some(now + self.patience);
                let model = self.model.as_mut().expect("only verifying runs read back");
                model.end_read_back(ticket, data, now);
                return;
            }
        }
        self.counters.gap.served(now, self.in_flight);
    }

    /// The connection is gone, and with it all of its requests.
    pub(crate) fn lost(&mut self, link: Link, why: String) {
        self.counters.last_error = Some(why);
        for index in slots_of(link.0, self.depth) {
            self.lose_slot(index);
        }
    }

    fn take(&mut self, index: usize) -> Option<Request> {
        let request = self.slots[index].take()?;
        self.free[index / self.depth].push(index);
        self.in_flight -= 1;
        Some(request)
    }

    fn lose_slot(&mut self, index: usize) {
        if let Some(request) = self.take(index) {
            self.counters.lost += 1;
            self.fail(request, false);
        }
    }

    /// The outcome of a request is not known; `answered` when the server said so itself.
    fn fail(&mut self, request: Request, answered: bool) {
        let blocks = self.blocks(request.offset, request.bytes);
        let Some(model) = &mut self.model else { return };
        match request.role {
            Role::Write(Some(seq)) => model.end_write(blocks, seq, WriteEnd::Unknown),
            Role::Read(Some(ticket)) => model.abandon_read(ticket),
            Role::ReadBack { ticket, tries } => {
                model.abandon_read(ticket);
                let tries = tries + u32::from(answered);
                if tries < READ_BACK_TRIES {
                    self.unread.push_back((blocks, tries));
                } else {
                    model.report().unread += blocks.end - blocks.start;
                }
            }
            Role::Write(None) | Role::Read(None) => {}
        }
    }

    /// When `next` will have something though nothing completes, or a stage ends.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Load => {
                let due = self.interval.map(|_| self.due);
                [due, self.end].into_iter().flatten().min()
            }
            _ => self.give_up,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Findings so far; `None` when nothing is verified.
    pub(crate) fn findings(&mut self) -> Option<&VerifyReport> {
        self.model.as_mut().map(|model| &*model.report())
    }
}

fn slots_of(connection: usize, depth: usize) -> Range<usize> {
    connection * depth..(connection + 1) * depth
}

impl Expect for Load {
    fn data_bytes(&self, cookie: u64) -> Option<usize> {
        let request = self.slots.get(usize::try_from(cookie).ok()?)?.as_ref()?;
        Some(match request.role {
            Role::Write(_) => 0,
            Role::Read(_) | Role::ReadBack { .. } => request.bytes,
        })
    }
}

/// NBD's error numbers are Linux's.
fn describe(error: u32) -> String {
    let system = std::io::Error::from_raw_os_error(error.cast_signed());
    format!("the server answered: {system}")
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
