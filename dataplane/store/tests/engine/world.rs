//! A store on a simulated disk beside its model, driven at random.

use std::collections::BTreeMap;
use std::rc::Rc;

use ogive_buf::{Buf, Pool};
use ogive_store::simdisk::SimDisk;
use ogive_store::{
    AppendError, DiskOp, FormatOptions, HardState, Label, ReadError, Store, StoreEvent,
    StoreOptions, audit, format,
};
use ogive_types::message::Op;
use ogive_types::{
    BLOCK_BYTES, BlockRange, ChunkId, ChunkserverId, CopysetId, Epoch, Index, LogPos, ShardAddr,
    Term, VolumeId, block_sums,
};

use crate::model::{Asked, Entry, Log, Logs, State};

/// A small generator with a seed.
pub struct Rng(pub u64);

impl Rng {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// First block that tests touch, and how many: two pages meet in the middle.
pub const FIRST: u16 = 216;
pub const BLOCKS: u16 = 104;

/// How a world is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub volatile: bool,
    pub sector: u32,
    pub device_bytes: u64,
    pub options: StoreOptions,
}

impl Setup {
    /// A small device of which most is under load at any time.
    pub fn draw(rng: &mut Rng) -> Setup {
        let volatile = rng.once_in(2);
        let options = StoreOptions {
            volatile_cache: volatile,
            retain_entries: [2, 40, 10_000][rng.below(3) as usize],
            retain_bytes: [0, 1 << 20][rng.below(2) as usize],
            retain_share: [2, 16][rng.below(2) as usize],
        };
        let sector = [512, 4096][rng.below(2) as usize];
        let device_bytes = (9 << 20) + rng.below(3) * (1 << 20);
        Setup { volatile, sector, device_bytes, options }
    }
}

/// A replica's part of the model that is not in its log.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    pub persisted: usize,
    pub applied: usize,
    pub state: State,
    /// Before so many entries are applied its content is part of a delta and not known.
    pub clear_at: usize,
}

struct Reading {
    copyset: CopysetId,
    chunk: ChunkId,
    start: u16,
    expected: Option<Vec<u64>>,
}

pub struct World {
    pub setup: Setup,
    pub rng: Rng,
    pub disk: SimDisk,
    pub label: Label,
    pub pool: Pool,
    pub store: Store,
    pub logs: Logs,
    pub replicas: BTreeMap<CopysetId, Replica>,
    /// The logs as they are sure to be recovered, and what was asked since.
    sure: Logs,
    asked: Vec<Asked>,
    reads: BTreeMap<u64, Reading>,
    /// Results of reads for deltas.
    pub delta_reads: BTreeMap<u64, Result<Buf, ReadError>>,
    /// Tokens of deltas and resets that are persisted.
    pub persisted_tokens: Vec<u64>,
    next: u64,
    pub refused: u64,
    pub crashes: u64,
    pub checkpoints: u64,
}

pub fn members() -> Vec<ShardAddr> {
    let addr = |n| ShardAddr { server: ChunkserverId(n), shard: 0 };
    (1..=3).map(addr).collect()
}

/// A block of data with a tag.
pub fn block(tag: u64) -> Vec<u8> {
    let mut bytes = vec![tag as u8; BLOCK_BYTES];
    if tag != 0 {
        bytes[..8].copy_from_slice(&tag.to_le_bytes());
    }
    bytes
}

pub fn range(start: u16, blocks: u16) -> BlockRange {
    BlockRange::new(start, blocks).expect("within a chunk")
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let setup = Setup::draw(&mut rng);
        World::with(setup, rng)
    }

    pub fn with(setup: Setup, rng: Rng) -> World {
        let mut disk = SimDisk::new(setup.device_bytes, setup.sector);
        disk.set_volatile_cache(setup.volatile);
        let options = FormatOptions {
            shards: 1,
            sector: setup.sector,
            log_bytes: Some(1 << 20),
            uuid: uuid::Uuid::from_u128(7),
            force: false,
            quick: true,
        };
        let label = format(&mut disk, &options, &mut |_, _| ()).expect("it fits");
        let pool = Pool::new(32 << 20);
        let store = Store::open(&mut disk, &label, 0, pool.clone(), setup.options.clone());
        World {
            setup,
            rng,
            disk,
            label,
            pool,
            store: store.expect("a new device"),
            logs: Logs::new(),
            replicas: BTreeMap::new(),
            sure: Logs::new(),
            asked: Vec::new(),
            reads: BTreeMap::new(),
            delta_reads: BTreeMap::new(),
            persisted_tokens: Vec::new(),
            next: 0,
            refused: 0,
            crashes: 0,
            checkpoints: 0,
        }
    }

    /// A number that was never given before.
    pub fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn ask(&mut self, asked: Asked) {
        asked.apply(&mut self.logs);
        self.asked.push(asked);
    }

    /// Everything asked up to the newest that fits is sure to survive.
    fn now_sure(&mut self, fits: impl Fn(&Asked) -> bool) {
        let Some(at) = self.asked.iter().rposition(fits) else { return };
        for asked in self.asked.drain(..=at) {
            asked.apply(&mut self.sure);
        }
    }

    pub fn create(&mut self, id: CopysetId) {
        let life = self.fresh() as u32;
        self.store.create_replica(id, &members());
        self.ask(Asked::Create(id, life));
        self.replicas.insert(id, Replica::default());
    }

    pub fn drop_replica(&mut self, id: CopysetId) {
        self.store.drop_replica(id);
        self.ask(Asked::Drop(id));
        self.replicas.remove(&id);
    }

    pub fn save_hard(&mut self, id: CopysetId) {
        let term = Term(self.fresh());
        let voted_for = self.rng.once_in(2).then(|| members()[0]);
        let hard = HardState { term, voted_for };
        self.store.save_hard_state(id, hard);
        self.ask(Asked::Hard(id, hard));
    }

    /// Data of so many blocks from `tag` on.
    pub fn data(&self, tag: u64, blocks: u16) -> Buf {
        let mut buf = self.pool.alloc(usize::from(blocks) * BLOCK_BYTES).expect("memory");
        for (bytes, tag) in buf.chunks_exact_mut(BLOCK_BYTES).zip(tag..) {
            bytes.copy_from_slice(&block(tag));
        }
        buf.freeze()
    }

    /// An entry that does something at random to a volume that is not deleted.
    pub fn draw_entry(&mut self, id: CopysetId, blocks_max: u16) -> Rc<Entry> {
        let log = &self.logs[&id];
        let deleted = |volume: u64| {
            let gone = Op::DropVolume { volume: VolumeId(volume) };
            log.entries.iter().any(|e| e.op == gone)
        };
        let alive: Vec<u64> = (1..).filter(|v| !deleted(*v)).take(2).collect();
        let volume = VolumeId(alive[self.rng.below(2) as usize]);
        let chunk = ChunkId { volume, number: self.rng.below(2) as u32 };
        let blocks = match self.rng.below(8) {
            0 => 1 + self.rng.below(u64::from(blocks_max)) as u16,
            _ => 1 + self.rng.below(u64::from(blocks_max.min(4))) as u16,
        };
        let at = range(FIRST + self.rng.below(u64::from(BLOCKS - blocks) + 1) as u16, blocks);
        let tag = self.next + 1;
        let op = match self.rng.below(40) {
            0 => Op::Noop,
            1 => Op::Fence { volume, epoch: Epoch(self.rng.below(100)) },
            2 => Op::DropVolume { volume },
            3..=8 => Op::Trim { chunk, range: at },
            _ => {
                self.next += u64::from(blocks);
                let sums = block_sums(&self.data(tag, blocks));
                Op::Write { chunk, range: at, sums }
            }
        };
        let log = &self.logs[&id];
        let term = log.last_term().max(log.hard.term).max(Term(1));
        Rc::new(Entry { term, op, tag })
    }

    /// Appends an entry; false when it is refused.
    pub fn append(&mut self, id: CopysetId, entry: Rc<Entry>) -> Result<(), AppendError> {
        let index = Index(self.logs[&id].entries.len() as u64 + 1);
        let payload = match &entry.op {
            Op::Write { range, .. } => Some(self.data(entry.tag, range.blocks())),
            _ => None,
        };
        let result = self.store.append(id, index, entry.term, entry.op.clone(), payload);
        match result {
            Ok(()) => self.ask(Asked::Append(id, entry)),
            Err(_) => self.refused += 1,
        }
        result
    }

    /// Drops the entries behind the first `len`, which must be applied at least. What follows must
    /// have a higher term.
    pub fn truncate(&mut self, id: CopysetId, len: usize) {
        self.store.truncate_from(id, Index(len as u64 + 1));
        self.ask(Asked::Truncate(id, len));
        let replica = self.replicas.get_mut(&id).expect("it is here");
        replica.persisted = replica.persisted.min(len);
        let term = Term(self.fresh());
        let hard = HardState { term, voted_for: None };
        self.store.save_hard_state(id, hard);
        self.ask(Asked::Hard(id, hard));
    }

    pub fn apply(&mut self, id: CopysetId, upto: usize) {
        let replica = self.replicas.get_mut(&id).expect("it is here");
        for entry in &self.logs[&id].entries[replica.applied..upto.max(replica.applied)] {
            replica.state.apply(entry);
        }
        replica.applied = replica.applied.max(upto);
        self.store.apply(id, Index(upto as u64));
    }

    /// Restarts a replica behind the end of a delta.
    pub fn reset(&mut self, token: u64, id: CopysetId, of: &Log, upto: usize, clear_at: usize) {
        let term = of.entries[upto - 1].term;
        let state = of.state_at(upto);
        let fences: Vec<_> = state.fences.iter().map(|(&v, &e)| (v, e)).collect();
        self.store.reset_log(token, id, LogPos { term, index: Index(upto as u64) }, &fences);
        self.ask(Asked::Reset(id, of.entries[..upto].to_vec()));
        self.replicas.insert(id, Replica { persisted: upto, applied: upto, state, clear_at });
    }

    /// Whether the content of a replica is known.
    fn is_clear(&self, id: CopysetId) -> bool {
        self.replicas.get(&id).is_none_or(|r| r.applied >= r.clear_at)
    }

    /// Reads blocks; the result is compared with what the model holds now.
    pub fn read(&mut self, id: CopysetId, chunk: ChunkId, range: BlockRange) {
        let content = self.replicas.get(&id).map(|r| &r.state.content);
        let tag = |block| content.and_then(|c| c.get(&(chunk, block))).copied().unwrap_or(0);
        let expected = self.is_clear(id).then(|| range.iter().map(tag).collect());
        let token = self.fresh();
        self.reads.insert(token, Reading { copyset: id, chunk, start: range.start(), expected });
        self.store.read(token, id, chunk, range);
    }

    /// Starts what the store wants, ends up to `ends` operations, and looks at what it reports.
    pub fn pump(&mut self, ends: u64) {
        let mut ops: Vec<DiskOp> = Vec::new();
        self.store.poll_ops(&mut ops);
        ops.into_iter().for_each(|op| self.disk.submit(op));
        for _ in 0..ends {
            let rng = &mut self.rng;
            let Some(done) = self.disk.complete_next(&mut |n| rng.below(n)) else { break };
            self.store.complete(done);
            if self.rng.once_in(3) {
                let mut ops: Vec<DiskOp> = Vec::new();
                self.store.poll_ops(&mut ops);
                ops.into_iter().for_each(|op| self.disk.submit(op));
            }
        }
        self.look_at_events();
    }

    /// Ends everything.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.pump(8);
            if self.store.idle() && self.disk.pending() == 0 {
                assert!(self.reads.is_empty(), "every read ends");
                return;
            }
        }
        panic!("the store does not come to rest: {:?}", self.store.stats());
    }

    fn look_at_events(&mut self) {
        let mut events = Vec::new();
        self.store.poll_events(&mut events);
        for event in events {
            match event {
                StoreEvent::Persisted { copyset, index } => self.persisted(copyset, index),
                StoreEvent::HardState { copyset, hard } => self
                    .now_sure(|a| matches!(a, Asked::Hard(id, h) if *id == copyset && *h == hard)),
                StoreEvent::ReadDone { token, result } => {
                    let Some(reading) = self.reads.remove(&token) else {
                        self.delta_reads.insert(token, result);
                        continue;
                    };
                    let data = result.expect("nothing is damaged");
                    let Some(tags) = reading.expected else { continue };
                    for (at, bytes) in data.chunks_exact(BLOCK_BYTES).enumerate() {
                        let found = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
                        let Reading { copyset, chunk, start, .. } = reading;
                        let what = (copyset, chunk, usize::from(start) + at);
                        assert_eq!(found, tags[at], "tag of {what:?}");
                        assert_eq!(bytes, block(found), "data of {what:?}");
                    }
                    assert_eq!(data.len(), tags.len() * BLOCK_BYTES);
                }
                StoreEvent::DeltaPersisted { token, copyset } => {
                    self.persisted_tokens.push(token);
                    self.now_sure(|a| matches!(a, Asked::Reset(id, _) if *id == copyset));
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn persisted(&mut self, id: CopysetId, index: Index) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let upto = index.0 as usize;
        assert!(upto > replica.persisted, "{id}: persisted {upto} after {}", replica.persisted);
        replica.persisted = upto;
        let entry = Rc::clone(&self.logs[&id].entries[upto - 1]);
        self.now_sure(|a| matches!(a, Asked::Append(c, e) if *c == id && Rc::ptr_eq(e, &entry)));
    }

    /// The store says of its replicas what the model says.
    pub fn compare_states(&self) {
        assert!(self.store.replicas().eq(self.logs.keys().copied()));
        for (&id, log) in &self.logs {
            let state = self.store.replica(id).expect("listed");
            let replica = &self.replicas[&id];
            let last = LogPos { term: log.last_term(), index: Index(log.entries.len() as u64) };
            assert_eq!((state.last, state.hard), (last, log.hard), "{id}");
            let known = (state.applied.index.0 as usize, state.persisted.0 as usize);
            assert_eq!(known, (replica.applied, replica.persisted), "{id}");
            assert!(state.first <= state.applied.index.next(), "{id}: applied entries only go");
            for (&volume, &epoch) in &replica.state.fences {
                assert_eq!(self.store.fence_of(id, volume), Some(epoch), "{id} {volume}");
            }
        }
    }

    /// Reads everything that tests ever touch, and compares.
    pub fn compare_content(&mut self) {
        let ids: Vec<CopysetId> = self.logs.keys().copied().collect();
        for id in ids {
            let touched: std::collections::BTreeSet<ChunkId> =
                self.logs[&id].entries.iter().filter_map(|e| chunk_of(&e.op)).collect();
            for chunk in touched {
                self.read(id, chunk, range(FIRST, BLOCKS));
                self.pump(4);
            }
        }
        self.settle();
    }

    /// Cuts the power, opens the device again, and checks what was recovered against what was
    /// promised.
    pub fn crash(&mut self) {
        let before = std::mem::take(&mut self.replicas);
        let lives = self.logs.clone();
        self.reads.clear();
        self.crashes += 1;
        self.checkpoints += self.store.stats().checkpoints;
        let rng = &mut self.rng;
        self.disk.power_cut(&mut |n| rng.below(n));
        self.reopen();
        let rest: Vec<Asked> = std::mem::take(&mut self.asked);
        self.logs = self.recovered_from(&rest);
        self.sure = self.logs.clone();
        audit(&self.store).expect("consistent after recovery");
        for (&id, log) in &self.logs {
            let state = self.store.replica(id).expect("listed");
            let applied = state.applied.index.0 as usize;
            assert_eq!(state.persisted, state.last.index);
            let former = before.get(&id).filter(|_| lives[&id].life == log.life);
            let clear_at = former.map_or(0, |r| r.clear_at);
            assert!(former.is_none_or(|r| applied <= r.applied), "{id}: applied by itself");
            let persisted = log.entries.len();
            let state = log.state_at(applied);
            self.replicas.insert(id, Replica { persisted, applied, state, clear_at });
        }
        self.compare_states();
        self.compare_content();
        for (id, former) in before {
            let Some(log) = self.logs.get(&id).filter(|log| log.life == lives[&id].life) else {
                continue;
            };
            if former.applied <= log.entries.len() {
                self.apply(id, former.applied);
            }
        }
        self.compare_content();
        audit(&self.store).expect("consistent after re-applying");
    }

    pub fn reopen(&mut self) {
        let options = self.setup.options.clone();
        let store = Store::open(&mut self.disk, &self.label, 0, self.pool.clone(), options);
        self.store = store.expect("recovers from a power cut");
    }

    /// The logs as they were at the moment that the recovered store shows. There must be one.
    fn recovered_from(&self, rest: &[Asked]) -> Logs {
        let mut logs = self.sure.clone();
        let mut at = 0;
        loop {
            if let Some(logs) = self.shows(&logs, &rest[at..]) {
                return logs;
            }
            let Some(asked) = rest.get(at) else { break };
            asked.apply(&mut logs);
            at += 1;
        }
        let brief = |logs: &Logs| -> Vec<_> {
            logs.iter().map(|(id, log)| (*id, log.hard.term, log.entries.len())).collect()
        };
        let found: Vec<_> = self.store.replicas().map(|id| self.store.replica(id)).collect();
        let (sure, all) = (brief(&self.sure), brief(&logs));
        panic!("recovered no moment from {sure:?} to {all:?}: {found:#?}");
    }

    /// The logs, if the store shows them. A replica may be gone that was dropped later.
    fn shows(&self, logs: &Logs, later: &[Asked]) -> Option<Logs> {
        let mut shown = Logs::new();
        for (&id, log) in logs {
            let Some(state) = self.store.replica(id) else {
                let dropped = later.iter().any(|a| matches!(a, Asked::Drop(d) if *d == id));
                if dropped { continue } else { return None }
            };
            let back = (state.last.index.0 as usize).checked_sub(log.entries.len())?;
            let log = log.with_back(back);
            if !self.shows_log(id, &log) {
                return None;
            }
            shown.insert(id, log);
        }
        self.store.replicas().eq(shown.keys().copied()).then_some(shown)
    }

    fn shows_log(&self, id: CopysetId, log: &Log) -> bool {
        let state = self.store.replica(id).expect("compared before");
        let last = LogPos { term: log.last_term(), index: Index(log.entries.len() as u64) };
        let prev = self.store.prev(id);
        let prev_term = match prev.index.0 {
            0 => Some(Term(0)),
            n => log.entries.get(n as usize - 1).map(|e| e.term),
        };
        state.last == last
            && state.hard == log.hard
            && prev_term == Some(prev.term)
            && (prev.index.0 + 1..).zip(log.entries.iter().skip(prev.index.0 as usize)).all(
                |(index, entry)| {
                    let found = self.store.entry(id, Index(index));
                    found.is_some_and(|f| f.term == entry.term && f.op == entry.op)
                },
            )
    }

    /// One random step of a life without deltas.
    pub fn step(&mut self) {
        let id = CopysetId(1 + self.rng.below(3) as u32);
        if self.logs.contains_key(&id) && self.rng.once_in(400) {
            return self.drop_replica(id);
        }
        self.step_on(id);
    }

    /// One random step of a replica that stays.
    pub fn step_on(&mut self, id: CopysetId) {
        if !self.logs.contains_key(&id) {
            return self.create(id);
        }
        let Replica { persisted, applied, .. } = self.replicas[&id];
        let len = self.logs[&id].entries.len();
        match self.rng.below(100) {
            0..=44 => {
                let entry = self.draw_entry(id, 64);
                // Refusals are seen, and what would end them goes on.
                let _ = self.append(id, entry);
            }
            45..=64 => {
                let upto = applied + self.rng.below((persisted - applied) as u64 + 1) as usize;
                self.apply(id, upto);
            }
            65..=67 => {
                let kept = self.rng.below((len - applied) as u64 + 1) as usize;
                self.truncate(id, applied + kept);
            }
            68..=70 => self.save_hard(id),
            71..=73 => {
                let upto = self.rng.below(applied as u64 + 2);
                self.store.release(id, Index(upto));
            }
            74 => self.store.start_checkpoint(),
            75 => self.quiet_checkpoint(id),
            76..=82 => self.read_somewhere(id),
            _ => {
                let ends = self.rng.below(12);
                self.pump(ends);
            }
        }
    }

    /// A checkpoint whose pages show more than the log says, since nothing is written after it.
    fn quiet_checkpoint(&mut self, id: CopysetId) {
        self.settle();
        self.store.start_checkpoint();
        let persisted = self.replicas[&id].persisted;
        self.apply(id, persisted);
        self.settle();
        if self.rng.once_in(2) {
            self.crash();
        }
    }

    pub fn read_somewhere(&mut self, id: CopysetId) {
        let blocks = 1 + self.rng.below(32) as u16;
        let start = FIRST + self.rng.below(u64::from(BLOCKS - blocks)) as u16;
        let volume = VolumeId(1 + self.rng.below(3));
        let number = self.rng.below(2) as u32;
        self.read(id, ChunkId { volume, number }, range(start, blocks));
    }
}

fn chunk_of(op: &Op) -> Option<ChunkId> {
    match op {
        Op::Write { chunk, .. } | Op::Trim { chunk, .. } => Some(*chunk),
        _ => None,
    }
}
