//! The lanes that this build and this machine have.

use crate::transport::lane::Lane;
use crate::transport::tcp::TcpConfig;
use crate::transport::{Path, PathChoice};

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
    let wanted = [Path::Rdma, Path::Shm].into_iter().filter(|&path| choice.allows(path));
    wanted.map(|path| open(path, tcp).map_err(|why| Missing { path, why })).collect()
}

#[cfg(feature = "ucx")]
fn open(path: Path, tcp: &TcpConfig) -> Result<Box<dyn Lane>, String> {
    let config = crate::transport::lane::LaneConfig {
        pool: tcp.pool.clone(),
        timing: tcp.timing,
        connections_max: tcp.connections_max,
    };
    crate::transport::ucx::open(path, &config)
}

#[cfg(not(feature = "ucx"))]
fn open(_: Path, _: &TcpConfig) -> Result<Box<dyn Lane>, String> {
    Err("this build has no UCX".into())
}
