//! The shell: asks the kernel, /sys and /proc, and tries things out.

mod limits;
mod machine;
mod paths;
mod storage;
mod sysfs;
mod uring;

use crate::facts::Facts;
use crate::requirements::Requirements;

pub(crate) use limits::{memlock, nofile};
pub(crate) use storage::{AlignedBlock, DirectFile, Refusal, TempFile, open_direct};
pub(crate) use sysfs::Root;

/// Finds out what [`judge`](crate::judge) wants to know. What cannot be learned is absent or says
/// why; nothing is left behind.
pub fn probe(requirements: &Requirements) -> Facts {
    let root = Root::system();
    Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        uring: uring::probe(&root),
        memlock: limits::memlock(),
        may_lock_all: limits::may_lock_all(&root),
        nofile: limits::nofile(),
        machine: machine::probe(&root),
        rdma: paths::rdma_ports(&root),
        shared_memory: paths::shared_memory(),
        storage: requirements.storage.iter().map(|s| storage::probe(&root, &s.path)).collect(),
    }
}
