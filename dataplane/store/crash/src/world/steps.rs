//! Random work.

use ogive_types::{ChunkId, CopysetId, Index, VolumeId};

use super::{BLOCKS, FIRST, Replica, World, range};

/// What random work consists of: weights of the steps and of the entries.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// An entry is appended.
    pub append: u64,
    /// Entries are applied.
    pub apply: u64,
    /// Entries are truncated.
    pub truncate: u64,
    /// A hard state is saved.
    pub hard: u64,
    /// Applied entries are let go.
    pub release: u64,
    /// A checkpoint starts.
    pub checkpoint: u64,
    /// A checkpoint runs whose pages show more than the log says.
    pub quiet: u64,
    /// Blocks are read.
    pub read: u64,
    /// A block is written anew.
    pub mend: u64,
    /// Disk operations end.
    pub pump: u64,
    /// Of the entries: those without effect, and fences.
    pub small: u64,
    /// Of the entries: volumes deleted.
    pub drop_volume: u64,
    /// Of the entries: trims.
    pub trim: u64,
    /// Of the entries: writes.
    pub write: u64,
    /// Longest write or trim, in blocks.
    pub blocks_max: u16,
    /// Copysets.
    pub copysets: u64,
    /// A replica is dropped once in so many steps; 0 for never.
    pub drop_replica: u64,
}

impl Default for Mix {
    /// A little of everything.
    fn default() -> Mix {
        Mix {
            append: 45,
            apply: 20,
            truncate: 3,
            hard: 3,
            release: 3,
            checkpoint: 1,
            quiet: 1,
            read: 7,
            mend: 3,
            pump: 17,
            small: 1,
            drop_volume: 1,
            trim: 6,
            write: 31,
            blocks_max: 64,
            copysets: 3,
            drop_replica: 400,
        }
    }
}

impl Mix {
    /// Weights of the operations in the order in which entries are drawn.
    pub(crate) fn ops(&self) -> [u64; 5] {
        [self.small, self.small, self.drop_volume, self.trim, self.write]
    }

    fn steps(&self) -> [u64; 10] {
        [
            self.append,
            self.apply,
            self.truncate,
            self.hard,
            self.release,
            self.checkpoint,
            self.quiet,
            self.read,
            self.mend,
            self.pump,
        ]
    }
}

impl World {
    /// One random step of a life without deltas.
    pub fn step(&mut self, mix: &Mix) {
        let id = CopysetId(1 + self.rng.below(mix.copysets) as u32);
        let drops = mix.drop_replica > 0 && self.rng.once_in(mix.drop_replica);
        if drops && self.logs.contains_key(&id) {
            self.drop_replica(id);
            if self.rng.once_in(2) {
                self.create(id); // another one, perhaps while a checkpoint knows the first
            }
            return;
        }
        self.step_on(id, mix);
    }

    /// One random step of a replica that stays.
    pub fn step_on(&mut self, id: CopysetId, mix: &Mix) {
        if !self.logs.contains_key(&id) {
            return self.create(id);
        }
        let Replica { persisted, applied, .. } = self.replicas[&id];
        let len = self.logs[&id].entries.len();
        match self.rng.weighted(&mix.steps()) {
            0 => {
                let entry = self.draw_entry(id, mix);
                // Refusals are seen, and what would end them goes on.
                let _ = self.append(id, entry);
            }
            1 => {
                let upto = applied + self.rng.below((persisted - applied) as u64 + 1) as usize;
                self.apply(id, upto);
            }
            2 => {
                let kept = self.rng.below((len - applied) as u64 + 1) as usize;
                self.truncate(id, applied + kept);
            }
            3 => self.save_hard(id),
            4 => {
                let upto = self.rng.below(applied as u64 + 2);
                self.store.release(id, Index(upto));
            }
            5 => self.store.start_checkpoint(),
            6 => self.quiet_checkpoint(id),
            7 => self.read_somewhere(id),
            8 => self.mend(id),
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
        if !self.disk.has_tape() && self.rng.once_in(2) {
            self.crash();
        }
    }

    /// Reads a few blocks.
    pub fn read_somewhere(&mut self, id: CopysetId) {
        let blocks = 1 + self.rng.below(32) as u16;
        let start = FIRST + self.rng.below(u64::from(BLOCKS - blocks)) as u16;
        let volume = VolumeId(1 + self.rng.below(3));
        let number = self.rng.below(2) as u32;
        self.read(id, ChunkId { volume, number }, range(start, blocks));
    }
}
