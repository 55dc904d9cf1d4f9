//! openraft under the harness: its tasks on one runtime in this thread, log and state in memory,
//! messages as direct calls.

mod network;
mod store;

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ogive_bench::copyset::{Contender, NODES, Payload};
use openraft::{BasicNode, Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use network::{Peers, Wire};
use store::{Log, Machine};

/// Entries that a log keeps.
const KEPT: u64 = 64;

/// What an entry says of its 4 KiB.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Reference {
    block: u64,
    sum: u32,
}

openraft::declare_raft_types!(
    /// The types of the groups.
    pub Types:
        D = Reference,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

type Raft = openraft::Raft<Types>;

/// Groups of openraft.
pub struct OpenRaft {
    groups: Vec<Vec<Raft>>,
    machines: Vec<Vec<Machine>>,
    runtime: Runtime,
}

impl OpenRaft {
    /// So many groups, each with a leader.
    pub fn new(groups: usize) -> OpenRaft {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut all = OpenRaft { groups: Vec::new(), machines: Vec::new(), runtime };
        for _ in 0..groups {
            let (group, machines) = all.runtime.block_on(start());
            all.groups.push(group);
            all.machines.push(machines);
        }
        all
    }
}

/// A group that is led by its first node.
async fn start() -> (Vec<Raft>, Vec<Machine>) {
    let config = Config {
        heartbeat_interval: 100,
        // Nobody fails here; with thousands of tasks on one core a heartbeat may be late.
        election_timeout_min: 60_000,
        election_timeout_max: 120_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(KEPT * 16),
        max_in_snapshot_log_to_keep: KEPT,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("a good configuration"));
    let (peers, mut group, mut machines) = (Peers::default(), Vec::new(), Vec::new());
    for id in 0..NODES as u64 {
        let machine = Machine::default();
        let wire = Wire(peers.clone());
        let raft = Raft::new(id, config.clone(), wire, Log::default(), machine.clone()).await;
        let raft = raft.expect("a new replica");
        peers.add(raft.clone());
        machines.push(machine);
        group.push(raft);
    }
    let members = (0..NODES as u64).map(|id| (id, BasicNode::default()));
    let members: std::collections::BTreeMap<u64, BasicNode> = members.collect();
    group[0].initialize(members).await.expect("a new group");
    let led = group[0].wait(Some(Duration::from_secs(10))).current_leader(0, "it leads").await;
    led.expect("the first leads");
    (group, machines)
}

impl Contender for OpenRaft {
    fn commit(&mut self, group: usize, payload: Payload) {
        let reference = Reference { block: payload.block, sum: payload.sum };
        let (raft, machines) = (&self.groups[group][0], &self.machines[group]);
        self.runtime.block_on(async {
            raft.client_write(reference).await.expect("it leads");
            // One at a time, as the others: until all three have applied it.
            let held = machines[0].held();
            while machines.iter().any(|machine| machine.held() < held) {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Its timers run on the real clock.
    fn idle(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.runtime.block_on(async {
            tokio::time::sleep_until(end.into()).await;
        });
    }

    fn held(&self, group: usize) -> u64 {
        self.machines[group].iter().map(Machine::held).min().unwrap_or(0)
    }
}
