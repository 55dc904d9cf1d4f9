//! io_uring: can a ring be made, and does it offer what the data plane uses.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::facts::{Attempt, Uring};
use crate::probe::Root;

/// Entries of the rings that are tried: the verdict does not depend on the size.
const ENTRIES: u32 = 8;

/// The operations that the reactor submits.
const OPERATIONS: [(&str, u8); 8] = [
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("TIMEOUT", opcode::Timeout::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

pub(super) fn probe(root: &Root) -> Uring {
    let disabled = root.number("proc/sys/kernel/io_uring_disabled");
    let plain = IoUring::new(ENTRIES);
    let data_plane: io::Result<IoUring> =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
    let missing = plain.as_ref().map(missing).unwrap_or_default();
    Uring {
        setup: attempt("io_uring_setup", plain),
        data_plane_setup: attempt("io_uring_setup with DEFER_TASKRUN", data_plane),
        disabled,
        missing,
    }
}

fn attempt(step: &str, result: io::Result<IoUring>) -> Attempt {
    match result {
        Ok(_) => Attempt::Works,
        Err(error) => {
            Attempt::Refused { step: step.into(), errno: error.raw_os_error().unwrap_or(0) }
        }
    }
}

fn missing(ring: &IoUring) -> Vec<String> {
    let mut missing = Vec::new();
    if !ring.params().is_feature_nodrop() {
        missing.push("feature NODROP".to_owned());
    }
    if !ring.params().is_feature_ext_arg() {
        missing.push("feature EXT_ARG".to_owned());
    }
    let mut probe = Probe::new();
    if ring.submitter().register_probe(&mut probe).is_err() {
        missing.push("REGISTER_PROBE".to_owned());
        return missing;
    }
    let absent = OPERATIONS.iter().filter(|(_, code)| !probe.is_supported(*code));
    missing.extend(absent.map(|(name, _)| format!("operation {name}")));
    missing
}
