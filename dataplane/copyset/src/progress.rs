//! What the leader knows of one follower.
//!
//! ```text
//!              answer matches                       refused, lost, stalled
//!   Probe ──────────────────────► Replicate ──────────────────────────────► Probe
//!     │ log does not reach back        │ log does not reach back
//!     └────────────► Delta ◄───────────┘
//!                      │ delta done or failed
//!                      └────────────► Probe
//! ```
//!
//! | state | sends | answer Ok(i) | answer Err(hint) | lost |
//! |---|---|---|---|---|
//! | Probe | one request, then waits for its answer or `retry_at` | covers the probe: Replicate | lower: try there at once; else pause | pause |
//! | Replicate | up to `inflight_max` batches | window moves | Probe from the hint, pause | Probe from `matched`, pause |
//! | Delta | nothing | `matched` moves | - | - |
//!
//! A pause starts at `Timing::retry` and doubles up to the heartbeat interval until `matched` moves, so a
//! follower that refuses (full, busy) or does not answer is asked ever less often.

use std::collections::VecDeque;
use std::time::Duration;

use ogive_types::{Index, ShardAddr, Time};

use crate::config::Timing;

/// How a leader treats a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Looking for the place where the logs agree, or pausing after a failure.
    Probe,
    /// Sending entries as they come.
    Replicate,
    /// The shard brings it up to date by other means.
    Delta,
}

#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) addr: ShardAddr,
    pub(crate) state: ProgressState,
    /// The follower has persisted the leader's log up to here.
    pub(crate) matched: Index,
    /// The next entry to send; in Probe the one behind the position to try.
    pub(crate) next: Index,
    /// Newest moment whose message was answered in this term.
    pub(crate) acked: Option<Time>,
    /// In Probe: nothing is sent before this.
    pub(crate) retry_at: Time,
    /// In Probe: a request was sent and its answer is awaited, until `retry_at`.
    probing: bool,
    /// Last entry of each append in flight.
    inflight: VecDeque<Index>,
    /// When the window last moved or was filled from empty.
    moved_at: Time,
    pause: Duration,
}

impl Progress {
    pub(crate) fn new(addr: ShardAddr) -> Progress {
        Progress {
            addr,
            state: ProgressState::Probe,
            matched: Index(0),
            next: Index(1),
            acked: None,
            retry_at: Time(0),
            probing: false,
            inflight: VecDeque::new(),
            moved_at: Time(0),
            pause: Duration::ZERO,
        }
    }

    /// A new leader knows nothing, and starts where its own log ends.
    pub(crate) fn reset(&mut self, next: Index) {
        let inflight = std::mem::take(&mut self.inflight);
        *self = Progress { next, inflight, ..Progress::new(self.addr) };
        self.inflight.clear();
    }

    pub(crate) fn has_room(&self, timing: &Timing) -> bool {
        self.inflight.len() < timing.inflight_max
    }

    /// A batch that ends with `last` was sent in Replicate.
    pub(crate) fn sent(&mut self, last: Index, now: Time) {
        if self.inflight.is_empty() {
            self.moved_at = now;
        }
        self.inflight.push_back(last);
        self.next = last.next();
    }

    /// Only entries up to `last` of what was offered were sent.
    pub(crate) fn cut(&mut self, last: Index, timing: &Timing, now: Time) {
        if self.state == ProgressState::Probe && last < self.next {
            self.lost(timing, now);
        }
        if self.state != ProgressState::Replicate || last.next() >= self.next {
            return;
        }
        let mut partial = false;
        while self.inflight.back().is_some_and(|&end| end > last) {
            self.inflight.pop_back();
            partial = true;
        }
        let reached = self.inflight.back().copied().unwrap_or(self.matched);
        if partial && last > reached {
            self.inflight.push_back(last);
        }
        self.next = last.max(self.matched).next();
    }

    /// A probe was sent; another only if it stays unanswered.
    pub(crate) fn probed(&mut self, timing: &Timing, now: Time) {
        self.probing = true;
        self.retry_at = now + timing.stall;
    }

    /// The follower holds everything up to `index`. True when that is news.
    pub(crate) fn matched_upto(&mut self, index: Index, now: Time) -> bool {
        let news = index > self.matched;
        if news {
            self.matched = index;
            self.moved_at = now;
            self.pause = Duration::ZERO;
        }
        match self.state {
            ProgressState::Probe => {
                let covers = index.next() >= self.next;
                let pausing = !self.probing && self.retry_at > now;
                self.next = self.next.max(self.matched.next());
                if covers && !pausing {
                    self.state = ProgressState::Replicate;
                    self.probing = false;
                    self.next = self.matched.next();
                }
            }
            ProgressState::Replicate => {
                while self.inflight.front().is_some_and(|&last| last <= index) {
                    self.inflight.pop_front();
                }
                self.next = self.next.max(self.matched.next());
            }
            ProgressState::Delta => {}
        }
        news
    }

    /// The follower's log may agree at or before `index`, not after; or it refused for another reason.
    pub(crate) fn rejected(&mut self, index: Index, timing: &Timing, now: Time) {
        let next = index.next().min(self.next).max(self.matched.next());
        match self.state {
            ProgressState::Probe if next < self.next => {
                self.next = next;
                self.probing = false;
                self.retry_at = now;
            }
            ProgressState::Probe if self.probing => self.pause(timing, now),
            ProgressState::Probe => {}
            ProgressState::Replicate => {
                self.to_probe(next);
                self.pause(timing, now);
            }
            ProgressState::Delta => {}
        }
    }

    /// Requests to the follower were lost.
    pub(crate) fn lost(&mut self, timing: &Timing, now: Time) {
        match self.state {
            ProgressState::Probe if self.probing => self.pause(timing, now),
            ProgressState::Probe => {}
            ProgressState::Replicate => {
                self.to_probe(self.matched.next());
                self.pause(timing, now);
            }
            ProgressState::Delta => {}
        }
    }

    /// The follower is alive and its persisted log ends at `last`, yet what was sent to it has no answer.
    pub(crate) fn alive(&mut self, last: Index, timing: &Timing, now: Time) {
        if self.state != ProgressState::Replicate {
            return;
        }
        let stalled = !self.inflight.is_empty() && now >= self.moved_at + timing.stall;
        let lags = self.inflight.is_empty() && last.next() < self.next;
        if stalled || lags {
            self.to_probe(self.matched.next());
            self.retry_at = now;
        }
    }

    pub(crate) fn start_delta(&mut self) {
        self.state = ProgressState::Delta;
        self.inflight.clear();
    }

    pub(crate) fn delta_done(&mut self, upto: Index) {
        if self.state == ProgressState::Delta {
            self.matched = self.matched.max(upto);
            self.to_probe(self.matched.next());
            self.pause = Duration::ZERO;
            self.retry_at = Time(0);
        }
    }

    pub(crate) fn delta_failed(&mut self, timing: &Timing, now: Time) {
        if self.state == ProgressState::Delta {
            self.to_probe(self.next);
            self.pause(timing, now);
        }
    }

    fn to_probe(&mut self, next: Index) {
        self.state = ProgressState::Probe;
        self.next = next;
        self.probing = false;
        self.inflight.clear();
    }

    fn pause(&mut self, timing: &Timing, now: Time) {
        self.probing = false;
        self.pause = (self.pause * 2).clamp(timing.retry, timing.heartbeat);
        self.retry_at = now + self.pause;
    }
}
