//! What a replica is told when it starts.

use std::time::Duration;

use ogive_types::{CopysetId, ShardAddr};

use crate::limits::VOTERS_MAX;

/// The identity of a replica and its group.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica.
    pub id: ShardAddr,
    /// Its group; only for messages to people.
    pub copyset: CopysetId,
    /// All members, this one included: 1 to 9, each once, the same everywhere.
    pub voters: Vec<ShardAddr>,
    /// Time-outs and windows, the same everywhere (the lease depends on it).
    pub timing: Timing,
    /// Who should lead.
    pub priority: Priority,
    /// Makes the random part of the time-outs differ between replicas.
    pub seed: u64,
}

/// Which member placement would like to lead, so that leaders spread evenly.
///
/// The preferred member campaigns sooner than the others, and another leader hands over to it once
/// it has caught up. It is a wish: whoever can lead does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// The preferred leader; `None` when all are equal.
    pub preferred: Option<ShardAddr>,
}

/// Time-outs and windows of a copyset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between signs of life of an idle leader.
    pub heartbeat: Duration,
    /// Silence after which a follower may campaign; each waits a random time from this to twice
    /// this. Also how long it refuses to vote after it heard a leader, and how long a leader leads
    /// without a majority.
    pub election: Duration,
    /// Bound on the difference between the rates of any two replicas' clocks, in parts per million.
    /// Slewing by NTP is limited to 500 on either side.
    pub lease_drift_ppm: u32,
    /// Taken off the lease: bound on the sum of how old `now` may be in two calls, on leader and
    /// follower.
    pub lease_margin: Duration,
    /// First pause after a follower refused or a request to it was lost; doubles up to `heartbeat`.
    pub retry: Duration,
    /// Requests without an answer for this long, with the follower alive, are taken for lost.
    pub stall: Duration,
    /// How long a leader leads before it hands over to the preferred one, and between such
    /// attempts.
    pub handover_after: Duration,
    /// Appends in flight to one follower.
    pub inflight_max: usize,
    /// Entries in one append.
    pub batch_entries_max: usize,
    /// Payload bytes in one append. The core knows no sizes: the shard cuts a longer batch with
    /// [`crate::Copyset::replicate_cut`].
    pub batch_bytes_max: usize,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(300),
            lease_drift_ppm: 1000,
            lease_margin: Duration::from_millis(20),
            retry: Duration::from_millis(5),
            stall: Duration::from_secs(1),
            handover_after: Duration::from_secs(2),
            inflight_max: 64,
            batch_entries_max: 64,
            batch_bytes_max: 1 << 20,
        }
    }
}

impl Timing {
    /// How long a lease lasts from the moment that its round was sent, on the leader's clock.
    ///
    /// A follower that heard the round refuses votes for `election` on its own clock, which is at
    /// least `election * (1 - drift)` on the leader's.
    pub fn lease(&self) -> Duration {
        let drift = self.election * self.lease_drift_ppm / 1_000_000;
        self.election.saturating_sub(drift).saturating_sub(self.lease_margin)
    }

    fn check(&self) {
        assert!(self.heartbeat * 2 < self.election, "two heartbeats fit in an election time-out");
        assert!(self.lease() > self.heartbeat, "a lease outlasts the heartbeat interval");
        assert!(!self.retry.is_zero() && self.retry <= self.heartbeat, "retries pause");
        assert!(self.stall >= self.election && !self.handover_after.is_zero(), "patience");
        assert!(self.inflight_max > 0 && self.batch_entries_max > 0, "windows are open");
    }
}

impl Config {
    /// Panics when the configuration breaks a rule of its fields: it comes from our own control
    /// plane, and a replica that runs with a wrong member list could lose data.
    pub(crate) fn check(&self) {
        assert!((1..=VOTERS_MAX).contains(&self.voters.len()), "1 to {VOTERS_MAX} voters");
        assert!(self.voters.contains(&self.id), "{} is a voter of {}", self.id, self.copyset);
        for (i, voter) in self.voters.iter().enumerate() {
            assert!(!self.voters[..i].contains(voter), "{voter} is listed once");
        }
        self.timing.check();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_shorter_than_the_election_by_drift_and_margin() {
        let timing = Timing::default();
        assert_eq!(timing.lease(), Duration::from_micros(300_000 - 300 - 20_000));
    }

    #[test]
    #[should_panic(expected = "listed once")]
    fn a_voter_twice_is_refused() {
        let voters = vec![ShardAddr::default(); 2];
        Config {
            id: voters[0],
            copyset: CopysetId(1),
            voters,
            timing: Timing::default(),
            priority: Priority::default(),
            seed: 0,
        }
        .check();
    }
}
