//! The shell of a run: one thread, its sockets and its clock.

// A shell: it owns the clock and the sockets.
#![allow(clippy::disallowed_methods)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits::{MAX_SLEEP, PROGRESS_INTERVAL, SEARCH_SLEEP};
use crate::link::Reconnect;
use crate::load::{Link, Load};
use crate::nbd::{Conn, open, wire::Command};
use crate::places::Op;
use crate::report::{Progress, Report, Stage};
use crate::rng::mix;
use crate::spec::{BenchError, VolumeBench};

const GO_ON: u8 = 0;
const STOP: u8 = 1;
const ABORT: u8 = 2;

/// Ends a run from another thread. Clones end the same run.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<AtomicU8>);

impl StopHandle {
    /// A handle of a run to come.
    pub fn new() -> StopHandle {
        StopHandle::default()
    }

    /// Ends the load; what is in flight is waited for, and a verifying run reads back.
    pub fn stop(&self) {
        self.0.fetch_max(STOP, Ordering::Relaxed);
    }

    /// Ends the run at once; a verifying run then counts its blocks as unread.
    pub fn abort(&self) {
        self.0.fetch_max(ABORT, Ordering::Relaxed);
    }
}

/// A run in a thread of its own.
#[derive(Debug)]
pub struct Running {
    stop: StopHandle,
    thread: JoinHandle<Result<Report, BenchError>>,
}

impl Running {
    /// A handle that ends it.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// True when `join` would not wait.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// As [`VolumeBench::run`].
    pub fn join(self) -> Result<Report, BenchError> {
        self.thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            BenchError::Thread(text.unwrap_or_else(|| "it panicked".into()))
        })?
    }
}

impl VolumeBench {
    /// Runs the load on the calling thread; `progress` is called every 200 ms and must not block.
    ///
    /// # Errors
    ///
    /// When the parameters make no sense, the first connection fails, or the system refuses to
    /// wait for the sockets. A connection lost later is part of the report.
    pub fn run(
        &self,
        stop: &StopHandle,
        progress: impl FnMut(&Progress),
    ) -> Result<Report, BenchError> {
        Engine::open(self, stop.clone(), progress)?.run()
    }

    /// Runs the load on a new thread.
    ///
    /// # Errors
    ///
    /// [`BenchError::Thread`] when no thread can be started.
    pub fn spawn(
        self,
        progress: impl FnMut(&Progress) + Send + 'static,
    ) -> Result<Running, BenchError> {
        let stop = StopHandle::new();
        let handle = stop.clone();
        let run = move || self.run(&handle, progress);
        let thread = std::thread::Builder::new().name("bench-volume".into()).spawn(run);
        let thread = thread.map_err(|error| BenchError::Thread(error.to_string()))?;
        Ok(Running { stop, thread })
    }
}

/// A connection, or the search for one.
enum Peer {
    Up(Conn),
    Down(Reconnect),
    Gone,
}

struct Engine<'a, P> {
    spec: &'a VolumeBench,
    stop: StopHandle,
    progress: P,
    load: Load,
    peers: Vec<Peer>,
    start: Instant,
    cpu_start: Duration,
    bytes: u64,
    disconnects: u64,
    ended_early: Option<String>,
    data: Vec<u8>,
    told: Told,
}

/// Counters at the last progress report.
#[derive(Default)]
struct Told {
    at: Duration,
    ops: u64,
    bytes: u64,
}

impl<'a, P: FnMut(&Progress)> Engine<'a, P> {
    fn open(spec: &'a VolumeBench, stop: StopHandle, progress: P) -> Result<Self, BenchError> {
        let (fd, export) = open(&spec.uri)?;
        let range = spec.check(export.bytes, export.read_only)?;
        let mut peers = vec![Peer::Up(Conn::new(fd))];
        while peers.len() < spec.connections {
            peers.push(Peer::Up(Conn::new(open(&spec.uri)?.0)));
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = mix(since_epoch.as_nanos() as u64 ^ mix(u64::from(std::process::id())));
        Ok(Engine {
            spec,
            stop,
            progress,
            load: Load::new(spec, range, run ^ spec.seed),
            peers,
            start: Instant::now(),
            cpu_start: thread_cpu(),
            bytes: export.bytes,
            disconnects: 0,
            ended_early: None,
            data: Vec::new(),
            told: Told::default(),
        })
    }

    fn run(mut self) -> Result<Report, BenchError> {
        loop {
            let now = self.start.elapsed();
            self.obey(now);
            self.load.tick(now);
            if self.load.stage() == Stage::Done {
                break;
            }
            self.reconnect(now);
            self.send(now);
            self.tell(now);
            self.wait(now)?;
            self.receive();
        }
        let now = self.start.elapsed();
        self.told.at = Duration::ZERO;
        self.tell(now);
        self.say_goodbye();
        Ok(self.report(now))
    }

    fn obey(&mut self, now: Duration) {
        match self.stop.0.load(Ordering::Relaxed) {
            GO_ON => {}
            STOP => self.load.stop(now),
            _ => self.load.abandon(now, "aborted"),
        }
    }

    fn send(&mut self, now: Duration) {
        for index in 0..self.peers.len() {
            let Peer::Up(conn) = &mut self.peers[index] else { continue };
            loop {
                self.data.clear();
                let Some(issue) = self.load.next(now, Link(index), &mut self.data) else { break };
                let command = match issue.op {
                    Op::Read => Command::Read,
                    Op::Write => Command::Write,
                };
                conn.queue(command, issue.cookie, issue.offset, issue.bytes, &self.data);
            }
            if let Err(why) = conn.flush() {
                self.lose(index, why.to_string());
            }
        }
    }

    fn wait(&self, now: Duration) -> Result<(), BenchError> {
        let searching = self.peers.iter().any(|peer| matches!(peer, Peer::Down(_)));
        let mut until = now + if searching { SEARCH_SLEEP } else { MAX_SLEEP };
        if let Some(wake) = self.load.wake_at() {
            until = until.min(wake);
        }
        let sleep = until.saturating_sub(now);
        let sleep = Timespec { tv_sec: 0, tv_nsec: sleep.subsec_nanos().into() };
        let mut fds = Vec::with_capacity(self.peers.len());
        for peer in &self.peers {
            if let Peer::Up(conn) = peer {
                let mut flags = PollFlags::IN;
                flags.set(PollFlags::OUT, conn.wants_write());
                fds.push(PollFd::from_borrowed_fd(conn.as_fd(), flags));
            }
        }
        match poll(&mut fds, Some(&sleep)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(BenchError::Poll(error.into())),
        }
    }

    fn receive(&mut self) {
        for index in 0..self.peers.len() {
            let Peer::Up(conn) = &mut self.peers[index] else { continue };
            let start = self.start;
            let result = conn.receive(&mut self.load, |load, reply| {
                load.complete(start.elapsed(), reply.cookie, reply.error, reply.data);
            });
            if let Err(why) = result {
                self.lose(index, why.to_string());
            }
        }
    }

    /// A connection is gone: look for the server again, or end the run.
    fn lose(&mut self, index: usize, why: String) {
        self.disconnects += 1;
        let why = format!("connection {why}");
        self.load.lost(Link(index), why.clone());
        if self.spec.reconnect.is_zero() {
            return self.give_up(index, why);
        }
        match Reconnect::begin(self.spec.uri.clone(), self.spec.reconnect) {
            Ok(search) => self.peers[index] = Peer::Down(search),
            Err(error) => self.give_up(index, format!("no thread to connect again: {error}")),
        }
    }

    fn reconnect(&mut self, now: Duration) {
        for index in 0..self.peers.len() {
            let Peer::Down(search) = &self.peers[index] else { continue };
            match search.poll() {
                None => {}
                Some(Err(error)) => self.give_up(index, error.to_string()),
                Some(Ok((_, export))) if export.bytes < self.bytes => {
                    self.give_up(index, format!("the volume shrank to {} bytes", export.bytes));
                }
                Some(Ok((fd, _))) => self.peers[index] = Peer::Up(Conn::new(fd)),
            }
        }
        if self.peers.iter().all(|peer| matches!(peer, Peer::Gone)) {
            let why = self.ended_early.clone().unwrap_or_default();
            self.load.abandon(now, &why);
        }
    }

    fn give_up(&mut self, index: usize, why: String) {
        self.peers[index] = Peer::Gone;
        self.ended_early.get_or_insert(why);
    }

    fn tell(&mut self, now: Duration) {
        let done = self.load.stage() == Stage::Done;
        if now < self.told.at + PROGRESS_INTERVAL && !done {
            return;
        }
        let counters = self.load.counters();
        let ops = counters.read.ops() + counters.write.ops();
        let bytes = counters.read.bytes() + counters.write.bytes();
        let seconds = now.saturating_sub(self.told.at).as_secs_f64().max(1e-9);
        let report = Progress {
            elapsed_s: now.as_secs_f64(),
            ops,
            iops: (ops - self.told.ops) as f64 / seconds,
            bytes_per_s: (bytes - self.told.bytes) as f64 / seconds,
            in_flight: self.load.in_flight(),
            errors: counters.errors,
            gap_ms: counters.gap.present(now).as_secs_f64() * 1e3,
            connected: self.peers.iter().filter(|peer| matches!(peer, Peer::Up(_))).count(),
            stage: self.load.stage(),
            faults: self.load.findings().map_or(0, |findings| findings.fault_count),
        };
        (self.progress)(&report);
        self.told = Told { at: now, ops, bytes };
    }

    fn say_goodbye(&mut self) {
        for peer in &mut self.peers {
            if let Peer::Up(conn) = peer {
                conn.queue(Command::Disconnect, 0, 0, 0, &[]);
                // The run is over: a server that no longer reads is none of its business.
                let _ = conn.flush();
            }
        }
    }

    fn report(mut self, now: Duration) -> Report {
        let verify = self.load.findings().cloned();
        let counters = self.load.counters();
        let seconds = counters.ended.unwrap_or(now).as_secs_f64().max(1e-9);
        let ops = counters.read.ops() + counters.write.ops();
        let gap = counters.gap.longest();
        let open_loop = self.spec.rate.is_some();
        let cpu_s = thread_cpu().saturating_sub(self.cpu_start).as_secs_f64();
        Report {
            uri: self.spec.uri.to_string(),
            connections: self.spec.connections,
            depth: self.spec.depth,
            block_bytes: self.spec.block_bytes,
            read_percent: self.spec.read_percent,
            pattern: self.spec.pattern,
            rate: self.spec.rate,
            seed: self.spec.seed,
            seconds,
            ops,
            iops: ops as f64 / seconds,
            bytes_per_s: (counters.read.bytes() + counters.write.bytes()) as f64 / seconds,
            read: counters.read.report(seconds, open_loop),
            write: counters.write.report(seconds, open_loop),
            longest_gap_ms: gap.length.as_secs_f64() * 1e3,
            longest_gap_at_s: gap.start.as_secs_f64(),
            errors: counters.errors,
            last_error: counters.last_error.clone(),
            disconnects: self.disconnects,
            lost: counters.lost,
            missed: counters.missed,
            cpu_s,
            cpu_us_per_op: cpu_s * 1e6 / ops.max(1) as f64,
            ended_early: counters.abandoned.clone().or(self.ended_early),
            verify,
        }
    }
}

/// Processor time that the calling thread has used.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
