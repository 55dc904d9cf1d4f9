//! Whether this host and this process can have a lane, and the settings of UCX for it.
#![allow(clippy::disallowed_methods)] // a shell: looks at the host

use std::path::Path as FilePath;

use ogive_ucx::Config;
use rustix::process::{Resource, getrlimit};

use crate::limits::RDMA_MEMLOCK_MIN;
use crate::transport::Path;

/// Where Linux lists RDMA devices.
const DEVICES: &str = "/sys/class/infiniband";

/// Why the host cannot have the lane, as far as that can be told before UCX is asked.
pub(super) fn check(path: Path) -> Result<(), String> {
    match path {
        Path::Rdma if !cfg!(feature = "rdma") => Err("this build is without RDMA".into()),
        Path::Rdma => device_is_up().and_then(|()| memlock_suffices()),
        _ => Ok(()),
    }
}

/// Settings of UCX for a lane; `UCX_*` in the environment wins over them.
pub(super) fn config(path: Path) -> Config {
    let all: &[(&str, &str)] = match path {
        // `rc` brings its own way (ud) to make connections. The check of destination GIDs drops
        // every datagram of devices whose GIDs are IPv4 addresses in UCX 1.13 (soft-RoCE). A packet
        // that was lost is sent again after `RC_TIMEOUT`, and all behind it wait: in the second
        // that UCX has for it by itself, leaders of copysets lose their majority. An attempt to
        // connect that ud gives up, after 30 s, aborts the process in UCX 1.13 (`ucp_request.c`:
        // "got REQ message"), so it must not: see `leaving`.
        Path::Rdma => &[
            ("TLS", "rc,self"),
            ("UD_VERBS_ETH_DGID_CHECK", "n"),
            ("RC_TIMEOUT", "60ms"),
            ("UD_TIMEOUT", "1000000s"),
        ],
        // Peer failure has to be asked for on shared memory.
        _ => &[("TLS", "posix,cma,self"), ("POSIX_ERROR_HANDLING", "y")],
    };
    // One rail each: messages of a connection then keep their order.
    let rails = [("MAX_EAGER_RAILS", "1"), ("MAX_RNDV_RAILS", "1")];
    all.iter().chain(&rails).fold(Config::new(), |config, (key, value)| config.set(key, value))
}

/// Ports say `4: ACTIVE` in `/sys/class/infiniband/DEVICE/ports/PORT/state`.
fn device_is_up() -> Result<(), String> {
    let none = || format!("no RDMA device ({DEVICES} is empty)");
    let devices = std::fs::read_dir(DEVICES).map_err(|_| none())?;
    let mut found = false;
    for device in devices.flatten() {
        found = true;
        if ports(&device.path()).iter().any(|state| state.contains("ACTIVE")) {
            return Ok(());
        }
    }
    Err(if found { "no RDMA port is ACTIVE (ibv_devinfo shows them)".into() } else { none() })
}

fn ports(device: &FilePath) -> Vec<String> {
    let ports = std::fs::read_dir(device.join("ports"));
    let states = ports.into_iter().flatten().flatten().map(|port| port.path().join("state"));
    states.filter_map(|state| std::fs::read_to_string(state).ok()).collect()
}

fn memlock_suffices() -> Result<(), String> {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if bytes < RDMA_MEMLOCK_MIN => {
            Err(format!("memlock limit {} KiB is too small (ulimit -l unlimited)", bytes / 1024))
        }
        _ => Ok(()),
    }
}
