//! The work in a message over TCP, against plain sockets that move the same bytes.
//!
//! Both ends take turns in one thread, so nobody spins and nobody waits: the processor time of the
//! thread is the work of both ends and of the kernel, and other load on the machine hardly shows in
//! it. That makes it the tool for work on the transport; `ogive bench rpc` measures two processes.
//!
//! ```text
//! cargo run --release -p ogive-rpc --example tcp_work [ROUNDS [plain|ogive|both [CASE]]]
//! ```

#![allow(clippy::disallowed_methods)] // opens sockets of its own

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use ogive_buf::{Buf, Pool};
use ogive_rpc::frame::HEADER_BYTES;
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::tcp::{TcpConfig, TcpStats, TcpTransport};
use ogive_rpc::transport::{ConnId, Endpoint, Event, Outgoing, Transport};
use ogive_types::{ClusterId, SessionId, Time};
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A body as long as that of a write request.
const BODY_BYTES: usize = 48;
/// Payload, depth, and messages of a round.
const CASES: [(usize, usize, usize); 8] = [
    (0, 1, 500),
    (4096, 1, 500),
    (65_536, 1, 100),
    (1 << 20, 1, 10),
    (0, 32, 2000),
    (4096, 32, 1000),
    (65_536, 32, 100),
    (1 << 20, 8, 24),
];
/// Least size of the buffer that the plain sockets are read into.
const READ_BYTES: usize = 64 << 10;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let rounds = args.get(1).map_or(Ok(60), |text| text.parse::<usize>())?.max(1);
    let only = args.get(2).map(String::as_str);
    let case = args.get(3).map(|text| text.parse::<usize>()).transpose()?;
    println!("processor time of an echo in us, both ends and the kernel: median, and least");
    println!(
        "{:>8} {:>6} {} {:>9} {:>7}",
        "payload",
        "depth",
        "    plain    ogive   ratio".repeat(2),
        "copied B",
        "calls"
    );
    for (i, (payload, depth, messages)) in CASES.into_iter().enumerate() {
        if case.is_some_and(|case| case != i) {
            continue;
        }
        measure(payload, depth, messages, rounds, only)?;
    }
    Ok(())
}

/// Measures one case, and prints its line.
fn measure(
    payload: usize,
    depth: usize,
    messages: usize,
    rounds: usize,
    only: Option<&str>,
) -> Result<()> {
    let mut plain = Plain::new(HEADER_BYTES + BODY_BYTES + payload, depth)?;
    let mut ogive = Ogive::new(payload, depth)?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..rounds + 2 {
        if only != Some("ogive") {
            timed(messages, &mut a, |n| plain.run(n))?;
        }
        if only != Some("plain") {
            timed(messages, &mut b, |n| ogive.run(n))?;
        }
        if round == 1 {
            // The first rounds warm caches and windows up.
            (a, b) = (Vec::new(), Vec::new());
            ogive.reset();
        }
    }
    print!("{payload:>8} {depth:>6} ");
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let at = |times: &[f64], i: usize| times.get(i).copied().unwrap_or(f64::NAN);
    for i in [rounds / 2, 0] {
        let (one, two) = (at(&a, i), at(&b, i));
        print!("{one:>9.2}{two:>9.2}{:>8.3}", two / one);
    }
    let (copied, calls) = ogive.per_message();
    println!(" {copied:>9.0} {calls:>7.2}");
    Ok(())
}

fn timed(
    messages: usize,
    times: &mut Vec<f64>,
    run: impl FnOnce(usize) -> Result<()>,
) -> Result<()> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let start = now();
    run(messages)?;
    times.push((now() - start) / messages as f64);
    Ok(())
}

/// One end of a plain connection: writes each message by itself and reads answers as they come.
struct End {
    socket: TcpStream,
    input: Vec<u8>,
    have: usize,
    /// Bytes of messages that the kernel has not taken.
    unsent: usize,
    message: Vec<u8>,
}

impl End {
    fn new(socket: TcpStream, bytes: usize) -> Result<End> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let (input, message) = (vec![0; READ_BYTES.max(bytes)], vec![7; bytes]);
        Ok(End { socket, input, have: 0, unsent: 0, message })
    }

    fn send(&mut self) -> Result<()> {
        self.unsent += self.message.len();
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        while self.unsent > 0 {
            let left = (self.unsent - 1) % self.message.len() + 1;
            match self.socket.write(&self.message[self.message.len() - left..]) {
                Ok(n) => self.unsent -= n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// How many messages have come.
    fn receive(&mut self) -> Result<usize> {
        self.write()?;
        match self.socket.read(&mut self.input[self.have..]) {
            Ok(0) => return Err("closed".into()),
            Ok(n) => self.have += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(e) => return Err(e.into()),
        }
        let whole = self.have / self.message.len();
        self.input.copy_within(whole * self.message.len()..self.have, 0);
        self.have -= whole * self.message.len();
        Ok(whole)
    }
}

struct Plain {
    ends: [End; 2],
    depth: usize,
}

impl Plain {
    fn new(bytes: usize, depth: usize) -> Result<Plain> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let far = listener.accept()?.0;
        Ok(Plain { ends: [End::new(near, bytes)?, End::new(far, bytes)?], depth })
    }

    fn run(&mut self, messages: usize) -> Result<()> {
        let [near, far] = &mut self.ends;
        let (mut sent, mut done) = (0, 0);
        while done < messages {
            while sent < messages && sent - done < self.depth {
                near.send()?;
                sent += 1;
            }
            for _ in 0..far.receive()? {
                far.send()?;
            }
            done += near.receive()?;
        }
        Ok(())
    }
}

struct Ogive {
    near: TcpTransport,
    far: TcpTransport,
    conn: ConnId,
    payload: Vec<Buf>,
    depth: usize,
    events: Vec<Event>,
    now: u64,
    messages: usize,
    before: [TcpStats; 2],
}

fn transport(listen: bool) -> Result<(TcpTransport, Pool)> {
    let hello = Hello {
        cluster: ClusterId(1),
        identity: Identity::Client { session: SessionId(1) },
        features: 0,
        token: Vec::new(),
        credit_requests: 64,
        credit_bytes: 64 << 20,
    };
    let pool = Pool::new(64 << 20);
    let mut config = TcpConfig::new(hello, pool.clone());
    config.listen.extend(listen.then(|| Endpoint("tcp:127.0.0.1:0".into())));
    Ok((TcpTransport::new(config)?, pool))
}

impl Ogive {
    fn new(payload: usize, depth: usize) -> Result<Ogive> {
        let ((mut near, pool), (far, _)) = (transport(false)?, transport(true)?);
        let buf = pool.alloc_zeroed(payload).ok_or("no buffer")?.freeze();
        let payload = if payload > 0 { vec![buf] } else { Vec::new() };
        let conn = near.connect(&far.local_endpoints()[0], Time(0));
        let (events, before) = (Vec::new(), [TcpStats::default(); 2]);
        let mut ogive =
            Ogive { near, far, conn, payload, depth, events, now: 0, messages: 0, before };
        while !matches!(ogive.events.pop(), Some(Event::Connected { .. })) {
            ogive.far();
            ogive.near.poll(Time(0), &mut ogive.events);
        }
        Ok(ogive)
    }

    fn reset(&mut self) {
        self.messages = 0;
        self.before = [self.near.stats(), self.far.stats()];
    }

    /// Bytes copied and system calls of both ends.
    fn per_message(&self) -> (f64, f64) {
        let ends = [self.near.stats(), self.far.stats()];
        let sum = |figure: &dyn Fn(&TcpStats) -> u64| {
            let [now, before] =
                [ends, self.before].map(|both| both.iter().map(figure).sum::<u64>());
            (now - before) as f64 / self.messages.max(1) as f64
        };
        (sum(&|stats| stats.copied_bytes), sum(&|stats| stats.reads + stats.writes))
    }

    fn run(&mut self, messages: usize) -> Result<()> {
        let (mut sent, mut done) = (0, 0);
        while done < messages {
            // Time goes on slowly: what time-outs cost is small, and nothing is to run out here.
            self.now += 1;
            while sent < messages && sent - done < self.depth {
                sent += 1;
                let (body, payload) = (vec![7; BODY_BYTES], self.payload.clone());
                let frame = Outgoing {
                    kind: 16,
                    response: false,
                    id: sent as u64,
                    deadline_ms: 1000,
                    body,
                    payload,
                };
                self.near.send(self.conn, frame, Time(self.now));
            }
            self.near.flush(Time(self.now));
            self.far();
            self.near.poll(Time(self.now), &mut self.events);
            for event in self.events.drain(..) {
                match event {
                    Event::Received { .. } => done += 1,
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
        self.messages += messages;
        Ok(())
    }

    /// A turn of the end that answers.
    fn far(&mut self) {
        let now = Time(self.now);
        let mut events = std::mem::take(&mut self.events);
        self.far.poll(now, &mut events);
        for event in events.drain(..) {
            if let Event::Received { conn, frame } = event {
                let payload = frame.payload.into_iter().collect();
                let (kind, id, body) = (frame.kind, frame.id, frame.body);
                let answer = Outgoing { kind, response: true, id, deadline_ms: 0, body, payload };
                self.far.send(conn, answer, now);
            }
        }
        self.events = events;
        self.far.flush(now);
    }
}
