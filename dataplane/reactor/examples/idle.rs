//! Measures what an idle server costs: a reactor in adaptive mode with the production transport and
//! many established connections from another process, all with the production keep-alive.
//!
//! `idle [tcp|shm] [CONNECTIONS] [SECONDS] [SPIN_US]` prints the server's CPU in per cent of a core
//! and its context switches per second, from /proc. The clients live in one process, as the shards
//! of a chunkserver do.

#![allow(clippy::disallowed_methods, reason = "a measurement owns its processes and clock")]

use std::io::{BufRead, BufReader};
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ogive_buf::Pool;
use ogive_reactor::queue::{Receiver, channel};
use ogive_reactor::{PollMode, ReactorConfig, Work, limits, spawn};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::TcpConfig;
use ogive_rpc::transport::{Endpoint, Event, Path, PathChoice, Transport};
use ogive_types::{ClusterId, SessionId, Time};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", path, spin_us] => serve(path.parse()?, spin_us.parse()?),
        ["clients", path, to, count] => connect(path.parse()?, to, count.parse()?),
        _ => {
            let path: Path = args.first().map_or(Ok(Path::Tcp), |name| name.parse())?;
            let number = |i: usize, default| args.get(i).map_or(Ok(default), |n| n.parse::<u64>());
            let spin_us = number(3, limits::SPIN.as_micros() as u64)?;
            measure(path, number(1, 100)?, number(2, 10)?, spin_us)
        }
    }
}

fn measure(path: Path, connections: u64, seconds: u64, spin_us: u64) -> Result<()> {
    let name = path.name();
    let (server, endpoint) = start(&["server", name, &spin_us.to_string()])?;
    let count = connections.to_string();
    let (clients, _) = start(&["clients", name, &endpoint, &count])?;
    // The greetings are over; what they left behind settles.
    std::thread::sleep(Duration::from_secs(2));
    let before = (usage(&server.0)?, usage(&clients.0)?);
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let took = begin.elapsed().as_secs_f64();
    for (who, child, before) in [("server", &server, before.0), ("clients", &clients, before.1)] {
        let after = usage(&child.0)?;
        println!(
            "{name}, {connections} connections, spin {spin_us} us, {who}: {:.2} % of a core, \
             {:.0} sleeps/s, {:.0} involuntary switches/s",
            (after.cpu - before.cpu) / took * 100.0,
            (after.sleeps - before.sleeps) / took,
            (after.pushed - before.pushed) / took,
        );
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
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Usage { cpu: ticks / per_second, sleeps, pushed })
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

/// Turns a transport and a queue, as a shard does, and counts connections.
struct Idle {
    net: NetTransport,
    inbox: Receiver<()>,
    events: Vec<Event>,
    connected: u64,
    announce_at: u64,
}

impl Work for Idle {
    fn turn(&mut self, now: Time) -> bool {
        let mut any = self.inbox.try_recv().is_some();
        any |= self.net.poll(now, &mut self.events);
        for event in self.events.drain(..) {
            match event {
                Event::Connected { .. } => {
                    self.connected += 1;
                    if self.connected == self.announce_at {
                        println!("connected");
                    }
                }
                Event::Closed { reason, .. } => eprintln!("closed: {reason}"),
                Event::Received { .. } => {}
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

fn run(spin_us: u64, make: impl FnOnce() -> Result<Idle> + Send + 'static) -> Result<()> {
    let mode = PollMode::Adaptive { spin: Duration::from_micros(spin_us) };
    let config = ReactorConfig { name: "idle".into(), core: None, mode };
    let reactor = spawn(config, move || make().map_err(|e| e.to_string()))?;
    Ok(reactor.join()?)
}

fn serve(path: Path, spin_us: u64) -> Result<()> {
    let (tx, inbox) = channel(1)?;
    run(spin_us, move || {
        let net = net(path, vec![Endpoint("tcp:127.0.0.1:0".into())])?;
        println!("{}", net.local_endpoints()[0]);
        Ok(Idle { net, inbox, events: Vec::new(), connected: 0, announce_at: 0 })
    })?;
    drop(tx);
    Ok(())
}

fn connect(path: Path, to: &str, count: u64) -> Result<()> {
    let (tx, inbox) = channel(1)?;
    let to = Endpoint(to.into());
    run(0, move || {
        let (mut net, mut events) = (net(path, Vec::new())?, Vec::new());
        for _ in 0..count {
            net.connect(&to, ogive_reactor::now());
            // Real clients come one after the other: their keep-alives are spread over time.
            std::thread::sleep(Duration::from_millis(10));
            net.poll(ogive_reactor::now(), &mut events);
        }
        Ok(Idle { net, inbox, events, connected: 0, announce_at: count })
    })?;
    drop(tx);
    Ok(())
}
