//! What only the leader knows, and forgets: who was heard of and when. Pure: time comes as an
//! argument.
//!
//! A new leader knows nothing. Until the time-out has passed since it took over, a chunkserver that
//! it has not heard of is `Unknown`, and a session that it has not heard of is alive: nobody is
//! declared dead for a silence that this server could not have heard. See
//! `design/0001-volatile-leases.md`.

use std::collections::BTreeMap;

use ogive_api::types::{DeviceHealth, PathUse, Presence, ReplicaReport};
use ogive_types::{ChunkserverId, CopysetId, SessionId, ShardAddr, Time};

use crate::config::Timing;

/// Signs of life, since this server leads.
#[derive(Debug, Default)]
pub(crate) struct Volatile {
    term: u64,
    since: Time,
    servers: BTreeMap<ChunkserverId, Seen>,
    sessions: BTreeMap<SessionId, Heard>,
    /// When a chunkserver last registered.
    registered: Time,
}

/// The last sign of life of a session.
#[derive(Debug)]
struct Heard {
    at: Time,
    paths: Vec<PathUse>,
}

/// The last sign of life of a chunkserver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) at: Time,
    pub(crate) used_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) reports: BTreeMap<(CopysetId, u16), ReplicaReport>,
    pub(crate) paths: Vec<PathUse>,
    pub(crate) health: DeviceHealth,
}

impl Volatile {
    /// Must be called before anything else: forgets everything when this server leads in a new
    /// term.
    pub(crate) fn lead(&mut self, term: u64, now: Time) {
        if self.term != term {
            *self = Volatile { term, since: now, registered: now, ..Volatile::default() };
        }
    }

    /// A chunkserver registered.
    pub(crate) fn registered(&mut self, id: ChunkserverId, now: Time) {
        self.registered = now;
        self.servers.entry(id).or_default().at = now;
    }

    /// When a chunkserver last registered, or this server took over.
    pub(crate) fn last_registration(&self) -> Time {
        self.registered
    }

    /// A chunkserver sent a heartbeat.
    pub(crate) fn heard(&mut self, id: ChunkserverId, seen: Seen) {
        self.servers.insert(id, seen);
    }

    /// The last sign of life of a chunkserver.
    pub(crate) fn seen(&self, id: ChunkserverId) -> Option<&Seen> {
        self.servers.get(&id)
    }

    /// | last sign of life | leading for | presence |
    /// |---|---|---|
    /// | within the time-out | | online |
    /// | before it | | offline |
    /// | none | less than the time-out | unknown |
    /// | none | longer | offline |
    pub(crate) fn presence(&self, id: ChunkserverId, now: Time, timing: &Timing) -> Presence {
        let limit = timing.chunkserver_silence;
        match self.servers.get(&id) {
            Some(seen) if now.since(seen.at) < limit => Presence::Online,
            Some(_) => Presence::Offline,
            None if now.since(self.since) < limit => Presence::Unknown,
            None => Presence::Offline,
        }
    }

    /// What an online chunkserver last said of a replica.
    pub(crate) fn report(
        &self,
        replica: ShardAddr,
        copyset: CopysetId,
        now: Time,
        timing: &Timing,
    ) -> Option<&ReplicaReport> {
        if self.presence(replica.server, now, timing) != Presence::Online {
            return None;
        }
        self.servers.get(&replica.server)?.reports.get(&(copyset, replica.shard))
    }

    /// A session was made or kept alive.
    pub(crate) fn session_heard(&mut self, id: SessionId, paths: Vec<PathUse>, at: Time) {
        self.sessions.insert(id, Heard { at, paths });
    }

    /// What the holder of a session last said of its paths.
    pub(crate) fn session_paths(&self, id: SessionId) -> &[PathUse] {
        self.sessions.get(&id).map_or(&[], |heard| &heard.paths)
    }

    /// True unless the session was silent for a whole lease that this server has watched.
    pub(crate) fn session_alive(&self, id: SessionId, now: Time, timing: &Timing) -> bool {
        let last = self.sessions.get(&id).map_or(self.since, |heard| heard.at);
        now.since(last) < timing.session_lease
    }

    /// Forgets sessions that have ended.
    pub(crate) fn keep_sessions(&mut self, mut lives: impl FnMut(SessionId) -> bool) {
        self.sessions.retain(|id, _| lives(*id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1000)
    }

    #[test]
    fn a_new_leader_declares_nobody_dead_at_once() {
        let timing = Timing::default();
        let (server, session) = (ChunkserverId(1), SessionId(1));
        let mut v = Volatile::default();
        v.lead(1, at(0));
        v.registered(server, at(0));
        v.session_heard(session, Vec::new(), at(0));
        assert_eq!(v.presence(server, at(2_999), &timing), Presence::Online);
        assert_eq!(v.presence(server, at(3_000), &timing), Presence::Offline);
        assert!(v.session_alive(session, at(4_999), &timing));
        assert!(!v.session_alive(session, at(5_000), &timing));
        // It loses leadership and wins it again: what it knew is too old to count.
        v.lead(3, at(100_000));
        assert_eq!(v.presence(server, at(102_999), &timing), Presence::Unknown);
        assert_eq!(v.presence(server, at(103_000), &timing), Presence::Offline);
        assert!(v.session_alive(session, at(104_999), &timing));
        assert!(!v.session_alive(session, at(105_000), &timing));
    }

    #[test]
    fn the_same_term_forgets_nothing() {
        let mut v = Volatile::default();
        v.lead(1, at(0));
        v.session_heard(SessionId(1), Vec::new(), at(1_000));
        v.lead(1, at(5_500));
        assert!(v.session_alive(SessionId(1), at(5_999), &Timing::default()));
        v.keep_sessions(|_| false);
        assert!(!v.session_alive(SessionId(1), at(5_999), &Timing::default()));
    }

    #[test]
    fn reports_of_a_silent_chunkserver_do_not_count() {
        let timing = Timing { chunkserver_silence: Duration::from_secs(1), ..Timing::default() };
        let mut v = Volatile::default();
        let addr = ShardAddr { server: ChunkserverId(1), shard: 0 };
        let report = ReplicaReport {
            copyset: CopysetId(1),
            shard: 0,
            role: ogive_api::types::Role::Follower,
            term: Default::default(),
            applied: Default::default(),
            last: Default::default(),
            followers: Vec::new(),
            healthy: true,
        };
        let reports = BTreeMap::from([((CopysetId(1), 0), report)]);
        v.heard(addr.server, Seen { at: at(0), reports, ..Seen::default() });
        assert!(v.report(addr, CopysetId(1), at(999), &timing).is_some());
        assert!(v.report(addr, CopysetId(2), at(999), &timing).is_none());
        assert!(v.report(addr, CopysetId(1), at(1_000), &timing).is_none());
    }
}
