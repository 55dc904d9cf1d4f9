//! Time-outs of one connection, as a pure function of its state and the time.
//!
//! | state | since | longer than | then |
//! |---|---|---|---|
//! | Connecting | opened | `connect_within` | `Connect` |
//! | Greeting, outbound | opened | `connect_within` + `hello_within` | `Connect` |
//! | Greeting, inbound | opened | `hello_within` | `Protocol` |
//! | Up, not paused nor resting | last byte received | `silent_after` | `Silent` |
//! | Up | incomplete frame began | `frame_within` | `Protocol` |
//! | Up | queue over its soft limit | `stalled_after` | `Stalled` |
//! | Up, not resting, nothing queued | last byte sent | `ping_after` | PING |
//!
//! A connection rests when another path carries its frames and keeps it alive.
//!
//! Whenever time-outs are looked for, the PINGs of the next moments are sent as well, so that many
//! idle connections cost a few wake-ups a second and not one or two each.

use std::time::Duration;

use ogive_types::Time;

use super::config::Timing;
use super::conn::{Conn, ConnState};
use crate::limits::PING_EARLY_PART;
use crate::transport::CloseReason;

/// What is due on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before this moment.
    At(Time),
    Ping,
    Close(CloseReason),
}

/// What of a connection matters to its time-outs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) state: ConnState,
    pub(super) inbound: bool,
    pub(super) paused: bool,
    pub(super) resting: bool,
    pub(super) queued_bytes: usize,
    pub(super) opened: Time,
    pub(super) last_sent: Time,
    pub(super) last_received: Time,
    pub(super) partial_since: Option<Time>,
    pub(super) stalled_since: Option<Time>,
}

impl Conn {
    pub(super) fn clocks(&self) -> Clocks {
        Clocks {
            state: self.state,
            inbound: self.inbound,
            paused: self.paused,
            resting: self.resting,
            queued_bytes: self.queue.bytes(),
            opened: self.opened,
            last_sent: self.last_sent,
            last_received: self.last_received,
            partial_since: self.partial_since,
            stalled_since: self.stalled_since,
        }
    }
}

/// What is due at `now`.
pub(super) fn due(c: &Clocks, timing: &Timing, now: Time) -> Due {
    match c.state {
        ConnState::Connecting => {
            let within = timing.connect_within;
            or_close(c.opened + within, now, || no_answer("no answer", within))
        }
        ConnState::Greeting if c.inbound => or_close(c.opened + timing.hello_within, now, || {
            let ms = timing.hello_within.as_millis();
            CloseReason::Protocol(format!("no HELLO within {ms} ms"))
        }),
        ConnState::Greeting => {
            let within = timing.connect_within + timing.hello_within;
            or_close(c.opened + within, now, || no_answer("no HELLO", within))
        }
        ConnState::Up => due_up(c, timing, now),
    }
}

fn due_up(c: &Clocks, timing: &Timing, now: Time) -> Due {
    let mut next = Time::NEVER;
    if !c.paused && !c.resting {
        let at = c.last_received + timing.silent_after;
        if at <= now {
            let ms = now.since(c.last_received).as_millis();
            return Due::Close(CloseReason::Silent(ms as u64));
        }
        next = next.min(at);
    }
    if let Some(since) = c.partial_since {
        let at = since + timing.frame_within;
        if at <= now {
            let ms = timing.frame_within.as_millis();
            let text = format!("a frame is incomplete after {ms} ms");
            return Due::Close(CloseReason::Protocol(text));
        }
        next = next.min(at);
    }
    if let Some(since) = c.stalled_since {
        let at = since + timing.stalled_after;
        if at <= now {
            return Due::Close(CloseReason::Stalled(c.queued_bytes));
        }
        next = next.min(at);
    }
    // A frame that waits is sign of life enough once the peer reads it.
    if c.queued_bytes == 0 && !c.resting {
        let at = c.last_sent + timing.ping_after;
        if at <= now + timing.ping_after / PING_EARLY_PART {
            return Due::Ping;
        }
        next = next.min(at);
    }
    Due::At(next)
}

fn or_close(at: Time, now: Time, reason: impl FnOnce() -> CloseReason) -> Due {
    if at <= now { Due::Close(reason()) } else { Due::At(at) }
}

fn no_answer(what: &str, within: Duration) -> CloseReason {
    CloseReason::Connect(format!("{what} within {} ms", within.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn up() -> Clocks {
        Clocks {
            state: ConnState::Up,
            inbound: true,
            paused: false,
            resting: false,
            queued_bytes: 0,
            opened: Time(0),
            last_sent: Time(0),
            last_received: Time(0),
            partial_since: None,
            stalled_since: None,
        }
    }

    fn at(c: Clocks, seconds: u64) -> Due {
        due(&c, &Timing::default(), Time(seconds * S))
    }

    #[test]
    fn each_row_of_the_table() {
        let connecting = Clocks { state: ConnState::Connecting, inbound: false, ..up() };
        assert_eq!(at(connecting, 2), Due::At(Time(3 * S)));
        assert!(matches!(at(connecting, 3), Due::Close(CloseReason::Connect(_))));
        let outbound = Clocks { state: ConnState::Greeting, inbound: false, ..up() };
        assert_eq!(at(outbound, 4), Due::At(Time(5 * S)));
        assert!(matches!(at(outbound, 5), Due::Close(CloseReason::Connect(_))));
        let inbound = Clocks { state: ConnState::Greeting, ..up() };
        assert!(matches!(at(inbound, 2), Due::Close(CloseReason::Protocol(_))));
        assert_eq!(at(up(), 4), Due::Close(CloseReason::Silent(4000)));
        let fresh = Clocks { last_received: Time(19 * S), last_sent: Time(19 * S), ..up() };
        assert_eq!(at(fresh, 19), Due::At(Time(20 * S)));
        let partial = Clocks { partial_since: Some(Time(9 * S)), ..fresh };
        assert!(matches!(at(partial, 19), Due::Close(CloseReason::Protocol(_))));
        let stalled = Clocks { stalled_since: Some(Time(18 * S)), queued_bytes: 77, ..fresh };
        assert_eq!(at(stalled, 20), Due::Close(CloseReason::Stalled(77)));
        assert_eq!(at(fresh, 20), Due::Ping);
    }

    #[test]
    fn pings_that_are_nearly_due_go_with_those_that_are() {
        let sent_at = |us: u64| Clocks { last_received: Time(us), last_sent: Time(us), ..up() };
        assert_eq!(at(sent_at(19_250_000), 20), Due::Ping);
        assert_eq!(at(sent_at(19_250_001), 20), Due::At(Time(20_250_001)));
    }

    #[test]
    fn what_we_do_ourselves_does_not_count_against_the_peer() {
        let paused = Clocks { paused: true, last_sent: Time(100 * S), ..up() };
        assert_eq!(at(paused, 100), Due::At(Time(101 * S)), "we do not read: no silence");
        let queued = Clocks { queued_bytes: 1, last_received: Time(100 * S), ..up() };
        assert_eq!(at(queued, 100), Due::At(Time(104 * S)), "no PING behind a full queue");
    }

    #[test]
    fn one_that_rests_says_nothing_and_is_not_judged_by_its_silence() {
        let resting = Clocks { resting: true, ..up() };
        assert_eq!(at(resting, 1000), Due::At(Time::NEVER));
        let partial = Clocks { partial_since: Some(Time(9 * S)), ..resting };
        assert!(matches!(at(partial, 19), Due::Close(CloseReason::Protocol(_))));
    }
}
