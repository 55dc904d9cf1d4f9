//! What maps take in memory for each GiB mapped, by how the data was written, counted by the
//! allocator; what it takes to open a store with so much mapped; and the most that a checkpoint
//! does in one step.
//!
//! `cargo run --release -p ogive-store --features sim --example map_memory -- [GiB [MiB of maps]]`

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ogive_buf::{Buf, Pool};
use ogive_store::simdisk::SimDisk;
use ogive_store::{
    AppendError, DiskDone, DiskOp, FormatOptions, Label, RegionIo, RegionLayout, Store,
    StoreOptions, format,
};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockRange, ChunkId, CopysetId, Index, Term, VolumeId, block_sums};

const ID: CopysetId = CopysetId(1);
const CHUNKS_PER_GIB: u64 = 64;
const BLOCKS_PER_CHUNK: u64 = 4096;

/// The system's allocator, with a count of the bytes that are taken.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A device that keeps what is not data, so that it may be large: reads of data give zeroes.
struct Sparse {
    len: u64,
    data: std::ops::Range<u64>,
    pages: BTreeMap<u64, Box<[u8; 4096]>>,
    /// Reads, and their bytes.
    read: Cell<(u64, u64)>,
}

impl RegionIo for Sparse {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let (reads, bytes) = self.read.get();
        self.read.set((reads + 1, bytes + buf.len() as u64));
        for (at, byte) in (addr..).step_by(4096).zip(buf.chunks_mut(4096)) {
            match self.pages.get(&(at / 4096)) {
                Some(page) => byte.copy_from_slice(&page[..byte.len()]),
                None => byte.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> std::io::Result<()> {
        if self.data.contains(&addr) {
            return Ok(());
        }
        let mut at = addr;
        for piece in data.chunks(512) {
            let page = self.pages.entry(at / 4096).or_insert_with(|| Box::new([0; 4096]));
            let within = (at % 4096) as usize;
            page[within..within + piece.len()].copy_from_slice(piece);
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

struct Bench {
    device: Sparse,
    label: Label,
    pool: Pool,
    store: Store,
    data: Buf,
    index: u64,
    random: u64,
    /// Most operations, and bytes of them, that the store started at once while nothing but a
    /// checkpoint was to be done.
    step: (usize, usize),
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Args {
    gib: u64,
    map_bytes_max: usize,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
        let mut number = |default: u64| match args.next() {
            None => Some(default),
            Some(text) => text.parse().ok().filter(|n| (1..=1 << 20).contains(n)),
        };
        let (gib, mib) = (number(1)?, number(1 << 20)?);
        Some(Args {
            gib: Some(gib).filter(|&gib| gib <= 1024)?,
            map_bytes_max: (mib << 20) as usize,
        })
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            volatile_cache: false,
            retain_entries: 64,
            map_bytes_max: self.map_bytes_max,
            ..StoreOptions::default()
        }
    }
}

impl Bench {
    fn new(args: Args) -> Bench {
        let gib = args.gib;
        // The label is made on a small part, the rest is never touched by it.
        let len = (gib + gib / 8 + 2) << 30;
        let mut disk = SimDisk::new(len, 512);
        let how = FormatOptions {
            shards: 1,
            sector: 512,
            log_bytes: Some(1 << 30),
            uuid: uuid::Uuid::from_u128(1),
            force: true,
            quick: true,
        };
        let label = format(&mut disk, &how, &mut |_, _| ()).expect("it fits");
        let layout: RegionLayout = label.regions()[0].layout().expect("just formatted");
        let data = layout.data_start..layout.end();
        let mut device = Sparse { len, data, pages: BTreeMap::new(), read: Cell::default() };
        let pool = Pool::new(256 << 20);
        let mut store = Store::open(&mut device, &label, 0, pool.clone(), args.options())
            .expect("a new region");
        store.create_replica(ID, &[]);
        let data = pool.alloc_zeroed(256 * BLOCK_BYTES).expect("memory").freeze();
        Bench { device, label, pool, store, data, index: 0, random: 1, step: (0, 0) }
    }

    /// Ends what the store starts.
    fn finish(&mut self) {
        let mut ops: Vec<DiskOp> = Vec::new();
        loop {
            self.store.poll_ops(&mut ops);
            if ops.is_empty() {
                break;
            }
            let bytes = |op: &DiskOp| match op {
                DiskOp::Write { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
                DiskOp::Read { buf, .. } => buf.len(),
                DiskOp::Flush { .. } => 0,
            };
            let all: usize = ops.iter().map(bytes).sum();
            self.step = (self.step.0.max(ops.len()), self.step.1.max(all));
            ops.drain(..).for_each(|op| self.end(op));
        }
        self.store.poll_events(&mut Vec::new());
        self.store.apply(ID, Index(self.index));
        self.store.release(ID, Index(self.index));
    }

    fn end(&mut self, op: DiskOp) {
        let id = op.id();
        let result = match op {
            DiskOp::Write { mut addr, bufs, .. } => {
                for buf in bufs {
                    self.device.write_at(addr, &buf).expect("in memory");
                    addr += buf.len() as u64;
                }
                None
            }
            DiskOp::Read { addr, mut buf, .. } => {
                self.device.read_at(addr, &mut buf).expect("in memory");
                Some(buf)
            }
            DiskOp::Flush { .. } => None,
        };
        self.store.complete(DiskDone { id, result: Ok(result) });
    }

    fn write(&mut self, block: u64, blocks: u16) {
        self.index += 1;
        let chunk = ChunkId { volume: VolumeId(1), number: (block / BLOCKS_PER_CHUNK) as u32 };
        let start = (block % BLOCKS_PER_CHUNK) as u16;
        let range = BlockRange::new(start, blocks).expect("within the chunk");
        let data = self.data.slice(0..range.bytes());
        let op = Op::Write { chunk, range, sums: block_sums(&data) };
        let index = Index(self.index);
        while let Err(error) = self.store.append(ID, index, Term(1), op.clone(), Some(data.clone()))
        {
            assert_eq!(error, AppendError::Busy, "there is room");
            self.index -= 1;
            self.finish();
            self.index += 1;
        }
        if self.index.is_multiple_of(32) {
            self.finish();
        }
    }

    fn blocks(gib: u64) -> u64 {
        gib * CHUNKS_PER_GIB * BLOCKS_PER_CHUNK
    }

    /// Every block once, in pieces of 1 MiB.
    fn sequential(&mut self, gib: u64) {
        (0..Self::blocks(gib)).step_by(256).for_each(|block| self.write(block, 256));
    }

    /// Every block once, in a scattered order.
    fn scattered(&mut self, gib: u64) {
        let blocks = Self::blocks(gib);
        // A prime, so that it passes all blocks.
        (0..blocks).for_each(|n| self.write(n.wrapping_mul(0x9e37_79b1) % blocks, 1));
    }

    /// Some blocks at random over what is there.
    fn overwrite(&mut self, gib: u64, writes: u64) {
        for _ in 0..writes {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let block = (self.random >> 20) % Self::blocks(gib);
            self.write(block, 1);
        }
    }

    fn rest(&mut self) {
        self.finish();
        self.step = (0, 0);
        self.store.start_checkpoint();
        self.finish();
    }
}

/// Processor time that this thread has taken.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn report(name: &str, args: Args, work: impl FnOnce(&mut Bench)) {
    let mut bench = Bench::new(args);
    work(&mut bench);
    bench.rest();
    let Bench { mut device, label, pool, store, step, .. } = bench;
    drop(store);
    device.read.set((0, 0));
    let (before, start) = (TAKEN.load(Ordering::Relaxed), cpu());
    let store = Store::open(&mut device, &label, 0, pool.clone(), args.options());
    let store = store.expect("it is whole");
    let (taken, time) = (TAKEN.load(Ordering::Relaxed) - before, cpu() - start);
    let (stats, (reads, bytes)) = (store.stats(), device.read.get());
    let gib = stats.blocks_mapped as f64 / (1 << 18) as f64;
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "{name}: {gib:.2} GiB mapped, mappings {:.2} MiB per GiB ({:.2} B per block); opened in \
         {:.2} s of processor time with {reads} reads of {:.0} MiB, after which the store has \
         {:.2} MiB per GiB; a step of the checkpoint started at most {} operations of {:.2} MiB",
        mib(stats.map_bytes as usize) / gib,
        stats.map_bytes as f64 / stats.blocks_mapped as f64,
        time.as_secs_f64(),
        mib(bytes as usize),
        mib(taken) / gib,
        step.0,
        mib(step.1),
    );
}

fn main() -> ExitCode {
    let Some(args) = Args::parse(std::env::args().skip(1)) else {
        eprintln!("usage: map_memory [GiB, up to 1024 [MiB of maps in memory]]");
        return ExitCode::from(2);
    };
    let gib = args.gib;
    report("sequential", args, |bench| bench.sequential(gib));
    report("random 4 KiB", args, |bench| bench.scattered(gib));
    report("sequential, a tenth of it overwritten at random", args, |bench| {
        bench.sequential(gib);
        bench.overwrite(gib, Bench::blocks(gib) / 10);
    });
    ExitCode::SUCCESS
}
