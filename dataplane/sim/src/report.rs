//! What runs found.

use std::collections::BTreeMap;
use std::fmt;

use crate::fault::Fault;

/// Sums over runs that went well.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// Simulated time.
    pub simulated_us: u64,
    /// Things that happened.
    pub events: u64,
    /// Turns of shards.
    pub turns: u64,
    /// Operations of clients that ended.
    pub ops: u64,
    /// Those among them that failed, by a time-out or a newer attachment.
    pub ops_failed: u64,
    /// Cells whose value was compared with the model.
    pub cells_checked: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Frames delivered after their sender had closed the connection.
    pub late_frames: u64,
    /// Connections made.
    pub connections: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Attachments that ended because of a newer one.
    pub sessions_lost: u64,
    /// Bytes sent by deltas, of the processes that lived at the end.
    pub delta_bytes: u64,
    /// Checkpoints completed, of the same.
    pub checkpoints: u64,
    /// Damaged blocks that were repaired, of the same.
    pub repaired: u64,
    /// Answers with copies for repairs that arrived spoilt.
    pub spoilt: u64,
    /// Frames that arrived twice.
    pub duplicates: u64,
    /// Shards that found their log damaged and did not open.
    pub logs_refused: u64,
    /// Runs that ended with a follower that has no space, and so with a copyset that waits.
    pub left_full: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Longest time from the last fault to full health.
    pub heal_us_max: u64,
    /// Equal for equal runs.
    pub digest: u64,
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Report) {
        self.seeds += other.seeds;
        self.simulated_us += other.simulated_us;
        self.events += other.events;
        self.turns += other.turns;
        self.ops += other.ops;
        self.ops_failed += other.ops_failed;
        self.cells_checked += other.cells_checked;
        self.frames += other.frames;
        self.late_frames += other.late_frames;
        self.connections += other.connections;
        self.elections += other.elections;
        self.sessions_lost += other.sessions_lost;
        self.delta_bytes += other.delta_bytes;
        self.checkpoints += other.checkpoints;
        self.repaired += other.repaired;
        self.spoilt += other.spoilt;
        self.duplicates += other.duplicates;
        self.logs_refused += other.logs_refused;
        self.left_full += other.left_full;
        for (&fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.heal_us_max = self.heal_us_max.max(other.heal_us_max);
        self.digest ^= other.digest;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3.6e9;
        writeln!(f, "seeds            {}", self.seeds)?;
        writeln!(f, "simulated        {hours:.3} h")?;
        writeln!(f, "events           {} ({} turns of shards)", self.events, self.turns)?;
        writeln!(f, "operations       {} ({} failed)", self.ops, self.ops_failed)?;
        writeln!(f, "cells checked    {}", self.cells_checked)?;
        let (late, twice) = (self.late_frames, self.duplicates);
        writeln!(f, "frames           {} ({late} late, {twice} twice)", self.frames)?;
        writeln!(f, "connections      {}", self.connections)?;
        writeln!(f, "elections        {}", self.elections)?;
        writeln!(f, "sessions lost    {}", self.sessions_lost)?;
        writeln!(f, "delta bytes      {}", self.delta_bytes)?;
        writeln!(f, "checkpoints      {}", self.checkpoints)?;
        writeln!(f, "blocks repaired  {} ({} copies spoilt)", self.repaired, self.spoilt)?;
        writeln!(f, "longest healing  {:.3} s", self.heal_us_max as f64 / 1e6)?;
        writeln!(f, "logs refused     {}", self.logs_refused)?;
        writeln!(f, "left full        {}", self.left_full)?;
        write!(f, "faults           {}", self.faults.values().sum::<u64>())?;
        for kind in Fault::all() {
            let count = self.faults.get(&kind).copied().unwrap_or_default();
            write!(f, "\n  {:<16}{count}", kind.name())?;
        }
        Ok(())
    }
}

/// A run that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// When, in simulated microseconds since the start.
    pub at_us: u64,
    /// What.
    pub what: String,
    /// The last lines of the trace, if there was one.
    pub trace: Vec<String>,
}
