//! Messages are calls of the other replica.

use std::sync::{Arc, Mutex};

use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};

use super::{Raft, Types};

/// The replicas of a group.
#[derive(Clone, Default)]
pub struct Peers(Arc<Mutex<Vec<Raft>>>);

impl Peers {
    pub fn add(&self, raft: Raft) {
        self.0.lock().expect("one thread").push(raft);
    }

    fn get(&self, id: u64) -> Raft {
        self.0.lock().expect("one thread")[id as usize].clone()
    }
}

/// Makes links.
pub struct Wire(pub Peers);

/// A link to one replica.
pub struct Link {
    to: u64,
    peers: Peers,
}

impl RaftNetworkFactory<Types> for Wire {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Link {
        Link { to, peers: self.0.clone() }
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let answer = self.peers.get(self.to).append_entries(rpc).await;
        answer.map_err(|e| RemoteError::new(self.to, e).into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let answer = self.peers.get(self.to).vote(rpc).await;
        answer.map_err(|e| RemoteError::new(self.to, e).into())
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>,
    > {
        let answer = self.peers.get(self.to).install_snapshot(rpc).await;
        answer.map_err(|e| RemoteError::new(self.to, e).into())
    }
}
