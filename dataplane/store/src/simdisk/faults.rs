//! What goes wrong with a disk: asked for one by one, or drawn from a seed at a rate for each kind.

use std::ops::Range;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A read failed.
    ReadError,
    /// A write failed; any of its sectors may have been written all the same.
    WriteError,
    /// A flush failed.
    FlushError,
    /// A write found no space behind the device.
    Full,
    /// A write ended well, and one of the bits that it wrote turned over.
    BitFlip,
    /// A write ended well and went elsewhere.
    Misdirected,
    /// A write ended well and was never done.
    Lost,
    /// An operation took so long that many others overtook it.
    Slow,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 8] = [
        Fault::ReadError,
        Fault::WriteError,
        Fault::FlushError,
        Fault::Full,
        Fault::BitFlip,
        Fault::Misdirected,
        Fault::Lost,
        Fault::Slow,
    ];
}

/// How often each fault happened to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl FaultCounts {
    /// How often one kind happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds the counts of another disk.
    pub fn add(&mut self, other: &FaultCounts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    pub(super) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }
}

/// How often faults happen by chance: each kind once in so many operations that it can befall, or
/// never. What is drawn depends on the seed and on the operations alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    seed: u64,
    once_in: [u64; Fault::ALL.len()],
}

impl FaultRates {
    /// No faults; what comes is drawn from `seed`.
    pub fn new(seed: u64) -> FaultRates {
        FaultRates { seed, once_in: Default::default() }
    }

    /// With one kind of fault once in `operations`.
    pub fn with(mut self, fault: Fault, operations: u64) -> FaultRates {
        self.once_in[fault as usize] = operations;
        self
    }

    fn below(&mut self, n: u64) -> u64 {
        self.seed = super::tape::mix(self.seed);
        self.seed % n
    }

    /// Whether a fault happens now.
    fn strikes(&mut self, fault: Fault) -> bool {
        match self.once_in[fault as usize] {
            0 => false,
            n => self.below(n) == 0,
        }
    }
}

/// The faults of a disk: those that will happen, and those that did.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) bad: Vec<Range<u64>>,
    pub(super) writes_to_fail: u64,
    pub(super) flushes_to_fail: u64,
    pub(super) misdirect_to: Option<u64>,
    pub(super) writes_to_lose: u64,
    pub(super) full: bool,
    pub(super) rates: FaultRates,
}

/// Operations that overtake a slow one at the most.
const OVERTAKERS_MAX: u64 = 64;

impl Faults {
    pub(super) fn any(&self) -> bool {
        let Faults { bad, writes_to_fail, flushes_to_fail, .. } = self;
        let drawn = self.rates.once_in.iter().enumerate();
        drawn.into_iter().any(|(kind, &n)| n > 0 && kind != Fault::Slow as usize)
            || !bad.is_empty()
            || *writes_to_fail + *flushes_to_fail + self.writes_to_lose > 0
            || self.misdirect_to.is_some()
            || self.full
    }

    /// What happens to the next write of a disk of `len` bytes.
    pub(super) fn of_write(&mut self) -> Option<Fault> {
        if self.full || self.rates.strikes(Fault::Full) {
            return Some(Fault::Full);
        }
        if take_one(&mut self.writes_to_fail) || self.rates.strikes(Fault::WriteError) {
            return Some(Fault::WriteError);
        }
        if self.misdirect_to.is_some() || self.rates.strikes(Fault::Misdirected) {
            return Some(Fault::Misdirected);
        }
        if take_one(&mut self.writes_to_lose) || self.rates.strikes(Fault::Lost) {
            return Some(Fault::Lost);
        }
        self.rates.strikes(Fault::BitFlip).then_some(Fault::BitFlip)
    }

    /// Whether the next flush fails.
    pub(super) fn flush_fails(&mut self) -> bool {
        take_one(&mut self.flushes_to_fail) || self.rates.strikes(Fault::FlushError)
    }

    /// Whether the next read fails by chance.
    pub(super) fn read_fails(&mut self) -> bool {
        self.rates.strikes(Fault::ReadError)
    }

    /// How many operations overtake the next one.
    pub(super) fn overtakers(&mut self) -> u64 {
        match self.rates.strikes(Fault::Slow) {
            true => 1 + self.rates.below(OVERTAKERS_MAX),
            false => 0,
        }
    }

    /// Where a misdirected write goes, on a disk with so many sectors.
    pub(super) fn elsewhere(&mut self, sectors: u64, sector: u64) -> u64 {
        let drawn = self.rates.below(sectors) * sector;
        self.misdirect_to.take().unwrap_or(drawn)
    }

    /// A bit of so many bytes.
    pub(super) fn bit_of(&mut self, bytes: usize) -> (usize, u8) {
        (self.rates.below(bytes as u64) as usize, 1 << self.rates.below(8))
    }
}

fn take_one(count: &mut u64) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}
