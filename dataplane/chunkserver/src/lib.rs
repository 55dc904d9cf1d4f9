//! The chunkserver process: one device, its shards on their reactors.
//!
//! [`Device::open`] locks the device and reads its label; the caller registers it with the metadata
//! servers and, at the first start, has the identity that they gave written with
//! [`Device::assign`]; [`Device::start`] starts a reactor for each shard. From then on shards are
//! told and asked through [`Chunkserver`].

mod device;
mod shard_loop;

pub use device::{Chunkserver, ChunkserverConfig, Device, StartError};
pub use shard_loop::ShardReport;
