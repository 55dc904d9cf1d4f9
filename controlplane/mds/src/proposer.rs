//! Puts commands into the log: all that wait go into one entry.

use std::sync::Arc;

use ogive_api::Refusal;
use ogive_meta::{Command, MetaError, Reply};
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::gate::{Gate, stopped};
use crate::limits::{COMMANDS_PER_ENTRY_MAX, PROPOSALS_WAITING_MAX, WRITE_TIMEOUT};
use crate::raft::{Batch, Raft};

type Answer = Result<Reply, Status>;

/// Takes commands; clones share the queue.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<(Command, oneshot::Sender<Answer>)>,
}

impl Proposer {
    /// Starts the task that proposes.
    pub(crate) fn start(raft: Raft, gate: Arc<Gate>) -> Proposer {
        let (queue, waiting) = mpsc::channel(PROPOSALS_WAITING_MAX);
        tokio::spawn(run(raft, gate, waiting));
        Proposer { queue }
    }

    /// Puts a command into the log and waits until it is committed and applied.
    ///
    /// # Errors
    /// The refusal of the state machine; or unavailable, and then the command may yet take
    /// effect.
    pub(crate) async fn propose(&self, command: Command) -> Answer {
        let (tx, rx) = oneshot::channel();
        self.queue.try_send((command, tx)).map_err(|_| {
            Status::resource_exhausted(
                "this MDS has too many changes waiting for its disk; try again",
            )
        })?;
        rx.await.unwrap_or_else(|_| Err(stopped("no more changes are taken")))
    }
}

async fn run(
    raft: Raft,
    gate: Arc<Gate>,
    mut queue: mpsc::Receiver<(Command, oneshot::Sender<Answer>)>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, COMMANDS_PER_ENTRY_MAX).await > 0 {
        // A caller that has gone away needs no command; it may long have asked another server.
        batch.retain(|(_, waiter)| !waiter.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (commands, waiters): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let count = commands.len();
        match write(&raft, &gate, Batch(commands)).await {
            Ok(answers) => {
                assert_eq!(answers.len(), count, "one answer per command");
                for (waiter, answer) in waiters.into_iter().zip(answers) {
                    // The caller may have gone away meanwhile.
                    drop(waiter.send(answer.map_err(refusal)));
                }
            }
            Err(status) => waiters.into_iter().for_each(|w| drop(w.send(Err(status.clone())))),
        }
    }
}

async fn write(
    raft: &Raft,
    gate: &Gate,
    batch: Batch,
) -> Result<Vec<Result<Reply, MetaError>>, Status> {
    match tokio::time::timeout(WRITE_TIMEOUT, raft.client_write(batch)).await {
        Ok(Ok(written)) => Ok(written.data.0),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
            Err(gate.forward(&to))
        }
        Ok(Err(RaftError::APIError(e))) => Err(Status::internal(e.to_string())),
        Ok(Err(RaftError::Fatal(e))) => Err(stopped(&e.to_string())),
        Err(_) => Err(gate.no_majority()),
    }
}

/// The refusal of the state machine as a status.
pub(crate) fn refusal(e: MetaError) -> Status {
    use MetaError::*;
    let refusal = match &e {
        // These pass by themselves.
        NotInitialised | StalePlan => return Status::unavailable(e.to_string()),
        BadName(_) | BadSize(_) | BadSpread(_) | BadText { .. } | BadShards(_) => Refusal::Invalid,
        BeyondEnd { .. } | BadCopyset(_) | NoCopyset(_) => Refusal::Invalid,
        ShardsLost { .. } | ZoneChanged { .. } | WrongDevice(_) => Refusal::WrongDevice,
        WrongCluster { .. } => Refusal::WrongCluster,
        NoChunkserver(_) => Refusal::NotRegistered,
        Limit { .. } => Refusal::Limit,
        NoVolume(_) | NoVolumeId(_) => Refusal::VolumeNotFound,
        VolumeExists(_) => Refusal::VolumeExists,
        Attached { .. } => Refusal::VolumeAttached,
        Shrink { .. } => Refusal::Shrink,
        SessionGone(_) => Refusal::SessionGone,
        StaleEpoch { .. } => Refusal::StaleEpoch,
        NoCopysets { .. } => Refusal::NoCopysets,
    };
    refusal.status(e.to_string())
}
