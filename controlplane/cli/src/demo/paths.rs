//! Over which paths the processes of the cluster reach each other.

use std::collections::BTreeMap;

use ogive_api::types::{ClusterStatus, PathUse};
use serde::Serialize;

/// Connections by path at the end of the demo, and what had to be copied.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Paths {
    /// Ends of connections between chunkservers: each connection has two.
    pub among_chunkservers: BTreeMap<String, u32>,
    /// Connections of gateways with chunkservers.
    pub of_gateways: BTreeMap<String, u32>,
    /// Bytes that chunkservers and gateways received, by path.
    pub received_bytes: BTreeMap<String, u64>,
    /// Payload bytes of these that were copied on their way.
    pub copied_bytes: BTreeMap<String, u64>,
}

impl Paths {
    /// As the processes last reported them.
    pub fn of(status: &ClusterStatus) -> Paths {
        let mut paths = Paths::default();
        let sessions = status.volumes.iter().filter_map(|v| v.session.as_ref());
        for used in sessions.flat_map(|s| &s.paths) {
            add(&mut paths.of_gateways, used, used.chunkservers);
            paths.note_bytes(used);
        }
        status.chunkservers.iter().flat_map(|c| &c.paths).for_each(|p| paths.note_bytes(p));
        paths.among_chunkservers = among_chunkservers(status);
        paths
    }

    fn note_bytes(&mut self, used: &PathUse) {
        *self.received_bytes.entry(used.path.clone()).or_default() += used.bytes_received;
        *self.copied_bytes.entry(used.path.clone()).or_default() += used.copied_bytes;
    }
}

/// Ends of connections between chunkservers, by path.
pub fn among_chunkservers(status: &ClusterStatus) -> BTreeMap<String, u32> {
    let mut ends = BTreeMap::new();
    for used in status.chunkservers.iter().flat_map(|c| &c.paths) {
        add(&mut ends, used, used.chunkservers);
    }
    ends
}

fn add(ends: &mut BTreeMap<String, u32>, used: &PathUse, count: u32) {
    if count > 0 {
        *ends.entry(used.path.clone()).or_default() += count;
    }
}

/// What there is to say of them to people.
pub fn sentence(among_chunkservers: &BTreeMap<String, u32>) -> String {
    let names: Vec<&str> = among_chunkservers.keys().map(String::as_str).collect();
    match names[..] {
        [] => "the chunkservers have not met yet".to_owned(),
        _ => format!("the chunkservers reach each other over {}", names.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_what_is_used() {
        let ends = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), 1)).collect();
        assert!(sentence(&ends(&["shm"])).ends_with("over shm"));
        assert!(sentence(&ends(&["shm", "tcp"])).ends_with("over shm and tcp"));
        assert!(sentence(&ends(&[])).contains("not met"));
    }
}
