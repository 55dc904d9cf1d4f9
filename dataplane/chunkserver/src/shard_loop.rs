//! The production loop of one shard: polls transport, disk and commands, feeds the shard, does what
//! it asks for.

use std::os::fd::RawFd;

use crossbeam::channel::Sender;
use ogive_reactor::{Disk, Work, queue};
use ogive_rpc::hello::Hello;
use ogive_rpc::token::{Credential, Keyring};
use ogive_rpc::transport::net::NetTransport;
use ogive_rpc::transport::usage::{PathUse, Usage};
use ogive_rpc::transport::{Event as NetEvent, Transport};
use ogive_shard::{Admin, Effect, Event, Health, ReplicaReport, Shard, Stats};
use ogive_store::{DiskDone, StoreStats};
use ogive_types::{ShardAddr, Time};

/// What the control side asks of a shard's loop.
pub(crate) enum Command {
    Admin(Admin),
    Credential(Credential),
    Report(Sender<ShardReport>),
    Stop,
}

/// State of a shard, for heartbeats and operators.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which shard.
    pub addr: ShardAddr,
    /// Its replicas.
    pub replicas: Vec<ReplicaReport>,
    /// Space and device traffic.
    pub store: StoreStats,
    /// Requests.
    pub stats: Stats,
    /// Damage, repairs, the scrub.
    pub health: Health,
    /// What went over each path.
    pub paths: Vec<PathUse>,
}

/// The way to the peers, and what we say there.
pub(crate) struct Net {
    pub(crate) transport: NetTransport,
    /// As it is said; its token changes.
    pub(crate) hello: Hello,
    pub(crate) keyring: Keyring,
}

pub(crate) struct ShardLoop {
    shard: Shard,
    transport: NetTransport,
    hello: Hello,
    keyring: Keyring,
    usage: Usage,
    disk: Disk,
    commands: queue::Receiver<Command>,
    net: Vec<NetEvent>,
    done: Vec<DiskDone>,
    effects: Vec<Effect>,
    stopped: bool,
}

impl ShardLoop {
    pub(crate) fn new(
        shard: Shard,
        net: Net,
        disk: Disk,
        commands: queue::Receiver<Command>,
    ) -> ShardLoop {
        let Net { transport, hello, keyring } = net;
        ShardLoop {
            shard,
            transport,
            hello,
            keyring,
            usage: Usage::default(),
            disk,
            commands,
            net: Vec::new(),
            done: Vec::new(),
            effects: Vec::new(),
            stopped: false,
        }
    }

    fn take_commands(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(command) = self.commands.try_recv() {
            any = true;
            match command {
                Command::Admin(admin) => {
                    self.shard.apply(Event::Admin(admin), now, &mut self.effects);
                }
                Command::Credential(credential) => {
                    self.keyring.set(credential.key);
                    self.hello.token = credential.token;
                    self.transport.set_hello(self.hello.clone());
                }
                Command::Report(to) => {
                    let report = ShardReport {
                        addr: self.shard.addr(),
                        replicas: self.shard.report(now),
                        store: self.shard.store().stats(),
                        stats: self.shard.stats(),
                        health: self.shard.health(),
                        paths: self.usage.by_path(&self.transport),
                    };
                    // The asker may have given up; then nobody misses the report.
                    let _ = to.try_send(report);
                }
                Command::Stop => self.stopped = true,
            }
        }
        any
    }

    fn perform(&mut self, now: Time) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { conn, frame } => self.transport.send(conn, frame, now),
                Effect::Connect { peer, endpoint } => {
                    let conn = self.transport.connect(&endpoint, now);
                    // Never leads to effects: the shard only notes the id.
                    self.shard.apply(Event::Connecting { peer, conn }, now, &mut Vec::new());
                }
                Effect::Close { conn, reason } => self.transport.close(conn, reason),
                Effect::Disk(op) => self.disk.submit(op),
                Effect::Fatal(why) => {
                    tracing::error!(shard = %self.shard.addr(), "{why}; the process ends");
                    std::process::exit(74); // EX_IOERR
                }
            }
        }
        self.effects = effects;
    }
}

impl Work for ShardLoop {
    fn turn(&mut self, now: Time) -> bool {
        let mut any = self.take_commands(now);
        any |= self.transport.poll(now, &mut self.net);
        for event in self.net.drain(..) {
            self.usage.note(&event);
            self.shard.apply(Event::Net(event), now, &mut self.effects);
        }
        any |= self.disk.poll(&mut self.done);
        for done in self.done.drain(..) {
            self.shard.apply(Event::Disk(done), now, &mut self.effects);
        }
        if any || now >= self.shard.next_deadline() {
            self.shard.settle(now, &mut self.effects);
            self.perform(now);
            self.transport.flush(now);
        }
        self.disk.flush_sq();
        any
    }

    fn next_deadline(&self) -> Time {
        self.shard.next_deadline().min(self.transport.next_deadline())
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        vec![self.transport.wake_fd(), self.commands.wake_fd()]
    }

    fn prepare_sleep(&mut self) -> bool {
        self.transport.prepare_sleep() && self.commands.prepare_sleep()
    }

    fn finished(&self) -> bool {
        self.stopped
    }

    fn disk(&mut self) -> Option<&mut Disk> {
        Some(&mut self.disk)
    }
}
