//! Placement decisions: pure functions from the state to a plan.

mod copysets;
mod segment;

use std::collections::{BTreeMap, BTreeSet};

use ogive_types::{ChunkserverId, ShardAddr};

pub use copysets::{ShardUse, plan_copysets};
pub use segment::{CopysetUse, plan_segment};

use crate::model::Chunkserver;

/// Says why `members` may not form a copyset of these chunkservers: each must exist, and their
/// zones must be distinct.
///
/// # Errors
/// The reason, for people.
pub fn fits(
    members: &[ShardAddr],
    servers: &BTreeMap<ChunkserverId, Chunkserver>,
) -> Result<(), String> {
    if members.is_empty() {
        return Err("it has no members".into());
    }
    let mut zones = BTreeSet::new();
    for member in members {
        let server =
            servers.get(&member.server).ok_or(format!("{} does not exist", member.server))?;
        if usize::from(member.shard) >= server.endpoints.len() {
            return Err(format!("{member} does not exist"));
        }
        if !zones.insert(server.zone.as_str()) {
            return Err(format!("two members are in zone {:?}", server.zone));
        }
    }
    Ok(())
}
