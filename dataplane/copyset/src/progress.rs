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
//! | Probe | one request, waits | covers it: Replicate | lower: go there; else pause | pause |
//! | Replicate | `inflight_max` batches | window moves | Probe, pause | Probe, pause |
//! | Delta | nothing | `matched` moves | - | - |
//!
//! A pause starts at `Timing::retry` and doubles up to the heartbeat interval until `matched`
//! moves, so a follower that refuses (full, busy) or does not answer is asked ever less often.

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

    /// The follower's log may agree at or before `index`, not after; or it refused for another
    /// reason.
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
                self.fall_back(next);
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
                self.fall_back(self.matched.next());
                self.pause(timing, now);
            }
            ProgressState::Delta => {}
        }
    }

    /// The follower is alive and its persisted log ends at `last`, yet what was sent to it has no
    /// answer.
    pub(crate) fn alive(&mut self, last: Index, timing: &Timing, now: Time) {
        if self.state != ProgressState::Replicate {
            return;
        }
        let stalled = !self.inflight.is_empty() && now >= self.moved_at + timing.stall;
        let lags = self.inflight.is_empty() && last.next() < self.next;
        if stalled || lags {
            self.fall_back(self.matched.next());
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
            self.fall_back(self.matched.next());
            self.pause = Duration::ZERO;
            self.retry_at = Time(0);
        }
    }

    pub(crate) fn delta_failed(&mut self, timing: &Timing, now: Time) {
        if self.state == ProgressState::Delta {
            self.fall_back(self.next);
            self.pause(timing, now);
        }
    }

    fn fall_back(&mut self, next: Index) {
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

#[cfg(test)]
mod tests {
    use ogive_types::ChunkserverId;

    use super::*;

    const NOW: Time = Time(1_000_000);

    fn replicating(inflight: &[u64]) -> Progress {
        let mut follower = Progress::new(ShardAddr { server: ChunkserverId(2), shard: 0 });
        follower.reset(Index(5));
        follower.probed(&Timing::default(), NOW);
        follower.matched_upto(Index(4), NOW);
        assert_eq!(follower.state, ProgressState::Replicate);
        inflight.iter().for_each(|&last| follower.sent(Index(last), NOW));
        follower
    }

    #[test]
    fn the_window_moves_with_the_answers() {
        let mut follower = replicating(&[6, 8, 9]);
        assert_eq!(follower.next, Index(10));
        follower.matched_upto(Index(8), NOW);
        assert_eq!(follower.inflight, [Index(9)]);
        follower.matched_upto(Index(6), NOW);
        assert_eq!((follower.matched, follower.next), (Index(8), Index(10)));
    }

    #[test]
    fn refusals_pause_ever_longer_until_something_matches() {
        let timing = Timing::default();
        let mut follower = replicating(&[6]);
        follower.rejected(Index(6), &timing, NOW);
        assert_eq!((follower.state, follower.next), (ProgressState::Probe, Index(7)));
        let mut now = NOW;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push(follower.retry_at.since(now).as_millis());
            now = follower.retry_at;
            follower.probed(&timing, now);
            follower.rejected(Index(6), &timing, now);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 100]);
        follower.probed(&timing, now);
        follower.matched_upto(Index(6), now);
        assert_eq!((follower.state, follower.pause), (ProgressState::Replicate, Duration::ZERO));
    }

    #[test]
    fn a_lower_hint_is_tried_at_once_but_never_below_what_matched() {
        let timing = Timing::default();
        let mut follower = replicating(&[]);
        follower.reset(Index(50));
        follower.matched = Index(4);
        follower.probed(&timing, NOW);
        follower.rejected(Index(20), &timing, NOW);
        assert_eq!((follower.next, follower.retry_at), (Index(21), NOW));
        follower.probed(&timing, NOW);
        follower.rejected(Index(1), &timing, NOW);
        assert_eq!(follower.next, Index(5));
    }

    #[test]
    fn a_loss_is_noticed_once_and_resent_from_what_matched() {
        let timing = Timing::default();
        let mut follower = replicating(&[6, 7]);
        follower.lost(&timing, NOW);
        let retry_at = follower.retry_at;
        follower.lost(&timing, NOW);
        assert_eq!(follower.retry_at, retry_at);
        assert_eq!((follower.state, follower.next), (ProgressState::Probe, Index(5)));
    }

    #[test]
    fn silence_about_what_was_sent_ends_in_a_probe() {
        let timing = Timing::default();
        let mut follower = replicating(&[6]);
        follower.alive(Index(4), &timing, NOW + timing.stall / 2);
        assert_eq!(follower.state, ProgressState::Replicate);
        follower.alive(Index(4), &timing, NOW + timing.stall);
        assert_eq!(follower.state, ProgressState::Probe);
    }

    #[test]
    fn a_cut_batch_is_offered_again_from_the_cut() {
        let timing = Timing::default();
        let cases = [(9, 10, vec![6, 9]), (7, 8, vec![6, 7]), (6, 7, vec![6]), (5, 6, vec![5])];
        for (last, next, inflight) in cases {
            let mut follower = replicating(&[6, 9]);
            follower.cut(Index(last), &timing, NOW);
            assert_eq!(follower.next, Index(next));
            let inflight: Vec<Index> = inflight.into_iter().map(Index).collect();
            assert_eq!(follower.inflight, inflight, "{last}");
        }
    }
}
