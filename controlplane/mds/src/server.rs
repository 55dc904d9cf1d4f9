//! Starts and stops a server.
#![allow(clippy::disallowed_methods)] // A shell: it owns the listener.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ogive_api::pb::mds_server::MdsServer;
use ogive_api::raft_pb::raft_server::RaftServer;
use openraft::error::{InitializeError, RaftError};
use openraft::{BasicNode, Config, SnapshotPolicy};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::background;
use crate::config::MdsConfig;
use crate::datadir;
use crate::error::MdsError;
use crate::limits::*;
use crate::node::Node;
use crate::raft::log::Log;
use crate::raft::machine::Machine;
use crate::raft::network::{Network, Peers};
use crate::raft::service::RaftService;
use crate::raft::{Raft, machine::SharedMeta, store::Saved, store::Store};
use crate::service::MdsService;

/// Runs a metadata server until `shutdown` completes. Needs a tokio runtime with timers and I/O;
/// one thread is enough.
///
/// With an empty data directory it joins the group of its `peers`; the one with the lowest id sets
/// the group up, which does no harm when that was done before.
///
/// # Errors
/// See [`MdsError`].
pub async fn serve(
    config: MdsConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), MdsError> {
    let addresses = config.checked_peers()?;
    let peers = Peers::new(config.node_id, config.cluster_name.clone(), addresses);
    // The directory comes first: two servers that were started with one configuration hear of that,
    // and not of the port.
    let (store, saved) = datadir::open(&config)?;
    let listener = listen(&config.listen_address()?).await?;
    let (raft, shared) = start_raft(&config, store, saved, peers.clone()).await?;
    let node = Arc::new(Node::new(config.clone(), raft.clone(), peers.clone(), shared));
    let tasks = [
        tokio::spawn(background::run(node.clone())),
        tokio::spawn(set_up_group(raft.clone(), peers.clone(), config.node_id)),
        tokio::spawn(warn_without_leader(raft.clone(), peers.clone())),
    ];
    tracing::info!(node = config.node_id, address = config.listen_address()?, "MDS started");
    let service = RaftService {
        raft: raft.clone(),
        own: config.node_id,
        group: config.cluster_name.clone(),
        peers,
    };
    let result = serve_until(node, service, listener, &raft, shutdown).await;
    tasks.iter().for_each(|task| task.abort());
    // It has nothing to lose: everything acknowledged is on the disk.
    drop(raft.shutdown().await);
    result
}

async fn listen(address: &str) -> Result<TcpListener, MdsError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => MdsError::PortTaken { address: address.to_owned() },
        _ => MdsError::Listen { address: address.to_owned(), source },
    })
}

async fn start_raft(
    config: &MdsConfig,
    store: Store,
    mut saved: Saved,
    peers: Arc<Peers>,
) -> Result<(Raft, SharedMeta), MdsError> {
    let log = Log::new(store.clone(), &mut saved);
    let machine = Machine::new(store, saved.snapshot.take()).map_err(|detail| {
        let path = config.data_dir.join("raft.redb");
        MdsError::Corrupt { path, detail }
    })?;
    let shared = machine.shared();
    let engine = engine_config(config)?;
    let raft = Raft::new(config.node_id, engine, Network(peers), log, machine).await;
    Ok((raft.map_err(|e| MdsError::Raft(e.to_string()))?, shared))
}

fn engine_config(config: &MdsConfig) -> Result<Arc<Config>, MdsError> {
    let ms = |d: Duration| d.as_millis() as u64;
    let timing = &config.timing;
    let engine = Config {
        cluster_name: config.cluster_name.clone(),
        heartbeat_interval: ms(timing.raft_heartbeat),
        election_timeout_min: ms(timing.election.0),
        election_timeout_max: ms(timing.election.1),
        install_snapshot_timeout: 5_000,
        max_payload_entries: ENTRIES_PER_APPEND_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        replication_lag_threshold: ENTRIES_PER_SNAPSHOT + ENTRIES_KEPT,
        // Purging writes a transaction; one at a time for many entries is enough.
        purge_batch_size: ENTRIES_KEPT / 2,
        ..Config::default()
    };
    Ok(Arc::new(engine.validate().map_err(|e| MdsError::Config(e.to_string()))?))
}

async fn serve_until(
    node: Arc<Node>,
    raft_service: RaftService,
    listener: TcpListener,
    raft: &Raft,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), MdsError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ogive_api::DESCRIPTORS)
        .build_v1()
        .map_err(|e| MdsError::Server(e.to_string()))?;
    let mds = MdsServer::new(MdsService(node))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let group = RaftServer::new(raft_service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION_MAX)
        .add_service(mds)
        .add_service(group)
        .add_service(reflection)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async {
                drop(stopped.await);
            },
        );
    let mut server = tokio::spawn(server);
    let ended = |r: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>| match r {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(MdsError::Server(e.to_string())),
        Err(e) => Err(MdsError::Server(e.to_string())),
    };
    let result = tokio::select! {
        result = &mut server => return ended(result),
        () = shutdown => Ok(()),
        error = engine_stops(raft) => Err(MdsError::Raft(error)),
    };
    // The server may have ended by itself.
    let _ = stop.send(());
    // Idle connections of clients would hold it up for ever.
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut server).await.is_err() {
        server.abort();
    }
    result
}

/// Completes with the reason when the engine has stopped by itself, for example because the disk is
/// full.
async fn engine_stops(raft: &Raft) -> String {
    let mut metrics = raft.metrics();
    let stopped = metrics.wait_for(|m| m.running_state.is_err()).await;
    let reason = stopped.ok().and_then(|m| m.running_state.as_ref().err().map(|e| e.to_string()));
    reason.unwrap_or_else(|| "it has ended".to_owned())
}

/// Sets the group up, when this is the server with the lowest id and it was not done before. Every
/// server would write the same first entry, so that a second attempt could not disagree with the
/// first.
async fn set_up_group(raft: Raft, peers: Arc<Peers>, own: u64) {
    if peers.addresses().keys().next() != Some(&own) {
        return;
    }
    let members: std::collections::BTreeMap<u64, BasicNode> =
        peers.addresses().iter().map(|(&id, a)| (id, BasicNode::new(a.clone()))).collect();
    match raft.initialize(members).await {
        Ok(()) => tracing::info!("the group of MDS {} is set up", peers.listed()),
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(e) => tracing::error!("cannot set the group of MDS up: {e}"),
    }
}

/// Says so in the log when there is no leader for a while, since nothing works until there is one.
async fn warn_without_leader(raft: Raft, peers: Arc<Peers>) {
    let mut metrics = raft.metrics();
    loop {
        if metrics.wait_for(|m| m.current_leader.is_none()).await.is_err() {
            return;
        }
        let found = metrics.wait_for(|m| m.current_leader.is_some());
        if tokio::time::timeout(Duration::from_secs(5), found).await.is_err() {
            tracing::warn!("no leader among {}: is a majority of the MDS running?", peers.listed());
        }
    }
}
