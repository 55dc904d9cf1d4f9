//! What to measure.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cores::Cores;
use super::report::RpcReport;
use super::run;
use crate::limits::{MAX_RPC_BYTES, MAX_RPC_DEPTH, MAX_RPC_IN_FLIGHT_BYTES, MAX_RPC_ROUNDS};

/// Payloads up to this many bytes travel in the body of a frame, longer ones as its payload:
/// metadata is carried like that, and data.
pub(super) const IN_BODY_MAX: usize = 512;
/// Body of a request that has a payload: as long as that of a write.
pub(super) const BODY_BYTES: usize = 48;
/// Body of an answer without a payload: as long as that to a write.
pub(super) const ACK_BYTES: usize = 16;

/// What travels for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// The answer carries what the request carried.
    Echo,
    /// The request carries the data, the answer is 16 bytes: a write.
    Write,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Case {
    /// What travels.
    pub pattern: Pattern,
    /// Bytes of data in a message. Up to 512 are in the body of the frame; more are its payload,
    /// with a body of 48 bytes before it.
    pub bytes: usize,
    /// Requests in flight.
    pub depth: usize,
}

impl Case {
    /// Bytes of a request on the wire of our transport, header and body included.
    pub fn request_bytes(&self) -> usize {
        let body = if self.bytes <= IN_BODY_MAX { 0 } else { BODY_BYTES };
        ogive_rpc::frame::HEADER_BYTES + body + self.bytes
    }

    /// Bytes of an answer on the wire of our transport.
    pub fn answer_bytes(&self) -> usize {
        match self.pattern {
            Pattern::Echo => self.request_bytes(),
            Pattern::Write => ogive_rpc::frame::HEADER_BYTES + ACK_BYTES,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = match self.pattern {
            Pattern::Echo => "echo",
            Pattern::Write => "write",
        };
        write!(f, "{pattern} {}, depth {}", Bytes(self.bytes), self.depth)
    }
}

/// A size for people.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => write!(f, "{} MiB", n >> 20),
            n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} B"),
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// Our transport over RDMA.
    Rdma,
    /// Our transport over shared memory.
    Shm,
    /// Our transport over TCP.
    Tcp,
    /// Reference: a program that spins on a plain socket.
    Bare,
    /// Reference: unary calls of tonic.
    Tonic,
    /// Reference: `ucx_perftest`, active messages over shared memory.
    Ucx,
}

impl Contender {
    /// The paths of our transport, best first.
    pub const PATHS: [Contender; 3] = [Contender::Rdma, Contender::Shm, Contender::Tcp];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Rdma => "rdma",
            Contender::Shm => "shm",
            Contender::Tcp => "tcp",
            Contender::Bare => "bare",
            Contender::Tonic => "tonic",
            Contender::Ucx => "ucx",
        }
    }

    /// Whether it can do a case at all; the others are what it is a reference for.
    pub fn does(self, case: &Case) -> bool {
        match self {
            Contender::Rdma | Contender::Shm | Contender::Tcp | Contender::Bare => true,
            Contender::Tonic => case.depth == 1 && case.bytes <= 4096,
            // Its bandwidth test keeps its own number of messages in flight, without answers.
            Contender::Ucx => match case.pattern {
                Pattern::Echo => case.depth == 1,
                Pattern::Write => case.bytes >= 1 << 20,
            },
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A benchmark of the transports between this process and others that it starts.
#[derive(Clone, Debug)]
pub struct RpcBench {
    /// The binary that answers to the arguments of [`RpcBench::peer_args`].
    pub exe: PathBuf,
    /// Arguments before the name of the contender, by which `exe` calls [`super::serve`].
    pub peer_args: Vec<String>,
    /// Paths of our transport.
    pub paths: Vec<Contender>,
    /// Whether the references are measured too.
    pub references: bool,
    /// Bytes of data in a message.
    pub sizes: Vec<usize>,
    /// Requests in flight.
    pub depths: Vec<usize>,
    /// Length of one measurement; a fifth of it more warms up.
    pub duration: Duration,
    /// Measurements of each contender in each case.
    pub rounds: usize,
    /// Where both ends run; by default on two cores of their own.
    pub cores: Cores,
}

/// Why a benchmark did not run.
#[derive(Debug, thiserror::Error)]
pub enum RpcBenchError {
    /// The request makes no sense.
    #[error("{0}")]
    Spec(String),
    /// The process for the other end does not start, or does not say where it listens.
    #[error("the other end ({0}) does not start: {1}")]
    Peer(Contender, String),
    /// A measurement broke off.
    #[error("{contender}, {case}: {why}")]
    Broken {
        /// Who was measured.
        contender: Contender,
        /// In which case.
        case: Case,
        /// What happened.
        why: String,
    },
}

impl RpcBench {
    /// The defaults: all paths and references, the sizes and depths of the budgets.
    pub fn new(exe: PathBuf, peer_args: Vec<String>) -> RpcBench {
        RpcBench {
            exe,
            peer_args,
            paths: Contender::PATHS.to_vec(),
            references: true,
            sizes: vec![64, 4 << 10, 64 << 10, 1 << 20],
            depths: vec![1, 32, 256],
            duration: Duration::from_millis(300),
            rounds: 5,
            cores: Cores::choose(),
        }
    }

    /// Measures. `progress` is told what is being measured.
    pub fn run(&self, progress: &mut dyn FnMut(String)) -> Result<RpcReport, RpcBenchError> {
        self.check().map_err(RpcBenchError::Spec)?;
        run::run(self, progress)
    }

    fn check(&self) -> Result<(), String> {
        if self.paths.is_empty() || self.sizes.is_empty() || self.depths.is_empty() {
            return Err("nothing to measure: name a path, a size and a depth".into());
        }
        if self.paths.iter().any(|path| !Contender::PATHS.contains(path)) {
            return Err("a path is tcp, shm or rdma; the references come by themselves".into());
        }
        if let Some(bytes) = self.sizes.iter().find(|bytes| !(1..=MAX_RPC_BYTES).contains(*bytes)) {
            return Err(format!("a size of {bytes} bytes; it may be 1 to {MAX_RPC_BYTES}"));
        }
        if let Some(depth) = self.depths.iter().find(|d| !(1..=MAX_RPC_DEPTH).contains(*d)) {
            return Err(format!("a depth of {depth}; it may be 1 to {MAX_RPC_DEPTH}"));
        }
        if !(1..=MAX_RPC_ROUNDS).contains(&self.rounds) {
            return Err(format!("{} rounds; it may be 1 to {MAX_RPC_ROUNDS}", self.rounds));
        }
        if self.duration < Duration::from_millis(1) || self.duration > Duration::from_secs(600) {
            return Err("a measurement takes 0.001 to 600 seconds".into());
        }
        Ok(())
    }

    /// Round trips at depth 1; writes at the others; and the echo of 4 KiB at the middle depth, for
    /// the cost of a message that carries data both ways. Where a depth would keep too many bytes
    /// in flight it is left out, but for the least of them.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        let mut add = |case: Case| {
            if !cases.contains(&case) {
                cases.push(case);
            }
        };
        for &bytes in &self.sizes {
            for &depth in &self.depths {
                let pattern = if depth == 1 { Pattern::Echo } else { Pattern::Write };
                if depth == 1 || depth * bytes <= MAX_RPC_IN_FLIGHT_BYTES {
                    add(Case { pattern, bytes, depth });
                }
                if depth == 32 && bytes == 4096 {
                    add(Case { pattern: Pattern::Echo, bytes, depth });
                }
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_those_of_the_budgets_and_fit_into_memory() {
        let bench = RpcBench::new("x".into(), Vec::new());
        let cases = bench.cases();
        let has = |pattern, bytes, depth| cases.contains(&Case { pattern, bytes, depth });
        for bytes in [64, 4096, 65_536, 1 << 20] {
            assert!(has(Pattern::Echo, bytes, 1), "{bytes}");
            assert!(has(Pattern::Write, bytes, 32), "{bytes}");
        }
        assert!(has(Pattern::Echo, 4096, 32) && has(Pattern::Write, 4096, 256));
        assert!(!has(Pattern::Write, 1 << 20, 256), "256 MiB in flight");
        assert!(cases.iter().all(|c| c.depth * c.bytes <= MAX_RPC_IN_FLIGHT_BYTES));
        let twice = RpcBench { sizes: vec![64, 64], depths: vec![1, 1], ..bench };
        assert_eq!(twice.cases().len(), 1);
    }

    #[test]
    fn bytes_on_the_wire_are_those_of_the_frames() {
        let case = |pattern, bytes| Case { pattern, bytes, depth: 1 };
        assert_eq!(case(Pattern::Echo, 64).request_bytes(), 48 + 64);
        assert_eq!(case(Pattern::Echo, 4096).request_bytes(), 48 + 48 + 4096);
        assert_eq!(case(Pattern::Echo, 4096).answer_bytes(), 48 + 48 + 4096);
        assert_eq!(case(Pattern::Write, 4096).answer_bytes(), 48 + 16);
        assert_eq!(case(Pattern::Write, 1 << 20).to_string(), "write 1 MiB, depth 1");
    }

    #[test]
    fn senseless_requests_are_refused() {
        let bench = RpcBench::new("x".into(), Vec::new());
        let refused = |bench: RpcBench| bench.check().is_err();
        assert!(!refused(bench.clone()));
        assert!(refused(RpcBench { sizes: vec![0], ..bench.clone() }));
        assert!(refused(RpcBench { sizes: vec![MAX_RPC_BYTES + 1], ..bench.clone() }));
        assert!(refused(RpcBench { depths: vec![0], ..bench.clone() }));
        assert!(refused(RpcBench { paths: vec![Contender::Bare], ..bench.clone() }));
        assert!(refused(RpcBench { rounds: 0, ..bench.clone() }));
        assert!(refused(RpcBench { duration: Duration::ZERO, ..bench }));
    }
}
