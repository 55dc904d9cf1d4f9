//! Device bytes for each 4 KiB written at random, checkpoints included. Deterministic: bytes are
//! counted, nothing is timed.

use ogive_buf::{Buf, Pool};
use ogive_store::simdisk::SimDisk;
use ogive_store::{
    DiskDone, DiskOp, FormatOptions, Label, Store, StoreEvent, StoreOptions, format,
};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Index, Term, VolumeId, block_sums};

const ID: CopysetId = CopysetId(1);
/// Chunks that are written all over: 64 MiB.
const CHUNKS: u64 = 4;

struct Bench {
    store: Store,
    data: Buf,
    index: u64,
    random: u64,
}

impl Bench {
    fn new(sector: u32) -> Bench {
        let mut disk = SimDisk::new(160 << 20, sector);
        let options = FormatOptions {
            shards: 1,
            sector,
            log_bytes: Some(2 << 20),
            uuid: uuid::Uuid::from_u128(1),
            force: false,
            quick: true,
        };
        let label: Label = format(&mut disk, &options, &mut |_, _| ()).expect("it fits");
        let pool = Pool::new(64 << 20);
        let options = StoreOptions { volatile_cache: false, ..StoreOptions::default() };
        let mut store = Store::open(&mut disk, &label, 0, pool.clone(), options).expect("new");
        store.create_replica(ID, &[]);
        let data = pool.alloc_zeroed(BLOCK_BYTES).expect("memory").freeze();
        Bench { store, data, index: 0, random: 1 }
    }

    /// Appends so many random writes at once, and ends all that follows from it.
    fn batch(&mut self, writes: u64) {
        let sums = block_sums(&self.data);
        for _ in 0..writes {
            self.index += 1;
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let block = (self.random >> 33) % (CHUNKS * 4096);
            let chunk = ChunkId { volume: VolumeId(1), number: (block / 4096) as u32 };
            let range = BlockRange::new((block % 4096) as u16, 1).expect("within the chunk");
            let op = Op::Write { chunk, range, sums: sums.clone() };
            let data = Some(self.data.clone());
            self.store.append(ID, Index(self.index), Term(1), op, data).expect("there is room");
        }
        let (mut ops, mut events) = (Vec::new(), Vec::<StoreEvent>::new());
        loop {
            self.store.poll_ops(&mut ops);
            if ops.is_empty() {
                break;
            }
            for op in ops.drain(..) {
                assert!(!matches!(op, DiskOp::Read { .. }));
                self.store.complete(DiskDone { id: op.id(), result: Ok(None) });
            }
        }
        self.store.poll_events(&mut events);
        self.store.apply(ID, Index(self.index));
        self.store.release(ID, Index(self.index));
    }

    fn run(&mut self, batch: u64, checkpoints: u64) -> f64 {
        while self.store.stats().checkpoints < checkpoints {
            self.batch(batch);
        }
        let stats = self.store.stats();
        let amplification = stats.written.bytes() as f64 / stats.written.data_bytes as f64;
        println!(
            "batches of {batch}: {amplification:.3} device bytes per byte; {:?}",
            stats.written
        );
        amplification
    }
}

#[test]
fn random_writes_in_batches_cost_little_more_than_themselves() {
    for sector in [512, 4096] {
        println!("sectors of {sector}");
        let one = Bench::new(sector).run(1, 3);
        let many = Bench::new(sector).run(32, 3);
        assert!(many <= 1.2, "batches of 32: {many:.3}");
        // A batch takes a sector at least; the rest is the cost of checkpoints.
        let floor = 1.0 + f64::from(sector) / 4096.0;
        assert!(one <= floor + 0.3, "batches of 1: {one:.3}");
    }
}
