//! The end of a socket after GOODBYE.
//!
//! A socket that is closed with unread bytes in it makes the kernel send a reset, and a reset can
//! overtake and destroy the GOODBYE before the peer has read why it was refused. So such a socket
//! is shut down for writing and read empty for a moment, until the peer closes its end.
//!
//! What was queued before an end in order is sent first, as far as the peer takes it in that
//! moment.

use std::collections::VecDeque;
use std::time::Duration;

use super::conn::{Conn, ConnState};
use super::stats::TcpStats;
use crate::frame::KIND_GOODBYE;
use crate::goodbye;
use crate::limits::{LINGER_BYTES_PER_TICK, LINGER_FOR, LINGERING_MAX};
use crate::transport::CloseReason;
use ogive_types::Time;
use rustix::net::RecvFlags;

#[derive(Default)]
pub(super) struct Lingering {
    conns: VecDeque<(Box<Conn>, Time)>,
}

impl Lingering {
    /// Ends a connection that has left the table: tells the peer why, if it can still hear.
    pub(super) fn part(
        &mut self,
        mut conn: Box<Conn>,
        reason: &CloseReason,
        scratch: &mut [u8],
        stats: &mut TcpStats,
        now: Time,
    ) {
        if matches!(reason, CloseReason::Silent(_) | CloseReason::Stalled(_)) {
            // The kernel would keep what is queued for a peer that does not take it.
            let _ = conn.socket.set_linger(Some(Duration::ZERO));
            return;
        }
        let can_send = conn.state != ConnState::Connecting && !conn.broken;
        let Some(body) = goodbye::encode(reason).filter(|_| can_send) else { return };
        if *reason != CloseReason::Local {
            conn.queue.clear_unsent();
        }
        conn.queue.push_control(KIND_GOODBYE, body);
        if !write_empty(&mut conn, scratch, stats, now) {
            return;
        }
        if self.conns.len() == LINGERING_MAX {
            self.conns.pop_front();
        }
        self.conns.push_back((conn, now + LINGER_FOR));
    }

    /// Sends what is left, and lets go of the sockets whose peer has closed or whose time is up.
    pub(super) fn tick(&mut self, scratch: &mut [u8], stats: &mut TcpStats, now: Time) {
        self.conns.retain_mut(|(conn, until)| {
            let writes = conn.queue.is_empty() || write_empty(conn, scratch, stats, now);
            now < *until && writes && !read_empty(conn, scratch)
        });
    }

    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }
}

/// Sends what is queued, as far as the kernel takes it, and behind the last byte the end. False
/// when the peer is gone.
fn write_empty(conn: &mut Conn, scratch: &mut [u8], stats: &mut TcpStats, now: Time) -> bool {
    if conn.write(scratch, stats, now).is_err() || conn.broken {
        return false;
    }
    !conn.queue.is_empty() || conn.socket.shutdown(std::net::Shutdown::Write).is_ok()
}

/// Throws away what arrived. True when the stream has ended.
fn read_empty(conn: &Conn, scratch: &mut [u8]) -> bool {
    let mut total = 0;
    while total < LINGER_BYTES_PER_TICK {
        match rustix::net::recv(&conn.socket, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return true,
            Ok((_, n)) => total += n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            Err(_) => return true,
        }
    }
    false
}
