//! What a run is like: all of it follows from the seed.

use std::fmt;

use crate::fault::{Fault, FaultSet};

/// A known bug to put in, to prove that the checks find it. The shards stay as they are: the
/// simulated environment lies to them, so that one of their defences does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Disks report flushes that did not happen: entries are acknowledged before they are durable.
    LyingFlush,
    /// Late requests carry the newest epoch: the fence against older attachments is open.
    LieEpoch,
    /// Late requests carry the newest incarnation of their session.
    LieIncarnation,
    /// Late requests carry the term of whoever leads when they arrive.
    LieTerm,
    /// Every vote is granted.
    ForgeVotes,
    /// Followers seem to have taken appends before they look at them.
    ForgeAppends,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 6] = [
        Mutant::LyingFlush,
        Mutant::LieEpoch,
        Mutant::LieIncarnation,
        Mutant::LieTerm,
        Mutant::ForgeVotes,
        Mutant::ForgeAppends,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mutant::LyingFlush => "lying-flush",
            Mutant::LieEpoch => "lie-epoch",
            Mutant::LieIncarnation => "lie-incarnation",
            Mutant::LieTerm => "lie-term",
            Mutant::ForgeVotes => "forge-votes",
            Mutant::ForgeAppends => "forge-appends",
        }
    }
}

impl std::str::FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Mutant, String> {
        let known = Mutant::ALL.iter().find(|m| m.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<_> = Mutant::ALL.iter().map(|m| m.name()).collect();
            format!("no such bug; there are {}", names.join(", "))
        })
    }
}

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Decides the shape of the world, which faults it has, and all that happens.
    pub seed: u64,
    /// Gives the same world another course: what happens is drawn anew, but not the shape.
    pub salt: u64,
    /// Simulated microseconds of load and faults, before healing.
    pub chaos_us: u64,
    /// False for a run without faults.
    pub faults: bool,
    /// Kinds of faults that are left out.
    pub without: FaultSet,
    /// At most so many volumes, each of which has a client or two.
    pub volumes_max: u64,
    /// At most so many operations in flight for each client.
    pub depth_max: u64,
    /// A bug to put in.
    pub mutant: Option<Mutant>,
    /// Print what happens.
    pub trace: bool,
}

/// Usual length of load and faults.
pub const CHAOS_US: u64 = 6_000_000;

impl Options {
    /// A run of a seed with its usual length.
    pub fn seed(seed: u64) -> Options {
        Options {
            seed,
            salt: 0,
            chaos_us: CHAOS_US,
            faults: true,
            without: FaultSet::default(),
            volumes_max: u64::MAX,
            depth_max: u64::MAX,
            mutant: None,
            trace: false,
        }
    }
}

/// As arguments of `ogive-sim`, which replay the run.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Options::seed(self.seed);
        write!(f, "--seed {}", self.seed)?;
        if self.salt != usual.salt {
            write!(f, " --salt {}", self.salt)?;
        }
        if self.chaos_us != usual.chaos_us {
            write!(f, " --millis {}", self.chaos_us / 1000)?;
        }
        if !self.faults {
            write!(f, " --calm")?;
        }
        if self.without != usual.without {
            let names: Vec<&str> = self.without.iter().map(Fault::name).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if self.volumes_max != usual.volumes_max {
            write!(f, " --volumes {}", self.volumes_max)?;
        }
        if self.depth_max != usual.depth_max {
            write!(f, " --depth {}", self.depth_max)?;
        }
        match self.mutant {
            Some(mutant) => write!(f, " --mutant {}", mutant.name()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_what_differs_from_the_usual() {
        let plain = Options::seed(7);
        assert_eq!(plain.to_string(), "--seed 7");
        let mut without = FaultSet::default();
        without.insert(Fault::Rot);
        without.insert(Fault::Kill);
        let options = Options { chaos_us: 250_000, without, volumes_max: 1, salt: 3, ..plain };
        let expected = "--seed 7 --salt 3 --millis 250 --without kill,rot --volumes 1";
        assert_eq!(options.to_string(), expected);
    }
}
