//! What each role asks of its host before it starts.

use std::path::Path;

use anyhow::{Context, bail};
use ogive_hwtest::{Paths, Requirements, Verdict};

/// Paths beside TCP that this build has.
pub(crate) const PATHS: Paths = Paths { shm: cfg!(feature = "ucx"), rdma: cfg!(feature = "rdma") };

/// Checks the host of a metadata server.
pub(crate) fn mds(dir: &Path) -> anyhow::Result<()> {
    enforce(&Requirements::mds(dir))
}

/// Checks the host of a chunkserver.
pub(crate) fn chunkserver(device: &Path, shards: usize) -> anyhow::Result<()> {
    enforce(&Requirements::chunkserver(device, shards).with_paths(PATHS))
}

/// Checks the host of a gateway.
pub(crate) fn gateway() -> anyhow::Result<()> {
    enforce(&Requirements::gateway(1).with_paths(PATHS))
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
