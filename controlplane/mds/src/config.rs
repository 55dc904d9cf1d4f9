//! What a metadata server is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::MdsError;
use crate::limits::PEERS_MAX;

/// Configuration of one metadata server. All servers of a group are given the same `peers`,
/// `cluster_name`, `replicas` and `timing`.
#[derive(Clone, Debug)]
pub struct MdsConfig {
    /// Which of the peers this is.
    pub node_id: u64,
    /// All servers of the group, this one too: id (from 1) and `HOST:PORT`.
    pub peers: Vec<(u64, String)>,
    /// Where to listen, `HOST:PORT`; by default at this peer's address.
    pub listen: Option<String>,
    /// Directory for the log and snapshots; made when it does not exist.
    pub data_dir: PathBuf,
    /// Name of the cluster, checked against the data directory and the other servers.
    pub cluster_name: String,
    /// Replicas of a copyset, each in a zone of its own. Counts when the cluster is set up.
    pub replicas: u32,
    /// Replicas that each shard should hold; the number of copysets follows from it.
    pub copysets_per_shard: u32,
    /// Periods and time-outs.
    pub timing: Timing,
}

/// Periods and time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Period of the leader's heartbeats to the other servers.
    pub raft_heartbeat: Duration,
    /// A follower that hears nothing starts an election after a random time in this range.
    pub election: (Duration, Duration),
    /// A chunkserver that is silent for so long is offline.
    pub chunkserver_silence: Duration,
    /// A session that is silent for so long may be displaced.
    pub session_lease: Duration,
    /// Time without a new chunkserver before copysets are planned, so that a cluster that starts is
    /// planned as a whole.
    pub settle: Duration,
    /// Period of the leader's background work.
    pub background: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            raft_heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(600)),
            chunkserver_silence: Duration::from_secs(3),
            session_lease: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            background: Duration::from_millis(200),
        }
    }
}

impl MdsConfig {
    /// A configuration with the usual values for all that may be left out.
    pub fn new(node_id: u64, peers: Vec<(u64, String)>, data_dir: PathBuf) -> MdsConfig {
        MdsConfig {
            node_id,
            peers,
            listen: None,
            data_dir,
            cluster_name: "ogive".into(),
            replicas: 3,
            copysets_per_shard: 4,
            timing: Timing::default(),
        }
    }

    /// Address that this server binds.
    pub fn listen_address(&self) -> Result<String, MdsError> {
        let own = self.peers.iter().find(|(id, _)| *id == self.node_id).map(|(_, a)| a.clone());
        let missing = || {
            let ids: Vec<String> = self.peers.iter().map(|(id, _)| id.to_string()).collect();
            let text =
                format!("node id {} is not among the peers ({})", self.node_id, ids.join(", "));
            MdsError::Config(text)
        };
        let own = own.ok_or_else(missing)?;
        Ok(self.listen.clone().unwrap_or(own))
    }

    /// The peers by id, checked.
    ///
    /// # Errors
    /// [`MdsError::Config`] with what is wrong.
    pub(crate) fn checked_peers(&self) -> Result<BTreeMap<u64, String>, MdsError> {
        let wrong = |text: String| Err(MdsError::Config(text));
        if self.peers.len() > PEERS_MAX {
            return wrong(format!(
                "{} peers are too many, the most is {PEERS_MAX}",
                self.peers.len()
            ));
        }
        let mut peers = BTreeMap::new();
        for (id, address) in &self.peers {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|p| p == 0) {
                return wrong(format!("peer {id} has address {address:?}; give HOST:PORT"));
            }
            if *id == 0 || peers.insert(*id, address.clone()).is_some() {
                return wrong(format!("peer id {id} is zero or given twice; use 1, 2, 3"));
            }
            if peers.values().filter(|a| *a == address).count() > 1 {
                return wrong(format!("two peers have the address {address}"));
            }
        }
        self.listen_address()?;
        if self.cluster_name.is_empty() || self.cluster_name.len() > 64 {
            return wrong("the cluster name must have 1 to 64 bytes".into());
        }
        if self.replicas == 0 || self.copysets_per_shard == 0 {
            return wrong("replicas and copysets per shard must be at least 1".into());
        }
        Ok(peers)
    }

    /// Copysets that each shard should be the preferred leader of, so that it holds
    /// `copysets_per_shard` replicas or a few more, and all shards lead the same number.
    pub(crate) fn leads_per_shard(&self, replicas: u32) -> u32 {
        self.copysets_per_shard.div_ceil(replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(peers: &[(u64, &str)]) -> MdsConfig {
        let peers = peers.iter().map(|(id, a)| (*id, a.to_string())).collect();
        MdsConfig::new(1, peers, "/nowhere".into())
    }

    #[test]
    fn peers_are_checked() {
        assert!(config(&[(1, "a:1"), (2, "b:2"), (3, "c:3")]).checked_peers().is_ok());
        let bad: [&[(u64, &str)]; 7] = [
            &[],
            &[(2, "a:1")],
            &[(1, "a")],
            &[(1, "a:0")],
            &[(1, "a:1"), (1, "b:2")],
            &[(1, "a:1"), (2, "a:1")],
            &[(1, "a:1"), (0, "b:2")],
        ];
        for peers in bad {
            assert!(matches!(config(peers).checked_peers(), Err(MdsError::Config(_))), "{peers:?}");
        }
    }

    #[test]
    fn shards_hold_at_least_what_was_asked_for() {
        let mut config = config(&[(1, "a:1")]);
        for (asked, leads) in [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)] {
            config.copysets_per_shard = asked;
            assert_eq!(config.leads_per_shard(3), leads);
        }
    }
}
