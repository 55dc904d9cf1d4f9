//! Reads with a round trip: read-index (Ongaro's thesis, 6.4).
//!
//! ```text
//! request ──► Waiting ──(round starts)──► Asked(stamp) ──(majority answered stamp)──► Confirmed
//!                                                       Confirmed, commit reached ──► ReadReady
//! ```
//!
//! | event | effect |
//! |---|---|
//! | request, no round on its way | a round starts: heartbeats with a new stamp |
//! | request, round on its way | waits for the next round, so that there is one at a time |
//! | majority answered the stamp | its reads are confirmed; the next round starts |
//! | commit moves | confirmed reads whose commit is reached leave, in order |
//! | leadership lost | all fail |

use std::collections::VecDeque;

use ogive_types::{Index, Time};

use crate::copyset::Copyset;
use crate::effect::{Effect, NotReadable};
use crate::election::Role;
use crate::limits::PENDING_READS_MAX;

#[derive(Debug)]
struct Read {
    token: u64,
    /// What it must see: all that was acknowledged before, and this term's first entry, behind
    /// which lies everything that earlier leaders acknowledged.
    commit: Index,
    /// The round that confirms it; [`Time::NEVER`] while none was sent.
    stamp: Time,
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    queue: VecDeque<Read>,
    /// The stamp of the round on its way.
    round: Option<Time>,
}

impl Reads {
    pub(crate) fn fail_all(&mut self, reason: NotReadable, out: &mut Vec<Effect>) {
        let failed = |read: Read| Effect::ReadFailed { token: read.token, reason };
        out.extend(self.queue.drain(..).map(failed));
        self.round = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Copyset {
    /// Confirms the leadership by a round trip and then says what a read must see. Exactly one
    /// [`Effect::ReadReady`] or [`Effect::ReadFailed`] returns `token`.
    pub fn request_read(&mut self, token: u64, now: Time, out: &mut Vec<Effect>) {
        self.saw(now);
        let refused = if self.role != Role::Leader {
            Some(NotReadable::NotLeader { leader: self.leader })
        } else if self.lead.reads.queue.len() >= PENDING_READS_MAX {
            Some(NotReadable::Busy)
        } else {
            None
        };
        if let Some(reason) = refused {
            out.push(Effect::ReadFailed { token, reason });
            return;
        }
        let commit = self.commit.max(self.lead.term_start);
        self.lead.reads.queue.push_back(Read { token, commit, stamp: Time::NEVER });
        if self.lead.reads.round.is_none() {
            self.start_round(out);
        }
        self.finish_reads(self.now, out);
    }

    fn start_round(&mut self, out: &mut Vec<Effect>) {
        // Newer than anything sent: an answer to an earlier message proves nothing about the time
        // since.
        self.lead.stamp = Time(self.lead.stamp.0 + 1).max(self.now);
        let stamp = self.lead.stamp;
        self.lead.reads.round = Some(stamp);
        for read in self.lead.reads.queue.iter_mut().filter(|read| read.stamp == Time::NEVER) {
            read.stamp = stamp;
        }
        self.broadcast_heartbeat(out);
    }

    /// Leader: releases the reads that are confirmed and see everything that they must.
    pub(crate) fn finish_reads(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.lead.reads.is_empty() {
            return;
        }
        let acked = self.quorum_acked(now.max(self.lead.stamp)).unwrap_or(Time(0));
        let reads = &mut self.lead.reads;
        while let Some(read) = reads.queue.front() {
            if read.stamp > acked || read.commit > self.commit {
                break;
            }
            out.push(Effect::ReadReady { token: read.token, commit: read.commit });
            reads.queue.pop_front();
        }
        if reads.round.is_some_and(|stamp| stamp <= acked) {
            reads.round = None;
            if reads.queue.iter().any(|read| read.stamp == Time::NEVER) {
                self.start_round(out);
            }
        }
    }
}
