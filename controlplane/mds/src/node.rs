//! One running server: everything that its parts share.
#![allow(clippy::disallowed_methods)] // A shell: it owns the clocks and draws ids.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ogive_api::pb;
use ogive_meta::{Command, Meta, Reply};
use ogive_rpc::token::{Holder, Signer, UnixSeconds};
use ogive_types::Time;
use tonic::Status;

use crate::config::MdsConfig;
use crate::gate::Gate;
use crate::proposer::{Proposer, refusal};
use crate::raft::Raft;
use crate::raft::machine::SharedMeta;
use crate::raft::network::Peers;
use crate::tokens;
use crate::volatile::Volatile;

pub(crate) struct Node {
    pub(crate) config: MdsConfig,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    gate: Arc<Gate>,
    proposer: Proposer,
    shared: SharedMeta,
    volatile: Mutex<Volatile>,
    /// Made of the cluster's key once that is known; it never changes.
    signer: OnceLock<Signer>,
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
        let (signer, start) = (OnceLock::new(), Instant::now());
        Node { config, raft, peers, gate, proposer, shared, volatile, signer, start }
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

    /// A credential for a holder whose token ends at `known`, in seconds of Unix time (0: it has
    /// none); `None` when that one is good for long enough.
    ///
    /// # Errors
    /// Unavailable while the cluster has no key yet.
    pub(crate) fn renewal(
        &self,
        holder: Holder,
        known: u64,
    ) -> Result<Option<pb::Credential>, Status> {
        let now = UnixSeconds(self.unix_ms() / 1000);
        if !tokens::is_due(UnixSeconds(known), now) {
            return Ok(None);
        }
        let signer = match self.signer.get() {
            Some(signer) => signer,
            None => {
                let seed = self.read(|m| m.signing_key().cloned()).map_err(refusal)?;
                self.signer.get_or_init(|| Signer::from_seed(&seed.0))
            }
        };
        let cluster = self.read(|m| m.cluster_id());
        Ok(Some(tokens::issue(signer, cluster, holder, now)))
    }

    /// A new credential.
    ///
    /// # Errors
    /// As [`Node::renewal`].
    pub(crate) fn credential(&self, holder: Holder) -> Result<pb::Credential, Status> {
        Ok(self.renewal(holder, 0)?.expect("who has none gets one"))
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
