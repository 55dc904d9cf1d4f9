//! Messages to the other servers.
#![allow(clippy::disallowed_methods)] // A shell: it owns sockets and notes when peers answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ogive_api::raft_pb::{RaftAnswer, RaftMessage, raft_client::RaftClient};
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::{Serialize, de::DeserializeOwned};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::Types;
use super::store::encode;
use crate::limits::{MESSAGE_BYTES_MAX, PEER_BACKOFF, PEER_CONNECT_TIMEOUT};

/// Version of the encoding of messages between servers: of everything in the log too. Servers of
/// different versions do not listen to each other, so that those of the newer one go on among
/// themselves once they are a majority. 2 has the command that sets the key of tokens.
pub(crate) const VERSION: u32 = 2;

/// The other servers: where they are, and when they last answered.
pub(crate) struct Peers {
    own: u64,
    group: String,
    addresses: BTreeMap<u64, String>,
    state: Mutex<BTreeMap<u64, Peer>>,
}

#[derive(Default)]
struct Peer {
    client: Option<RaftClient<Channel>>,
    answered: Option<Instant>,
}

impl Peers {
    pub(crate) fn new(own: u64, group: String, addresses: BTreeMap<u64, String>) -> Arc<Peers> {
        Arc::new(Peers { own, group, addresses, state: Mutex::default() })
    }

    /// All servers, this one too.
    pub(crate) fn addresses(&self) -> &BTreeMap<u64, String> {
        &self.addresses
    }

    /// Their addresses as one text.
    pub(crate) fn listed(&self) -> String {
        self.addresses.values().cloned().collect::<Vec<_>>().join(", ")
    }

    /// True when the server answered within `window`.
    pub(crate) fn answered_within(&self, id: u64, window: Duration) -> bool {
        let state = self.lock();
        state.get(&id).and_then(|p| p.answered).is_some_and(|at| at.elapsed() <= window)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.state.lock().expect("no code panics while it holds the peers")
    }

    fn answered(&self, id: u64) {
        self.lock().entry(id).or_default().answered = Some(Instant::now());
    }

    fn client(&self, id: u64, fallback: &str) -> Result<RaftClient<Channel>, Unreachable> {
        let mut state = self.lock();
        let peer = state.entry(id).or_default();
        if let Some(client) = &peer.client {
            return Ok(client.clone());
        }
        // The configuration counts: it may name a new address for a server that moved.
        let address = self.addresses.get(&id).map_or(fallback, String::as_str);
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|e| Unreachable::new(&e))?;
        let channel =
            endpoint.connect_timeout(PEER_CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy();
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(peer.client.insert(client).clone())
    }
}

/// Makes links to other servers.
pub(crate) struct Network(pub(crate) Arc<Peers>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        Link { peers: self.0.clone(), target, fallback: node.addr.clone() }
    }
}

/// A link to one server.
pub(crate) struct Link {
    peers: Arc<Peers>,
    target: u64,
    fallback: String,
}

/// An error that came back from the library at the other end, or on the way.
enum Failed<E> {
    Way(Unreachable),
    Answer(NetworkError),
    Remote(E),
}

impl Link {
    async fn call<Q, A, E>(
        &self,
        request: &Q,
        option: &RPCOption,
        send: impl AsyncFnOnce(
            RaftClient<Channel>,
            Request<RaftMessage>,
        ) -> Result<Response<RaftAnswer>, Status>,
    ) -> Result<A, Failed<E>>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: DeserializeOwned,
    {
        let message = RaftMessage {
            group: self.peers.group.clone(),
            from: self.peers.own,
            to: self.target,
            version: VERSION,
            body: encode(request),
        };
        let mut request = Request::new(message);
        request.set_timeout(option.hard_ttl());
        let client = self.peers.client(self.target, &self.fallback).map_err(Failed::Way)?;
        // Any failure counts as unreachable: an immediate retry would spin while the peer is down
        // or refuses us.
        let answer = send(client, request).await.map_err(|status| {
            tracing::debug!(peer = self.target, "no answer: {}", status.message());
            Failed::Way(Unreachable::new(&status))
        })?;
        let result: Result<A, E> = postcard::from_bytes(&answer.into_inner().body)
            .map_err(|e| Failed::Answer(NetworkError::new(&e)))?;
        self.peers.answered(self.target);
        result.map_err(Failed::Remote)
    }

    fn error<E: std::error::Error>(&self, failed: Failed<E>) -> RPCError<u64, BasicNode, E> {
        match failed {
            Failed::Way(e) => RPCError::Unreachable(e),
            Failed::Answer(e) => RPCError::Network(e),
            Failed::Remote(e) => RPCError::RemoteError(RemoteError::new(self.target, e)),
        }
    }
}

/// What the other end's library may say about a message that is not a snapshot: it has stopped.
pub(crate) type Stopped = String;

fn stopped(failed: Failed<Stopped>) -> RPCError<u64, BasicNode, RaftError<u64>> {
    match failed {
        Failed::Way(e) => RPCError::Unreachable(e),
        Failed::Answer(e) => RPCError::Network(e),
        Failed::Remote(text) => RPCError::Unreachable(Unreachable::from(AnyError::error(text))),
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let send = async |mut c: RaftClient<Channel>, q| c.append(q).await;
        self.call(&rpc, &option, send).await.map_err(stopped)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let send = async |mut c: RaftClient<Channel>, q| c.vote(q).await;
        self.call(&rpc, &option, send).await.map_err(stopped)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>,
    > {
        let send = async |mut c: RaftClient<Channel>, q| c.install_snapshot(q).await;
        self.call(&rpc, &option, send).await.map_err(|failed| self.error(failed))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(PEER_BACKOFF))
    }
}
