//! What a shard tells the control plane, and the operator, about its replicas.

use std::time::Duration;

use ogive_copyset::Role;
use ogive_types::{CopysetId, Epoch, Index, ShardAddr, Term, Time, VolumeId};

use crate::limits::{DAMAGE_MAX, IO_ERRORS_MAX};
use crate::shard::Shard;

/// Role of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Serves clients.
    Leader,
    /// Follows a leader.
    Follower,
    /// Knows no leader.
    Candidate,
}

/// State of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Its copyset.
    pub copyset: CopysetId,
    /// Its role.
    pub role: ReplicaRole,
    /// Its term.
    pub term: Term,
    /// The leader that it knows of.
    pub leader: Option<ShardAddr>,
    /// Last index of its log.
    pub last: Index,
    /// What it knows to be committed.
    pub commit: Index,
    /// What its maps show.
    pub applied: Index,
    /// True for a leader that serves clients (its no-op is applied).
    pub serving: bool,
    /// As a leader: the other members, what they have, and whether they answer.
    pub followers: Vec<(ShardAddr, Index, bool)>,
    /// Deleted volumes whose chunks are gone here.
    pub dropped: Vec<VolumeId>,
}

/// Damage and repairs since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Blocks found damaged.
    pub damaged: u64,
    /// Those among them that the device failed to read.
    pub io_errors: u64,
    /// Blocks written anew.
    pub repaired: u64,
    /// Damaged blocks that are not repaired now.
    pub open: u64,
    /// Those among them of which no replica has a good copy.
    pub unrepairable: u64,
}

/// The scrub of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Laps since the start.
    pub laps: u64,
    /// Bytes read in this lap, or in the last one while none is under way.
    pub lap_bytes: u64,
    /// Bytes that were mapped when it began.
    pub lap_bytes_expected: u64,
    /// How long the last lap took.
    pub last_lap: Duration,
    /// Bytes that it read.
    pub last_lap_bytes: u64,
}

/// The health of a shard's part of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Damage and repairs.
    pub repair: RepairReport,
    /// The scrub.
    pub scrub: ScrubReport,
    /// So much is damaged that the device should be replaced.
    pub replace: bool,
    /// The newest write did not fit, and there is still no room for the longest.
    pub refuses_writes: bool,
}

impl Shard {
    /// The health of this shard's part of the device.
    pub fn health(&self) -> Health {
        let (repair, scrub) = (self.repairs.report(), self.scrub.report());
        let replace = repair.damaged >= DAMAGE_MAX || repair.io_errors >= IO_ERRORS_MAX;
        let refuses_writes = self.full && !self.store.stats().has_room();
        Health { repair, scrub, replace, refuses_writes }
    }

    /// The state of all replicas, by copyset.
    pub fn report(&self, now: Time) -> Vec<ReplicaReport> {
        self.groups.keys().filter_map(|&id| self.report_of(id, now)).collect()
    }

    fn report_of(&self, id: CopysetId, now: Time) -> Option<ReplicaReport> {
        let group = self.groups.get(&id)?;
        let applied = self.store.applied(id).index;
        let status = group.core.status(now);
        let role = match status.role {
            Role::Leader => ReplicaRole::Leader,
            Role::Follower => ReplicaRole::Follower,
            Role::Candidate | Role::PreCandidate => ReplicaRole::Candidate,
        };
        let followers = status.followers.iter().map(|f| (f.addr, f.matched, f.active)).collect();
        let fences = self.store.fences(id);
        let dropped = fences.iter().filter(|(_, epoch)| *epoch == Epoch(u64::MAX));
        Some(ReplicaReport {
            copyset: id,
            role,
            term: status.term,
            leader: status.leader,
            last: status.last.index,
            commit: status.commit,
            applied,
            serving: group.noop.is_some_and(|noop| noop <= applied),
            followers,
            dropped: dropped.map(|&(volume, _)| volume).collect(),
        })
    }
}
