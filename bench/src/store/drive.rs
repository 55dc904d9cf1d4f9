//! The loop over a store and its disk ring: keeps requests in flight and times them.
//!
//! As in a shard, one thread does everything: it starts requests, hands the store's operations to
//! the ring, takes what ended, and tells the store. Writes are applied as soon as they are on
//! stable storage, as those of a copyset of one replica would be.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use ogive_buf::{Buf, Pool};
use ogive_reactor::Disk;
use ogive_store::{
    AppendError, DiskDone, DiskOp, Label, RegionIo, Store, StoreEvent, StoreOptions,
};
use ogive_types::message::Op;
use ogive_types::{BlockRange, BlockSum, ChunkId, CopysetId, Index, Term, block_sums};
use rustix::time::{ClockId, clock_gettime};

use super::counters::{DiskCounters, process_written, thread_cpu};
use super::load::{Load, place};
use super::sample::{Amplification, Meter, Sample};
use super::spec::{Case, Pattern, Wait, case};
use crate::limits::{STORE_POOL_BYTES, STORE_STALL};
use crate::rng::Rng;

/// The one copyset.
const ID: CopysetId = CopysetId(1);
/// Different buffers of data, so that not every block has the same checksum.
const BUFFERS: usize = 16;

/// A store, its ring, and what is in flight.
pub(super) struct Driver {
    store: Store,
    disk: Disk,
    data: Data,
    pool: Pool,
    wait: Wait,
    last: Index,
    /// Starts of the writes in flight, oldest first; they end in order.
    writes: VecDeque<(Index, Duration)>,
    /// Starts of the reads in flight, by token.
    reads: Vec<Option<Duration>>,
    free: Vec<usize>,
    ops: Vec<DiskOp>,
    done: Vec<DiskDone>,
    events: Vec<StoreEvent>,
    meter: Meter,
    engine: Duration,
}

/// Data to write, with its checksums.
struct Data {
    buffers: Vec<(Buf, Vec<BlockSum>)>,
    next: usize,
}

impl Data {
    fn new(pool: &Pool, bytes: usize) -> Result<Data, String> {
        let mut rng = Rng::new(bytes as u64);
        let buffer = |_| {
            let mut memory = pool.alloc(bytes).ok_or("no memory for buffers")?;
            let mut random = Vec::with_capacity(bytes);
            rng.fill(bytes, &mut random);
            memory.copy_from_slice(&random);
            let buf = memory.freeze();
            let sums = block_sums(&buf);
            Ok((buf, sums))
        };
        let buffers = (0..BUFFERS).map(buffer).collect::<Result<_, String>>()?;
        Ok(Data { buffers, next: 0 })
    }

    fn next(&mut self) -> (Buf, Vec<BlockSum>) {
        self.next = (self.next + 1) % self.buffers.len();
        self.buffers[self.next].clone()
    }
}

/// Time since some start, in nanoseconds.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Driver {
    /// Opens the store on `io`, whose file is `fd`.
    pub(super) fn open(
        io: &mut dyn RegionIo,
        fd: impl AsFd,
        label: &Label,
        volatile_cache: bool,
        wait: Wait,
    ) -> Result<Driver, String> {
        let pool = Pool::new(STORE_POOL_BYTES);
        let options = StoreOptions { volatile_cache, ..StoreOptions::default() };
        let store = Store::open(io, label, 0, pool.clone(), options).map_err(|e| e.to_string())?;
        let disk = Disk::new(fd.as_fd(), pool.clone(), 256).map_err(|e| e.to_string())?;
        let mut driver = Driver {
            store,
            disk,
            data: Data::new(&pool, 4096)?,
            pool,
            wait,
            last: Index(0),
            writes: VecDeque::new(),
            reads: Vec::new(),
            free: Vec::new(),
            ops: Vec::new(),
            done: Vec::new(),
            events: Vec::new(),
            meter: Meter::new(),
            engine: Duration::ZERO,
        };
        driver.store.create_replica(ID, &[]);
        driver.settle()?;
        Ok(driver)
    }

    /// Writes every block of the first `span` bytes once, in order.
    pub(super) fn fill(&mut self, span: u64) -> Result<(), String> {
        let whole = case(Pattern::SequentialWrite, 1 << 20, 8);
        self.data = Data::new(&self.pool, whole.bytes)?;
        let mut at = 0;
        while at < span || !self.writes.is_empty() {
            while at < span && self.writes.len() < whole.depth && self.write(at, whole.bytes)? {
                at += whole.bytes as u64;
            }
            self.turn()?;
        }
        self.settle()
    }

    fn write(&mut self, at: u64, bytes: usize) -> Result<bool, String> {
        let (chunk, range) = place(at, bytes);
        self.start_write(chunk, range, now())
    }

    /// Measures a case over the first `span` bytes.
    pub(super) fn measure(
        &mut self,
        case: Case,
        span: u64,
        length: Duration,
        seed: u64,
    ) -> Result<Sample, String> {
        self.data = Data::new(&self.pool, case.bytes)?;
        let mut load = Load::new(case, span, seed);
        let mut next = None;
        let warm = now() + length / 5;
        while now() < warm {
            self.step(&mut load, &mut next, case.depth)?;
        }
        self.meter.clear();
        self.engine = Duration::ZERO;
        let (start, cpu, io) = (now(), thread_cpu(), process_written());
        let written = self.store.stats().written;
        while now() < start + length {
            self.step(&mut load, &mut next, case.depth)?;
        }
        let (seconds, cpu) = ((now() - start).as_secs_f64(), thread_cpu() - cpu);
        let sample = self.meter.sample(seconds, case.bytes).ok_or("nothing ended in time")?;
        let after = self.store.stats().written;
        let (ops, data) = (sample.ops as f64, (after.data_bytes - written.data_bytes) as f64);
        let per_byte = |bytes: u64| (data > 0.0).then(|| bytes as f64 / data);
        let own = process_written().zip(io).and_then(|(after, before)| per_byte(after - before));
        self.settle()?;
        Ok(Sample {
            cpu_us: Some(cpu.as_secs_f64() * 1e6 / ops),
            engine_us: Some(self.engine.as_secs_f64() * 1e6 / ops),
            flushes: Some((after.flushes - written.flushes) as f64 / ops),
            device_bytes: own.or_else(|| per_byte(after.bytes() - written.bytes())),
            ..sample
        })
    }

    /// Writes at random until a checkpoint has ended, and then until `checkpoints` more have:
    /// bytes written to the device for each byte of data between these. None when that takes
    /// `longest`.
    pub(super) fn amplification(
        &mut self,
        span: u64,
        checkpoints: u64,
        longest: Duration,
        disk: Option<&DiskCounters>,
    ) -> Result<Option<Amplification>, String> {
        self.data = Data::new(&self.pool, 4096)?;
        let mut load = Load::new(case(Pattern::RandomWrite, 4096, 32), span, 99);
        let end = now() + longest;
        let mut whole = self.until_checkpoints(&mut load, 1, end)?;
        let counters = |driver: &Driver| {
            let written = driver.store.stats().written;
            (written, process_written(), disk.and_then(DiskCounters::written))
        };
        let before = counters(self);
        whole &= self.until_checkpoints(&mut load, checkpoints, end)?;
        let after = counters(self);
        self.settle()?;
        let data = (after.0.data_bytes - before.0.data_bytes) as f64;
        let per_byte = |after: Option<u64>, before: Option<u64>| {
            Some(after?.saturating_sub(before?) as f64 / data)
        };
        Ok((whole && data > 0.0).then(|| Amplification {
            checkpoints,
            store: (after.0.bytes() - before.0.bytes()) as f64 / data,
            process: per_byte(after.1, before.1),
            disk: per_byte(after.2, before.2),
        }))
    }

    /// False when `end` came first.
    fn until_checkpoints(
        &mut self,
        load: &mut Load,
        count: u64,
        end: Duration,
    ) -> Result<bool, String> {
        let goal = self.store.stats().checkpoints + count;
        let mut next = None;
        while self.store.stats().checkpoints < goal {
            if now() >= end {
                return Ok(false);
            }
            for _ in 0..64 {
                self.step(load, &mut next, 32)?;
            }
        }
        Ok(true)
    }

    /// Starts what may start, and takes one turn.
    fn step(
        &mut self,
        load: &mut Load,
        next: &mut Option<(bool, ChunkId, BlockRange)>,
        depth: usize,
    ) -> Result<(), String> {
        let start = now();
        while self.in_flight() < depth {
            let (read, chunk, range) = next.take().unwrap_or_else(|| load.next());
            if read {
                let token = self.free.pop().unwrap_or_else(|| {
                    self.reads.push(None);
                    self.reads.len() - 1
                });
                self.reads[token] = Some(start);
                self.store.read(token as u64, ID, chunk, range);
            } else if !self.start_write(chunk, range, start)? {
                *next = Some((read, chunk, range));
                break;
            }
        }
        self.turn_from(start)
    }

    /// False when the store is behind and takes it later.
    fn start_write(
        &mut self,
        chunk: ChunkId,
        range: BlockRange,
        at: Duration,
    ) -> Result<bool, String> {
        let (data, sums) = self.data.next();
        let index = self.last.next();
        let op = Op::Write { chunk, range, sums };
        match self.store.append(ID, index, Term(1), op, Some(data)) {
            Ok(()) => {}
            Err(AppendError::Busy) => return Ok(false),
            Err(error) => return Err(error.to_string()),
        }
        self.last = index;
        self.writes.push_back((index, at));
        Ok(true)
    }

    fn in_flight(&self) -> usize {
        self.writes.len() + self.reads.len() - self.free.len()
    }

    fn turn(&mut self) -> Result<(), String> {
        self.turn_from(now())
    }

    /// One turn of the loop; the engine has been at work since `start`.
    fn turn_from(&mut self, start: Duration) -> Result<(), String> {
        self.store.poll_ops(&mut self.ops);
        let polled = now();
        self.engine += polled - start;
        self.ops.drain(..).for_each(|op| self.disk.submit(op));
        self.disk.flush_sq();
        while !self.disk.poll(&mut self.done) {
            if self.wait == Wait::Sleep && self.disk.in_flight() > 0 {
                self.disk.wait(Some(STORE_STALL));
            }
            if self.disk.in_flight() == 0 {
                break;
            }
            if now() - polled > STORE_STALL {
                return Err("the device has not answered for a long time".into());
            }
        }
        let ended = now();
        self.done.drain(..).for_each(|done| self.store.complete(done));
        self.store.poll_events(&mut self.events);
        let (mut events, shown) = (std::mem::take(&mut self.events), now());
        for event in events.drain(..) {
            self.take(event, shown)?;
        }
        self.events = events;
        self.engine += now() - ended;
        Ok(())
    }

    fn take(&mut self, event: StoreEvent, at: Duration) -> Result<(), String> {
        match event {
            StoreEvent::Persisted { index, .. } => {
                while let Some(&(_, start)) = self.writes.front().filter(|(i, _)| *i <= index) {
                    self.writes.pop_front();
                    self.meter.record(at.saturating_sub(start));
                }
                self.store.apply(ID, index);
                self.store.release(ID, index);
            }
            StoreEvent::ReadDone { token, result } => {
                result.map_err(|e| e.to_string())?;
                let start = self.reads[token as usize].take().expect("each read ends once");
                self.free.push(token as usize);
                self.meter.record(at.saturating_sub(start));
            }
            StoreEvent::Failed { error } => return Err(error.to_string()),
            other @ StoreEvent::Damaged { .. } => return Err(format!("{other:?}")),
            _ => {}
        }
        Ok(())
    }

    /// Takes turns until nothing is in flight, checkpoints included.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        while self.in_flight() > 0 || !self.store.idle() || self.disk.in_flight() > 0 {
            self.turn()?;
        }
        Ok(())
    }
}
