//! Opens an image and compares what it shows with what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use ogive_store::simdisk::Image;
use ogive_store::{
    DiskDone, DiskOp, Label, OpenError, ReadError, RegionIo, Store, StoreEvent, audit,
};
use ogive_types::{BLOCK_BYTES, ChunkId, CopysetId, Index};

use crate::model::{Asked, Log, Logs, State, chunk_of};
use crate::promise::KnownAll;
use crate::recovered::recovered;
use crate::world::{BLOCKS, FIRST, Replica, Setup, World, pool, range};

/// What an image must show.
#[derive(Clone, Copy, Debug)]
pub struct Promised<'a> {
    /// What is sure to be there.
    pub sure: &'a Logs,
    /// What may be there besides, in order.
    pub rest: &'a [Asked],
    /// What was applied, at the most.
    pub known: &'a KnownAll,
    /// Data may be damaged: a read may fail, but never give anything wrong.
    pub rot: bool,
    /// All that was applied is sure to be there, and is applied again.
    pub applied_is_sure: bool,
}

/// What an image showed.
#[derive(Debug)]
pub struct Shown {
    /// The logs.
    pub logs: Logs,
    /// The replicas as they were recovered.
    pub replicas: BTreeMap<CopysetId, Replica>,
    /// Reads that failed, as they may where there is rot.
    pub reads_failed: u64,
}

/// Why an image is not as it must be.
#[derive(Debug)]
pub enum Wrong {
    /// It was refused, and by how.
    Refused(OpenError),
    /// It opened, and shows something else.
    Shows(String),
}

/// Looks at the images of one life.
pub struct Examiner {
    setup: Setup,
    label: Label,
    /// Everything that was ever touched.
    chunks: BTreeMap<CopysetId, BTreeSet<ChunkId>>,
    /// By copyset, which replica of it, and number of applied entries, which never change.
    states: HashMap<(CopysetId, u32, usize), Rc<State>>,
    ops: Vec<DiskOp>,
}

impl Examiner {
    /// An examiner for what a world wrote.
    pub fn new(world: &World) -> Examiner {
        let mut chunks: BTreeMap<CopysetId, BTreeSet<ChunkId>> = BTreeMap::new();
        for (id, entry) in world.promises.entries() {
            chunks.entry(id).or_default().extend(chunk_of(&entry.op));
        }
        let (setup, label) = (world.setup.clone(), world.label.clone());
        Examiner { setup, label, chunks, states: HashMap::new(), ops: Vec::new() }
    }

    /// Opens an image, which changes it, and compares all that it shows with what was promised.
    ///
    /// # Errors
    /// When it does not open, or shows something else.
    pub fn examine(&mut self, image: &mut Image, promised: &Promised) -> Result<Shown, Wrong> {
        let options = self.setup.options.clone();
        let store = Store::open(image, &self.label, 0, pool(), options);
        let mut store = store.map_err(Wrong::Refused)?;
        self.compare(&mut store, image, promised).map_err(Wrong::Shows)
    }

    fn compare(
        &mut self,
        store: &mut Store,
        image: &mut Image,
        promised: &Promised,
    ) -> Result<Shown, String> {
        let logs = recovered(store, promised.sure, promised.rest)?;
        audit(store).map_err(|what| format!("after recovery: {what}"))?;
        let mut shown = Shown { logs, replicas: BTreeMap::new(), reads_failed: 0 };
        for (&id, log) in &shown.logs {
            let replica = self.replica(store, id, log, promised)?;
            shown.replicas.insert(id, replica);
        }
        self.compare_content(store, image, promised, &mut shown)?;
        if promised.applied_is_sure && self.apply_again(store, promised, &shown) {
            self.compare_content(store, image, promised, &mut shown)?;
            audit(store).map_err(|what| format!("after applying again: {what}"))?;
        }
        Ok(shown)
    }

    fn replica(
        &mut self,
        store: &Store,
        id: CopysetId,
        log: &Log,
        promised: &Promised,
    ) -> Result<Replica, String> {
        let found = store.replica(id).ok_or_else(|| format!("{id} is not there"))?;
        let applied = found.applied.index.0 as usize;
        let persisted = log.entries.len();
        if found.persisted != found.last.index {
            return Err(format!("{id}: persisted up to {} of {}", found.persisted, found.last));
        }
        let known = promised.known.get(&id).filter(|known| known.life == log.life);
        if known.is_some_and(|known| applied > known.applied) || applied > persisted {
            return Err(format!("{id}: {applied} entries applied themselves, of {known:?}"));
        }
        let state = State::clone(&self.state_at(id, log, applied));
        for (&volume, &epoch) in &state.fences {
            if store.fence_of(id, volume) != Some(epoch) {
                return Err(format!("{id}: {volume} lost its fence at {epoch}"));
            }
        }
        let clear_at = known.map_or(0, |known| known.clear_at);
        Ok(Replica { persisted, applied, state, clear_at })
    }

    fn state_at(&mut self, id: CopysetId, log: &Log, applied: usize) -> Rc<State> {
        let state = self.states.entry((id, log.life, applied));
        Rc::clone(state.or_insert_with(|| Rc::new(log.state_at(applied))))
    }

    /// Applies what was applied before; whether that changed anything.
    fn apply_again(&self, store: &mut Store, promised: &Promised, shown: &Shown) -> bool {
        let mut changed = false;
        for (&id, log) in &shown.logs {
            let known = promised.known.get(&id).filter(|known| known.life == log.life);
            let Some(upto) = known.map(|known| known.applied) else { continue };
            if upto <= log.entries.len() && upto > shown.replicas[&id].applied {
                store.apply(id, Index(upto as u64));
                changed = true;
            }
        }
        changed
    }

    fn compare_content(
        &mut self,
        store: &mut Store,
        image: &mut Image,
        promised: &Promised,
        shown: &mut Shown,
    ) -> Result<(), String> {
        let (mut mapped, mut all_known) = (0, true);
        for (&id, log) in &shown.logs {
            let applied = store.applied(id).index.0 as usize;
            if applied < shown.replicas[&id].clear_at {
                all_known = false;
                continue;
            }
            let state = self.state_at(id, log, applied);
            mapped += state.content.len() as u64;
            for chunk in self.chunks.get(&id).cloned().unwrap_or_default() {
                shown.reads_failed += self.compare_chunk(store, image, (id, chunk), &state)?;
            }
        }
        let found = store.stats().blocks_mapped;
        if all_known && found != mapped {
            return Err(format!("{found} blocks are mapped, {mapped} should be"));
        }
        if shown.reads_failed > 0 && !promised.rot {
            return Err("a read failed, and nothing is damaged".to_owned());
        }
        Ok(())
    }

    /// Compares a chunk; how many reads failed.
    fn compare_chunk(
        &mut self,
        store: &mut Store,
        image: &mut Image,
        (id, chunk): (CopysetId, ChunkId),
        state: &State,
    ) -> Result<u64, String> {
        let window = range(FIRST, BLOCKS);
        let tag = |block| state.content.get(&(chunk, block)).copied().unwrap_or(0);
        self.compare_mapped(store, image, (id, chunk), tag)?;
        if window.iter().all(|block| tag(block) == 0) {
            return Ok(0);
        }
        store.read(0, id, chunk, window);
        let data = self.answer(store, image, |event| match event {
            StoreEvent::ReadDone { result, .. } => Some(result),
            _ => None,
        });
        let data = match data? {
            Ok(data) => data,
            Err(ReadError::Checksum) => return Ok(1),
            Err(error) => return Err(format!("{id} {chunk}: {error}")),
        };
        for (block, bytes) in window.iter().zip(data.chunks_exact(BLOCK_BYTES)) {
            let (tag, (front, rest)) = (tag(block), bytes.split_at(8));
            // Each byte equals the one behind it: faster than byte by byte, and this is hot.
            let all_equal = rest[0] == tag as u8 && rest[1..] == rest[..rest.len() - 1];
            if front != tag.to_le_bytes() || !all_equal {
                let found = u64::from_le_bytes(front.try_into().expect("8 bytes"));
                return Err(format!("{id} {chunk} block {block}: tag {found} in place of {tag}"));
            }
        }
        Ok(0)
    }

    /// Compares which blocks of a chunk hold data.
    fn compare_mapped(
        &mut self,
        store: &mut Store,
        image: &mut Image,
        (id, chunk): (CopysetId, ChunkId),
        tag: impl Fn(u16) -> u64,
    ) -> Result<(), String> {
        store.mapped(0, id, chunk, range(FIRST, BLOCKS));
        let mapped = self.answer(store, image, |event| match event {
            StoreEvent::Mapped { result, .. } => Some(result),
            _ => None,
        })?;
        for run in mapped.map_err(|error| format!("{id} {chunk}: {error}"))? {
            if let Some(block) = run.range.iter().find(|&block| (tag(block) != 0) != run.mapped) {
                let applied = store.applied(id);
                return Err(format!(
                    "{id} {chunk} block {block} with {applied} applied: mapped is {}",
                    run.mapped
                ));
            }
        }
        Ok(())
    }

    /// Runs a store until it has said what is waited for.
    fn answer<T>(
        &mut self,
        store: &mut Store,
        image: &mut Image,
        mut wanted: impl FnMut(StoreEvent) -> Option<T>,
    ) -> Result<T, String> {
        loop {
            let mut events = Vec::new();
            store.poll_events(&mut events);
            if let Some(answer) = events.into_iter().find_map(&mut wanted) {
                return Ok(answer);
            }
            store.poll_ops(&mut self.ops);
            if self.ops.is_empty() {
                return Err("a read does not end".to_owned());
            }
            for op in self.ops.drain(..) {
                store.complete(done(image, op));
            }
        }
    }
}

/// Runs an operation on an image at once.
fn done(image: &mut Image, op: DiskOp) -> DiskDone {
    let id = op.id();
    let result = match op {
        DiskOp::Write { mut addr, bufs, .. } => {
            for buf in bufs {
                image.write_at(addr, &buf).expect("within the device");
                addr += buf.len() as u64;
            }
            None
        }
        DiskOp::Read { addr, mut buf, .. } => {
            image.read_at(addr, &mut buf).expect("within the device");
            Some(buf)
        }
        DiskOp::Flush { .. } => None,
    };
    DiskDone { id, result: Ok(result) }
}
