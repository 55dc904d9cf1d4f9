//! What the harness asks of a core.

use std::time::Duration;

/// Replicas of a group.
pub const NODES: usize = 3;

/// How often idle groups look at their timers where time is simulated.
pub const IDLE_TICK: Duration = Duration::from_millis(10);

/// What an entry says of its 4 KiB: where they are, and their checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The block.
    pub block: u64,
    /// Its checksum.
    pub sum: u32,
}

impl Payload {
    /// The one of operation `n`.
    pub fn number(n: u64) -> Payload {
        Payload { block: n, sum: n as u32 }
    }

    /// As a core that takes bytes gets it.
    pub fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.block.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }
}

/// Groups of [`NODES`] replicas of one core, each with a leader, all in the calling thread.
pub trait Contender {
    /// Commits one operation in `group`: proposed by the leader, persisted by all three, committed
    /// and told to the leader's owner when it returns.
    fn commit(&mut self, group: usize, payload: Payload);

    /// Lets so much time pass without operations.
    fn idle(&mut self, time: Duration);

    /// Operations that all replicas of `group` hold, to see that the work was done.
    fn held(&self, group: usize) -> u64;
}
