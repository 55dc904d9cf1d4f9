//! What clients ask: reads, writes, trims and map queries of a copyset that this shard leads.
//!
//! A request is served only when all of this holds (architecture, section 7):
//!
//! | check | else |
//! |---|---|
//! | the copyset is here | `NoCopyset` |
//! | this replica leads it | `NotLeader` |
//! | `term` is the leader's current one | `StaleTerm` |
//! | the no-op of this term is applied, so that all fences are known | `Busy` |
//! | `epoch` is not older than the newest proposed or applied | `Fenced` |
//! | `incarnation` is the session's newest | `StaleIncarnation` |
//!
//! An epoch newer than the replicated one is first made known by an entry of its own, before the
//! request is looked at. Reads of that epoch wait until the entry is applied.

use ogive_buf::Buf;
use ogive_copyset::{NotReadable, Role};
use ogive_rpc::hello::Identity;
use ogive_rpc::transport::{ConnId, Incoming};
use ogive_store::AppendError;
use ogive_types::message::{Fence, IoError, IoOp, IoReply, IoRequest, Mapped, Op, decode, encode};
use ogive_types::{BlockRange, ChunkId, CopysetId, Epoch, Time, block_sums};

use crate::calls::Token;
use crate::event::Effect;
use crate::group::{Group, Query, WaitingRead};
use crate::limits::{READS_WAITING_MAX, WRITES_WAITING_MAX};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn on_io(
        &mut self,
        conn: ConnId,
        token: Token,
        frame: Incoming,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let payload_bytes = frame.payload.as_ref().map_or(0, |p| p.len());
        let request: IoRequest = decode(&frame.body).map_err(|e| e.to_string())?;
        request.validate(payload_bytes).map_err(|e| e.to_string())?;
        match self.conns.get(&conn).map(|c| c.identity) {
            Some(Identity::Client { session }) if session == request.fence.session => {}
            other => return Err(format!("I/O of {} from {other:?}", request.fence.session)),
        }
        if let Err(error) = self.serve(token, request, frame.payload, now, out) {
            self.refuse(token, error, out);
        }
        Ok(())
    }

    pub(crate) fn refuse(&mut self, token: Token, error: IoError, out: &mut Vec<Effect>) {
        self.stats.io_refused += 1;
        self.calls.answer(token, encode(&IoReply::Failed(error)), Vec::new(), out);
    }

    fn serve(
        &mut self,
        token: Token,
        request: IoRequest,
        payload: Option<Buf>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), IoError> {
        let copyset = request.copyset;
        self.check(copyset, &request.fence)?;
        self.make_known(copyset, request.fence, now)?;
        match request.op {
            IoOp::Write { chunk, range, sums } => {
                let payload = payload.ok_or(IoError::Malformed)?;
                if block_sums(&payload) != sums {
                    return Err(IoError::BadChecksum);
                }
                self.stats.writes += 1;
                self.stats.bytes_written += range.bytes() as u64;
                let op = Op::Write { chunk, range, sums };
                self.propose(copyset, op, Some(payload), Some(token), now)
            }
            IoOp::Trim { chunk, range } => {
                self.stats.trims += 1;
                self.propose(copyset, Op::Trim { chunk, range }, None, Some(token), now)
            }
            IoOp::Read { chunk, range, settled } => {
                self.stats.reads += 1;
                self.stats.bytes_read += range.bytes() as u64;
                self.read(copyset, token, (chunk, range), Query::Data { settled }, now, out)
            }
            IoOp::Map { chunk, range } => {
                self.read(copyset, token, (chunk, range), Query::Map, now, out)
            }
        }
    }

    /// Proposes an epoch that is newer than the replicated one.
    fn make_known(&mut self, copyset: CopysetId, fence: Fence, now: Time) -> Result<(), IoError> {
        if fence.epoch > self.epoch_of(copyset, fence.volume) {
            let op = Op::Fence { volume: fence.volume, epoch: fence.epoch };
            self.propose(copyset, op, None, None, now)?;
            let group = self.groups.get_mut(&copyset).ok_or(IoError::NoCopyset)?;
            group.fences.insert(fence.volume, (fence.epoch, group.core.last().index));
        }
        Ok(())
    }

    fn check(&mut self, copyset: CopysetId, fence: &Fence) -> Result<(), IoError> {
        let group = self.groups.get(&copyset).ok_or(IoError::NoCopyset)?;
        if group.core.role() != Role::Leader {
            return Err(IoError::NotLeader { leader: group.core.leader() });
        }
        if group.core.term() != fence.term {
            return Err(IoError::StaleTerm { current: group.core.term() });
        }
        let applied = self.store.applied(copyset).index;
        if group.noop.is_none_or(|noop| applied < noop) {
            return Err(IoError::Busy);
        }
        let current = self.epoch_of(copyset, fence.volume);
        if fence.epoch < current {
            return Err(IoError::Fenced { current });
        }
        if !self.sessions.admit(fence.session, fence.incarnation) {
            return Err(IoError::StaleIncarnation);
        }
        Ok(())
    }

    /// The newest epoch of a volume, applied or proposed.
    fn epoch_of(&self, copyset: CopysetId, volume: ogive_types::VolumeId) -> Epoch {
        let applied = self.store.fence_of(copyset, volume).unwrap_or_default();
        let group = self.groups.get(&copyset);
        let proposed = group.and_then(|g| g.fences.get(&volume)).map(|f| f.0).unwrap_or_default();
        applied.max(proposed)
    }

    /// Appends an operation to the log of a copyset that we lead; `token` is answered at its
    /// commit.
    pub(crate) fn propose(
        &mut self,
        copyset: CopysetId,
        op: Op,
        payload: Option<Buf>,
        token: Option<Token>,
        now: Time,
    ) -> Result<(), IoError> {
        let group = self.groups.get_mut(&copyset).ok_or(IoError::NoCopyset)?;
        if group.writes.len() >= WRITES_WAITING_MAX {
            return Err(IoError::Busy);
        }
        let next = group.core.proposable().map_err(|e| IoError::NotLeader { leader: e.leader })?;
        let (index, term) = (next.index, next.term);
        let writes = op.data_bytes() > 0;
        let appended = self.store.append(copyset, index, term, op, payload);
        note_space(&mut self.full, writes, appended);
        appended.map_err(|e| match e {
            AppendError::NoSpace => IoError::NoSpace,
            _ => IoError::Busy,
        })?;
        let proposed = group.core.propose(now).expect("it was proposable");
        assert_eq!(proposed, next, "store and core number alike");
        group.replicate = true;
        self.active.insert(copyset);
        if let Some(token) = token {
            group.writes.push_back((index, token));
        }
        Ok(())
    }

    fn read(
        &mut self,
        copyset: CopysetId,
        token: Token,
        (chunk, range): (ChunkId, BlockRange),
        query: Query,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), IoError> {
        let group = self.groups.get_mut(&copyset).ok_or(IoError::NoCopyset)?;
        if group.reads.len() >= READS_WAITING_MAX {
            return Err(IoError::Busy);
        }
        let fence = group.fences.get(&chunk.volume).map(|f| f.1).unwrap_or_default();
        let floor = match query {
            Query::Data { settled: true } => group.core.last().index,
            _ => fence,
        };
        let mut read = WaitingRead { token, chunk, range, query, floor, after: None };
        match group.core.read_state(now) {
            Ok(state) => {
                let after = state.commit.max(floor);
                if self.store.applied(copyset).index >= after {
                    self.serve_read(copyset, read);
                } else {
                    read.after = Some(after);
                    group.reads.push(read);
                }
                Ok(())
            }
            Err(NotReadable::LeaseDoubt | NotReadable::NotReady) => {
                group.reads.push(read);
                let mut effects = std::mem::take(&mut self.core_effects);
                group.core.request_read(token.0, now, &mut effects);
                self.core_effects = effects;
                self.run_core(copyset, now, out);
                Ok(())
            }
            Err(NotReadable::Busy) => Err(IoError::Busy),
            Err(NotReadable::NotLeader { leader }) => Err(IoError::NotLeader { leader }),
        }
    }

    /// A read whose turn has come.
    pub(crate) fn serve_read(&mut self, copyset: CopysetId, read: WaitingRead) {
        match read.query {
            Query::Data { .. } => self.store.read(read.token.0, copyset, read.chunk, read.range),
            Query::Map => self.store.mapped(read.token.0, copyset, read.chunk, read.range),
        }
    }

    /// The store read what a client asked for.
    pub(crate) fn answer_read(
        &mut self,
        token: Token,
        result: Result<Buf, ogive_store::ReadError>,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(data) => {
                let body = encode(&IoReply::Data(block_sums(&data)));
                self.calls.answer(token, body, vec![data], out);
            }
            Err(ogive_store::ReadError::Busy) => self.refuse(token, IoError::Busy, out),
            Err(error) => {
                tracing::error!(%error, "read failed");
                self.refuse(token, IoError::Unreadable, out);
            }
        }
    }

    /// The store found which blocks hold data.
    pub(crate) fn answer_mapped(
        &mut self,
        token: Token,
        result: Result<Vec<Mapped>, ogive_store::ReadError>,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(runs) => self.calls.answer(token, encode(&IoReply::Map(runs)), Vec::new(), out),
            Err(ogive_store::ReadError::Busy) => self.refuse(token, IoError::Busy, out),
            Err(error) => {
                tracing::error!(%error, "the map cannot be read");
                self.refuse(token, IoError::Unreadable, out);
            }
        }
    }

    /// This replica lost its leadership: those who wait are told, with the outcome unknown.
    pub(crate) fn interrupt(&mut self, copyset: CopysetId, out: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(&copyset) else { return };
        let leader = group.core.leader();
        let (writes, reads) = Group::step_down(group);
        for token in writes {
            self.refuse(token, IoError::Interrupted, out);
        }
        for token in reads {
            self.refuse(token, IoError::NotLeader { leader }, out);
        }
    }
}

/// Remembers whether the newest write found space.
pub(crate) fn note_space(full: &mut bool, writes: bool, appended: Result<(), AppendError>) {
    match appended {
        Ok(()) if writes => *full = false,
        Err(AppendError::NoSpace) => *full = true,
        _ => {}
    }
}
