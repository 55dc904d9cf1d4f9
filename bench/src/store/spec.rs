//! What to measure.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::StoreReport;
use super::run;
use crate::limits::{MAX_STORE_DEPTH, MAX_STORE_ROUNDS, STORE_MAPPED_MAX};
use crate::rpc::Bytes;

/// Which places are read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Writes in order.
    SequentialWrite,
    /// Reads in order.
    SequentialRead,
    /// Writes anywhere.
    RandomWrite,
    /// Reads anywhere.
    RandomRead,
    /// Seven reads and three writes in ten, anywhere.
    Mixed,
}

impl Pattern {
    /// Reads in a hundred requests.
    pub(super) fn read_percent(self) -> u8 {
        match self {
            Pattern::SequentialWrite | Pattern::RandomWrite => 0,
            Pattern::SequentialRead | Pattern::RandomRead => 100,
            Pattern::Mixed => 70,
        }
    }

    pub(super) fn is_sequential(self) -> bool {
        matches!(self, Pattern::SequentialWrite | Pattern::SequentialRead)
    }

    pub(super) fn writes(self) -> bool {
        self.read_percent() < 100
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Case {
    /// Which places.
    pub pattern: Pattern,
    /// Bytes of a request.
    pub bytes: usize,
    /// Requests in flight.
    pub depth: usize,
}

/// All cases, in the order in which they run: the sequential ones first, since what was written
/// at random lies scattered.
pub(super) const CASES: [Case; 11] = [
    case(Pattern::SequentialWrite, 1 << 20, 8),
    case(Pattern::SequentialRead, 1 << 20, 8),
    case(Pattern::SequentialWrite, 128 << 10, 16),
    case(Pattern::SequentialRead, 128 << 10, 16),
    case(Pattern::RandomWrite, 4096, 1),
    case(Pattern::RandomWrite, 4096, 32),
    case(Pattern::RandomWrite, 4096, 128),
    case(Pattern::RandomRead, 4096, 1),
    case(Pattern::RandomRead, 4096, 32),
    case(Pattern::RandomRead, 4096, 128),
    case(Pattern::Mixed, 4096, 32),
];

pub(super) const fn case(pattern: Pattern, bytes: usize, depth: usize) -> Case {
    Case { pattern, bytes, depth }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = match self.pattern {
            Pattern::SequentialWrite => "sequential write",
            Pattern::SequentialRead => "sequential read",
            Pattern::RandomWrite => "random write",
            Pattern::RandomRead => "random read",
            Pattern::Mixed => "mixed 70/30",
        };
        write!(f, "{pattern} {}, depth {}", Bytes(self.bytes), self.depth)
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Our store over our disk ring.
    Ogive,
    /// fio with io_uring and O_DIRECT, and a flush for each `depth` writes where the device needs
    /// flushes.
    Fio,
    /// fio with `depth` writers that each flush after every write.
    FioWriters,
}

impl Contender {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Ogive => "ogive",
            Contender::Fio => "fio",
            Contender::FioWriters => "fio, writers",
        }
    }

    /// Whether it says anything in a case that the others do not.
    pub(super) fn does(self, case: &Case, flushes: bool) -> bool {
        match self {
            Contender::Ogive | Contender::Fio => true,
            Contender::FioWriters => {
                flushes && case.pattern == Pattern::RandomWrite && case.depth > 1
            }
        }
    }
}

/// How the loop of the store waits when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// It looks again at once, as a busy shard does.
    Spin,
    /// It sleeps in the kernel until something ended, as fio does.
    Sleep,
}

/// A benchmark of the store.
#[derive(Clone, Debug)]
pub struct StoreBench {
    /// The file, which is made if it does not exist, or the device. Its content is lost.
    pub path: PathBuf,
    /// Bytes of a file to make; both halves together.
    pub size: u64,
    /// Overwrite what is there.
    pub force: bool,
    /// Length of one measurement; a fifth of it more warms up.
    pub duration: Duration,
    /// Measurements of each contender in each case.
    pub rounds: usize,
    /// Measure fio too.
    pub fio: bool,
    /// How the loop waits.
    pub wait: Wait,
    /// Only cases whose names contain one of these; all when empty.
    pub only: Vec<String>,
    /// Mapped sizes, in bytes, for which recovery, checkpoint and memory are measured.
    pub mapped: Vec<u64>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum StoreBenchError {
    /// Something asked for is out of range.
    #[error("{0}")]
    Spec(String),
    /// The file or device cannot be used.
    #[error("{0}")]
    Place(String),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// fio failed.
    #[error("fio failed: {0}; leave it out with --no-fio")]
    Fio(String),
}

impl StoreBench {
    /// Runs it; `progress` is told what it is at. Everything on the file or device is lost.
    ///
    /// # Errors
    /// When something asked for is out of range, the file or device cannot be used, or the store
    /// or fio fails.
    pub fn run(&self, progress: &mut dyn FnMut(String)) -> Result<StoreReport, StoreBenchError> {
        self.check()?;
        run::run(self, progress)
    }

    pub(super) fn cases(&self) -> Vec<Case> {
        let wanted = |case: &Case| {
            let name = case.to_string();
            self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
        };
        CASES.into_iter().filter(wanted).collect()
    }

    fn check(&self) -> Result<(), StoreBenchError> {
        let spec = |text: String| Err(StoreBenchError::Spec(text));
        if !(1..=MAX_STORE_ROUNDS).contains(&self.rounds) {
            return spec(format!("{} rounds; choose 1 to {MAX_STORE_ROUNDS}", self.rounds));
        }
        if self.cases().is_empty() && self.mapped.is_empty() {
            let names: Vec<String> = CASES.iter().map(ToString::to_string).collect();
            return spec(format!("no such case; there are: {}", names.join("; ")));
        }
        if let Some(bytes) =
            self.mapped.iter().find(|&&b| !(1 << 20..=STORE_MAPPED_MAX).contains(&b))
        {
            return spec(format!("{bytes} bytes mapped; choose 1 MiB to {STORE_MAPPED_MAX} bytes"));
        }
        Ok(())
    }
}

const _: () = {
    let mut i = 0;
    while i < CASES.len() {
        assert!(CASES[i].depth <= MAX_STORE_DEPTH && CASES[i].bytes.is_multiple_of(4096));
        i += 1;
    }
};
