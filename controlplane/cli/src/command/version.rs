//! `ogive version`.

use serde::Serialize;

use ogive_rpc::transport::Path;

use crate::output;

#[derive(Serialize)]
struct Version {
    ogive: &'static str,
    device_format: u32,
    wire: u16,
    metadata_format: u32,
    target: String,
    paths: Vec<&'static str>,
}

/// The paths that this build has; whether this machine has them too is seen at the start.
fn paths() -> impl Iterator<Item = Path> {
    let built = |path: &Path| match path {
        Path::Rdma => cfg!(feature = "rdma"),
        Path::Shm => cfg!(feature = "ucx"),
        Path::Tcp => true,
    };
    Path::ALL.into_iter().filter(built)
}

/// Prints the versions of the program and of its formats.
pub fn run(json: bool) -> anyhow::Result<()> {
    let version = Version {
        ogive: env!("CARGO_PKG_VERSION"),
        device_format: ogive_store::FORMAT_VERSION,
        wire: ogive_rpc::frame::VERSION,
        metadata_format: ogive_mds::FORMAT_VERSION,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        paths: paths().map(Path::name).collect(),
    };
    output::print(json, &version, |v| {
        format!(
            "ogive {} ({})\ndevice format {}, wire version {}, metadata format {}\npaths {}",
            v.ogive,
            v.target,
            v.device_format,
            v.wire,
            v.metadata_format,
            v.paths.join(", ")
        )
    })?;
    Ok(())
}
