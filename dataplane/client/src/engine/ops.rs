//! Operations: taken, cut into parts, completed.

use ogive_types::{MAX_IO_BYTES, Time};

use super::{Client, Ready};
use crate::api::{ClientEffect, LostReason, VolumeError, VolumeOp, VolumeOutput};
use crate::limits::{OPS_MAX, PARTS_PER_OP_MAX};
use crate::op::{Op, OpKey, Plan, Stage};
use crate::part::{Part, PartKey, PartState};
use crate::slab::Slab;
use crate::timers::{Timer, Timers};

/// What planning needs, borrowed apart from the operations.
macro_rules! plan {
    ($client:expr) => {
        &Plan {
            volume: $client.spec.volume,
            layout: &$client.spec.layout,
            segments: &$client.segments,
            zero: &$client.zero,
        }
    };
}

impl Client {
    pub(super) fn begin_op(&mut self, token: u64, op: VolumeOp, now: Time) {
        if let Some(result) = self.at_once(&op) {
            return self.effects.push(ClientEffect::Completed { token, result });
        }
        let deadline = self.opts.io_timeout.map_or(Time::NEVER, |limit| now + limit);
        let op = Op::new(token, op, deadline);
        let blocks = op.lock_blocks();
        let key = self.ops.insert(op);
        self.timers.arm(Timer::Op(key), deadline);
        let held = match blocks {
            Some(blocks) => {
                let (lock, held) = self.locks.acquire(blocks, key);
                self.ops.get_mut(key).expect("inserted above").lock = Some(lock);
                held || self.ignores_lock()
            }
            None => true,
        };
        if held {
            self.start(key);
        }
    }

    /// The result of an operation that needs no work.
    fn at_once(&self, op: &VolumeOp) -> Option<Result<VolumeOutput, VolumeError>> {
        let (offset, len) = op.span();
        let size_bytes = self.spec.size_bytes;
        let bounded = matches!(op, VolumeOp::Read { .. } | VolumeOp::Write { .. });
        if self.lost {
            return Some(Err(VolumeError::Fenced));
        }
        if offset.checked_add(len).is_none_or(|end| end > size_bytes) {
            return Some(Err(VolumeError::OutOfRange { size_bytes }));
        }
        if bounded && len > MAX_IO_BYTES as u64 {
            return Some(Err(VolumeError::TooLong));
        }
        if self.ops.len() >= OPS_MAX {
            return Some(Err(VolumeError::Overloaded));
        }
        if len > 0 {
            return None;
        }
        Some(Ok(match op {
            VolumeOp::Read { .. } => VolumeOutput::Data(Vec::new()),
            VolumeOp::Map { .. } => VolumeOutput::Map(Vec::new()),
            _ => VolumeOutput::Done,
        }))
    }

    fn start(&mut self, key: OpKey) {
        let op = self.ops.get_mut(key).expect("a lock's owner is in flight");
        op.start(plan!(self));
        self.ready.push_back(Ready::Op(key));
    }

    /// Begins as many parts as may be in flight, goes to the next stage when all are done, and
    /// completes.
    pub(super) fn advance(&mut self, key: OpKey) {
        let Some(op) = self.ops.get_mut(key) else { return };
        loop {
            while op.parts.len() < PARTS_PER_OP_MAX {
                let Some(spec) = op.next_part(plan!(self)) else { break };
                let part = self.parts.insert(Part::new(key, spec));
                op.parts.push(part);
                self.ready.push_back(Ready::Part(part));
            }
            if !op.parts.is_empty() {
                return;
            }
            if op.error.is_some() || !op.next_stage(plan!(self)) {
                break;
            }
        }
        self.finish(key);
    }

    fn finish(&mut self, key: OpKey) {
        let mut op = self.ops.remove(key).expect("finished once");
        assert!(op.parts.is_empty(), "nothing of it is in flight");
        self.timers.cancel(Timer::Op(key));
        let (token, result) = (op.token, op.result());
        self.effects.push(ClientEffect::Completed { token, result });
        let mut granted = Vec::new();
        if let Some(lock) = op.lock {
            self.locks.release(lock, &mut granted);
        }
        for owner in granted {
            // Others that gave up while they waited have released their place themselves.
            if self.ops.get(owner).is_some_and(|op| op.stage == Stage::Locked && op.error.is_none())
            {
                self.start(owner);
            }
        }
    }

    /// Lets an operation fail. What was sent and may still change data is waited for, so that the
    /// range stays locked until nothing of it can take effect any more.
    pub(super) fn fail_op(&mut self, key: OpKey, error: VolumeError) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.abandon(error);
        let parts = op.parts.clone();
        for part in parts {
            let p = self.parts.get(part).expect("listed parts are in flight");
            if !(matches!(p.state, PartState::Sent(_)) && p.changes_data()) {
                self.drop_part(part);
            }
        }
        self.ready.push_back(Ready::Op(key));
    }

    /// Removes a part from wherever it waits, and from its operation.
    pub(super) fn drop_part(&mut self, key: PartKey) -> Option<Part> {
        let part = self.parts.remove(key)?;
        match part.state {
            PartState::Segment(number) => self.segments.forget(number, key),
            PartState::Route(copyset) => {
                if let Some(route) = self.routes.get_mut(&copyset) {
                    route.waiting.retain(|&p| p != key);
                }
            }
            PartState::Credit(peer) => self.peers.forget_waiting(peer, key),
            PartState::Pause => self.timers.cancel(Timer::Part(key)),
            PartState::Ready | PartState::Sent(_) => {}
        }
        if let Some(op) = self.ops.get_mut(part.op) {
            let at = op.parts.iter().position(|&p| p == key).expect("listed while in flight");
            op.parts.swap_remove(at);
            self.ready.push_back(Ready::Op(part.op));
        }
        Some(part)
    }

    /// Puts a part back into the queue, or drops it when its operation has failed.
    pub(super) fn requeue(&mut self, key: PartKey) {
        let Some(part) = self.parts.get_mut(key) else { return };
        if self.ops.get(part.op).is_none_or(|op| op.error.is_some()) {
            self.drop_part(key);
            return;
        }
        part.state = PartState::Ready;
        self.ready.push_back(Ready::Part(key));
    }

    /// An operation's time is over. A write that was sent may still be on its way to the log: its
    /// connection is closed, so that the next one's higher incarnation shuts it out before the
    /// range is free for others.
    pub(super) fn op_late(&mut self, key: OpKey, now: Time) {
        self.fail_op(key, VolumeError::TimedOut);
        if self.keeps_late_conn() {
            return;
        }
        let Some(op) = self.ops.get(key) else { return };
        let parts = op.parts.clone();
        for part in parts {
            let Some(Part { state: PartState::Sent(sent), .. }) = self.parts.get(part) else {
                continue;
            };
            self.drop_conn(sent.conn, now);
        }
    }

    pub(super) fn lose_session(&mut self, reason: LostReason) {
        if self.lost {
            return;
        }
        tracing::warn!(volume = %self.spec.volume, %reason, "session lost");
        self.lost = true;
        self.effects.push(ClientEffect::SessionLost { reason });
        for key in self.ops.keys() {
            let token = self.ops.remove(key).expect("listed just now").token;
            let result = Err(VolumeError::Fenced);
            self.effects.push(ClientEffect::Completed { token, result });
        }
        for (_, conn) in self.peers.connected() {
            self.peers.forget(conn);
            self.requests.closed(conn);
            self.effects.push(ClientEffect::Close { conn });
        }
        self.ready.clear();
        self.parts = Slab::default();
        self.timers = Timers::default();
        self.routes.clear();
        self.peers = Default::default();
        self.segments = Default::default();
        self.locks = Default::default();
    }

    #[cfg(not(test))]
    fn ignores_lock(&self) -> bool {
        false
    }
}
