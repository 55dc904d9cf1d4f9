//! The thread that takes packets from one interface and puts them into another.
#![allow(clippy::disallowed_methods)] // a shell: a thread with descriptors and a clock

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::links::{Links, route};
use super::tun::MTU;

/// Packets on their way; more are lost, as in a switch whose memory is full. 16 MiB at most.
const UNDERWAY_MAX: usize = 2048;
/// Longest sleep, so that the end is noticed.
const SLEEP: Duration = Duration::from_millis(50);

/// What a switch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switched {
    /// Packets taken.
    pub packets: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Of these, delayed.
    pub delayed: u64,
}

#[derive(Debug)]
pub(super) struct Switch {
    links: Arc<Mutex<Links>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Links through a lock.
pub(super) struct Locked<'a>(MutexGuard<'a, Links>);

impl Locked<'_> {
    pub(super) fn set(&mut self, from: Ipv4Addr, to: Ipv4Addr, link: super::Link) {
        self.0.set(from, to, link);
    }

    pub(super) fn heal(&mut self) {
        self.0.heal();
    }

    pub(super) fn switched(&self) -> Switched {
        self.0.switched
    }
}

impl Switch {
    pub(super) fn start(ports: Vec<(Ipv4Addr, OwnedFd)>, seed: u64) -> io::Result<Switch> {
        let links = Arc::new(Mutex::new(Links::new(seed)));
        let over = Arc::new(AtomicBool::new(false));
        let mut forwarding = Forwarding {
            to: ports.iter().enumerate().map(|(at, (address, _))| (*address, at)).collect(),
            ports: ports.into_iter().map(|(_, fd)| fd).collect(),
            links: Arc::clone(&links),
            underway: BinaryHeap::new(),
            number: 0,
        };
        let ends = Arc::clone(&over);
        let run = move || {
            while !ends.load(Ordering::Relaxed) {
                forwarding.turn();
            }
        };
        let thread = std::thread::Builder::new().name("switch".into()).spawn(run)?;
        Ok(Switch { links, over, thread: Some(thread) })
    }

    pub(super) fn links(&self) -> Locked<'_> {
        // A panic between two packets leaves them whole.
        Locked(self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// A packet on its way: due, number in the order of arrival, port, bytes.
type Underway = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Forwarding {
    ports: Vec<OwnedFd>,
    to: HashMap<Ipv4Addr, usize>,
    links: Arc<Mutex<Links>>,
    underway: BinaryHeap<Underway>,
    number: u64,
}

impl Forwarding {
    /// Waits for packets, takes those that came, delivers those that are due.
    fn turn(&mut self) {
        let now = Instant::now();
        let due = self.underway.peek().map_or(SLEEP, |Reverse((at, ..))| at.duration_since(now));
        let sleep = due.min(SLEEP);
        let mut fds: Vec<PollFd<'_>> =
            self.ports.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
        // A signal is a turn without packets.
        let _ = poll(&mut fds, Some(&timeout));
        let ready: Vec<usize> =
            (0..fds.len()).filter(|&at| fds[at].revents().contains(PollFlags::IN)).collect();
        for port in ready {
            self.take(port);
        }
        self.deliver(Instant::now());
    }

    fn take(&mut self, port: usize) {
        let mut packet = vec![0; MTU];
        // A few at a time, so that every port gets its turn.
        for _ in 0..16 {
            let Ok(len) = rustix::io::read(&self.ports[port], &mut packet[..]) else { return };
            let Some((from, to)) = route(&packet[..len]) else { continue };
            let Some(&out) = self.to.get(&to) else { continue };
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.switched.packets += 1;
            let travel = links.travel(from, to);
            let full = self.underway.len() >= UNDERWAY_MAX;
            match travel {
                Some(Duration::ZERO) => drop((links, self.put(out, &packet[..len]))),
                Some(travel) if !full => {
                    links.switched.delayed += 1;
                    let due = Instant::now() + travel;
                    self.number += 1;
                    self.underway.push(Reverse((due, self.number, out, packet[..len].to_vec())));
                }
                _ => links.switched.lost += 1,
            }
        }
    }

    fn deliver(&mut self, now: Instant) {
        while self.underway.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Reverse((.., port, packet)) = self.underway.pop().expect("peeked");
            self.put(port, &packet);
        }
    }

    /// A packet that the interface does not take is lost, as any may be.
    fn put(&self, port: usize, packet: &[u8]) {
        let _ = rustix::io::write(&self.ports[port], packet);
    }
}
