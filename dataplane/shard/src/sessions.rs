//! Client sessions seen by this shard, and the newest incarnation of each.
//!
//! A request that was delayed in a connection which its client has given up must not be applied
//! after a newer one: the client raises its incarnation with every reconnect, and the shard refuses
//! any incarnation but the newest it has seen.

use std::collections::BTreeMap;

use ogive_types::{Incarnation, SessionId};

use crate::limits::SESSIONS_MAX;

#[derive(Default)]
pub(crate) struct Sessions {
    known: BTreeMap<SessionId, Session>,
}

#[derive(Default)]
struct Session {
    newest: Incarnation,
    connections: u32,
}

impl Sessions {
    /// A connection of the session came up.
    pub(crate) fn connected(&mut self, id: SessionId) {
        self.make_room();
        self.known.entry(id).or_default().connections += 1;
    }

    /// A connection of the session ended.
    pub(crate) fn disconnected(&mut self, id: SessionId) {
        if let Some(session) = self.known.get_mut(&id) {
            session.connections = session.connections.saturating_sub(1);
        }
    }

    /// Whether a request of this incarnation may be applied; a newer one makes all older ones
    /// stale.
    pub(crate) fn admit(&mut self, id: SessionId, incarnation: Incarnation) -> bool {
        let session = self.known.entry(id).or_default();
        session.newest = session.newest.max(incarnation);
        session.newest == incarnation
    }

    /// Forgets the oldest sessions without a connection. One that comes back is admitted again,
    /// which is safe as long as none of its requests is still under way after so many others.
    fn make_room(&mut self) {
        if self.known.len() < SESSIONS_MAX {
            return;
        }
        let idle = self.known.iter().filter(|(_, s)| s.connections == 0).map(|(&id, _)| id);
        let idle: Vec<_> = idle.take(SESSIONS_MAX / 16).collect();
        for id in idle {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_incarnation_is_admitted() {
        let mut sessions = Sessions::default();
        let id = SessionId(7);
        sessions.connected(id);
        assert!(sessions.admit(id, Incarnation(1)));
        assert!(sessions.admit(id, Incarnation(3)));
        assert!(!sessions.admit(id, Incarnation(1)), "delayed in an old connection");
        assert!(!sessions.admit(id, Incarnation(2)));
        assert!(sessions.admit(id, Incarnation(3)));
        assert!(sessions.admit(SessionId(8), Incarnation(0)), "sessions do not disturb each other");
    }

    #[test]
    fn memory_is_bounded_and_live_sessions_are_kept() {
        let mut sessions = Sessions::default();
        sessions.connected(SessionId(0));
        assert!(sessions.admit(SessionId(0), Incarnation(5)));
        for i in 1..2 * SESSIONS_MAX as u64 {
            sessions.connected(SessionId(i));
            sessions.disconnected(SessionId(i));
        }
        assert!(sessions.known.len() <= SESSIONS_MAX);
        assert!(!sessions.admit(SessionId(0), Incarnation(4)), "still remembered");
    }
}
