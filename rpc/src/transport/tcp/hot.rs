//! Which connection to read without asking epoll first.
//!
//! An owner that spins spends one system call to learn that a socket is ready and one to read it.
//! While one connection brings everything that arrives, the first call is saved by reading that
//! one directly. Every [`DIRECT_MAX`]th poll asks epoll all the same, so that the others wait for a
//! few polls at most (figures: `rpc/design/0001-tcp-polling.md`).

use crate::transport::ConnId;

/// Arrivals in a row from one connection that make it the hot one.
const STREAK_MIN: u8 = 4;
/// How far the streak counts, and so how many arrivals from others end it.
const STREAK_MAX: u8 = 8;
/// Polls in a row that do not ask epoll.
const DIRECT_MAX: u8 = 7;

#[derive(Debug, Default)]
pub(super) struct Hot {
    conn: Option<ConnId>,
    streak: u8,
    direct: u8,
}

impl Hot {
    /// The connection to read directly in this poll; `None` to ask epoll.
    pub(super) fn guess(&mut self) -> Option<ConnId> {
        if self.streak < STREAK_MIN || self.direct == DIRECT_MAX {
            self.direct = 0;
            return None;
        }
        self.direct += 1;
        self.conn
    }

    /// Bytes arrived on a connection.
    pub(super) fn arrived(&mut self, conn: ConnId) {
        if self.conn == Some(conn) {
            self.streak = (self.streak + 1).min(STREAK_MAX);
        } else if self.streak > 0 {
            self.streak -= 1;
        } else {
            self.conn = Some(conn);
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId) {
        if self.conn == Some(conn) {
            *self = Hot::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    #[test]
    fn only_a_lone_talker_is_read_directly_and_never_for_long() {
        let mut hot = Hot::default();
        assert_eq!(hot.guess(), None);
        for _ in 0..20 {
            hot.arrived(A);
        }
        for _ in 0..3 {
            for _ in 0..DIRECT_MAX {
                assert_eq!(hot.guess(), Some(A));
            }
            assert_eq!(hot.guess(), None, "the others have their turn");
        }
        for _ in 0..10 {
            hot.arrived(A);
            hot.arrived(B);
            hot.arrived(B);
        }
        assert!(hot.streak < STREAK_MAX);
        hot.closed(A);
        hot.closed(B);
        assert_eq!(hot.guess(), None);
    }
}
