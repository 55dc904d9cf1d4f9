//! Damage that no power cut explains, and what may come of it.
//!
//! A damaged image is refused, or it opens and shows the truth: reads of rotten data fail and
//! nothing else does. What may be missing is what the device cannot know to be missing: the end of
//! the log that no mark on the device says to be persisted. So each log write that the damage
//! spared says how much must be there, since its mark names all that was persisted before it.

use ogive_store::simdisk::{Image, Player, Tape, TapeEvent};
use ogive_store::{OpenError, RegionIo, RegionLayout};

use crate::area::Area;
use crate::cover::Cover;
use crate::examine::{Examiner, Promised, Wrong};
use crate::promise::{Promises, Reader};
use crate::rng::Rng;
use crate::world::World;

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// Some bits of a byte turned over.
    Flip,
    /// Two blocks changed their places.
    Swap,
    /// A block is as it was when the recording began: its write was lost.
    Stale,
    /// A block holds what was written for another one.
    Misdirected,
    /// Everything behind some place is zero.
    Cleared,
}

impl Damage {
    /// All of them.
    pub const ALL: [Damage; 5] =
        [Damage::Flip, Damage::Swap, Damage::Stale, Damage::Misdirected, Damage::Cleared];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Damage::Flip => "flipped bits",
            Damage::Swap => "swapped blocks",
            Damage::Stale => "stale blocks",
            Damage::Misdirected => "misdirected blocks",
            Damage::Cleared => "cleared tails",
        }
    }
}

const BLOCK: u64 = 4096;
/// Most places of an image that are damaged at once.
const SITES_MAX: u64 = 3;
/// Bytes at the start of the log ring, of the slots and of the data that small lives use most.
const BUSY_BYTES: u64 = 256 << 10;

/// A log write on the tape.
struct LogWrite {
    start: u64,
    end: u64,
    /// Things asked that were sure to be there when it was submitted.
    sure: usize,
}

/// Damages the media of a recorded life.
pub struct Damager<'a> {
    tape: &'a Tape,
    promises: &'a Promises,
    layout: RegionLayout,
    log: Vec<LogWrite>,
    rng: Rng,
    examiner: Examiner,
    /// What was tried.
    pub cover: Cover,
}

impl<'a> Damager<'a> {
    /// Of a world whose tape has ended.
    pub fn new(world: &'a World, tape: &'a Tape, rng: Rng) -> Damager<'a> {
        Damager {
            tape,
            promises: &world.promises,
            layout: world.label.regions()[0].layout().expect("it was formatted"),
            log: Vec::new(),
            rng,
            examiner: Examiner::new(world),
            cover: Cover::default(),
        }
    }

    /// Goes along the tape and damages an image in many ways about `places` times, and at the end.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn run(&mut self, places: u64) -> Result<(), String> {
        let (mut player, mut reader) = (self.tape.play(), self.promises.reader());
        let (first, _) = player.image(&mut |_, _| false);
        let once_in = (self.tape.events.len() as u64 / places.max(1)).max(1);
        loop {
            reader.go_to(player.at());
            let event = self.tape.events.get(player.at());
            if event.is_none() || self.rng.once_in(once_in) {
                self.place(&player, &reader, &first)
                    .map_err(|what| format!("damage at event {}: {what}", player.at()))?;
            }
            if let Some(TapeEvent::Write { addr, data }) = event
                && Area::of(&self.layout, *addr) == Area::Log
            {
                let end = addr + data.len() as u64;
                self.log.push(LogWrite { start: *addr, end, sure: reader.sure() });
            }
            if player.step().is_none() {
                return Ok(());
            }
        }
    }

    fn place(&mut self, player: &Player, reader: &Reader, first: &Image) -> Result<(), String> {
        let (image, _) = player.image(&mut |_, _| true);
        for damage in Damage::ALL {
            for area in Area::ALL {
                self.hurt(&image, first, (damage, area), reader)?;
            }
        }
        Ok(())
    }

    fn hurt(
        &mut self,
        image: &Image,
        first: &Image,
        (damage, area): (Damage, Area),
        reader: &Reader,
    ) -> Result<(), String> {
        let mut hurt = image.clone();
        let mut touched = Vec::new();
        for _ in 0..1 + self.rng.below(SITES_MAX) {
            touched.extend(self.strike(&mut hurt, first, (damage, area)));
        }
        let spared = |w: &&LogWrite| touched.iter().all(|t| t.1 <= w.start || w.end <= t.0);
        let Some(said) = self.log.iter().rev().find(spared).map(|write| write.sure) else {
            return Ok(()); // no mark is left
        };
        let harmless = matches!(area, Area::Superblock | Area::Pages | Area::Directory);
        let least = if harmless { reader.sure() } else { said };
        let (sure, rest) = reader.since(least);
        let known = reader.known();
        // With the newest marks gone, the log ends sooner, and what it then shows may lie in blocks
        // that were used again: such a read fails, and gives nothing wrong.
        let rot = matches!(area, Area::Data | Area::Log);
        let promised =
            Promised { sure: &sure, rest, known: &known, rot, applied_is_sure: harmless };
        let outcome = match self.examiner.examine(&mut hurt, &promised) {
            Ok(shown) if shown.reads_failed > 0 => "opened, damage named".to_owned(),
            Ok(_) => "opened and right".to_owned(),
            Err(Wrong::Refused(error)) => format!("refused: {}", name(&error)),
            Err(Wrong::Shows(what)) => {
                let hurt = (damage.name(), area.name());
                return Err(format!("{} in {} at {touched:x?}: {what}", hurt.0, hurt.1));
            }
        };
        *self.cover.damaged.entry((damage, area, outcome)).or_default() += 1;
        Ok(())
    }

    /// Damages an image in one place; the ranges of bytes that it may have changed.
    fn strike(
        &mut self,
        image: &mut Image,
        first: &Image,
        (damage, area): (Damage, Area),
    ) -> Vec<(u64, u64)> {
        let at = self.draw(area);
        let block = at / BLOCK * BLOCK;
        match damage {
            Damage::Flip => {
                image.flip(at, 1 + self.rng.below(255) as u8);
                vec![(at, at + 1)]
            }
            Damage::Swap => {
                let other = self.draw(area) / BLOCK * BLOCK;
                let (one, two) = (read(image, block), read(image, other));
                write(image, block, &two);
                write(image, other, &one);
                vec![(block, block + BLOCK), (other, other + BLOCK)]
            }
            Damage::Stale => {
                write(image, block, &read(first, block));
                vec![(block, block + BLOCK)]
            }
            Damage::Misdirected => {
                let meant = Area::ALL[self.rng.below(Area::ALL.len() as u64) as usize];
                let other = self.draw(meant) / BLOCK * BLOCK;
                let data = read(image, other);
                write(image, block, &data);
                vec![(block, block + BLOCK)]
            }
            Damage::Cleared => {
                let end = self.end_of_part(area, at);
                let zeroes = vec![0; (end - block) as usize];
                write(image, block, &zeroes);
                vec![(block, end)]
            }
        }
    }

    /// A byte of an area: mostly near one that the life has written.
    fn draw(&mut self, area: Area) -> u64 {
        let events = &self.tape.events;
        for _ in 0..64 {
            let event = &events[self.rng.below(events.len().max(1) as u64) as usize];
            if let TapeEvent::Write { addr, data } = event
                && Area::of(&self.layout, *addr) == area
            {
                return addr + self.rng.below(data.len() as u64);
            }
        }
        let parts = self.parts(area);
        let (start, end) = parts[self.rng.below(parts.len() as u64) as usize];
        start + self.rng.below((end - start).min(BUSY_BYTES))
    }

    fn end_of_part(&self, area: Area, at: u64) -> u64 {
        let mut parts = self.parts(area).into_iter();
        parts.find(|(start, end)| (*start..*end).contains(&at)).expect("drawn within a part").1
    }

    fn parts(&self, area: Area) -> Vec<(u64, u64)> {
        let layout = &self.layout;
        let part = |start: u64, bytes: u64| (start, start + bytes);
        match area {
            Area::Superblock => layout.superblock.map(|at| part(at, BLOCK)).to_vec(),
            Area::Log => vec![part(layout.log_start, layout.log_bytes)],
            Area::Pages => vec![part(layout.slots_start, u64::from(layout.slots) * BLOCK)],
            Area::Directory => layout.directory.map(|at| part(at, layout.directory_bytes)).to_vec(),
            Area::Data => vec![(layout.data_start, layout.end())],
        }
    }
}

fn read(image: &Image, at: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    image.read_at(at, &mut bytes).expect("within the device");
    bytes
}

fn write(image: &mut Image, at: u64, bytes: &[u8]) {
    image.write_at(at, bytes).expect("within the device");
}

/// The variant of an error.
fn name(error: &OpenError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
