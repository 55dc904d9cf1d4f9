//! `ogive version`.

use serde::Serialize;

use crate::output;

#[derive(Serialize)]
struct Version {
    ogive: &'static str,
    device_format: u32,
    wire: u16,
    metadata_format: u32,
    target: String,
}

/// Prints the versions of the program and of its formats.
pub fn run(json: bool) -> anyhow::Result<()> {
    let version = Version {
        ogive: env!("CARGO_PKG_VERSION"),
        device_format: ogive_store::FORMAT_VERSION,
        wire: ogive_rpc::frame::VERSION,
        metadata_format: ogive_mds::FORMAT_VERSION,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    };
    output::print(json, &version, |v| {
        format!(
            "ogive {} ({})\ndevice format {}, wire version {}, metadata format {}",
            v.ogive, v.target, v.device_format, v.wire, v.metadata_format
        )
    })?;
    Ok(())
}
