//! The lanes that this build and this machine have.

use std::os::fd::RawFd;

use ogive_buf::{ARENA_BYTES, Pool};
use ogive_types::Time;

use super::assess::{LANE_PATHS, Own};
use super::config::NetError;
use super::host;
use crate::limits::{LANE_ADDRESS_BYTES_MAX, PATH_WHY_BYTES_MAX};
use crate::offer::Offer;
use crate::text;
use crate::transport::lane::{Lane, LaneConfig};
use crate::transport::tcp::{TcpConfig, Timing};
use crate::transport::{ConnId, Path, PathChoice, PathStats};

/// A path that cannot be had here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub path: Path,
    /// Why not, in a few words.
    pub why: String,
}

/// The lanes that `choice` allows, best first; why not in the place of those that cannot be had.
pub fn lanes(choice: PathChoice, tcp: &TcpConfig) -> Vec<Result<Box<dyn Lane>, Missing>> {
    let config = LaneConfig {
        pool: tcp.pool.clone(),
        timing: tcp.timing,
        connections_max: tcp.connections_max,
    };
    let wanted = LANE_PATHS.into_iter().filter(|&path| choice.allows(path));
    wanted.map(|path| open(path, &config).map_err(|why| Missing { path, why })).collect()
}

/// Whether the one path that `choice` demands can be had here, found out by starting and ending it:
/// for a process that asks before it does anything else. The error is the one that the start of a
/// transport would give.
pub fn check(choice: PathChoice) -> Result<(), NetError> {
    let path = match choice {
        PathChoice::Auto | PathChoice::Only(Path::Tcp) => return Ok(()),
        PathChoice::Only(path) => path,
    };
    let pool = Pool::new(ARENA_BYTES);
    let config = LaneConfig { pool, timing: Timing::default(), connections_max: 1 };
    let offered = open(path, &config).and_then(|lane| offer(&*lane, &host::name()));
    offered.map(drop).map_err(|why| NetError::Forced { path, why })
}

#[cfg(feature = "ucx")]
fn open(path: Path, config: &LaneConfig) -> Result<Box<dyn Lane>, String> {
    crate::transport::ucx::open(path, config)
}

#[cfg(not(feature = "ucx"))]
fn open(_: Path, _: &LaneConfig) -> Result<Box<dyn Lane>, String> {
    Err("this build has no UCX".into())
}

/// The lanes that run, best first.
#[derive(Default)]
pub(super) struct Lanes {
    all: Vec<Running>,
}

struct Running {
    path: Path,
    lane: Box<dyn Lane>,
    /// Connections that are open in it.
    open: usize,
}

impl Lanes {
    /// Takes the lanes that may be used, and says what is offered to peers. Fails when the one path
    /// that `choice` allows is not among them.
    pub(super) fn start(
        lanes: Vec<Result<Box<dyn Lane>, Missing>>,
        choice: PathChoice,
        host: Result<u128, String>,
    ) -> Result<(Lanes, Own), NetError> {
        let mut started = Lanes::default();
        let mut own = Own { choice, offers: Vec::new(), missing: Vec::new() };
        for lane in lanes {
            let judged = lane.and_then(|lane| {
                let path = lane.path();
                offer(&*lane, &host).map(|o| (lane, o)).map_err(|why| Missing { path, why })
            });
            match judged {
                Ok((lane, _)) if !choice.allows(lane.path()) => {}
                Ok((lane, offer)) => {
                    started.all.push(Running { path: lane.path(), lane, open: 0 });
                    own.offers.push(offer);
                }
                Err(Missing { path, why }) => {
                    let why = text::cut(&why, PATH_WHY_BYTES_MAX).into();
                    own.missing.push(Missing { path, why });
                }
            }
        }
        started.all.sort_by_key(|running| running.path);
        own.offers.sort_by_key(Offer::path);
        let twice = started.all.windows(2).any(|pair| pair[0].path == pair[1].path);
        assert!(!twice, "at most one lane of a path");
        match choice {
            PathChoice::Only(path) if path != Path::Tcp && own.offers.is_empty() => {
                let missing = own.missing.into_iter().find(|missing| missing.path == path);
                let why = missing.map_or_else(|| "not in this build".into(), |m| m.why);
                Err(NetError::Forced { path, why })
            }
            _ => Ok((started, own)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn index_of(&self, path: Path) -> Option<usize> {
        self.all.iter().position(|running| running.path == path)
    }

    pub(super) fn at(&mut self, index: usize) -> &mut dyn Lane {
        &mut *self.all[index].lane
    }

    /// The lane of a path that is offered.
    pub(super) fn get(&mut self, path: Path) -> &mut dyn Lane {
        &mut *self.running(path).lane
    }

    /// Opens a connection, and returns its key.
    pub(super) fn open(&mut self, path: Path, conn: ConnId) -> u64 {
        let running = self.running(path);
        running.open += 1;
        running.lane.open(conn)
    }

    /// Closes a connection that was opened.
    pub(super) fn close(&mut self, path: Path, conn: ConnId) {
        let running = self.running(path);
        running.open -= 1;
        running.lane.close(conn);
    }

    fn running(&mut self, path: Path) -> &mut Running {
        let found = self.all.iter_mut().find(|running| running.path == path);
        found.expect("only paths that are offered are used")
    }

    /// True when a lane is to be polled in every turn, and not only from time to time.
    pub(super) fn is_wanted(&self, index: usize, now: Time) -> bool {
        let running = &self.all[index];
        running.open > 0 || running.lane.next_deadline() <= now
    }

    pub(super) fn flush(&mut self, now: Time) {
        for running in &mut self.all {
            if running.open > 0 {
                running.lane.flush(now);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Time {
        let deadlines = self.all.iter().map(|running| running.lane.next_deadline());
        deadlines.min().unwrap_or(Time::NEVER)
    }

    /// Arms all descriptors; false when a lane has found something meanwhile.
    pub(super) fn prepare_sleep(&mut self) -> bool {
        let mut quiet = true;
        for running in &mut self.all {
            quiet &= running.lane.prepare_sleep();
        }
        quiet
    }

    pub(super) fn wake_fds(&self) -> impl Iterator<Item = RawFd> {
        self.all.iter().map(|running| running.lane.wake_fd())
    }

    pub(super) fn stats(&self) -> Vec<(Path, PathStats)> {
        self.all.iter().map(|running| (running.path, running.lane.stats())).collect()
    }
}

/// What HELLO says of a lane, or why the lane cannot be offered.
fn offer(lane: &dyn Lane, host: &Result<u128, String>) -> Result<Offer, String> {
    let bytes = lane.address().len();
    if bytes > LANE_ADDRESS_BYTES_MAX {
        let max = LANE_ADDRESS_BYTES_MAX;
        return Err(format!("its address takes {bytes} bytes, at most {max} are sent"));
    }
    let version = lane.version();
    match lane.path() {
        Path::Rdma => Ok(Offer::Rdma { version }),
        Path::Shm => Ok(Offer::Shm { version, host: host.clone()? }),
        Path::Tcp => unreachable!("TCP is no lane"),
    }
}
