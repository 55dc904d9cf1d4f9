//! Whether this server leads, proved by a majority.
//!
//! A read of the state is right only on a leader that was still one after the read was asked for.
//! The proof is a round of messages to the other servers; all who wait share the next round, so
//! that any number of readers costs one at a time.
#![allow(clippy::disallowed_methods)] // A shell: it reads the clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ogive_api::refusal::not_leader;
use openraft::error::{CheckIsLeaderError, ForwardToLeader, RaftError};
use tokio::sync::Mutex;
use tonic::Status;

use crate::limits::READ_TIMEOUT;
use crate::raft::Raft;
use crate::raft::network::Peers;

pub(crate) struct Gate {
    raft: Raft,
    peers: Arc<Peers>,
    /// When the last successful round began.
    proved: Mutex<Option<Instant>>,
}

impl Gate {
    pub(crate) fn new(raft: Raft, peers: Arc<Peers>) -> Gate {
        Gate { raft, peers, proved: Mutex::new(None) }
    }

    /// Waits until it is proved that this server led at a moment not older than `age` before the
    /// call, and until all that was committed by then is applied. With an `age` of zero, what is
    /// read after that is the newest there is.
    pub(crate) async fn pass(&self, age: Duration) -> Result<(), Status> {
        let wanted = Instant::now().checked_sub(age);
        self.refuse_follower()?;
        let mut proved = self.proved.lock().await;
        if wanted.is_none() || proved.is_some_and(|at| Some(at) >= wanted) {
            // A proof of an earlier time does only if this server still believes that it leads.
            return self.refuse_follower();
        }
        let begin = Instant::now();
        match tokio::time::timeout(READ_TIMEOUT, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => {
                *proved = Some(begin);
                Ok(())
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                *proved = None;
                Err(self.forward(&to))
            }
            Ok(Err(RaftError::Fatal(e))) => Err(stopped(&e.to_string())),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                *proved = None;
                Err(self.no_majority())
            }
        }
    }

    /// The refusal of a server that knows by itself that it does not lead.
    fn refuse_follower(&self) -> Result<(), Status> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match metrics.current_leader {
            Some(id) if id == metrics.id => Ok(()),
            Some(id) => Err(not_leader(self.peers.addresses().get(&id).map(String::as_str))),
            None => Err(self.no_leader()),
        }
    }

    /// The status that sends a caller to the leader.
    pub(crate) fn forward(&self, to: &ForwardToLeader<u64, openraft::BasicNode>) -> Status {
        let own = self.raft.metrics().borrow().id;
        match to.leader_id.filter(|id| *id != own) {
            Some(id) => not_leader(self.peers.addresses().get(&id).map(String::as_str)),
            None => self.no_leader(),
        }
    }

    fn no_leader(&self) -> Status {
        let all = self.peers.listed();
        Status::unavailable(format!("no leader among {all}: is a majority of the MDS running?"))
    }

    /// The status of a leader that reaches too few of the others.
    pub(crate) fn no_majority(&self) -> Status {
        let all = self.peers.listed();
        Status::unavailable(format!(
            "no majority of {all} answers: is a majority of the MDS running?"
        ))
    }
}

/// The status of a server whose engine has stopped; it is about to exit.
pub(crate) fn stopped(why: &str) -> Status {
    Status::unavailable(format!("this MDS is stopping: {why}"))
}
