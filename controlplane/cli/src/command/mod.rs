//! The commands for people: each does one thing, prints its result, and ends.

pub mod bench;
pub mod device;
pub mod format;
pub mod hwtest;
pub mod manual;
pub mod status;
pub mod version;
pub mod volume;
