//! The engine alone: every operation of the store ends at once, so that what is left is the
//! processor time of the engine, without system calls, ring and device.

use std::time::Duration;

use ogive_buf::{Buf, BufMut, Pool};
use ogive_store::{DiskDone, DiskOp, FormatOptions, Store, StoreEvent, StoreOptions, format};
use ogive_types::message::Op;
use ogive_types::{BLOCK_BYTES, BlockSum, CopysetId, Index, Term, block_sums};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::counters::thread_cpu;
use super::load::Load;
use super::sparse::Sparse;
use super::spec::{Pattern, case};

const ID: CopysetId = CopysetId(1);
/// Bytes written all over.
const SPAN: u64 = 256 << 20;
/// Bytes of the device in memory; its data blocks are not kept.
const DEVICE_BYTES: u64 = 2 << 30;
/// Writes of one measurement.
const WRITES: u64 = 400_000;

/// Processor time of the engine for a 4 KiB write, checkpoints included, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineCost {
    /// Written one after the other.
    pub write_depth_1_us: f64,
    /// Written 32 at once.
    pub write_depth_32_us: f64,
    /// Read 32 at once, checksum included.
    pub read_us: f64,
}

struct Alone {
    store: Store,
    data: Buf,
    sums: Vec<BlockSum>,
    load: Load,
    index: Index,
    ops: Vec<DiskOp>,
    events: Vec<StoreEvent>,
}

/// Measures it.
pub(super) fn measure() -> Result<EngineCost, String> {
    let mut alone = Alone::new()?;
    // Every block once: from then on each write replaces one.
    alone.cost(SPAN / BLOCK_BYTES as u64 * 2, 32, Alone::write)?;
    Ok(EngineCost {
        write_depth_1_us: alone.cost(WRITES, 1, Alone::write)?,
        write_depth_32_us: alone.cost(WRITES, 32, Alone::write)?,
        read_us: alone.cost(WRITES, 32, Alone::read)?,
    })
}

impl Alone {
    fn new() -> Result<Alone, String> {
        let mut disk = Sparse::new(DEVICE_BYTES);
        let options = FormatOptions {
            shards: 1,
            sector: 512,
            log_bytes: Some(64 << 20),
            uuid: Uuid::from_u128(1),
            force: false,
            quick: true,
        };
        let label = format(&mut disk, &options, &mut |_, _| ()).map_err(|e| e.to_string())?;
        let pool = Pool::new(64 << 20);
        let options = StoreOptions { volatile_cache: true, ..StoreOptions::default() };
        let store = Store::open(&mut disk, &label, 0, pool.clone(), options);
        let mut store = store.map_err(|e| e.to_string())?;
        store.create_replica(ID, &[]);
        let data = pool.alloc_zeroed(BLOCK_BYTES).ok_or("no memory")?.freeze();
        let sums = block_sums(&data);
        let load = Load::new(case(Pattern::RandomWrite, BLOCK_BYTES, 1), SPAN, 1);
        let (ops, events) = (Vec::new(), Vec::new());
        Ok(Alone { store, data, sums, load, index: Index(0), ops, events })
    }

    /// Microseconds for each of so many requests.
    fn cost(
        &mut self,
        count: u64,
        batch: u64,
        work: fn(&mut Alone, u64) -> Result<(), String>,
    ) -> Result<f64, String> {
        let start = thread_cpu();
        for _ in 0..count / batch {
            work(self, batch)?;
        }
        let spent: Duration = thread_cpu() - start;
        Ok(spent.as_secs_f64() * 1e6 / (count / batch * batch) as f64)
    }

    fn write(&mut self, batch: u64) -> Result<(), String> {
        for _ in 0..batch {
            let (_, chunk, range) = self.load.next();
            let op = Op::Write { chunk, range, sums: self.sums.clone() };
            self.index = self.index.next();
            let data = Some(self.data.clone());
            let appended = self.store.append(ID, self.index, Term(1), op, data);
            appended.map_err(|e| e.to_string())?;
        }
        self.finish();
        self.store.apply(ID, self.index);
        self.store.release(ID, self.index);
        Ok(())
    }

    fn read(&mut self, batch: u64) -> Result<(), String> {
        for token in 0..batch {
            let (_, chunk, range) = self.load.next();
            self.store.read(token, ID, chunk, range);
        }
        self.finish();
        Ok(())
    }

    /// Ends what the store starts. What is read is zero, as what is written.
    fn finish(&mut self) {
        loop {
            self.store.poll_ops(&mut self.ops);
            if self.ops.is_empty() {
                break;
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
        self.events.clear();
        self.store.poll_events(&mut self.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_was_written() {
        let mut alone = Alone::new().unwrap();
        alone.write(32).unwrap();
        assert!(alone.events.iter().any(|e| matches!(e, StoreEvent::Persisted { .. })));
        alone.read(32).unwrap();
        let good = |e: &StoreEvent| matches!(e, StoreEvent::ReadDone { result: Ok(_), .. });
        assert_eq!(alone.events.iter().filter(|e| good(e)).count(), 32);
    }
}
