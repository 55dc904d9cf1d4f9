//! Cuts the power at every place of a recorded life, in every way or in many.

use std::collections::HashSet;

use ogive_store::simdisk::{Image, Player, Tape};
use ogive_store::{Label, RegionLayout};

use crate::area::{Area, Areas};
use crate::cover::Cover;
use crate::examine::{Examiner, Promised, Shown, Wrong};
use crate::promise::{Promises, Reader};
use crate::rng::Rng;
use crate::world::{Mix, Setup, World};

/// How much of what is possible is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// With so many sectors in the air or fewer, every set of them is tried.
    pub exhaust_sectors_max: usize,
    /// Otherwise so many sets are drawn, besides those that lack or have a single write.
    pub drawn: usize,
    /// A store goes on with one image of so many.
    pub resume_once_in: u64,
    /// At so many places the image is damaged in every way, and at the end.
    pub damaged_places: u64,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { exhaust_sectors_max: 6, drawn: 12, resume_once_in: 60, damaged_places: 4 }
    }
}

/// Steps of a store that goes on with an image.
const STEPS_RESUMED: u64 = 25;

/// A recorded life to look at.
pub struct Explorer<'a> {
    tape: &'a Tape,
    promises: &'a Promises,
    setup: &'a Setup,
    label: &'a Label,
    layout: RegionLayout,
    mix: Mix,
    newest: u64,
    effort: Effort,
    rng: Rng,
    examiner: Examiner,
    /// Images that were examined, with what they had to show.
    seen: HashSet<(u64, usize)>,
    /// What was tried.
    pub cover: Cover,
}

impl<'a> Explorer<'a> {
    /// Of a world whose tape has ended. `mix` is what stores do that go on.
    pub fn new(world: &'a World, tape: &'a Tape, mix: Mix, effort: Effort, rng: Rng) -> Self {
        Explorer {
            tape,
            promises: &world.promises,
            setup: &world.setup,
            label: &world.label,
            layout: world.label.regions()[0].layout().expect("it was formatted"),
            mix,
            newest: world.newest(),
            effort,
            rng,
            examiner: Examiner::new(world),
            seen: HashSet::new(),
            cover: Cover::default(),
        }
    }

    /// Goes along the tape.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn run(&mut self) -> Result<(), String> {
        let (mut player, mut reader) = (self.tape.play(), self.promises.reader());
        loop {
            if !player.next_adds() {
                reader.go_to(player.at());
                self.point(&player, &reader)
                    .map_err(|what| format!("power cut at event {}: {what}", player.at()))?;
            }
            if player.step().is_none() {
                return Ok(());
            }
        }
    }

    fn point(&mut self, player: &Player, reader: &Reader) -> Result<(), String> {
        let mut areas = Areas::default();
        player.air().iter().for_each(|write| areas.add(Area::of(&self.layout, write.addr)));
        *self.cover.points.entry(areas).or_default() += 1;
        let sectors = player.sectors();
        let sector = self.setup.sector as usize;
        let starts: Vec<usize> = player
            .air()
            .iter()
            .scan(0, |at, write| Some(std::mem::replace(at, *at + write.data.len() / sector)))
            .collect();
        if sectors <= self.effort.exhaust_sectors_max {
            self.cover.points_exhausted += 1;
            for set in 0..1_u64 << sectors {
                let image = player.image(&mut |write, at| set >> (starts[write] + at) & 1 == 1);
                self.image(image, reader)?;
            }
            return Ok(());
        }
        self.image(player.image(&mut |_, _| false), reader)?;
        self.image(player.image(&mut |_, _| true), reader)?;
        let writes = player.air().len();
        for _ in 0..writes.min(self.effort.drawn) {
            let one = self.rng.below(writes as u64) as usize;
            self.image(player.image(&mut |write, _| write != one), reader)?;
            self.image(player.image(&mut |write, _| write == one), reader)?;
        }
        for _ in 0..self.effort.drawn {
            let drawn = self.draw(player);
            self.cover.reordered += 1;
            self.image(drawn, reader)?;
        }
        Ok(())
    }

    /// An image in which each write in the air is kept, lost or torn, in an order that is drawn.
    fn draw(&mut self, player: &Player) -> (Image, u64) {
        let fates: Vec<u64> = player.air().iter().map(|_| self.rng.below(3)).collect();
        let mut tear = Rng(self.rng.below(u64::MAX));
        let mut keep = |write: usize, _| match fates[write] {
            2 => tear.once_in(2),
            fate => fate == 0,
        };
        let rng = &mut self.rng;
        player.image_reordered(&mut |n| rng.below(n), &mut keep)
    }

    fn image(&mut self, (image, key): (Image, u64), reader: &Reader) -> Result<(), String> {
        if !self.seen.insert((key, reader.sure())) {
            return Ok(());
        }
        self.cover.images += 1;
        let known = reader.known();
        let (sure, rest) = (reader.sure_logs(), reader.rest());
        let promised = Promised { sure, rest, known: &known, rot: false, applied_is_sure: true };
        let shown = self.examiner.examine(&mut image.clone(), &promised);
        let shown = shown.map_err(|wrong| match wrong {
            Wrong::Refused(error) => format!("refused: {error}"),
            Wrong::Shows(what) => what,
        })?;
        if self.rng.once_in(self.effort.resume_once_in) {
            self.go_on(&image, shown);
        }
        Ok(())
    }

    /// Goes on with an image, and through more power cuts. What is wrong is a panic.
    fn go_on(&mut self, image: &Image, shown: Shown) {
        self.cover.resumed += 1;
        let rng = Rng(self.rng.below(u64::MAX));
        let mut replicas = shown.replicas;
        // The entries that would make a delta whole are the source's; others come in their place.
        for replica in replicas.values_mut().filter(|r| r.applied < r.clear_at) {
            replica.clear_at = usize::MAX;
        }
        let found = (shown.logs, replicas);
        let mut world = World::resume(self.setup, self.label, image, found, (self.newest, rng));
        for _ in 0..2 {
            for _ in 0..STEPS_RESUMED {
                world.step(&self.mix);
            }
            if world.rng.once_in(2) {
                world.kill();
            }
            world.crash();
        }
        world.settle();
        world.compare_content();
    }
}
