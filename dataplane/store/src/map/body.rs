//! The mappings of a page in memory, in the smallest of three forms; the page on the device holds
//! the same.
//!
//! | form | number | chosen when | words of 32 bits |
//! |---|---|---|---|
//! | wide | 0 | two indexes are 2^40 or more apart | 256 blocks · 256 checksums · 256 low and 256 high words of the index |
//! | runs | 1 | it is not longer than the dense form | 3 for each run · a checksum for each mapped block, in order |
//! | dense | 2 | otherwise | 256 blocks · 256 checksums · 256 low words of the offset · 64 words with its high bytes |
//!
//! A run is neighbouring blocks that one entry put into neighbouring device blocks, or trimmed. Its
//! words: start (8 bits), length - 1 (8), mapped blocks before it (8), high byte of the offset (8);
//! low word of the offset; first device block. An offset is an index less the page's base. Written
//! in large pieces, a block costs its checksum and little more; written at random, 13 bytes.

use ogive_types::{BlockSum, Index};

use super::{EMPTY, Mapping, PAGE_BLOCKS, TRIMMED};

/// Number of the form of far-apart indexes, the only one of version 1.
pub(super) const WIDE: u8 = 0;
/// Number of the form of runs.
pub(super) const RUNS: u8 = 1;
/// Number of the form of scattered blocks.
pub(super) const DENSE: u8 = 2;

const BLOCKS: usize = PAGE_BLOCKS as usize;
/// Words in front: base (2), form and number of runs (1).
const HEAD: usize = 3;
const RUN_WORDS: usize = 3;
/// Words of the dense form; runs that would take more become dense.
const DENSE_WORDS: usize = 3 * BLOCKS + BLOCKS / 4;
const WIDE_WORDS: usize = 4 * BLOCKS;
/// Words at which a page that is written to the device goes back to runs: well below
/// [`DENSE_WORDS`], so that it does not change to and fro.
const RUNS_AGAIN_WORDS: usize = DENSE_WORDS / 8 * 7;
/// Offsets of indexes have 40 bits.
const OFFSETS: u64 = 1 << 40;
/// No log is so long; the wide form has no room for more.
const INDEX_MAX: u64 = 1 << 56;
const _: () = assert!(DENSE_WORDS * 4 == 3328 && WIDE_WORDS > DENSE_WORDS);

/// All mappings of a page, in order.
pub(super) type Mappings = [Mapping; BLOCKS];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u16,
    len: u16,
    index: u64,
    block: u32,
}

impl Run {
    fn end(&self) -> u16 {
        self.start + self.len
    }

    fn mapped(&self) -> usize {
        if self.block < TRIMMED { usize::from(self.len) } else { 0 }
    }

    /// The part of it from `start` to `end`.
    fn part(&self, start: u16, end: u16) -> Option<Run> {
        let skipped = if self.block < TRIMMED { u32::from(start - self.start) } else { 0 };
        let part = Run { start, len: end.saturating_sub(start), ..*self };
        (part.len > 0).then_some(Run { block: self.block + skipped, ..part })
    }

    /// Takes in the run behind it, if both are one.
    fn join(&mut self, next: &Run) -> bool {
        let goes_on = match self.block {
            TRIMMED => next.block == TRIMMED,
            block => next.block < TRIMMED && block + u32::from(self.len) == next.block,
        };
        let joins = self.end() == next.start && self.index == next.index && goes_on;
        self.len += if joins { next.len } else { 0 };
        joins
    }
}

/// The mappings of a page. Without any it takes no memory of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    words: Vec<u32>,
}

impl Body {
    /// The smallest body with these mappings.
    pub(super) fn build(mappings: &Mappings) -> Body {
        let used = || mappings.iter().filter(|m| m.block != EMPTY);
        let indexes = || used().map(|m| m.index.0);
        let (Some(base), Some(newest)) = (indexes().min(), indexes().max()) else {
            return Body::default();
        };
        let runs = runs_of(mappings);
        let sums = used().filter(|m| m.block < TRIMMED).count();
        let words = runs.len() * RUN_WORDS + sums;
        let mut body = Body { words: Vec::new() };
        if newest - base >= OFFSETS {
            body.start(WIDE, 0, 0, WIDE_WORDS);
        } else if words > DENSE_WORDS {
            body.start(DENSE, base, 0, DENSE_WORDS);
        } else {
            body.start(RUNS, base, runs.len(), words);
            let mut before = 0;
            for (at, run) in runs.iter().enumerate() {
                body.put_run(at, run, before);
                before += run.mapped();
            }
            let stored = used().filter(|m| m.block < TRIMMED).map(|m| m.sum.0);
            body.words.truncate(HEAD + runs.len() * RUN_WORDS);
            body.words.extend(stored);
            return body;
        }
        body.words[HEAD..HEAD + BLOCKS].fill(EMPTY);
        let used = (0..).zip(mappings).filter(|(_, m)| m.block != EMPTY);
        used.for_each(|(at, &mapping)| body.put(at, mapping));
        body
    }

    fn start(&mut self, form: u8, base: u64, runs: usize, words: usize) {
        self.words.reserve_exact(HEAD + words);
        self.words.extend([base as u32, (base >> 32) as u32, u32::from(form)]);
        self.words.resize(HEAD + words, 0);
        self.set_runs(runs);
    }

    pub(super) fn form(&self) -> u8 {
        self.words.get(2).map_or(RUNS, |&word| word as u8)
    }

    pub(super) fn base(&self) -> u64 {
        match self.words[..] {
            [low, high, ..] => u64::from(high) << 32 | u64::from(low),
            _ => 0,
        }
    }

    /// Number of runs, in that form.
    pub(super) fn runs(&self) -> usize {
        self.words.get(2).map_or(0, |&word| (word >> 8) as usize)
    }

    fn set_runs(&mut self, runs: usize) {
        self.words[2] = (self.words[2] & 0xff) | (runs as u32) << 8;
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * 4
    }

    /// The words behind the head.
    pub(super) fn payload(&self) -> &[u32] {
        self.words.get(HEAD..).unwrap_or_default()
    }

    /// The mapping of one block; of an unknown one, none with index 0.
    pub(super) fn get(&self, at: u16) -> Mapping {
        if self.form() != RUNS {
            return self.entry(at);
        }
        let next = self.runs_to(at);
        let Some(place) = next.checked_sub(1) else { return Mapping::NONE };
        let run = self.run(place);
        if at >= run.end() {
            return Mapping::NONE;
        }
        self.in_run(place, &run, at)
    }

    /// A block of the run at `place`.
    fn in_run(&self, place: usize, run: &Run, at: u16) -> Mapping {
        let index = Index(run.index);
        if run.block == TRIMMED {
            return Mapping::trimmed(index);
        }
        let within = at - run.start;
        let sum = self.sums_at() + self.sums_before(place) + usize::from(within);
        Mapping::stored(run.block + u32::from(within), BlockSum(self.words[sum]), index)
    }

    /// Runs that start at or before a block.
    fn runs_to(&self, at: u16) -> usize {
        let start = |run: usize| (self.words[HEAD + run * RUN_WORDS] & 0xff) as u16;
        let (mut low, mut high) = (0, self.runs());
        while low < high {
            let middle = (low + high) / 2;
            if start(middle) <= at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn run(&self, place: usize) -> Run {
        let at = HEAD + place * RUN_WORDS;
        let (first, low, block) = (self.words[at], self.words[at + 1], self.words[at + 2]);
        Run {
            start: (first & 0xff) as u16,
            len: (first >> 8 & 0xff) as u16 + 1,
            index: self.base() + (u64::from(first >> 24) << 32 | u64::from(low)),
            block,
        }
    }

    fn put_run(&mut self, place: usize, run: &Run, before: usize) {
        let offset = run.index - self.base();
        let at = HEAD + place * RUN_WORDS;
        self.words[at] = u32::from(run.start)
            | u32::from(run.len - 1) << 8
            | (before as u32) << 16
            | ((offset >> 32) as u32) << 24;
        self.words[at + 1] = offset as u32;
        self.words[at + 2] = run.block;
    }

    /// Where the checksums begin.
    fn sums_at(&self) -> usize {
        HEAD + self.runs() * RUN_WORDS
    }

    /// Mapped blocks before a run.
    fn sums_before(&self, place: usize) -> usize {
        (self.words[HEAD + place * RUN_WORDS] >> 16 & 0xff) as usize
    }

    /// One block in the forms that have a place for each.
    fn entry(&self, at: u16) -> Mapping {
        let at = usize::from(at);
        let words = &self.words[HEAD..];
        let block = words[at];
        if block == EMPTY {
            return Mapping::NONE;
        }
        let high = match self.form() {
            DENSE => words[3 * BLOCKS + at / 4] >> (at % 4 * 8) & 0xff,
            _ => words[3 * BLOCKS + at],
        };
        let offset = u64::from(high) << 32 | u64::from(words[2 * BLOCKS + at]);
        let (sum, index) = (BlockSum(words[BLOCKS + at]), Index(self.base() + offset));
        Mapping { block, sum, index }
    }

    /// Changes one block if `new` is newer; the mapping replaced, or `None` when nothing changed.
    pub(super) fn set(&mut self, at: u16, new: Mapping) -> Option<Mapping> {
        let old = self.get(at);
        if new.index <= old.index {
            return None;
        }
        self.replace(at, old, new);
        Some(old)
    }

    /// Changes where one block is; the mapping before.
    pub(super) fn move_to(&mut self, at: u16, new: Mapping) -> Mapping {
        let old = self.get(at);
        self.replace(at, old, new);
        old
    }

    /// Changes one block, whatever its index; `old` is what it was.
    pub(super) fn replace(&mut self, at: u16, old: Mapping, new: Mapping) {
        if self.words.is_empty() {
            self.start(RUNS, new.index.0, 0, 0);
        }
        let holds = match self.form() {
            WIDE => true,
            _ => new.index.0.checked_sub(self.base()).is_some_and(|offset| offset < OFFSETS),
        };
        match self.form() {
            RUNS if holds && self.set_in_runs(at, old, new) => {}
            DENSE | WIDE if holds => self.put(at, new),
            _ => {
                let mut all = self.mappings();
                all[usize::from(at)] = new;
                *self = Body::build(&all);
            }
        }
    }

    /// Puts one block into a form that has a place for each.
    fn put(&mut self, at: u16, new: Mapping) {
        let at = usize::from(at);
        let offset = new.index.0 - self.base();
        let dense = self.form() == DENSE;
        let words = &mut self.words[HEAD..];
        words[at] = new.block;
        words[BLOCKS + at] = new.sum.0;
        words[2 * BLOCKS + at] = offset as u32;
        let high = (offset >> 32) as u32;
        if dense {
            let (word, shift) = (&mut words[3 * BLOCKS + at / 4], at % 4 * 8);
            *word = *word & !(0xff << shift) | high << shift;
        } else {
            words[3 * BLOCKS + at] = high;
        }
    }

    /// Changes one block among runs; false when they become too many for this form.
    fn set_in_runs(&mut self, at: u16, old: Mapping, new: Mapping) -> bool {
        // Only these can hold the block, or touch it.
        let next = self.runs_to(at);
        let (from, to) = (next.saturating_sub(2), (next + 1).min(self.runs()));
        let mut around = Around::default();
        let alone = Run { start: at, len: 1, index: new.index.0, block: new.block };
        let mut put = false;
        for place in from..to {
            let run = self.run(place);
            run.part(run.start, run.end().min(at)).inspect(|left| around.add(left));
            if !put && run.end() > at {
                around.add(&alone);
                put = true;
            }
            let behind = run.start.max(at + 1);
            run.part(behind, run.end()).inspect(|right| around.add(right));
        }
        if !put {
            around.add(&alone);
        }
        let sum_before = self.sums_before_block(next, at);
        let (had, has) = (old.block().is_some(), new.block().is_some());
        let words = self.words.len() - HEAD + around.len * RUN_WORDS + usize::from(has);
        if words - (to - from) * RUN_WORDS - usize::from(had) > DENSE_WORDS {
            return false;
        }
        self.replace_sum(self.sums_at() + sum_before, had, has.then_some(new.sum.0));
        self.replace_runs(from, to, &around);
        let shift = i32::from(has) - i32::from(had);
        for place in from + around.len..self.runs() {
            let first = &mut self.words[HEAD + place * RUN_WORDS];
            *first = first.wrapping_add_signed(shift << 16);
        }
        true
    }

    /// Mapped blocks before `at`, which lies in or behind run `next - 1`.
    fn sums_before_block(&self, next: usize, at: u16) -> usize {
        let Some(place) = next.checked_sub(1) else { return 0 };
        let run = self.run(place);
        let within = if run.block < TRIMMED { at.min(run.end()) - run.start } else { 0 };
        self.sums_before(place) + usize::from(within)
    }

    fn replace_sum(&mut self, at: usize, had: bool, sum: Option<u32>) {
        match sum {
            Some(sum) if had => self.words[at] = sum,
            Some(sum) => {
                self.make_room(1);
                self.words.insert(at, sum);
            }
            None if had => drop(self.words.remove(at)),
            None => {}
        }
    }

    fn replace_runs(&mut self, from: usize, to: usize, around: &Around) {
        let (has, had) = (around.len * RUN_WORDS, (to - from) * RUN_WORDS);
        let mut before = if from < to { self.sums_before(from) } else { 0 };
        let (old_end, new_end) = (HEAD + to * RUN_WORDS, HEAD + from * RUN_WORDS + has);
        let len = self.words.len();
        if has > had {
            self.make_room(has - had);
            self.words.resize(len + has - had, 0);
        }
        self.words.copy_within(old_end..len, new_end);
        self.words.truncate(len + has - had);
        self.set_runs(self.runs() + around.len - (to - from));
        for (place, run) in (from..).zip(&around.runs[..around.len]) {
            self.put_run(place, run, before);
            before += run.mapped();
        }
    }

    /// Grows by an eighth, not to twice the size: most pages stay as they are for long.
    fn make_room(&mut self, words: usize) {
        if self.words.capacity() < self.words.len() + words {
            self.words.reserve_exact((self.words.len() / 8).max(words + 5));
        }
    }

    /// All mappings in order.
    pub(super) fn mappings(&self) -> Mappings {
        let mut all = [Mapping::NONE; BLOCKS];
        self.each(|at, mapping| all[usize::from(at)] = mapping);
        all
    }

    /// Names all mappings that are not empty, in order.
    pub(super) fn each(&self, mut name: impl FnMut(u16, Mapping)) {
        if self.form() != RUNS {
            let all = (0..PAGE_BLOCKS).map(|at| (at, self.entry(at)));
            all.filter(|(_, m)| m.block != EMPTY).for_each(|(at, mapping)| name(at, mapping));
            return;
        }
        for place in 0..self.runs() {
            let run = self.run(place);
            (run.start..run.end()).for_each(|at| name(at, self.in_run(place, &run, at)));
        }
    }

    /// Goes back to runs where they have become few again, and gives back memory.
    pub(super) fn compact(&mut self) {
        if self.words.is_empty() {
            return;
        }
        if self.form() == RUNS {
            let slack = self.words.capacity() - self.words.len();
            if slack > 16 && slack > self.words.len() / 16 {
                self.words.shrink_to_fit();
            }
            return;
        }
        let smaller = Body::build(&self.mappings());
        if smaller.form() == DENSE || smaller.payload().len() <= RUNS_AGAIN_WORDS {
            *self = smaller;
        }
    }

    /// A body from the words of the device; `None` when they contradict each other.
    pub(super) fn from_words(
        form: u8,
        base: u64,
        runs: usize,
        words: impl Iterator<Item = u32>,
    ) -> Option<Body> {
        let mut body = Body { words: Vec::new() };
        let fixed = match form {
            DENSE => DENSE_WORDS,
            RUNS if runs == 0 => return Some(body),
            RUNS if runs <= BLOCKS => runs * RUN_WORDS,
            _ => return None,
        };
        // Room for the checksums as well: the device says how many there are.
        body.words.reserve_exact(HEAD + words.size_hint().1.unwrap_or(fixed));
        body.words.extend([base as u32, (base >> 32) as u32, u32::from(form)]);
        body.set_runs(runs);
        body.words.extend(words);
        let sums = body.words.len().checked_sub(HEAD + fixed)?;
        let whole = base <= INDEX_MAX - OFFSETS;
        (whole && if form == RUNS { body.runs_hold(sums) } else { sums == 0 && runs == 0 })
            .then_some(body)
    }

    /// Whether the runs lie one behind the other, with as many checksums as blocks.
    fn runs_hold(&self, sums: usize) -> bool {
        let (mut end, mut before) = (0, 0);
        for place in 0..self.runs() {
            let run = self.run(place);
            let last = u64::from(run.block) + u64::from(run.len) - 1;
            let there = run.block == TRIMMED || last < u64::from(TRIMMED);
            if run.start < end
                || run.end() > PAGE_BLOCKS
                || !there
                || self.sums_before(place) != before
                || run.index == 0
            {
                return false;
            }
            (end, before) = (run.end(), before + run.mapped());
        }
        before == sums
    }
}

/// Up to five runs around a block that changes.
struct Around {
    runs: [Run; 5],
    len: usize,
}

impl Default for Around {
    fn default() -> Around {
        Around { runs: [Run { start: 0, len: 0, index: 0, block: 0 }; 5], len: 0 }
    }
}

impl Around {
    fn add(&mut self, run: &Run) {
        if self.len > 0 && self.runs[self.len - 1].join(run) {
            return;
        }
        self.runs[self.len] = *run;
        self.len += 1;
    }
}

fn runs_of(mappings: &Mappings) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (at, m) in (0..).zip(mappings).filter(|(_, m)| m.block != EMPTY) {
        let run = Run { start: at, len: 1, index: m.index.0, block: m.block };
        if !runs.last_mut().is_some_and(|last| last.join(&run)) {
            runs.push(run);
        }
    }
    runs
}
