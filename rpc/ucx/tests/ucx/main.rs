//! Tests over real transports: TCP on the loopback device, and shared memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // They start threads and processes.

mod messages;
mod support;
