//! Carrying out the searches for leaders.

use ogive_types::{ChunkId, CopysetId, ShardAddr, Term, Time};

use super::Client;
use crate::api::ClientEffect;
use crate::part::{PartKey, PartState};
use crate::peers::PeerState;
use crate::route::{Route, Step};
use crate::timers::Timer;

/// Rounds in vain after which the members themselves are doubted.
const ROUNDS_BEFORE_TOPOLOGY: u32 = 2;

/// How to reach a member.
enum Reach {
    Up(ogive_rpc::transport::ConnId),
    OnTheWay,
    NotNow,
}

impl Client {
    pub(super) fn route(&mut self, copyset: CopysetId, chunk: ChunkId) -> &mut Route {
        self.routes.entry(copyset).or_insert_with(|| Route::new(chunk))
    }

    fn members(&self, copyset: CopysetId) -> Vec<ShardAddr> {
        self.topology.copysets.get(&copyset).cloned().unwrap_or_default()
    }

    /// Lets a part wait for the leader, and searches it if nobody does yet.
    pub(super) fn wait_for_route(&mut self, key: PartKey, copyset: CopysetId, now: Time) {
        let members = self.members(copyset);
        let part = self.parts.get_mut(key).expect("dispatched");
        part.state = PartState::Route(copyset);
        let route = self.routes.get_mut(&copyset).expect("looked up by dispatch");
        route.waiting.push(key);
        let step = route.search(&members);
        if step != Step::Nothing {
            self.stats.searches += 1;
        }
        self.take_step(copyset, step, now);
    }

    /// The leader is gone, or denies that it leads.
    pub(super) fn leader_lost(
        &mut self,
        copyset: CopysetId,
        was: ShardAddr,
        hint: Option<ShardAddr>,
        now: Time,
    ) {
        let members = self.members(copyset);
        let Some(route) = self.routes.get_mut(&copyset) else { return };
        let step = route.lost(was, hint, &members);
        self.take_step(copyset, step, now);
    }

    /// A member that was asked does not lead, or did not answer.
    pub(super) fn probe_refused(
        &mut self,
        copyset: CopysetId,
        from: ShardAddr,
        hint: Option<ShardAddr>,
        now: Time,
    ) {
        let members = self.members(copyset);
        let Some(route) = self.routes.get_mut(&copyset) else { return };
        let step = route.refused(from, hint, &members);
        self.take_step(copyset, step, now);
    }

    /// A member leads. False when another is known to have a newer term.
    pub(super) fn leader_found(&mut self, copyset: CopysetId, from: ShardAddr, term: Term) -> bool {
        let Some(route) = self.routes.get_mut(&copyset) else { return true };
        if !route.found(from, term) {
            return false;
        }
        tracing::debug!(%copyset, leader = %from, %term, "leader found");
        let waiting = std::mem::take(&mut route.waiting);
        self.timers.cancel(Timer::Route(copyset));
        waiting.into_iter().for_each(|part| self.requeue(part));
        true
    }

    pub(super) fn resume_route(&mut self, copyset: CopysetId, now: Time) {
        let members = self.members(copyset);
        let Some(route) = self.routes.get_mut(&copyset) else { return };
        let step = route.resume(&members);
        self.take_step(copyset, step, now);
    }

    /// The topology changed: a leader that is no member any more is none, and a search in a pause
    /// goes on.
    pub(super) fn recheck_route(&mut self, copyset: CopysetId, now: Time) {
        let members = self.members(copyset);
        if let Some((leader, _)) = self.routes.get(&copyset).and_then(Route::known)
            && !members.is_empty()
            && !members.contains(&leader)
        {
            self.leader_lost(copyset, leader, None, now);
        }
        self.resume_route(copyset, now);
    }

    fn take_step(&mut self, copyset: CopysetId, mut step: Step, now: Time) {
        loop {
            match step {
                Step::Nothing => return,
                Step::Pause(rounds) => {
                    let (min, max) = (self.opts.backoff_min, self.opts.backoff_max);
                    let pause = self.jitter.pause(rounds, min, max);
                    self.timers.arm(Timer::Route(copyset), now + pause);
                    if rounds >= ROUNDS_BEFORE_TOPOLOGY || self.members(copyset).is_empty() {
                        self.ask_topology(now);
                    }
                    return;
                }
                Step::Probe(member) => match self.reach(member, now) {
                    Reach::Up(conn) => return self.send_probe(copyset, member, conn, now),
                    Reach::OnTheWay => return self.peers.peer(member).probes.push(copyset),
                    Reach::NotNow => {
                        let members = self.members(copyset);
                        let Some(route) = self.routes.get_mut(&copyset) else { return };
                        step = route.refused(member, None, &members);
                    }
                },
            }
        }
    }

    /// Finds or starts a connection.
    fn reach(&mut self, member: ShardAddr, now: Time) -> Reach {
        match self.peers.peer(member).state {
            PeerState::Up { conn } => Reach::Up(conn),
            PeerState::Connecting { .. } => Reach::OnTheWay,
            PeerState::Down { not_before } if now < not_before => Reach::NotNow,
            PeerState::Down { .. } => {
                let Some(endpoint) = self.topology.endpoints.get(&member).cloned() else {
                    self.ask_topology(now);
                    return Reach::NotNow;
                };
                self.peers.begin(member);
                self.timers.arm(Timer::Peer(member), now + self.opts.connect_timeout);
                self.effects.push(ClientEffect::Connect { peer: member, endpoint });
                Reach::OnTheWay
            }
        }
    }

    /// Asks for the topology, unless the last question may still be answered.
    pub(super) fn ask_topology(&mut self, now: Time) {
        if self.topology_asked.is_some_and(|at| now < at + self.opts.metadata_retry) {
            return;
        }
        self.topology_asked = Some(now);
        self.effects.push(ClientEffect::NeedTopology);
    }
}
