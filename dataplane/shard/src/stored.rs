//! What the store reports, and to whom it matters.

use ogive_buf::Buf;
use ogive_store::{ReadError, StoreEvent};
use ogive_types::{CopysetId, ShardAddr, Time};

use crate::calls::Token;
use crate::event::Effect;
use crate::peers::{PeerCall, What};
use crate::repair::Patience;
use crate::shard::Shard;

impl Shard {
    pub(crate) fn on_store(&mut self, event: StoreEvent, now: Time, out: &mut Vec<Effect>) {
        match event {
            StoreEvent::Persisted { copyset, index } => {
                let Some(group) = self.groups.get_mut(&copyset) else { return };
                group.core.persisted(index, &mut self.core_effects);
                self.run_core(copyset, now, out);
                self.active.insert(copyset);
            }
            StoreEvent::HardState { copyset, hard } => {
                let Some(group) = self.groups.get_mut(&copyset) else { return };
                group.core.hard_state_persisted(hard, &mut self.core_effects);
                self.run_core(copyset, now, out);
            }
            StoreEvent::ReadDone { token, result } => self.read_ended(token, result, now, out),
            StoreEvent::Mapped { token, result } => self.answer_mapped(Token(token), result, out),
            // Deltas go on.
            StoreEvent::MapRead { copyset } => drop(self.active.insert(copyset)),
            StoreEvent::DeltaPersisted { token, copyset } => {
                let last = self.store.applied(copyset);
                self.answer_delta(copyset, Token(token), true, last, out);
                self.active.insert(copyset);
            }
            StoreEvent::Damaged(damage) => self.on_damage(*damage, now),
            StoreEvent::Checked { token, .. } => self.scrubbed(Token(token)),
            StoreEvent::Repaired { token } => self.on_repaired(Token(token)),
            StoreEvent::Failed { error } => {
                if !std::mem::replace(&mut self.failed, true) {
                    out.push(Effect::Fatal(format!("the device failed: {error}")));
                }
            }
        }
    }

    /// A read has ended; with damage it may wait for a repair.
    fn read_ended(
        &mut self,
        token: u64,
        result: Result<Buf, ReadError>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let token = Token(token);
        if self.fetch_read_done(token, &result, out) {
            return;
        }
        let result = match result {
            Err(ReadError::Checksum | ReadError::Device(_)) => match self.repairs.wait(token) {
                Patience::Waits => return,
                Patience::Whole(data) => Ok(data),
                Patience::Gives => Err(ReadError::Busy),
            },
            result => result,
        };
        self.read_done(token, result, now, out);
    }

    /// The end of a read for whoever asked for it.
    pub(crate) fn read_done(
        &mut self,
        token: Token,
        result: Result<Buf, ReadError>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        if self.delta_reads.contains_key(&token) {
            self.delta_read_done(token, result, now, out);
        } else if let Some((id, to)) = self.entry_reads.remove(&token) {
            self.entry_read_done(id, to, token, result, now, out);
        } else {
            self.answer_read(token, result, out);
        }
    }

    fn entry_read_done(
        &mut self,
        id: CopysetId,
        to: ShardAddr,
        token: Token,
        result: Result<Buf, ReadError>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(outbox) = group.outboxes.get_mut(&to) else { return };
        let Some(index) = outbox.fetched(token, result.as_ref().ok()) else { return };
        match result {
            Ok(_) => self.pump_outbox(id, to, now, out),
            Err(error) => {
                if matches!(error, ReadError::Checksum | ReadError::Device(_)) {
                    // Nobody has this version any more, and the log cannot be sent past it: once
                    // the entry is gone the follower gets what is in its place, by a delta.
                    self.store.release(id, index);
                }
                self.lost(PeerCall { to, what: What::Append(id) }, now, out);
            }
        }
    }
}
