//! What a run is asked to do, and whether that makes sense for the export at hand.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::nbd::{ConnectError, NbdUri};
use crate::verify::BLOCK;

/// Order of the places that are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Uniformly anywhere in the range.
    #[default]
    Random,
    /// One request after the other, from the start again at the end.
    Sequential,
}

/// A load on one volume.
#[derive(Clone, Debug)]
pub struct VolumeBench {
    /// The export.
    pub uri: NbdUri,
    /// Connections; all are driven by one thread.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub depth: usize,
    /// Bytes of a request; a multiple of 512, of 4096 when verifying.
    pub block_bytes: usize,
    /// Share of reads, 0 to 100.
    pub read_percent: u8,
    /// Order of the places.
    pub pattern: Pattern,
    /// End of the load by time; `None` for no such end.
    pub duration: Option<Duration>,
    /// End of the load by requests; `None` for no such end. With neither, until it is stopped.
    pub ops: Option<u64>,
    /// Requests per second to begin, whatever becomes of earlier ones (open loop); latency then
    /// counts from the time at which a request should have begun. `None`: a new request when one
    /// ends (closed loop).
    pub rate: Option<f64>,
    /// Bytes of the volume to use; `None` for all.
    pub range: Option<Range<u64>>,
    /// Names the sequence of places and contents.
    pub seed: u64,
    /// Mark every block that is written and check every block that is read.
    pub verify: bool,
    /// How long to try to connect again after a connection was lost; zero ends the run instead.
    pub reconnect: Duration,
}

impl VolumeBench {
    /// Random 4 KiB reads at depth 1, without end, on all of the volume.
    pub fn new(uri: NbdUri) -> VolumeBench {
        VolumeBench {
            uri,
            connections: 1,
            depth: 1,
            block_bytes: 4096,
            read_percent: 100,
            pattern: Pattern::Random,
            duration: None,
            ops: None,
            rate: None,
            range: None,
            seed: 1,
            verify: false,
            reconnect: Duration::ZERO,
        }
    }

    /// The range that is used of an export of `bytes`.
    ///
    /// # Errors
    ///
    /// [`BenchError::Spec`] when the parameters contradict each other or do not fit the export.
    pub(crate) fn check(&self, bytes: u64, read_only: bool) -> Result<Range<u64>, BenchError> {
        let refuse = |what: String| Err(BenchError::Spec(what));
        check_amounts(self)?;
        if read_only && self.read_percent < 100 {
            return refuse("the export is read-only; use --read-percent 100".into());
        }
        let unit = self.block_bytes as u64;
        let range = self.range.clone().unwrap_or(0..bytes);
        if range.start >= range.end || range.end > bytes {
            return refuse(format!(
                "range {}..{} does not lie in the volume of {bytes} bytes",
                range.start, range.end
            ));
        }
        let align = if self.verify { BLOCK as u64 } else { 512 };
        if !range.start.is_multiple_of(align) {
            return refuse(format!("the range must start at a multiple of {align} bytes"));
        }
        let usable = (range.end - range.start) / unit * unit;
        if usable == 0 {
            return refuse(format!("the range holds no request of {unit} bytes"));
        }
        if self.verify && usable / BLOCK as u64 > limits::MAX_VERIFIED_BLOCKS {
            let most = (limits::MAX_VERIFIED_BLOCKS * BLOCK as u64) >> 30;
            return refuse(format!(
                "verifying keeps every block in mind; give a range <= {most} GiB"
            ));
        }
        Ok(range.start..range.start + usable)
    }
}

fn check_amounts(spec: &VolumeBench) -> Result<(), BenchError> {
    let refuse = |what: String| Err(BenchError::Spec(what));
    if !(1..=limits::MAX_DEPTH).contains(&spec.depth) {
        return refuse(format!("depth must be 1 to {}", limits::MAX_DEPTH));
    }
    if !(1..=limits::MAX_CONNECTIONS).contains(&spec.connections) {
        return refuse(format!("connections must be 1 to {}", limits::MAX_CONNECTIONS));
    }
    let unit = if spec.verify { BLOCK } else { 512 };
    let size_fits = (unit..=limits::MAX_REQUEST_BYTES).contains(&spec.block_bytes);
    if !size_fits || !spec.block_bytes.is_multiple_of(unit) {
        let most = limits::MAX_REQUEST_BYTES;
        return refuse(format!("block size must be a multiple of {unit} bytes, at most {most}"));
    }
    if spec.depth * spec.connections * spec.block_bytes > limits::MAX_IN_FLIGHT_BYTES {
        let most = limits::MAX_IN_FLIGHT_BYTES >> 20;
        return refuse(format!("depth × connections × block size must not pass {most} MiB"));
    }
    if spec.read_percent > 100 {
        return refuse("the share of reads must be 0 to 100 percent".into());
    }
    match spec.rate {
        Some(rate) if !(rate.is_finite() && (1e-3..=1e8).contains(&rate)) => {
            refuse("the rate must be 0.001 to 100,000,000 requests per second".into())
        }
        _ => Ok(()),
    }
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The parameters do not fit each other or the export.
    #[error("{0}")]
    Spec(String),
    /// The first connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Waiting for the sockets failed.
    #[error("poll failed: {0}")]
    Poll(std::io::Error),
    /// The thread that was to run the load could not be started, or panicked.
    #[error("the load's thread failed: {0}")]
    Thread(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VolumeBench {
        VolumeBench::new("nbd://h/v".parse().unwrap())
    }

    #[test]
    fn ranges_are_cut_to_whole_requests() {
        assert_eq!(spec().check(10_000, true).unwrap(), 0..8192);
        let some = VolumeBench { range: Some(512..9000), ..spec() };
        assert_eq!(some.check(10_000, true).unwrap(), 512..8704);
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        let cases: [(VolumeBench, &str); 9] = [
            (VolumeBench { depth: 0, ..spec() }, "depth"),
            (VolumeBench { connections: 65, ..spec() }, "connections"),
            (VolumeBench { block_bytes: 1000, ..spec() }, "multiple of 512"),
            (VolumeBench { block_bytes: 512, verify: true, ..spec() }, "multiple of 4096"),
            (VolumeBench { read_percent: 101, ..spec() }, "percent"),
            (VolumeBench { read_percent: 0, ..spec() }, "read-only"),
            (VolumeBench { rate: Some(0.0), ..spec() }, "rate"),
            (VolumeBench { range: Some(0..1 << 50), ..spec() }, "does not lie"),
            (VolumeBench { block_bytes: 1 << 20, ..spec() }, "holds no request"),
        ];
        for (case, hint) in cases {
            let error = case.check(100_000, true).unwrap_err().to_string();
            assert!(error.contains(hint), "{error} lacks {hint}");
        }
        let big = VolumeBench { verify: true, ..spec() };
        assert!(big.check(1 << 50, false).unwrap_err().to_string().contains("GiB"));
    }
}
