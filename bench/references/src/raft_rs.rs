//! raft-rs (the `raft` crate) under the harness, with its own storage in memory.
//!
//! Its loop is the one of its documentation: ready, messages, append, persisted messages, advance.
//! The log is compacted now and then, so that what is measured is not a growing vector.

use std::collections::VecDeque;
use std::time::Duration;

use ogive_bench::copyset::{Contender, NODES, Payload};
use raft::eraftpb::Message;
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use slog::{Discard, Logger, o};

/// Entries between two compactions of a log; half of them stay, since a follower may be one behind.
const KEPT: u64 = 64;
/// One tick; as often as Ogive's leaders give a sign of life, with the same election time-out.
const TICK: Duration = Duration::from_millis(100);

/// Groups of raft-rs.
pub struct RaftRs {
    groups: Vec<Group>,
}

struct Group {
    nodes: Vec<RawNode<MemStorage>>,
    queue: VecDeque<Message>,
}

impl RaftRs {
    /// So many groups, each led by its first replica.
    pub fn new(groups: usize) -> RaftRs {
        let logger = Logger::root(Discard, o!());
        RaftRs { groups: (0..groups).map(|_| Group::new(&logger)).collect() }
    }
}

impl Contender for RaftRs {
    fn commit(&mut self, group: usize, payload: Payload) {
        let group = &mut self.groups[group];
        group.nodes[0].propose(Vec::new(), payload.bytes().to_vec()).expect("it leads");
        group.settle(0);
        let leader = &group.nodes[0].raft.raft_log;
        assert_eq!(leader.committed, leader.last_index());
    }

    fn idle(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / TICK.as_millis() {
            for group in &mut self.groups {
                for at in 0..NODES {
                    group.nodes[at].tick();
                    group.settle(at);
                }
            }
        }
    }

    fn held(&self, group: usize) -> u64 {
        let nodes = self.groups[group].nodes.iter();
        // Without the entry of the election.
        nodes.map(|node| node.raft.raft_log.last_index() - 1).min().unwrap_or(0)
    }
}

impl Group {
    fn new(logger: &Logger) -> Group {
        let voters: Vec<u64> = (1..=NODES as u64).collect();
        let node = |id: u64| {
            let config = Config {
                id,
                election_tick: 3,
                heartbeat_tick: 1,
                check_quorum: true,
                pre_vote: true,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((voters.clone(), vec![]));
            RawNode::new(&config, storage, logger).expect("a good configuration")
        };
        let mut group =
            Group { nodes: voters.iter().map(|&id| node(id)).collect(), queue: VecDeque::new() };
        group.nodes[0].campaign().expect("it may campaign");
        group.settle(0);
        assert_eq!(group.nodes[0].raft.state, StateRole::Leader);
        group
    }

    /// Handles what node `at` has ready, and all that follows from it.
    fn settle(&mut self, at: usize) {
        self.handle(at);
        while let Some(message) = self.queue.pop_front() {
            let to = message.to as usize - 1;
            self.nodes[to].step(message).expect("from a peer");
            self.handle(to);
        }
    }

    fn handle(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while node.has_ready() {
            let mut ready = node.ready();
            self.queue.extend(ready.take_messages());
            let mut applied = ready.take_committed_entries();
            {
                let mut storage = node.mut_store().wl();
                storage.append(ready.entries()).expect("they follow");
                if let Some(hard) = ready.hs() {
                    storage.set_hardstate(hard.clone());
                }
            }
            self.queue.extend(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            if let Some(commit) = light.commit_index() {
                node.mut_store().wl().mut_hard_state().commit = commit;
            }
            self.queue.extend(light.take_messages());
            applied.append(&mut light.take_committed_entries());
            node.advance_apply();
            if let Some(last) = applied.last().map(|entry| entry.index)
                && last % KEPT == 0
            {
                node.mut_store().wl().compact(last - KEPT / 2).expect("it is applied");
            }
        }
    }
}
