//! Round trips of the TCP transport against plain sockets that move the same bytes.
//!
//! Two processes, each spinning, on loopback. The two kinds take turns in short rounds of one run,
//! so that whatever else the machine does hits both alike; what counts is the ratio.
//!
//! ```text
//! cargo run --release -p ogive-rpc --example tcp_pingpong [rounds] [trips per round]
//! ```

#![allow(clippy::disallowed_methods)] // measures time and opens sockets of its own

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ogive_buf::{Buf, Pool};
use ogive_rpc::frame::HEADER_BYTES;
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::tcp::{TcpConfig, TcpTransport};
use ogive_rpc::transport::{ConnId, Endpoint, Event, Outgoing, Transport};
use ogive_types::{ClusterId, SessionId, Time};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A body as long as that of a write request.
const BODY_BYTES: usize = 48;
/// Payloads compared.
const PAYLOADS: [usize; 4] = [0, 4096, 65_536, 1 << 20];
/// Looks at a quiet socket before a process waits for it: the kind whose turn it is not must not
/// take the core of the other.
const SPINS: u32 = 2000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("echo-plain") => pin(1).and_then(|()| echo_plain(&args[2])),
        Some("echo-ogive") => pin(1).and_then(|()| echo_ogive()),
        _ => {
            pin(0)?;
            let number =
                |i: usize, default| args.get(i).map_or(Ok(default), |s| s.parse::<usize>());
            compare(number(1, 40)?, number(2, 1000)?)
        }
    }
}

/// Gives a process a core of its own, if there are two: spinners on one core wait for each other.
fn pin(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    // Fails on a machine with one core, where the figures mean little anyway.
    let _ = rustix::thread::sched_setaffinity(None, &set);
    Ok(())
}

fn compare(rounds: usize, trips: usize) -> Result<()> {
    println!("round trips in us over {rounds} rounds of {trips} (fewer for 1 MiB)");
    println!("                  median                       fastest tenth");
    println!("{:>8} {}", "payload", "    plain    ogive   ratio".repeat(2));
    for payload in PAYLOADS {
        let mut plain = Plain::start(payload)?;
        let mut ogive = Ogive::start(payload)?;
        let trips = if payload > 100_000 { trips / 10 } else { trips }.max(1);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for round in 0..rounds + 2 {
            timed(trips, &mut a, || plain.trip())?;
            timed(trips, &mut b, || ogive.trip())?;
            if round == 1 {
                // The first rounds warm caches and windows up.
                (a, b) = (Vec::new(), Vec::new());
            }
        }
        a.sort_by(f64::total_cmp);
        b.sort_by(f64::total_cmp);
        print!("{payload:>8} ");
        for part in [2, 10] {
            let (one, two) = (a[a.len() / part], b[b.len() / part]);
            print!("{one:>9.2}{two:>9.2}{:>8.3}", two / one);
        }
        println!();
    }
    Ok(())
}

fn timed(trips: usize, times: &mut Vec<f64>, mut trip: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..trips {
        let start = Instant::now();
        trip()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(())
}

/// A process that ends with this one.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the other process, and reads the address that it prints.
fn peer(args: &[&str]) -> Result<(Peer, String)> {
    let exe = std::env::current_exe()?;
    let child = Command::new(exe).args(args).stdout(Stdio::piped()).spawn()?;
    let mut peer = Peer(child);
    let out = peer.0.stdout.as_mut().ok_or("no output")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    Ok((peer, line.trim().to_string()))
}

fn wait_readable(fd: BorrowedFd<'_>) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None)?;
    Ok(())
}

/// Spins on a non-blocking socket until the buffer is full.
fn read_spinning(socket: &mut TcpStream, buf: &mut [u8], may_wait: bool) -> Result<()> {
    let (mut have, mut idle) = (0, 0);
    while have < buf.len() {
        match socket.read(&mut buf[have..]) {
            Ok(0) => return Err("closed".into()),
            Ok(n) => (have, idle) = (have + n, 0),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                idle += 1;
                if may_wait && idle > SPINS {
                    wait_readable(socket.as_fd())?;
                    idle = 0;
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn write_spinning(socket: &mut TcpStream, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        match socket.write(buf) {
            Ok(n) => buf = &buf[n..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

struct Plain {
    _child: Peer,
    socket: TcpStream,
    buf: Vec<u8>,
}

impl Plain {
    fn start(payload: usize) -> Result<Plain> {
        let bytes = HEADER_BYTES + BODY_BYTES + payload;
        let (child, addr) = peer(&["echo-plain", &bytes.to_string()])?;
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Plain { _child: child, socket, buf: vec![7; bytes] })
    }

    fn trip(&mut self) -> Result<()> {
        write_spinning(&mut self.socket, &self.buf)?;
        read_spinning(&mut self.socket, &mut self.buf, false)
    }
}

fn echo_plain(bytes: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let mut buf = vec![0; bytes.parse()?];
    loop {
        read_spinning(&mut socket, &mut buf, true)?;
        write_spinning(&mut socket, &buf)?;
    }
}

struct Ogive {
    _child: Peer,
    tcp: TcpTransport,
    conn: ConnId,
    payload: Vec<Buf>,
    events: Vec<Event>,
    start: Instant,
    id: u64,
}

fn config() -> TcpConfig {
    let hello = Hello {
        cluster: ClusterId(1),
        identity: Identity::Client { session: SessionId(1) },
        features: 0,
        token: Vec::new(),
        credit_requests: 64,
        credit_bytes: 64 << 20,
    };
    let mut config = TcpConfig::new(hello, Pool::new(64 << 20));
    // Neither end is polled while it is the other kind's turn.
    config.timing.silent_after = Duration::from_secs(3600);
    config
}

fn micros(start: Instant) -> Time {
    Time(start.elapsed().as_micros() as u64)
}

impl Ogive {
    fn start(payload: usize) -> Result<Ogive> {
        let (child, addr) = peer(&["echo-ogive"])?;
        let (config, start) = (config(), Instant::now());
        let buf = config.pool.alloc_zeroed(payload).ok_or("no buffer")?.freeze();
        let payload = if payload > 0 { vec![buf] } else { Vec::new() };
        let mut tcp = TcpTransport::new(config)?;
        let conn = tcp.connect(&Endpoint(addr), micros(start));
        let mut events = Vec::new();
        while !matches!(events.last(), Some(Event::Connected { .. })) {
            tcp.poll(micros(start), &mut events);
            if matches!(events.last(), Some(Event::Closed { .. })) {
                return Err(format!("{events:?}").into());
            }
        }
        events.clear();
        Ok(Ogive { _child: child, tcp, conn, payload, events, start, id: 0 })
    }

    fn trip(&mut self) -> Result<()> {
        let now = micros(self.start);
        self.id += 1;
        let (id, payload) = (self.id, self.payload.clone());
        let body = vec![7; BODY_BYTES];
        let frame = Outgoing { kind: 16, response: false, id, deadline_ms: 1000, body, payload };
        self.tcp.send(self.conn, frame, now);
        self.tcp.flush(now);
        loop {
            self.tcp.poll(micros(self.start), &mut self.events);
            match self.events.pop() {
                Some(Event::Received { frame, .. }) if frame.id == id => return Ok(()),
                Some(other) => return Err(format!("{other:?}").into()),
                None => {}
            }
        }
    }
}

fn echo_ogive() -> Result<()> {
    let (start, mut events, mut idle) = (Instant::now(), Vec::new(), 0);
    let listen = vec![Endpoint("tcp:127.0.0.1:0".into())];
    let mut tcp = TcpTransport::new(TcpConfig { listen, ..config() })?;
    println!("{}", tcp.local_endpoints()[0]);
    loop {
        let now = micros(start);
        idle = if tcp.poll(now, &mut events) { 0 } else { idle + 1 };
        for event in events.drain(..) {
            if let Event::Received { conn, frame } = event {
                let payload = frame.payload.into_iter().collect();
                let (kind, id, body) = (frame.kind, frame.id, frame.body);
                let answer = Outgoing { kind, response: true, id, deadline_ms: 0, body, payload };
                tcp.send(conn, answer, now);
            }
        }
        tcp.flush(now);
        if idle > SPINS {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            // SAFETY: the descriptor belongs to `tcp`, which outlives this borrow.
            let fd = unsafe { BorrowedFd::borrow_raw(tcp.wake_fd()) };
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&wait))?;
            idle = 0;
        }
    }
}
