//! What each role asks of its host before it starts.

use std::path::Path;

use anyhow::{Context, bail};
use ogive_hwtest::{Paths, Requirements, Verdict};
use ogive_rpc::transport::{PathChoice, net};

use crate::Usage;

/// Paths beside TCP that this build has.
pub(crate) const PATHS: Paths = Paths { shm: cfg!(feature = "ucx"), rdma: cfg!(feature = "rdma") };

/// Checks the host of a metadata server.
pub(crate) fn mds(dir: &Path) -> anyhow::Result<()> {
    enforce(&Requirements::mds(dir))
}

/// Checks the host of a chunkserver.
pub(crate) fn chunkserver(
    device: &Path,
    shards: usize,
    transport: PathChoice,
) -> anyhow::Result<()> {
    enforce(&Requirements::chunkserver(device, shards).with_paths(PATHS))?;
    demanded(transport)
}

/// Checks the host of a gateway.
pub(crate) fn gateway(transport: PathChoice) -> anyhow::Result<()> {
    enforce(&Requirements::gateway(1).with_paths(PATHS))?;
    demanded(transport)
}

/// A path that is demanded and cannot be had here is a mistake in the call or the configuration.
/// Found before anybody hears of this process; after limits were raised as far as they can be.
pub(crate) fn demanded(transport: PathChoice) -> anyhow::Result<()> {
    Ok(net::check(transport).map_err(|error| Usage(error.to_string()))?)
}

/// A failed check is an error, with what to do about it; warnings are logged.
fn enforce(requirements: &Requirements) -> anyhow::Result<()> {
    ogive_hwtest::raise_limits(requirements);
    let report = ogive_hwtest::check(requirements);
    for check in report.checks.iter().filter(|check| check.verdict == Verdict::Warn) {
        tracing::warn!("{check}");
    }
    let failures: Vec<String> = report.failures().map(ToString::to_string).collect();
    if failures.is_empty() {
        return Ok(());
    }
    bail!("this host is not fit for the role: {}", failures.join("; "))
}

/// The name of this host.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = rustix::system::uname().nodename().to_str().map(str::to_owned);
    let name = name.ok().filter(|name| !name.is_empty());
    name.context("this host has no usable name; give one with --server")
}
