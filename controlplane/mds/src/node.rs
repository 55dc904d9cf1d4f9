//! One running server: everything that its parts share.
#![allow(clippy::disallowed_methods)] // A shell: it owns the clocks and draws ids.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use ogive_meta::{Command, Meta, Reply};
use ogive_types::Time;
use tonic::Status;

use crate::config::MdsConfig;
use crate::gate::Gate;
use crate::proposer::Proposer;
use crate::raft::Raft;
use crate::raft::machine::SharedMeta;
use crate::raft::network::Peers;
use crate::volatile::Volatile;

pub(crate) struct Node {
    pub(crate) config: MdsConfig,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    gate: Arc<Gate>,
    proposer: Proposer,
    shared: SharedMeta,
    volatile: Mutex<Volatile>,
    start: Instant,
}

impl Node {
    pub(crate) fn new(
        config: MdsConfig,
        raft: Raft,
        peers: Arc<Peers>,
        shared: SharedMeta,
    ) -> Node {
        let gate = Arc::new(Gate::new(raft.clone(), peers.clone()));
        let proposer = Proposer::start(raft.clone(), gate.clone());
        let volatile = Mutex::default();
        let start = Instant::now();
        Node { config, raft, peers, gate, proposer, shared, volatile, start }
    }

    /// The present moment on this process's clock.
    pub(crate) fn now(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    /// Milliseconds of Unix time, for people to read.
    pub(crate) fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |d| d.as_millis() as u64)
    }

    /// True while this server believes that it leads.
    pub(crate) fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.current_leader == Some(metrics.id)
    }

    /// Waits until the newest state may be read; refuses when another server leads.
    pub(crate) async fn pass(&self) -> Result<(), Status> {
        self.gate.pass(Duration::ZERO).await
    }

    /// As [`Node::pass`], for what may rely on an earlier proof that this server leads.
    pub(crate) async fn pass_recent(&self) -> Result<(), Status> {
        self.gate.pass(crate::limits::PROOF_AGE_MAX).await
    }

    /// Looks at the state; call [`Node::pass`] before.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Meta) -> T) -> T {
        self.shared.read(look)
    }

    /// Changes the state.
    pub(crate) async fn propose(&self, command: Command) -> Result<Reply, Status> {
        self.proposer.propose(command).await
    }

    /// What this leader knows of the living; fresh when the term is new.
    pub(crate) fn volatile(&self) -> MutexGuard<'_, Volatile> {
        let term = self.raft.metrics().borrow().current_term;
        let mut volatile = self.volatile.lock().expect("no code panics while it holds this");
        volatile.lead(term, self.now());
        volatile
    }
}
