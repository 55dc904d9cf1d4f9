//! Repair of damaged blocks from peers.
//!
//! ```text
//!            ┌──(not here, lost: the next peer)──┐
//!            ▼                                   │
//! found ─▶ Due ─(asked a peer)─▶ Asking ─────────┤
//!            ▲                                   ▼ (bytes that match our map)
//!            ├──(all asked: a round is over)     Writing ─(persisted)─▶ repaired
//!            └──(no room in the store now)───────┘
//! ```
//!
//! Reads that met the damage wait with what they could read, and get the bytes when they arrive,
//! before these are written anew. So a client's read of a damaged block costs a round trip more,
//! and no retry of its own. When a round is over the reads end: with the error, if every peer said
//! that it has no good copy either; with "busy, come again" if somebody could not be asked.
//!
//! Bytes count only if they match the checksum in our own map, so it does not matter who sends
//! them, in which term, nor how many of the copies are bad. The argument, and what is written when:
//! `design/0001-repair.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use ogive_buf::{Buf, BufMut};
use ogive_store::{Damage, ReadError, RepairError};
use ogive_types::message::{BlockVersion, FETCH_BLOCKS_MAX, Found, ReplicaRequest};
use ogive_types::{BLOCK_BYTES, CopysetId, ShardAddr, Time, block_sum};

use crate::calls::Token;
use crate::event::Effect;
use crate::limits::{
    FETCHES_MAX, REPAIR_READERS_MAX, REPAIR_RETRY_FIRST, REPAIR_RETRY_MAX, REPAIRS_MAX,
};
use crate::peers::{PeerCall, What};
use crate::report::RepairReport;
use crate::shard::Shard;

/// Names a damaged block on this shard.
type Key = (CopysetId, BlockVersion);

#[derive(Default)]
pub(crate) struct Repairs {
    jobs: BTreeMap<Key, Job>,
    /// The jobs that are due, by when.
    due: BTreeSet<(Time, Key)>,
    /// Reads that wait for bytes.
    readers: HashMap<Token, Reader>,
    fetches: BTreeMap<u64, Fetch>,
    fetches_sent: u64,
    writes: HashMap<Token, Key>,
    counted: RepairReport,
}

/// A block on its way to being repaired.
struct Job {
    state: State,
    /// Peers that were asked in this round.
    asked: Vec<ShardAddr>,
    /// Whether all of them said that they have no good copy.
    none_so_far: bool,
    /// The last round found that nobody has one.
    hopeless: bool,
    /// How the damage was found.
    error: ReadError,
    /// The end of the last round, and the pause after it.
    rested_at: Time,
    pause: Duration,
    /// Who waits, and for which block of their result.
    readers: Vec<(Token, usize)>,
}

enum State {
    Due(Time),
    Asking,
    Writing(Buf),
}

/// A read that waits: what it could read, and how many blocks it lacks.
struct Reader {
    rest: BufMut,
    missing: usize,
}

struct Fetch {
    copyset: CopysetId,
    from: ShardAddr,
    blocks: Vec<BlockVersion>,
}

/// What becomes of a read that met damage.
pub(crate) enum Patience {
    /// It waits, and is answered later.
    Waits,
    /// The bytes are here already.
    Whole(Buf),
    /// There is no room for it to wait.
    Gives,
}

impl Repairs {
    /// Notes damage; the read that met it waits if it can.
    fn note(&mut self, damage: Damage, now: Time) {
        let Damage { token, copyset, blocks, rest } = damage;
        let token = Token(token);
        let room = self.readers.len() < REPAIR_READERS_MAX;
        let mut reader = rest.filter(|_| room).map(|rest| Reader { rest, missing: 0 });
        for found in &blocks {
            let key = (copyset, found.block);
            if !self.jobs.contains_key(&key) {
                if self.jobs.len() >= REPAIRS_MAX {
                    reader = None;
                    continue; // found again by the next read or the next lap
                }
                self.add(key, found.error, now);
                let (chunk, block) = (found.block.chunk, found.block.number);
                let (place, error) = (found.place, found.error);
                tracing::error!(%copyset, %chunk, block, place, %error, "damaged block");
            }
            let job = self.jobs.get_mut(&key).expect("just added");
            if let Some(reader) = reader.as_mut() {
                match &job.state {
                    State::Writing(data) => fill(&mut reader.rest, found.at, data),
                    _ => {
                        reader.missing += 1;
                        job.readers.push((token, found.at));
                    }
                }
            }
            self.hurry(key, now);
        }
        if let Some(reader) = reader {
            self.readers.insert(token, reader);
        }
    }

    fn add(&mut self, key: Key, error: ReadError, now: Time) {
        self.counted.damaged += 1;
        self.counted.io_errors += u64::from(matches!(error, ReadError::Device(_)));
        let job = Job {
            state: State::Due(now),
            asked: Vec::new(),
            none_so_far: true,
            hopeless: false,
            error,
            rested_at: Time(0),
            pause: REPAIR_RETRY_FIRST,
            readers: Vec::new(),
        };
        self.jobs.insert(key, job);
        self.due.insert((now, key));
    }

    /// Somebody waits: the next round comes as soon as the last one allows.
    fn hurry(&mut self, key: Key, now: Time) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let State::Due(at) = job.state else { return };
        let sooner = at.min(now.max(job.rested_at + REPAIR_RETRY_FIRST));
        if !job.readers.is_empty() && sooner < at {
            self.set_due(key, sooner);
        }
    }

    fn set_due(&mut self, key: Key, at: Time) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if let State::Due(before) = std::mem::replace(&mut job.state, State::Due(at)) {
            self.due.remove(&(before, key));
        }
        self.due.insert((at, key));
    }

    fn remove(&mut self, key: Key) -> Option<Job> {
        let job = self.jobs.remove(&key)?;
        if let State::Due(at) = job.state {
            self.due.remove(&(at, key));
        }
        Some(job)
    }

    /// A read ended with damage, which was noted just before.
    pub(crate) fn wait(&mut self, token: Token) -> Patience {
        match self.readers.get(&token).map(|reader| reader.missing) {
            Some(0) => {
                let reader = self.readers.remove(&token).expect("looked up just now");
                Patience::Whole(reader.rest.freeze())
            }
            Some(_) => Patience::Waits,
            None => Patience::Gives,
        }
    }

    /// When something is to be done without an event.
    pub(crate) fn next_deadline(&self) -> Time {
        let free = self.fetches.len() < FETCHES_MAX;
        self.due.first().filter(|_| free).map_or(Time::NEVER, |&(at, _)| at)
    }

    /// Damaged blocks that are not repaired yet.
    pub(crate) fn open(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn report(&self) -> RepairReport {
        let hopeless = self.jobs.values().filter(|job| job.hopeless).count() as u64;
        RepairReport { open: self.jobs.len() as u64, unrepairable: hopeless, ..self.counted }
    }
}

impl Shard {
    pub(crate) fn on_damage(&mut self, mut damage: Damage, now: Time) {
        self.note_for_peer(&mut damage);
        self.repairs.note(damage, now);
    }

    /// Asks peers for the blocks whose turn it is.
    pub(crate) fn pump_repairs(&mut self, now: Time, out: &mut Vec<Effect>) {
        let mut wishes: BTreeMap<(CopysetId, ShardAddr), Vec<BlockVersion>> = BTreeMap::new();
        while self.repairs.fetches.len() + wishes.len() < FETCHES_MAX {
            let Some(&(at, key)) = self.repairs.due.first() else { break };
            if at > now {
                break;
            }
            let (id, block) = key;
            let nobody = self.repairs.jobs[&key].readers.is_empty();
            if nobody && !self.store.may_show(id, &block) {
                self.repairs.remove(key); // written over, trimmed, or its replica is gone
                continue;
            }
            let Some(peer) = self.peer_to_ask(key) else {
                self.round_over(key, now, out);
                continue;
            };
            let job = self.repairs.jobs.get_mut(&key).expect("it is due");
            job.asked.push(peer);
            if !self.peers.is_up(peer) {
                job.none_so_far = false;
                continue;
            }
            job.state = State::Asking;
            self.repairs.due.remove(&(at, key));
            let blocks = wishes.entry((id, peer)).or_default();
            blocks.push(block);
            if blocks.len() == FETCH_BLOCKS_MAX {
                let blocks = std::mem::take(blocks);
                wishes.remove(&(id, peer));
                self.fetch(id, peer, blocks, now, out);
            }
        }
        for ((id, peer), blocks) in wishes {
            self.fetch(id, peer, blocks, now, out);
        }
    }

    /// The leader first, since it is the one that has what is newest.
    fn peer_to_ask(&self, (id, block): Key) -> Option<ShardAddr> {
        let group = self.groups.get(&id)?;
        let asked = &self.repairs.jobs[&(id, block)].asked;
        let leader = group.core.leader().filter(|l| group.members.contains(l));
        let all = leader.into_iter().chain(group.members.iter().copied());
        all.into_iter().find(|peer| *peer != self.options.addr && !asked.contains(peer))
    }

    fn fetch(
        &mut self,
        copyset: CopysetId,
        from: ShardAddr,
        blocks: Vec<BlockVersion>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.repairs.fetches_sent += 1;
        let number = self.repairs.fetches_sent;
        let request = ReplicaRequest::Fetch(copyset, blocks.clone());
        self.repairs.fetches.insert(number, Fetch { copyset, from, blocks });
        let call = PeerCall { to: from, what: What::Fetch(number) };
        if !self.peers.call(call, &request, Vec::new(), now, out) {
            self.fetch_lost(number, now);
        }
    }

    /// A peer was not reached, or did not answer: the next one is asked.
    pub(crate) fn fetch_lost(&mut self, number: u64, now: Time) {
        let Some(Fetch { copyset, blocks, .. }) = self.repairs.fetches.remove(&number) else {
            return;
        };
        for block in blocks {
            self.not_found((copyset, block), false, now);
        }
    }

    fn not_found(&mut self, key: Key, for_sure: bool, now: Time) {
        if let Some(job) = self.repairs.jobs.get_mut(&key) {
            job.none_so_far &= for_sure;
            self.repairs.set_due(key, now);
        }
    }

    /// A peer's answer.
    pub(crate) fn on_fetched(
        &mut self,
        number: u64,
        found: &[Found],
        payload: Option<Buf>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(Fetch { copyset, from, blocks }) = self.repairs.fetches.remove(&number) else {
            return Ok(());
        };
        if found.len() != blocks.len() {
            let (asked, found) = (blocks.len(), found.len());
            blocks.into_iter().for_each(|block| self.not_found((copyset, block), false, now));
            return Err(format!("{found} answers for {asked} blocks"));
        }
        let mut at = 0;
        for (block, found) in blocks.into_iter().zip(found) {
            let key = (copyset, block);
            match (found, &payload) {
                (Found::Here, Some(payload)) => {
                    let data = payload.slice(at..at + BLOCK_BYTES);
                    at += BLOCK_BYTES;
                    if is_right(&data, &block) {
                        self.mend(key, data, now, out);
                    } else {
                        // It was right when the peer read it: the next one may arrive well.
                        tracing::warn!(%copyset, %from, "a peer's copy arrived damaged");
                        self.not_found(key, false, now);
                    }
                }
                (Found::Damaged, _) => self.not_found(key, true, now),
                _ => self.not_found(key, false, now),
            }
        }
        Ok(())
    }

    /// The right bytes are here: those who wait get them, and they are written anew.
    fn mend(&mut self, key: Key, data: Buf, now: Time, out: &mut Vec<Effect>) {
        let Some(job) = self.repairs.jobs.get_mut(&key) else { return };
        let readers = std::mem::take(&mut job.readers);
        let token = self.calls.token();
        let (id, block) = key;
        match self.store.repair(token.0, id, &block, &data) {
            Ok(()) => {
                job.state = State::Writing(data.clone());
                self.repairs.writes.insert(token, key);
            }
            Err(RepairError::Store(error)) => {
                tracing::warn!(copyset = %id, %error, "no room for a repair yet");
                self.rest(key, now);
            }
            // Of an entry that the map does not show: only those who wait wanted it.
            Err(RepairError::Replaced | RepairError::Checksum) => {
                self.repairs.remove(key);
            }
        }
        for (token, at) in readers {
            let Some(reader) = self.repairs.readers.get_mut(&token) else { continue };
            fill(&mut reader.rest, at, &data);
            reader.missing -= 1;
            if let Patience::Whole(data) = self.repairs.wait(token) {
                self.read_done(token, Ok(data), now, out);
            }
        }
    }

    /// Every peer was asked: those who wait are told, and the next round comes after a pause.
    fn round_over(&mut self, key: Key, now: Time, out: &mut Vec<Effect>) {
        let Some(job) = self.repairs.jobs.get_mut(&key) else { return };
        job.hopeless = job.none_so_far;
        let error = if job.hopeless { job.error } else { ReadError::Busy };
        let readers = std::mem::take(&mut job.readers);
        if job.hopeless {
            let (chunk, block) = (key.1.chunk, key.1.number);
            tracing::error!(copyset = %key.0, %chunk, block, "no replica has a good copy");
        }
        self.rest(key, now);
        for (token, _) in readers {
            if self.repairs.readers.remove(&token).is_some() {
                self.read_done(token, Err(error), now, out);
            }
        }
    }

    /// Pauses a job, longer each time.
    fn rest(&mut self, key: Key, now: Time) {
        let Some(job) = self.repairs.jobs.get_mut(&key) else { return };
        job.asked.clear();
        job.none_so_far = true;
        job.rested_at = now;
        let pause = job.pause;
        job.pause = (pause * 2).min(REPAIR_RETRY_MAX);
        self.repairs.set_due(key, now + pause);
    }

    /// Repaired blocks are on stable storage.
    pub(crate) fn on_repaired(&mut self, token: Token) {
        let Some(key) = self.repairs.writes.remove(&token) else { return };
        let (chunk, block) = (key.1.chunk, key.1.number);
        tracing::info!(copyset = %key.0, %chunk, block, "damaged block repaired");
        self.repairs.counted.repaired += 1;
        self.repairs.remove(key);
    }

    /// Damaged blocks of this shard that are not repaired yet.
    pub fn repairs_open(&self) -> usize {
        self.repairs.open()
    }
}

/// Whether bytes are those that a block must hold.
fn is_right(data: &[u8], block: &BlockVersion) -> bool {
    block_sum(data) == block.sum
}

fn fill(rest: &mut BufMut, at: usize, data: &[u8]) {
    rest[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES].copy_from_slice(data);
}
