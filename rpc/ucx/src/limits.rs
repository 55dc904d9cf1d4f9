//! Limits of this crate, each with its reason.

use std::time::Duration;

/// Operations of one worker in flight. The layer above bounds them by credits and bytes; this is
/// what a mistake there may cost in memory (about 40 MiB).
pub const OPERATIONS_MAX: usize = 1 << 18;

/// Longest worker address that is taken from a peer. Addresses are a few hundred bytes; each device
/// of a host adds some dozens.
pub const ADDRESS_BYTES_MAX: usize = 4 << 10;

/// Longest packed key of remote memory: about ten bytes for each memory domain.
pub const KEY_BYTES_MAX: usize = 1 << 10;

/// Messages up to this are never announced when UCX decides, whatever the transport: its thresholds
/// begin at 8 KiB. Longer ones name their endpoint to the receiver, at a cost of some bytes.
pub const AUTO_EAGER_BYTES: usize = 4 << 10;

/// How long UCX has to end the operations of an endpoint that it closed. It needs some turns of
/// `progress`; what takes longer is reported before its buffers are back.
pub const FORGOTTEN_AFTER: Duration = Duration::from_millis(100);

/// How long a worker that is dropped waits for what is in flight. Forced closes need a few
/// microseconds; what a dead device keeps longer ends with the worker.
pub const DRAIN_WITHIN: Duration = Duration::from_millis(500);

const _: () = assert!(FORGOTTEN_AFTER.as_millis() * 2 < DRAIN_WITHIN.as_millis());
