//! CRC-32C (Castagnoli, RFC 3720) of 4 KiB blocks, computed where data enters and checked wherever
//! it is read.

use serde::{Deserialize, Serialize};

use crate::units::BLOCK_BYTES;

/// Checksum of one block.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BlockSum(pub u32);

/// Checksum of `block`, which is exactly one block long.
pub fn block_sum(block: &[u8]) -> BlockSum {
    debug_assert_eq!(block.len(), BLOCK_BYTES);
    BlockSum(crc32c::crc32c(block))
}

/// Checksums of `data`, a whole number of blocks, in order.
pub fn block_sums(data: &[u8]) -> Vec<BlockSum> {
    assert_eq!(data.len() % BLOCK_BYTES, 0, "whole blocks");
    data.chunks_exact(BLOCK_BYTES).map(block_sum).collect()
}
