//! The chunkserver process: one device, its shards on their reactors.
//!
//! [`Device::open`] locks the device and reads its label; the caller registers it with the metadata
//! servers and, at the first start, has the identity that they gave written with
//! [`Device::assign`]; [`Device::start`] starts a reactor for each shard. From then on shards are
//! told and asked through [`Chunkserver`]. What it must know to be let in by its peers is kept on
//! the device, as a [`Card`].

mod card;
mod device;
pub mod limits;
mod shard_loop;

pub use card::{Card, CardKeeper};
pub use device::{Chunkserver, ChunkserverConfig, Device, StartError};
pub use shard_loop::ShardReport;
