//! Messages from the other servers.

use std::sync::Arc;

use ogive_api::raft_pb::{RaftAnswer, RaftMessage, raft_server};
use openraft::error::RaftError;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use super::Raft;
use super::network::{Peers, Stopped, VERSION};
use super::store::encode;

/// The service that other servers call.
pub(crate) struct RaftService {
    pub(crate) raft: Raft,
    pub(crate) own: u64,
    pub(crate) group: String,
    pub(crate) peers: Arc<Peers>,
}

impl RaftService {
    /// Checks that the message is for this server and decodes it.
    fn open<T: DeserializeOwned>(&self, request: Request<RaftMessage>) -> Result<T, Status> {
        let m = request.into_inner();
        let refused = |text: String| {
            tracing::warn!("refused a message from MDS {}: {text}", m.from);
            Err(Status::failed_precondition(text))
        };
        if m.version != VERSION {
            return refused(format!("it speaks version {}, this MDS speaks {VERSION}", m.version));
        }
        if m.group != self.group {
            return refused(format!(
                "it is of cluster {:?}, this MDS of {:?}",
                m.group, self.group
            ));
        }
        if m.to != self.own {
            return refused(format!("it takes MDS {} for MDS {}; check the peers", self.own, m.to));
        }
        if !self.peers.addresses().contains_key(&m.from) {
            return refused(format!("MDS {} is not among the peers of MDS {}", m.from, self.own));
        }
        postcard::from_bytes(&m.body).map_err(|e| Status::invalid_argument(e.to_string()))
    }
}

fn answer<T: serde::Serialize>(
    result: Result<T, RaftError<u64>>,
) -> Result<Response<RaftAnswer>, Status> {
    let result: Result<T, Stopped> = result.map_err(|e| e.to_string());
    Ok(Response::new(RaftAnswer { body: encode(&result) }))
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftAnswer>, Status> {
        answer(self.raft.append_entries(self.open(request)?).await)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftAnswer>, Status> {
        answer(self.raft.vote(self.open(request)?).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftAnswer>, Status> {
        // Here the caller needs the library's own error: it says where to resume.
        let result = self.raft.install_snapshot(self.open(request)?).await;
        Ok(Response::new(RaftAnswer { body: encode(&result) }))
    }
}
