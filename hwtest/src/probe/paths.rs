//! What the paths beside TCP need: RDMA devices, and memory that processes can share.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use crate::facts::{Gid, RdmaPort, SharedMemory};
use crate::limits::GIDS_MAX;
use crate::probe::Root;

const DEVICES: &str = "sys/class/infiniband";
const SHM: &str = "/dev/shm";

/// Ports of all RDMA devices.
pub(super) fn rdma_ports(root: &Root) -> Vec<RdmaPort> {
    let mut ports = Vec::new();
    for device in root.names(DEVICES) {
        let dir = Path::new(DEVICES).join(&device).join("ports");
        for name in root.names(&dir) {
            let Ok(port) = name.parse() else { continue };
            let dir = dir.join(&name);
            let text = |file: &str| root.read(dir.join(file)).unwrap_or_default();
            // The state reads "4: ACTIVE".
            let state = text("state");
            let state = state.split_once(": ").map_or(state.as_str(), |(_, word)| word).to_owned();
            let (link_layer, rate) = (text("link_layer"), text("rate"));
            let gids = gids(root, &dir);
            ports.push(RdmaPort { device: device.clone(), port, state, link_layer, rate, gids });
        }
    }
    ports
}

/// The table of GIDs without its empty places.
fn gids(root: &Root, port: &Path) -> Vec<Gid> {
    let dir = port.join("gids");
    let mut places: Vec<u32> = root.names(&dir).iter().filter_map(|n| n.parse().ok()).collect();
    places.sort_unstable();
    let gid = |index: u32| {
        let address = root.read(dir.join(index.to_string()))?;
        let empty = address.chars().all(|c| c == '0' || c == ':');
        let kind = root.read(port.join(format!("gid_attrs/types/{index}"))).unwrap_or_default();
        (!empty).then_some(Gid { index, address, kind })
    };
    places.into_iter().filter_map(gid).take(GIDS_MAX).collect()
}

/// The file system under /dev/shm, where this user may make files.
pub(super) fn shared_memory() -> Option<SharedMemory> {
    let path = PathBuf::from(SHM);
    access(&path, Access::WRITE_OK | Access::EXEC_OK).ok()?;
    let found = statvfs(&path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(SharedMemory { total_bytes: bytes(found.f_blocks), free_bytes: bytes(found.f_bavail) })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Builds trees of files to probe.
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn ports_with_their_gids() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(DEVICES).join("rxe0/ports/1").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("state", "4: ACTIVE\n");
        put("link_layer", "Ethernet\n");
        put("rate", "2.5 Gb/sec (1X SDR)\n");
        put("gids/0", "fe80:0000:0000:0000:487a:02ff:fe96:1165\n");
        put("gids/2", "0000:0000:0000:0000:0000:0000:0000:0000\n");
        put("gids/10", "0000:0000:0000:0000:0000:ffff:0a09:0001\n");
        put("gid_attrs/types/10", "RoCE v2\n");
        let ports = rdma_ports(&Root(dir.path().to_owned()));
        assert_eq!(ports.len(), 1);
        assert_eq!((ports[0].port, ports[0].state.as_str()), (1, "ACTIVE"));
        let gids: Vec<_> = ports[0].gids.iter().map(|g| (g.index, g.kind.as_str())).collect();
        assert_eq!(gids, [(0, ""), (10, "RoCE v2")]);
        assert!(rdma_ports(&Root(dir.path().join("nothing"))).is_empty());
    }

    #[test]
    fn shared_memory_is_not_larger_than_all_of_it() {
        let Some(found) = shared_memory() else { return };
        assert!(found.free_bytes <= found.total_bytes, "{found:?}");
    }
}
