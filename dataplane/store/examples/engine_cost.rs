//! What the engine costs on one core, without a device: every operation ends at once. Counts the
//! processor's time, not the clock's.
//!
//! `cargo run --release -p ogive-store --features sim --example engine_cost`

use std::time::Duration;

use ogive_buf::{Buf, BufMut, Pool};
use ogive_store::simdisk::SimDisk;
use ogive_store::{DiskDone, DiskOp, FormatOptions, Store, StoreEvent, StoreOptions, format};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Index, Term, VolumeId, block_sums};

const ID: CopysetId = CopysetId(1);
const CHUNKS: u64 = 16;
const WRITES: u64 = 2_000_000;

struct Bench {
    store: Store,
    data: Buf,
    index: u64,
    random: u64,
    ops: Vec<DiskOp>,
    events: Vec<StoreEvent>,
}

impl Bench {
    fn new() -> Bench {
        let mut disk = SimDisk::new(2 << 30, 512);
        let options = FormatOptions {
            shards: 1,
            sector: 512,
            log_bytes: Some(64 << 20),
            uuid: uuid::Uuid::from_u128(1),
            force: false,
            quick: true,
        };
        let label = format(&mut disk, &options, &mut |_, _| ()).expect("it fits");
        let pool = Pool::new(256 << 20);
        let options = StoreOptions { volatile_cache: false, ..StoreOptions::default() };
        let mut store = Store::open(&mut disk, &label, 0, pool.clone(), options).expect("new");
        store.create_replica(ID, &[]);
        let data = pool.alloc_zeroed(BLOCK_BYTES).expect("memory").freeze();
        Bench { store, data, index: 0, random: 1, ops: Vec::new(), events: Vec::new() }
    }

    fn place(&mut self) -> (ChunkId, BlockRange) {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let block = (self.random >> 33) % (CHUNKS * 4096);
        let chunk = ChunkId { volume: VolumeId(1), number: (block / 4096) as u32 };
        (chunk, BlockRange::new((block % 4096) as u16, 1).expect("within the chunk"))
    }

    /// Ends what the store starts. Reads find zeroes.
    fn finish(&mut self) {
        loop {
            self.store.poll_ops(&mut self.ops);
            if self.ops.is_empty() {
                return;
            }
            for op in self.ops.drain(..) {
                let (id, buf): (_, Option<BufMut>) = match op {
                    DiskOp::Read { id, mut buf, .. } => {
                        buf.fill(0);
                        (id, Some(buf))
                    }
                    other => (other.id(), None),
                };
                self.store.complete(DiskDone { id, result: Ok(buf) });
            }
        }
    }

    fn write(&mut self, batch: u64) {
        let sums = block_sums(&self.data);
        for _ in 0..batch {
            self.index += 1;
            let (chunk, range) = self.place();
            let op = Op::Write { chunk, range, sums: sums.clone() };
            let data = Some(self.data.clone());
            self.store.append(ID, Index(self.index), Term(1), op, data).expect("there is room");
        }
        self.finish();
        self.events.clear();
        self.store.poll_events(&mut self.events);
        self.store.apply(ID, Index(self.index));
        self.store.release(ID, Index(self.index));
    }

    fn read(&mut self, batch: u64) {
        for token in 0..batch {
            let (chunk, range) = self.place();
            self.store.read(token, ID, chunk, range);
        }
        self.finish();
        self.events.clear();
        self.store.poll_events(&mut self.events);
    }
}

/// Processor time that this thread has taken.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds for each of the [`WRITES`] operations of `work`.
fn measure(work: impl FnOnce()) -> f64 {
    let start = cpu();
    work();
    (cpu() - start).as_nanos() as f64 / WRITES as f64
}

fn main() {
    let mut bench = Bench::new();
    bench.write(32);
    for batch in [1, 32] {
        let ns = measure(|| (0..WRITES / batch).for_each(|_| bench.write(batch)));
        println!("append, persist, apply in batches of {batch}: {ns:.0} ns per 4 KiB write");
    }
    let ns = measure(|| (0..WRITES / 32).for_each(|_| bench.read(32)));
    println!("read in batches of 32: {ns:.0} ns per 4 KiB, checksum and zero-fill included");
    println!("{:?}", bench.store.stats());
}
