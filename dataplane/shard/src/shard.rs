//! The shard itself: `apply` takes one event, `settle` ends a turn.
//!
//! ```text
//! turn of the loop:  apply(event) * n ─▶ settle ─▶ effects
//!
//! settle:  a step of the scrub, fetches of damaged blocks from peers
//!          store events ─▶ cores (persisted) ─▶ commits ─▶ answers, applies
//!          groups with new entries ─▶ appends to followers
//!          timers ─▶ elections, heartbeats (one message per peer), lost calls, reconnects
//!          store ─▶ disk operations
//! ```
//!
//! Ending a turn in one place is what makes batches: all entries proposed in a turn share the next
//! log write, and all entries for a follower the next message.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ogive_copyset::{
    Config, Copyset, Effect as CoreEffect, Priority, Restored, Role, TermRun, Timing,
};
use ogive_rpc::hello::Identity;
use ogive_rpc::transport::{CloseReason, ConnId, Event as NetEvent, Incoming};
use ogive_store::{Store, StoreEvent};
use ogive_types::message::{Heartbeat, Kind, Op, ReplicaRequest};
use ogive_types::{CopysetId, Epoch, ShardAddr, Time, VolumeId};

use crate::calls::{Calls, Token};
use crate::event::{Admin, Effect, Event, ReplicaSpec};
use crate::fetch::Serving;
use crate::group::Group;
use crate::limits::TIMER_GRID;
use crate::peers::{PeerCall, Peers, What};
use crate::repair::Repairs;
use crate::scrub::{Scrub, ScrubOptions};
use crate::sessions::Sessions;

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Which shard this is.
    pub addr: ShardAddr,
    /// Timing of elections and heartbeats.
    pub timing: Timing,
    /// Seed of the election time-outs.
    pub seed: u64,
    /// How to look for damage in the background.
    pub scrub: ScrubOptions,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Client reads.
    pub reads: u64,
    /// Client writes.
    pub writes: u64,
    /// Client trims.
    pub trims: u64,
    /// Bytes read by clients.
    pub bytes_read: u64,
    /// Bytes written by clients.
    pub bytes_written: u64,
    /// Client requests that got an error.
    pub io_refused: u64,
    /// Messages that broke the protocol.
    pub protocol_errors: u64,
    /// Bytes sent to followers by deltas.
    pub delta_bytes: u64,
}

/// One core's part of a chunkserver.
pub struct Shard {
    pub(crate) options: ShardOptions,
    pub(crate) store: Store,
    pub(crate) groups: BTreeMap<CopysetId, Group>,
    pub(crate) peers: Peers,
    pub(crate) calls: Calls,
    pub(crate) sessions: Sessions,
    pub(crate) conns: HashMap<ConnId, Conn>,
    /// Groups with something to do at the end of the turn.
    pub(crate) active: BTreeSet<CopysetId>,
    pub(crate) delta_reads: HashMap<Token, (CopysetId, ShardAddr)>,
    /// Reads of entries for followers.
    pub(crate) entry_reads: HashMap<Token, (CopysetId, ShardAddr)>,
    pub(crate) core_effects: Vec<CoreEffect>,
    pub(crate) heartbeats: BTreeMap<ShardAddr, Vec<(CopysetId, Heartbeat)>>,
    pub(crate) repairs: Repairs,
    pub(crate) serving: Serving,
    pub(crate) scrub: Scrub,
    /// The newest write was refused for want of space.
    pub(crate) full: bool,
    store_events: Vec<StoreEvent>,
    disk_ops: Vec<ogive_store::DiskOp>,
    pub(crate) next_tick: Time,
    pub(crate) failed: bool,
    pub(crate) stats: Stats,
}

/// A connection that somebody else made to us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conn {
    pub(crate) identity: Identity,
}

impl Shard {
    /// A shard over an opened store, with a replica for each copyset that the store has.
    pub fn new(options: ShardOptions, store: Store, now: Time) -> Shard {
        let copysets: Vec<CopysetId> = store.replicas().collect();
        let scrub = Scrub::new(options.scrub, now);
        let mut shard = Shard {
            options,
            store,
            groups: BTreeMap::new(),
            peers: Peers::default(),
            calls: Calls::default(),
            sessions: Sessions::default(),
            conns: HashMap::new(),
            active: BTreeSet::new(),
            delta_reads: HashMap::new(),
            entry_reads: HashMap::new(),
            core_effects: Vec::new(),
            heartbeats: BTreeMap::new(),
            repairs: Repairs::default(),
            serving: Serving::new(),
            scrub,
            full: false,
            store_events: Vec::new(),
            disk_ops: Vec::new(),
            next_tick: now,
            failed: false,
            stats: Stats::default(),
        };
        for id in copysets {
            shard.open_group(id, now);
        }
        shard
    }

    /// Takes in one event. Call [`Shard::settle`] after the last one of a turn.
    pub fn apply(&mut self, event: Event, now: Time, out: &mut Vec<Effect>) {
        match event {
            Event::Net(event) => self.on_net(event, now, out),
            Event::Connecting { peer, conn } => self.peers.connecting(peer, conn),
            Event::Disk(done) => self.store.complete(done),
            Event::Admin(admin) => self.on_admin(admin, now, out),
        }
    }

    /// Ends a turn: everything that follows from its events is decided, and the work it leads to
    /// handed out.
    pub fn settle(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.on_timers(now, out);
        self.pump_scrub(now);
        loop {
            self.pump_repairs(now, out);
            let mut events = std::mem::take(&mut self.store_events);
            self.store.poll_events(&mut events);
            let quiet = events.is_empty() && self.active.is_empty();
            for event in events.drain(..) {
                self.on_store(event, now, out);
            }
            self.store_events = events;
            while let Some(id) = self.active.pop_first() {
                self.advance(id, now, out);
            }
            if quiet {
                break;
            }
        }
        self.send_heartbeats(now, out);
        self.peers.maintain(now, out);
        let mut ops = std::mem::take(&mut self.disk_ops);
        self.store.poll_ops(&mut ops);
        out.extend(ops.drain(..).map(Effect::Disk));
        self.disk_ops = ops;
    }

    /// When `settle` must be called even if nothing happens.
    pub fn next_deadline(&self) -> Time {
        let repairs = self.repairs.next_deadline().min(self.scrub.next_deadline());
        self.next_tick.min(self.peers.next_deadline()).min(repairs)
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The store, for its statistics and for audits.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Which shard this is.
    pub fn addr(&self) -> ShardAddr {
        self.options.addr
    }

    /// The replication core of a copyset, for checks by the simulator.
    pub fn core(&self, id: CopysetId) -> Option<&Copyset> {
        self.groups.get(&id).map(|g| &g.core)
    }

    /// Requests from others that are not answered yet.
    pub fn calls_open(&self) -> usize {
        self.calls.len()
    }

    fn on_net(&mut self, event: NetEvent, now: Time, out: &mut Vec<Effect>) {
        match event {
            NetEvent::Connected { conn, peer, inbound: true } => {
                if let Identity::Client { session } = peer.identity {
                    self.sessions.connected(session);
                }
                self.calls.opened(conn);
                self.conns.insert(conn, Conn { identity: peer.identity });
            }
            NetEvent::Connected { conn, peer, inbound: false } => {
                if let Some(addr) = self.peers.connected(conn, &peer, out) {
                    // Deltas that were asked for meanwhile have waited for this.
                    let waiting = self.groups.values().filter(|g| g.deltas.contains_key(&addr));
                    self.active.extend(waiting.map(|g| g.id));
                }
            }
            NetEvent::Received { conn, frame } => self.on_frame(conn, frame, now, out),
            NetEvent::Closed { conn, reason } => self.on_closed(conn, reason, now, out),
        }
    }

    fn on_frame(&mut self, conn: ConnId, frame: Incoming, now: Time, out: &mut Vec<Effect>) {
        let result = match (Kind::from_byte(frame.kind), frame.response) {
            (Some(Kind::Replica), true) => self.on_replica_reply(conn, frame, now, out),
            (Some(kind), false) => self.calls.admit(conn, &frame).and_then(|token| match kind {
                Kind::Io => self.on_io(conn, token, frame, now, out),
                Kind::Replica => self.on_replica_request(conn, token, frame, now, out),
            }),
            (kind, _) => Err(format!("unexpected frame {kind:?} ({})", frame.kind)),
        };
        if let Err(why) = result {
            self.stats.protocol_errors += 1;
            out.push(Effect::Close { conn, reason: CloseReason::Protocol(why) });
        }
    }

    fn on_closed(&mut self, conn: ConnId, reason: CloseReason, now: Time, out: &mut Vec<Effect>) {
        self.calls.closed(conn);
        if let Some(Conn { identity: Identity::Client { session } }) = self.conns.remove(&conn) {
            self.sessions.disconnected(session);
        }
        let Some((peer, lost)) = self.peers.closed(conn, now) else { return };
        if !lost.is_empty() {
            tracing::debug!(?conn, %reason, calls = lost.len(), "calls lost with their connection");
        }
        for call in lost {
            self.lost(call, now, out);
        }
        // A delta may have had nothing under way just then; it starts over when the core asks
        // again.
        let deltas = self.groups.values().filter(|g| g.deltas.contains_key(&peer));
        for id in deltas.map(|g| g.id).collect::<Vec<_>>() {
            self.delta_failed(id, peer);
        }
    }

    fn on_admin(&mut self, admin: Admin, now: Time, out: &mut Vec<Effect>) {
        match admin {
            Admin::Replicas(specs) => {
                for ReplicaSpec { copyset, members } in specs {
                    if !self.groups.contains_key(&copyset) {
                        self.store.create_replica(copyset, &members);
                        self.open_group(copyset, now);
                    }
                }
            }
            Admin::Endpoints(all) => self.peers.set_endpoints(all, out),
            Admin::DropVolume { copyset, volume } => self.drop_volume(copyset, volume, now),
        }
    }

    fn drop_volume(&mut self, copyset: CopysetId, volume: VolumeId, now: Time) {
        let Some(group) = self.groups.get_mut(&copyset) else { return };
        let gone = Some(Epoch(u64::MAX));
        let known = group.fences.get(&volume).map(|f| f.0) == gone
            || self.store.fence_of(copyset, volume) == gone;
        if known || group.core.role() != Role::Leader || group.noop.is_none() {
            return;
        }
        if self.propose(copyset, Op::DropVolume { volume }, None, None, now).is_ok() {
            let group = self.groups.get_mut(&copyset).expect("looked up above");
            group.fences.insert(volume, (Epoch(u64::MAX), group.core.last().index));
        }
    }

    fn open_group(&mut self, id: CopysetId, now: Time) {
        let state = self.store.replica(id).expect("just created or restored");
        let addr = self.options.addr;
        let config = Config {
            id: addr,
            copyset: id,
            voters: state.members.clone(),
            timing: self.options.timing,
            priority: Priority { preferred: state.members.first().copied() },
            seed: self.options.seed ^ (u64::from(id.0) << 32),
        };
        let restored = Restored {
            hard: state.hard,
            terms: self
                .store
                .terms(id)
                .into_iter()
                .map(|(start, term)| TermRun { start, term })
                .collect(),
            prev: self.store.prev(id),
            last: state.last,
            applied: state.applied.index,
        };
        for &peer in state.members.iter().filter(|&&m| m != addr) {
            self.peers.want(peer);
        }
        let group = Group::new(id, Copyset::new(config, restored, now), state.members);
        self.next_tick = now;
        self.groups.insert(id, group);
    }

    /// Brings a group forward: sends what is new, applies what is committed, serves who waited for
    /// it.
    fn advance(&mut self, id: CopysetId, now: Time, out: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if std::mem::take(&mut group.replicate) {
            group.core.replicate(now, &mut self.core_effects);
            self.run_core(id, now, out);
        }
        self.apply_committed(id);
        self.pump_deltas(id, now, out);
    }

    fn apply_committed(&mut self, id: CopysetId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let upto = group.core.applicable();
        if upto > self.store.applied(id).index {
            self.store.apply(id, upto);
            group.core.applied(upto);
            let store = &self.store;
            let applied = |v| store.fence_of(id, v).unwrap_or_default();
            group.fences.retain(|&volume, (epoch, _)| applied(volume) < *epoch);
            for read in group.readable(upto) {
                self.serve_read(id, read);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.core.role() == Role::Leader {
            self.store.release(id, group.core.release_point());
        }
        group.core.released(self.store.prev(id).index);
    }

    fn on_timers(&mut self, now: Time, out: &mut Vec<Effect>) {
        for call in self.peers.expire(now) {
            self.lost(call, now, out);
        }
        if now < self.next_tick {
            return;
        }
        let ids: Vec<CopysetId> = self.groups.keys().copied().collect();
        let mut next = Time::NEVER;
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.core.tick(now, &mut self.core_effects);
            self.run_core(id, now, out);
            if let Some(group) = self.groups.get(&id) {
                next = next.min(group.core.next_deadline());
            }
        }
        self.next_tick = on_grid(next).max(now + TIMER_GRID);
    }

    fn send_heartbeats(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (to, beats) in std::mem::take(&mut self.heartbeats) {
            let call = PeerCall { to, what: What::Heartbeats };
            self.peers.call(call, &ReplicaRequest::Heartbeats(beats), Vec::new(), now, out);
        }
    }
}

/// The first moment of the timer grid that is not before `time`.
pub(crate) fn on_grid(time: Time) -> Time {
    let grid = TIMER_GRID.as_micros() as u64;
    time.0.checked_next_multiple_of(grid).map_or(Time::NEVER, Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_rounded_up_to_the_grid_and_never_stays_never() {
        assert_eq!(on_grid(Time(0)), Time(0));
        assert_eq!(on_grid(Time(1)), Time(10_000));
        assert_eq!(on_grid(Time(10_000)), Time(10_000));
        assert_eq!(on_grid(Time::NEVER), Time::NEVER);
    }
}
