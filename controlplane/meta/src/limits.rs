//! Limits of the state, each with its reason. They keep the whole state within the memory of one
//! server and within one snapshot.

/// Longest volume name in bytes; what file systems allow a name.
pub const VOLUME_NAME_BYTES_MAX: usize = 255;

/// Smallest volume: a sixteenth of a chunk.
pub const VOLUME_BYTES_MIN: u64 = 1 << 20;

/// Largest volume: 65,536 segments, so that a full segment map takes about 2 MB.
pub const VOLUME_BYTES_MAX: u64 = 64 << 40;

/// Volumes of a cluster: at about 300 bytes each they take 20 MB of a snapshot.
pub const VOLUMES_MAX: usize = 65_536;

/// Segments of all volumes together: 4 PiB of data; at about 32 bytes each they take 128 MB.
pub const SEGMENTS_MAX: u64 = 4 << 20;

/// Chunkservers of a cluster.
pub const CHUNKSERVERS_MAX: usize = 4096;

/// Shards of a chunkserver: more cores than one device can use.
pub const SHARDS_MAX: usize = 64;

/// Copysets of a cluster: every shard of a full cluster leads two.
pub const COPYSETS_MAX: usize = 65_536;

/// Copysets of one command, so that a log entry stays below a megabyte.
pub const COPYSETS_PER_COMMAND_MAX: usize = 1024;

/// Names of zones and servers in bytes: a DNS name.
pub const LABEL_BYTES_MAX: usize = 253;

/// An endpoint in bytes: a scheme, a DNS name and a port.
pub const ENDPOINT_BYTES_MAX: usize = 280;

/// What a client says of itself, in bytes.
pub const CLIENT_BYTES_MAX: usize = 255;

/// Replicas of a copyset: majorities of more cost latency and buy nothing.
pub const REPLICAS_MAX: usize = 9;

/// Copysets that share a segment: one per chunk.
pub const COPYSETS_PER_SEGMENT_MAX: u32 = ogive_types::layout::CHUNKS_PER_SEGMENT;

/// Copysets that share a segment unless the volume says otherwise: enough that one busy segment
/// uses several leaders, few enough that it does not touch every chunkserver.
pub const COPYSETS_PER_SEGMENT_DEFAULT: u32 = 6;

const _: () = assert!(VOLUME_BYTES_MAX / ogive_types::SEGMENT_BYTES <= u16::MAX as u64 + 1);
const _: () = assert!(COPYSETS_PER_SEGMENT_DEFAULT <= COPYSETS_PER_SEGMENT_MAX);
