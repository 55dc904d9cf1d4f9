//! gRPC interface of the metadata servers and a client that finds the leader.
//!
//! - [`pb`], [`raft_pb`]: code generated from `proto/`.
//! - [`types`]: the same in Rust's own terms, without optional messages and bare integers.
//! - [`MdsClient`]: asks the leader, whichever server that is, with a deadline per call.
//! - [`Refusal`]: the refusals that a caller may branch on.

pub mod client;
pub mod convert;
pub mod error;
pub mod limits;
pub mod refusal;
pub mod types;

pub use client::MdsClient;
pub use error::ApiError;
pub use refusal::Refusal;

/// Messages and services generated from `proto/ogive.proto`.
#[allow(missing_docs, clippy::all)] // generated code
pub mod pb {
    tonic::include_proto!("ogive.v1");
}

/// Messages and services generated from `proto/raft.proto`; between metadata servers only.
#[allow(missing_docs, clippy::all)] // generated code
pub mod raft_pb {
    tonic::include_proto!("ogive.internal.v1");
}

/// Encoded descriptors of all proto files, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
