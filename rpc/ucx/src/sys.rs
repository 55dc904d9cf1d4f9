//! Raw bindings, written by the build script. Nothing of them is part of the crate's surface.
#![allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks)] // Generated code.

use libc::{FILE, sockaddr, sockaddr_storage, socklen_t};

include!(concat!(env!("OUT_DIR"), "/ucx.rs"));
