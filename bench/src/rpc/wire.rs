//! One connection of our transport, and the process that answers at its other end.
#![allow(clippy::disallowed_methods)] // owns a transport and its clock

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ogive_buf::{Buf, Pool};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::net::{NetConfig, NetError, NetTransport};
use ogive_rpc::transport::tcp::TcpConfig;
use ogive_rpc::transport::{
    CloseReason, ConnId, Endpoint, Event, Incoming, Outgoing, Path, PathChoice, Transport,
};
use ogive_types::{ClusterId, SessionId, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::drive::End;
use super::sample::Totals;
use super::spec::{ACK_BYTES, BODY_BYTES, Case, Contender, IN_BODY_MAX, Pattern};
use crate::limits::{MAX_RPC_DEPTH, MAX_RPC_IN_FLIGHT_BYTES, RPC_IDLE, RPC_STALL};

/// The answer carries what the request carried.
const KIND_ECHO: u8 = 16;
/// The answer is short.
const KIND_WRITE: u8 = 17;
/// The answer is the counters of the other end.
const KIND_TOTALS: u8 = 18;

/// A transport with its clock.
pub(super) struct Net {
    net: NetTransport,
    path: Path,
    pool: Pool,
    start: Instant,
    events: Vec<Event>,
}

impl Net {
    /// A transport that offers one path only, and listens on loopback if asked to. `Err` tells why
    /// this path is not there.
    pub(super) fn new(contender: Contender, listen: bool) -> Result<Net, String> {
        let path: Path = contender.name().parse().map_err(|_| "not a path of the transport")?;
        let hello = Hello {
            cluster: ClusterId(1),
            identity: Identity::Client { session: SessionId(1) },
            features: 0,
            token: Vec::new(),
            credit_requests: MAX_RPC_DEPTH as u32,
            credit_bytes: MAX_RPC_IN_FLIGHT_BYTES as u64,
        };
        // A message may be in flight in both directions, and buffers are powers of two.
        let pool = Pool::new(4 * MAX_RPC_IN_FLIGHT_BYTES);
        let mut tcp = TcpConfig::new(hello, pool.clone());
        tcp.listen.extend(listen.then(|| Endpoint("tcp:127.0.0.1:0".into())));
        let net = NetTransport::new(NetConfig { tcp, choice: PathChoice::Only(path) });
        let net = net.map_err(|error| match error {
            NetError::Forced { why, .. } => why,
            error => error.to_string(),
        })?;
        Ok(Net { net, path, pool, start: Instant::now(), events: Vec::new() })
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// Bytes copied and system calls made by this end for the path.
    fn totals(&self) -> [u64; 2] {
        let stats = self.net.stats();
        match stats.lanes.iter().find(|(path, _)| *path == self.path) {
            Some((_, lane)) => [lane.copied_bytes, 0],
            None => [stats.tcp.copied_bytes, stats.tcp.reads + stats.tcp.writes],
        }
    }

    /// Spins until the connection is up.
    fn connect(&mut self, to: &str) -> Result<ConnId, String> {
        let conn = self.net.connect(&Endpoint(to.into()), self.now());
        loop {
            self.net.poll(self.now(), &mut self.events);
            self.net.flush(self.now());
            for event in self.events.drain(..) {
                match event {
                    Event::Connected { conn: up, .. } if up == conn => {
                        let taken = self.net.path(conn);
                        let right = taken == Some(self.path);
                        return right.then_some(conn).ok_or(format!("went over {taken:?}"));
                    }
                    Event::Closed { conn: gone, reason } if gone == conn => {
                        return Err(reason.to_string());
                    }
                    _ => {}
                }
            }
        }
    }

    /// Closes a connection, and spins until that is done.
    fn close(&mut self, conn: ConnId) {
        self.net.close(conn, CloseReason::Local);
        self.events.clear();
        let closed = |event: &Event| matches!(event, Event::Closed { conn: c, .. } if *c == conn);
        while !self.events.iter().any(closed) {
            self.net.poll(self.now(), &mut self.events);
            self.net.flush(self.now());
        }
        self.events.clear();
    }
}

/// The asking end.
pub(super) struct Wire<'a> {
    net: &'a mut Net,
    conn: ConnId,
    case: Case,
    body: Vec<u8>,
    payload: Vec<Buf>,
    /// The first answer was compared byte by byte.
    compared: bool,
}

impl<'a> Wire<'a> {
    /// Makes a connection for a case.
    pub(super) fn connect(net: &'a mut Net, to: &str, case: Case) -> Result<Wire<'a>, String> {
        let pattern = |n: usize| (0..n).map(|i| (i / 7) as u8);
        let (body, payload) = if case.bytes <= IN_BODY_MAX {
            (pattern(case.bytes).collect(), Vec::new())
        } else {
            let mut buf = net.pool.alloc(case.bytes).ok_or("no buffer of this size")?;
            buf.iter_mut().zip(pattern(case.bytes)).for_each(|(to, byte)| *to = byte);
            (vec![7; BODY_BYTES], vec![buf.freeze()])
        };
        let conn = net.connect(to)?;
        Ok(Wire { net, conn, case, body, payload, compared: false })
    }

    fn send(&mut self, kind: u8, id: u64, body: Vec<u8>, payload: Vec<Buf>) {
        let now = self.net.now();
        let frame = Outgoing { kind, response: false, id, deadline_ms: 0, body, payload };
        self.net.net.send(self.conn, frame, now);
    }

    fn check(&mut self, frame: &Incoming) -> Result<(), String> {
        let payload = frame.payload.as_deref().unwrap_or_default();
        let sent = self.payload.first().map(|buf| &buf[..]).unwrap_or_default();
        let right = match self.case.pattern {
            Pattern::Echo if self.compared => {
                frame.body.len() == self.body.len() && payload.len() == sent.len()
            }
            Pattern::Echo => frame.body == self.body && payload == sent,
            Pattern::Write => frame.body.len() == ACK_BYTES && payload.is_empty(),
        };
        self.compared = true;
        if right { Ok(()) } else { Err("the answer is not what was asked for".into()) }
    }
}

impl End for Wire<'_> {
    fn start(&mut self, slot: u32) -> Result<(), String> {
        let kind = match self.case.pattern {
            Pattern::Echo => KIND_ECHO,
            Pattern::Write => KIND_WRITE,
        };
        self.send(kind, u64::from(slot) + 1, self.body.clone(), self.payload.clone());
        Ok(())
    }

    fn turn(&mut self, done: &mut Vec<u32>) -> Result<(), String> {
        let now = self.net.now();
        self.net.net.flush(now);
        self.net.net.poll(now, &mut self.net.events);
        let mut events = std::mem::take(&mut self.net.events);
        for event in events.drain(..) {
            match event {
                Event::Received { conn, frame } if conn == self.conn => {
                    self.check(&frame)?;
                    done.push((frame.id - 1) as u32);
                }
                Event::Closed { conn, reason } if conn == self.conn => {
                    return Err(reason.to_string());
                }
                _ => {}
            }
        }
        self.net.events = events;
        Ok(())
    }

    fn totals(&mut self) -> Result<Totals, String> {
        self.send(KIND_TOTALS, 1, Vec::new(), Vec::new());
        // A lane moves data without system calls of ours; what UCX itself calls is not counted.
        let calls = self.net.path == Path::Tcp;
        let asked = Instant::now();
        while asked.elapsed() < RPC_STALL {
            let (now, ours) = (self.net.now(), self.net.totals());
            self.net.net.flush(now);
            self.net.net.poll(now, &mut self.net.events);
            for event in self.net.events.drain(..) {
                match event {
                    Event::Received { frame, .. } => return totals(&frame.body, ours, calls),
                    Event::Closed { reason, .. } => return Err(reason.to_string()),
                    Event::Connected { .. } => {}
                }
            }
        }
        Err("the other end does not tell its counters".into())
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.net.close(self.conn);
    }
}

fn totals(body: &[u8], ours: [u64; 2], calls: bool) -> Result<Totals, String> {
    let word = |i: usize| {
        let bytes =
            body.get(i * 8..i * 8 + 8).ok_or("short answer to the question for counters")?;
        Ok::<u64, String>(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    };
    let (copied, made) = (ours[0] + word(0)?, ours[1] + word(1)?);
    Ok(Totals { copied_bytes: Some(copied), system_calls: calls.then_some(made) })
}

/// The answering process: spins while anything happens, and sleeps while it is not its turn.
pub(super) fn serve(
    mut net: Net,
    ready: impl Fn(String) -> Result<(), String>,
) -> Result<(), String> {
    let endpoint = net.net.local_endpoints().first().map(ToString::to_string);
    ready(endpoint.ok_or("it listens nowhere")?)?;
    let (mut events, mut last) = (Vec::new(), net.now());
    loop {
        // One look at the clock in a turn, as the product's loop has.
        let now = net.now();
        if net.net.poll(now, &mut events) {
            last = now;
        } else if now.since(last) > RPC_IDLE {
            sleep(&mut net);
        }
        for event in events.drain(..) {
            if let Event::Received { conn, frame } = event {
                let answer = answer(frame, &net);
                net.net.send(conn, answer, now);
            }
        }
        net.net.flush(now);
    }
}

fn answer(frame: Incoming, net: &Net) -> Outgoing {
    let (kind, id) = (frame.kind, frame.id);
    let (body, payload) = match kind {
        KIND_ECHO => (frame.body, frame.payload.into_iter().collect()),
        KIND_TOTALS => (net.totals().iter().flat_map(|n| n.to_le_bytes()).collect(), Vec::new()),
        _ => (vec![7; ACK_BYTES], Vec::new()),
    };
    Outgoing { kind, response: true, id, deadline_ms: 0, body, payload }
}

/// Waits for the descriptor, or for what the transport has to do without it.
fn sleep(net: &mut Net) {
    if !net.net.prepare_sleep() {
        return;
    }
    let until = net.net.next_deadline().since(net.now()).min(Duration::from_millis(100));
    let wait = Timespec { tv_sec: 0, tv_nsec: until.as_nanos() as i64 };
    // SAFETY: the descriptor belongs to the transport, which outlives this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(net.net.wake_fd()) };
    // It fails when a signal comes, and then the loop looks again.
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&wait));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_ends_are_added() {
        let body: Vec<u8> = [5u64, 7].iter().flat_map(|n| n.to_le_bytes()).collect();
        let sum = totals(&body, [10, 20], true).unwrap();
        assert_eq!((sum.copied_bytes, sum.system_calls), (Some(15), Some(27)));
        assert_eq!(totals(&body, [10, 20], false).unwrap().system_calls, None);
        assert!(totals(&body[..15], [0, 0], true).is_err());
    }

    /// Both ends in one process: the peer in a thread of its own.
    #[test]
    fn all_patterns_are_answered_and_counted() {
        let (sender, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let net = Net::new(Contender::Tcp, true).expect("loopback");
            serve(net, |address| sender.send(address).map_err(|e| e.to_string()))
        });
        let address = address.recv().unwrap();
        let mut net = Net::new(Contender::Tcp, false).unwrap();
        for (pattern, bytes, depth) in
            [(Pattern::Echo, 64, 1), (Pattern::Echo, 4096, 8), (Pattern::Write, 1 << 20, 2)]
        {
            let case = Case { pattern, bytes, depth };
            let mut wire = Wire::connect(&mut net, &address, case).expect("a connection");
            let plan = super::super::drive::Plan::new(depth, bytes, Duration::from_millis(20));
            let sample = super::super::drive::drive(&mut wire, &plan, std::process::id()).unwrap();
            assert!(sample.messages > 0 && sample.system_calls.is_some_and(|n| n > 0.0));
            assert!(sample.copied_bytes.is_some(), "{case}: {sample:?}");
        }
    }
}
