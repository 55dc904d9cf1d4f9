//! Catch-up of a follower that the log no longer reaches: the blocks that changed after an index.
//!
//! ```text
//! leader:   Scanning ──(all pages acknowledged)──▶ Ending ──(DeltaEnd acknowledged)──▶ done
//!              │ ▲                                   │          the log goes on behind `upto`
//!              └─┘ refused with an older position:   └──(refused, lost, stepped down)──▶ gone
//!                  start over from there                        the core asks again
//! ```
//!
//! Only applied, and so committed, blocks are sent, each with the index of the entry that wrote it;
//! the follower keeps a block only if it is newer than its own. Its log does not move until
//! `DeltaEnd`, so that it cannot win an election with a state that is ahead of its log (see the
//! design record of the copyset crate).

use ogive_buf::Buf;
use ogive_store::{DeltaCursor, ReadError};
use ogive_types::message::{DeltaEnd, DeltaPage, DeltaReply, ReplicaReply, ReplicaRequest, encode};
use ogive_types::{CopysetId, Index, LogPos, ShardAddr, Time, block_sums};

use crate::calls::Token;
use crate::event::Effect;
use crate::limits::{DELTA_BLOCKS, DELTA_PAGES_IN_FLIGHT, DELTAS_MAX};
use crate::peers::{PeerCall, What};
use crate::shard::Shard;

/// The leader's side of one delta.
pub(crate) struct DeltaSender {
    base: Index,
    upto: LogPos,
    /// Where the scan goes on; `None` at its end.
    cursor: Option<DeltaCursor>,
    /// A page whose data is being read, with the place to scan again should the data have changed
    /// meanwhile.
    reading: Option<(Token, DeltaCursor, DeltaPage)>,
    pages_in_flight: usize,
    ending: bool,
    /// Waits until fewer deltas are under way.
    queued: bool,
}

impl Shard {
    /// Starts a delta without knowing what the follower has applied: it refuses a base beyond that,
    /// and says what it has.
    pub(crate) fn ask_delta(&mut self, id: CopysetId, to: ShardAddr) {
        self.start_delta(id, to, self.store.applied(id).index);
    }

    fn start_delta(&mut self, id: CopysetId, to: ShardAddr, base: Index) {
        let Some(state) = self.store.replica(id) else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        tracing::info!(copyset = %id, %to, %base, upto = %state.applied, "catch-up by delta");
        let sender = DeltaSender {
            base,
            upto: state.applied,
            cursor: Some(DeltaCursor::start()),
            reading: None,
            pages_in_flight: 0,
            ending: false,
            queued: true,
        };
        group.deltas.insert(to, sender);
        self.active.insert(id);
    }

    /// Goes on with the deltas of a group.
    pub(crate) fn pump_deltas(&mut self, id: CopysetId, now: Time, out: &mut Vec<Effect>) {
        let Some(group) = self.groups.get(&id) else { return };
        let followers: Vec<ShardAddr> = group.deltas.keys().copied().collect();
        for to in followers {
            if self.delta(id, to).is_some_and(|d| d.queued) && self.deltas_running() >= DELTAS_MAX {
                continue;
            }
            while self.delta_step(id, to, now, out) {}
        }
    }

    fn deltas_running(&self) -> usize {
        let all = self.groups.values().flat_map(|g| g.deltas.values());
        all.filter(|delta| !delta.queued).count()
    }

    fn delta(&mut self, id: CopysetId, to: ShardAddr) -> Option<&mut DeltaSender> {
        self.groups.get_mut(&id)?.deltas.get_mut(&to)
    }

    /// Scans and sends one page, or ends the delta; false when there is nothing to do now.
    fn delta_step(
        &mut self,
        id: CopysetId,
        to: ShardAddr,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(group) = self.groups.get_mut(&id) else { return false };
        let term = group.core.term();
        let Some(sender) = group.deltas.get_mut(&to) else { return false };
        if sender.reading.is_some() || sender.ending || !self.peers.is_up(to) {
            return false;
        }
        sender.queued = false;
        let Some(cursor) = sender.cursor.clone() else {
            if sender.pages_in_flight > 0 {
                return false;
            }
            sender.ending = true;
            let end = DeltaEnd { term, upto: sender.upto, fences: self.store.fences(id) };
            let request = ReplicaRequest::DeltaEnd(id, end);
            self.send_delta(id, to, request, Vec::new(), What::DeltaEnd(id), now, out);
            return false;
        };
        if sender.pages_in_flight >= DELTA_PAGES_IN_FLIGHT {
            return false;
        }
        let scan = self.store.delta_scan(id, sender.base, cursor.clone(), DELTA_BLOCKS);
        if scan.waits {
            return false;
        }
        sender.cursor = scan.next;
        let page = DeltaPage {
            term,
            upto: sender.upto,
            base: sender.base,
            after: scan.after,
            through: scan.through,
            chunks: scan.chunks,
        };
        if page.chunks.iter().flat_map(|c| &c.extents).all(|e| e.sums.is_empty()) {
            sender.pages_in_flight += 1;
            let request = ReplicaRequest::Delta(id, page);
            self.send_delta(id, to, request, Vec::new(), What::Delta(id), now, out);
            return true;
        }
        let token = self.calls.token();
        self.store.delta_read(token.0, id, &page.chunks);
        sender.reading = Some((token, cursor, page));
        self.delta_reads.insert(token, (id, to));
        false
    }

    #[allow(clippy::too_many_arguments)] // the parts of one message and the context of `apply`
    fn send_delta(
        &mut self,
        id: CopysetId,
        to: ShardAddr,
        request: ReplicaRequest,
        payload: Vec<Buf>,
        what: What,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.stats.delta_bytes += payload.iter().map(|b| b.len() as u64).sum::<u64>();
        if !self.peers.call(PeerCall { to, what }, &request, payload, now, out) {
            self.delta_failed(id, to);
        }
    }

    /// The data of a page was read.
    pub(crate) fn delta_read_done(
        &mut self,
        token: Token,
        result: Result<Buf, ReadError>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some((id, to)) = self.delta_reads.remove(&token) else { return };
        let Some(sender) = self.delta(id, to) else { return };
        let Some((reading, cursor, page)) = sender.reading.take() else { return };
        if reading != token {
            sender.reading = Some((reading, cursor, page));
            return; // the page of a delta that was started over
        }
        self.active.insert(id);
        if let Err(error @ (ReadError::Checksum | ReadError::Device(_) | ReadError::Busy)) = result
        {
            tracing::warn!(copyset = %id, %to, %error, "delta stopped");
            return self.delta_failed(id, to);
        }
        let data = result.ok();
        let sums = page.chunks.iter().flat_map(|c| &c.extents).flat_map(|e| &e.sums);
        let intact = data.as_ref().is_some_and(|d| block_sums(d).iter().eq(sums));
        let Some(sender) = self.delta(id, to) else { return };
        if let (true, Some(data)) = (intact, data) {
            sender.pages_in_flight += 1;
            let request = ReplicaRequest::Delta(id, page);
            self.send_delta(id, to, request, vec![data], What::Delta(id), now, out);
        } else {
            // Overwritten or trimmed since the scan: scan the same place again.
            sender.cursor = Some(cursor);
        }
    }

    pub(crate) fn on_delta_reply(
        &mut self,
        id: CopysetId,
        from: ShardAddr,
        end: bool,
        reply: DeltaReply,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(sender) = self.delta(id, from) else { return };
        if !reply.accepted {
            if reply.last.index < sender.base {
                self.end_delta(id, from);
                return self.start_delta(id, from, reply.last.index);
            }
            return self.delta_failed(id, from);
        }
        let upto = sender.upto;
        if !end {
            sender.pages_in_flight = sender.pages_in_flight.saturating_sub(1);
        }
        self.active.insert(id);
        if !end {
            return;
        }
        self.end_delta(id, from);
        let Some(group) = self.groups.get_mut(&id) else { return };
        tracing::info!(copyset = %id, to = %from, %upto, "caught up by delta");
        let mut effects = Vec::new();
        group.core.delta_done(from, upto, &mut effects);
        self.queue_core(id, effects, now, out);
    }

    /// Forgets a delta; those that queue for its place are looked at again.
    fn end_delta(&mut self, id: CopysetId, to: ShardAddr) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.deltas.remove(&to);
        let queued = self.groups.values().filter(|g| g.deltas.values().any(|d| d.queued));
        self.active.extend(queued.map(|g| g.id));
    }

    pub(crate) fn delta_failed(&mut self, id: CopysetId, to: ShardAddr) {
        self.end_delta(id, to);
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.core.delta_failed(to);
    }

    /// The follower's side: a page.
    #[allow(clippy::too_many_arguments)] // the parts of one message and the context of `apply`
    pub(crate) fn on_delta(
        &mut self,
        id: CopysetId,
        from: ShardAddr,
        token: Token,
        page: DeltaPage,
        payload: Option<Buf>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(applied) = self.delta_allowed(id, from, token, page.term, now, out) else {
            return;
        };
        let sums = page.chunks.iter().flat_map(|c| &c.extents).flat_map(|e| &e.sums);
        let intact = payload.as_deref().map_or(Vec::new(), block_sums).iter().eq(sums);
        if page.base > applied.index || !intact {
            return self.answer_delta(id, token, false, applied, out);
        }
        if let Err(error) = self.store.delta_apply(token.0, id, &page, payload) {
            tracing::warn!(copyset = %id, %error, "delta refused by the store");
            self.answer_delta(id, token, false, applied, out);
        }
    }

    /// The follower's side: the end.
    pub(crate) fn on_delta_end(
        &mut self,
        id: CopysetId,
        from: ShardAddr,
        token: Token,
        end: DeltaEnd,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(applied) = self.delta_allowed(id, from, token, end.term, now, out) else { return };
        if end.upto.index <= applied.index {
            return self.answer_delta(id, token, true, applied, out);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.core.accepts_delta(end.upto) {
            return self.answer_delta(id, token, false, applied, out);
        }
        self.store.reset_log(token.0, id, end.upto, &end.fences);
        // The core moves at once, as the store does: the answer, which alone lets the leader count
        // on it, waits until the reset is persisted, and so does every later one, since the store
        // reports in order.
        let mut effects = Vec::new();
        group.core.log_reset(end.upto, &mut effects);
        self.queue_core(id, effects, now, out);
    }

    /// Checks a delta message like a heartbeat; the applied position, or `None` when it was
    /// answered already.
    fn delta_allowed(
        &mut self,
        id: CopysetId,
        from: ShardAddr,
        token: Token,
        term: ogive_types::Term,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Option<LogPos> {
        let Some(group) = self.member(id, from) else {
            self.calls.answer(token, encode(&ReplicaReply::Nothing), Vec::new(), out);
            return None;
        };
        let mut effects = Vec::new();
        let current = group.core.on_leader_contact(from, term, now, &mut effects);
        self.queue_core(id, effects, now, out);
        let applied = self.store.applied(id);
        if !current {
            self.answer_delta(id, token, false, applied, out);
            return None;
        }
        Some(applied)
    }

    pub(crate) fn answer_delta(
        &mut self,
        id: CopysetId,
        token: Token,
        accepted: bool,
        last: LogPos,
        out: &mut Vec<Effect>,
    ) {
        let term = self.groups.get(&id).map_or_else(Default::default, |g| g.core.saved_term());
        let reply = ReplicaReply::Delta(id, DeltaReply { term, accepted, last });
        self.calls.answer(token, encode(&reply), Vec::new(), out);
    }
}
