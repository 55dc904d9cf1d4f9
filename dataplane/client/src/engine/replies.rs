//! Answers of shards, and what each means.
//!
//! | answer | effect |
//! |---|---|
//! | done, data, map | the part is done; data whose checksums do not match is read once more |
//! | not the leader | search, with the hint first; the part waits |
//! | stale term | the right term is known now; sent again at once |
//! | interrupted | the outcome is unknown; search, then sent again (safe: see the design record) |
//! | no such copyset | search; the topology is asked for |
//! | busy | sent again after a pause |
//! | stale incarnation | the connection is replaced |
//! | payload damaged on the way | sent once more |
//! | fenced | the session is lost |
//! | no space, unreadable, malformed | the operation fails |
//! | anything that breaks the protocol | the connection is closed, the part tried elsewhere |

use ogive_buf::Buf;
use ogive_rpc::transport::{ConnId, Incoming};
use ogive_types::message::{IoError, IoReply, Kind, Mapped, decode};
use ogive_types::{BLOCK_BYTES, BlockRange, BlockSum, ShardAddr, Time, block_sum};

use super::Client;
use crate::api::{LostReason, VolumeError};
use crate::chain;
use crate::limits::{BAD_SUM_TRIES, REDIRECTS_MAX};
use crate::op::Run;
use crate::part::{PartKey, PartState, Sent, What};
use crate::peers::Pending;

/// What a part gave.
enum Outcome {
    Done,
    Data(Vec<Buf>),
    Map(Vec<Mapped>),
}

impl Client {
    pub(super) fn on_frame(&mut self, conn: ConnId, frame: Incoming, now: Time) {
        let Some(addr) = self.peers.at(conn) else { return };
        if !frame.response || frame.kind != Kind::Io as u8 {
            tracing::warn!(%addr, kind = frame.kind, "a frame that a client does not expect");
            return self.drop_conn(conn, now);
        }
        self.heard(addr);
        let pending = self.requests.complete(conn, frame.id);
        let Ok(reply) = decode::<IoReply>(&frame.body) else {
            tracing::warn!(%addr, "an answer that does not decode");
            if let Some(Pending::Part(key)) = pending {
                self.requeue(key);
            }
            return self.drop_conn(conn, now);
        };
        match pending {
            Some(Pending::Probe(copyset, from)) => {
                self.on_probe_reply(copyset, from, conn, reply, now)
            }
            Some(Pending::Part(key)) => self.on_part_reply(key, conn, reply, frame.payload, now),
            None => {} // late: it was given up
        }
        self.use_credit(addr, now);
    }

    fn on_probe_reply(
        &mut self,
        copyset: ogive_types::CopysetId,
        from: ShardAddr,
        conn: ConnId,
        reply: IoReply,
        now: Time,
    ) {
        let found = match reply {
            IoReply::Failed(IoError::StaleTerm { current }) => {
                self.leader_found(copyset, from, current)
            }
            IoReply::Failed(IoError::NotLeader { leader }) => {
                return self.probe_refused(copyset, from, leader, now);
            }
            IoReply::Failed(IoError::Fenced { current }) => {
                return self.lose_session(LostReason::Fenced { current });
            }
            IoReply::Failed(IoError::StaleIncarnation) => {
                self.probe_refused(copyset, from, None, now);
                return self.drop_conn(conn, now);
            }
            IoReply::Failed(_) => false,
            IoReply::Done | IoReply::Data(_) | IoReply::Map(_) => {
                self.leader_found(copyset, from, ogive_types::Term(0))
            }
        };
        if !found {
            self.probe_refused(copyset, from, None, now);
        }
    }

    fn on_part_reply(
        &mut self,
        key: PartKey,
        conn: ConnId,
        reply: IoReply,
        payload: Option<Buf>,
        now: Time,
    ) {
        let Some(part) = self.parts.get(key) else { return };
        let PartState::Sent(sent) = part.state else { return };
        let range = part.spec.range;
        let outcome = match (&part.spec.what, reply) {
            (_, IoReply::Failed(error)) => return self.on_part_error(key, sent, error, now),
            (What::Read { .. }, IoReply::Data(sums)) => match check_data(range, &sums, payload) {
                Ok(data) => Ok(Outcome::Data(vec![data])),
                Err(BadData::Sums) => return self.on_bad_sums(key, now),
                Err(BadData::Shape) => Err(()),
            },
            (What::Write(..) | What::Trim, IoReply::Done) => Ok(Outcome::Done),
            (What::Map, IoReply::Map(map)) if covers(range, &map) => Ok(Outcome::Map(map)),
            _ => Err(()),
        };
        match outcome {
            Ok(outcome) => self.finish_part(key, outcome),
            Err(()) => {
                tracing::warn!(addr = %sent.to, "an answer that does not fit its request");
                self.requeue(key);
                self.drop_conn(conn, now);
            }
        }
    }

    fn on_part_error(&mut self, key: PartKey, sent: Sent, error: IoError, now: Time) {
        let Some(part) = self.parts.get_mut(key) else { return };
        let op = part.op;
        match error {
            IoError::NotLeader { leader } => {
                self.redirected(key, now);
                self.leader_lost(sent.copyset, sent.to, leader, now);
            }
            IoError::StaleTerm { current } => {
                if !self.leader_found(sent.copyset, sent.to, current) {
                    self.leader_lost(sent.copyset, sent.to, None, now);
                }
                self.redirected(key, now);
            }
            IoError::Interrupted => {
                self.redirected(key, now);
                self.leader_lost(sent.copyset, sent.to, None, now);
            }
            IoError::NoCopyset => {
                self.pause_part(key, now);
                self.leader_lost(sent.copyset, sent.to, None, now);
                self.ask_topology(now);
            }
            IoError::StaleIncarnation => {
                self.requeue(key);
                self.drop_conn(sent.conn, now);
            }
            IoError::Busy => self.pause_part(key, now),
            IoError::BadChecksum => self.on_bad_sums(key, now),
            IoError::Fenced { current } => self.lose_session(LostReason::Fenced { current }),
            IoError::NoSpace => self.end_part(key, op, VolumeError::NoSpace),
            IoError::Unreadable => self.end_part(key, op, VolumeError::Io("blocks unreadable")),
            IoError::Malformed => self.end_part(key, op, VolumeError::Io("request refused")),
        }
    }

    /// Sends a part again: at once, or after a pause when the members keep sending it around.
    fn redirected(&mut self, key: PartKey, now: Time) {
        let Some(part) = self.parts.get_mut(key) else { return };
        part.redirects = part.redirects.saturating_add(1);
        if part.redirects > REDIRECTS_MAX {
            return self.pause_part(key, now);
        }
        self.stats.retries += 1;
        self.requeue(key);
    }

    fn on_bad_sums(&mut self, key: PartKey, now: Time) {
        self.stats.bad_sums += 1;
        let Some(part) = self.parts.get_mut(key) else { return };
        part.bad_sums += 1;
        let (op, chunk) = (part.op, part.spec.chunk);
        tracing::warn!(%chunk, tries = part.bad_sums, "data does not match its checksums");
        if part.bad_sums >= BAD_SUM_TRIES {
            return self.end_part(key, op, VolumeError::Io("data does not match its checksums"));
        }
        self.pause_part(key, now);
    }

    /// The part is answered, and its operation fails.
    fn end_part(&mut self, key: PartKey, op: crate::op::OpKey, error: VolumeError) {
        self.drop_part(key);
        self.fail_op(op, error);
    }

    /// Completes a part of a segment that has never been written.
    pub(super) fn finish_unmapped(&mut self, key: PartKey) {
        let part = self.parts.get(key).expect("dispatched");
        let range = part.spec.range;
        let outcome = match part.spec.what {
            What::Read { .. } => Outcome::Data(chain::zeroes(&self.zero, range.bytes())),
            What::Map => Outcome::Map(vec![Mapped { range, mapped: false }]),
            What::Trim => Outcome::Done,
            What::Write(..) => unreachable!("writes wait for their segment"),
        };
        self.finish_part(key, outcome);
    }

    fn finish_part(&mut self, key: PartKey, outcome: Outcome) {
        let part = self.drop_part(key).expect("finished once");
        let Some(op) = self.ops.get_mut(part.op) else { return };
        match (part.spec.what, outcome) {
            (What::Read { slot, .. }, Outcome::Data(data)) => op.slots[slot as usize] = data,
            (What::Map, Outcome::Map(map)) => op.runs.extend(map.iter().map(|m| Run {
                at: part.spec.at
                    + (m.range.start() - part.spec.range.start()) as u64 * BLOCK_BYTES as u64,
                len: m.range.bytes() as u64,
                mapped: m.mapped,
            })),
            (What::Write(..) | What::Trim, Outcome::Done) => {}
            _ => unreachable!("the answer was matched with its request"),
        }
    }
}

/// What is wrong with the data of a read.
enum BadData {
    Shape,
    Sums,
}

/// The end-to-end check: every block of a read must match the checksum that its writer computed.
fn check_data(range: BlockRange, sums: &[BlockSum], payload: Option<Buf>) -> Result<Buf, BadData> {
    let data = payload.ok_or(BadData::Shape)?;
    if data.len() != range.bytes() || sums.len() != range.blocks() as usize {
        return Err(BadData::Shape);
    }
    let good =
        data.chunks_exact(BLOCK_BYTES).zip(sums).all(|(block, &sum)| block_sum(block) == sum);
    if good { Ok(data) } else { Err(BadData::Sums) }
}

/// True when the map is the range, in order and without gaps.
fn covers(range: BlockRange, map: &[Mapped]) -> bool {
    let mut at = range.start();
    for part in map {
        if !part.range.is_valid() || part.range.start() != at {
            return false;
        }
        at = part.range.end();
    }
    at == range.end()
}
