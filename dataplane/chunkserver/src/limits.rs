//! Limits of this crate, each with its reason.

/// Disk operations of one shard in the kernel at once: what a fast device needs to be busy.
pub const DISK_DEPTH: u32 = 256;

/// Wishes that wait for a shard; more come again with the next heartbeat.
pub const COMMANDS_MAX: usize = 1024;

/// Endpoints of peers that are remembered. A chunkserver shares copysets with far fewer shards; at
/// the longest that the metadata servers take (280 bytes) they fill two thirds of a card's slot.
pub const CARD_ENDPOINTS_MAX: usize = 1024;
