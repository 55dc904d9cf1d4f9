//! The consensus group: openraft with its log and snapshots in redb and its messages over gRPC.

pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod service;
pub(crate) mod store;

use std::io::Cursor;

use ogive_meta::{Command, MetaError, Reply};
use openraft::BasicNode;
use serde::{Deserialize, Serialize};

/// Commands that reached the leader together: one log entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch(pub Vec<Command>);

/// One answer per command of the entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answers(pub Vec<Result<Reply, MetaError>>);

openraft::declare_raft_types!(
    /// The types of this group.
    pub Types:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
