//! What the data plane says of tokens and paths, in the words of the metadata servers.

use ogive_api::types;
use ogive_rpc::token::{Credential, PublicKey};
use ogive_rpc::transport::usage::PathUse;

/// What the metadata servers gave, for the data plane.
pub(crate) fn credential(given: &types::Credential) -> Credential {
    Credential { token: given.token.clone(), key: PublicKey(given.public_key) }
}

/// What goes over the paths, for the metadata servers.
pub(crate) fn told(paths: &[PathUse]) -> Vec<types::PathUse> {
    let told = |p: &PathUse| types::PathUse {
        path: p.path.name().to_owned(),
        chunkservers: p.shards,
        clients: p.clients,
        frames_sent: p.stats.frames_sent,
        frames_received: p.stats.frames_received,
        bytes_sent: p.stats.bytes_sent,
        bytes_received: p.stats.bytes_received,
        copied_bytes: p.stats.copied_bytes,
    };
    paths.iter().map(told).collect()
}
