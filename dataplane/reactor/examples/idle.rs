//! Measures what an idle server costs: a reactor in adaptive mode with the production transport and
//! many established connections from another process, all with the production keep-alive.
//!
//! `idle [tcp|shm] [CONNECTIONS] [PEERS] [SECONDS] [SPIN_US]` prints the server's CPU in per cent
//! of a core and its context switches per second, from /proc. The connections come from PEERS
//! transports with a thread and a keep-alive of its own each: as many as connections are the worst
//! case, for then no two of them speak at the same time.

#![allow(clippy::disallowed_methods, reason = "a measurement owns its processes and clock")]

use std::io::{BufRead, BufReader};
use std::os::fd::{BorrowedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ogive_buf::Pool;
use ogive_reactor::queue::{Receiver, channel};
use ogive_reactor::{PollMode, ReactorConfig, Work, limits, now, spawn};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::TcpConfig;
use ogive_rpc::transport::{Endpoint, Event, Path, PathChoice, Transport};
use ogive_types::{ClusterId, SessionId, Time};
use rustix::event::{PollFd, PollFlags, poll};

/// Unit of the times in /proc (USER_HZ), the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", path, spin_us] => serve(path.parse()?, spin_us.parse()?),
        ["clients", path, to, connections, peers] => {
            connect(path.parse()?, to, connections.parse()?, peers.parse()?)
        }
        _ => {
            let path: Path = args.first().map_or(Ok(Path::Tcp), |name| name.parse())?;
            let number = |i: usize, default| args.get(i).map_or(Ok(default), |n| n.parse::<u64>());
            let connections = number(1, 100)?;
            let spin_us = number(4, limits::SPIN.as_micros() as u64)?;
            measure(path, connections, number(2, connections)?, number(3, 10)?, spin_us)
        }
    }
}

fn measure(path: Path, connections: u64, peers: u64, seconds: u64, spin_us: u64) -> Result<()> {
    let name = path.name();
    let (server, to) = start(&["server", name, &spin_us.to_string()])?;
    let (_clients, _) =
        start(&["clients", name, &to, &connections.to_string(), &peers.to_string()])?;
    // The greetings are over; what they left behind settles.
    std::thread::sleep(Duration::from_secs(2));
    let before = usage(&server.0)?;
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let took = begin.elapsed().as_secs_f64();
    let after = usage(&server.0)?;
    println!(
        "{name}, {connections} connections of {peers} peers, spin {spin_us} us: \
         {:.2} % of a core, {:.0} voluntary and {:.0} other context switches a second",
        (after.cpu - before.cpu) / took * 100.0,
        (after.sleeps - before.sleeps) / took,
        (after.pushed - before.pushed) / took,
    );
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

/// Starts another process of this program, and reads the line that it prints when it is ready.
fn start(args: &[&str]) -> Result<(Peer, String)> {
    let exe = std::env::current_exe()?;
    let mut peer = Peer(Command::new(exe).args(args).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(peer.0.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    if line.is_empty() {
        return Err(format!("{args:?} did not start").into());
    }
    Ok((peer, line.trim().to_string()))
}

/// What a process used so far.
struct Usage {
    /// Seconds.
    cpu: f64,
    sleeps: f64,
    pushed: f64,
}

fn usage(child: &Child) -> Result<Usage> {
    let pid = child.id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and ends with the last parenthesis; proc(5) counts from there.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("stat")?.1.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let (mut sleeps, mut pushed) = (0.0, 0.0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        for line in std::fs::read_to_string(task?.path().join("status"))?.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name {
                "voluntary_ctxt_switches" => sleeps += value.trim().parse::<f64>()?,
                "nonvoluntary_ctxt_switches" => pushed += value.trim().parse::<f64>()?,
                _ => {}
            }
        }
    }
    Ok(Usage { cpu: ticks / TICKS_PER_SECOND, sleeps, pushed })
}

/// A transport with the time-outs of production.
fn net(path: Path, listen: Vec<Endpoint>) -> Result<NetTransport> {
    let hello = Hello {
        cluster: ClusterId(1),
        identity: Identity::Client { session: SessionId(1) },
        features: 0,
        token: Vec::new(),
        credit_requests: 64,
        credit_bytes: 1 << 20,
    };
    let tcp = TcpConfig { listen, ..TcpConfig::new(hello, Pool::new(64 << 20)) };
    Ok(NetTransport::new(NetConfig { tcp, choice: PathChoice::Only(path) })?)
}

/// Turns a transport and a queue, as a shard does.
struct Idle {
    net: NetTransport,
    inbox: Receiver<()>,
    events: Vec<Event>,
}

impl Work for Idle {
    fn turn(&mut self, now: Time) -> bool {
        let mut any = self.inbox.try_recv().is_some();
        any |= self.net.poll(now, &mut self.events);
        for event in self.events.drain(..) {
            if let Event::Closed { reason, .. } = event {
                eprintln!("closed: {reason}");
            }
        }
        if any {
            self.net.flush(now);
        }
        any
    }

    fn next_deadline(&self) -> Time {
        self.net.next_deadline()
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        vec![self.net.wake_fd(), self.inbox.wake_fd()]
    }

    fn prepare_sleep(&mut self) -> bool {
        self.inbox.prepare_sleep() && self.net.prepare_sleep()
    }

    fn finished(&self) -> bool {
        self.inbox.is_finished()
    }
}

fn serve(path: Path, spin_us: u64) -> Result<()> {
    let (_tx, inbox) = channel(1)?;
    let mode = PollMode::Adaptive { spin: Duration::from_micros(spin_us) };
    let config = ReactorConfig { name: "idle".into(), core: None, mode };
    let make = move || {
        let net = net(path, vec![Endpoint("tcp:127.0.0.1:0".into())])?;
        println!("{}", net.local_endpoints()[0]);
        Ok(Idle { net, inbox, events: Vec::new() })
    };
    let reactor =
        spawn(config, move || make().map_err(|e: Box<dyn std::error::Error>| e.to_string()))?;
    Ok(reactor.join()?)
}

/// Connects from as many transports as there are peers; the line comes when all are connected.
fn connect(path: Path, to: &str, connections: u64, peers: u64) -> Result<()> {
    let (tell, told) = std::sync::mpsc::channel();
    for peer in 0..peers {
        let (tell, to) = (tell.clone(), Endpoint(to.into()));
        let mine = connections / peers + u64::from(peer < connections % peers);
        std::thread::spawn(move || {
            if let Err(error) = idle_peer(path, &to, mine, &tell) {
                eprintln!("peer {peer}: {error}");
                std::process::exit(1);
            }
        });
        // Their keep-alives are spread over time, as those of machines that know nothing of each
        // other.
        std::thread::sleep(Duration::from_millis(13));
    }
    for _ in 0..connections {
        told.recv()?;
    }
    println!("connected");
    std::thread::park();
    Ok(())
}

fn idle_peer(path: Path, to: &Endpoint, connections: u64, tell: &Sender<()>) -> Result<()> {
    let (mut net, mut events) = (net(path, Vec::new())?, Vec::new());
    for _ in 0..connections {
        net.connect(to, now());
    }
    loop {
        while net.poll(now(), &mut events) {}
        net.flush(now());
        for event in events.drain(..) {
            match event {
                Event::Connected { .. } => tell.send(())?,
                Event::Closed { reason, .. } => return Err(reason.into()),
                Event::Received { .. } => {}
            }
        }
        if net.prepare_sleep() {
            let pause = net.next_deadline().since(now()).min(Duration::from_secs(1));
            let timeout = rustix::event::Timespec::try_from(pause)?;
            // SAFETY: the transport that owns the descriptor outlives this borrow.
            let fd = unsafe { BorrowedFd::borrow_raw(net.wake_fd()) };
            poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout))?;
        }
    }
}
