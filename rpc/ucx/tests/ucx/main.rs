//! Tests over real transports: TCP on the loopback device, and shared memory.
//!
//! | file | what it tests |
//! |---|---|
//! | `messages` | lengths, headers, protocols, order, nesting, panics |
//! | `memory` | registration, put and get |
//! | `connect` | addresses, listeners, refusals |
//! | `close` | closing with operations in flight, cycles, what holds a worker |
//! | `sleep` | arming and waking, between threads |
//! | `processes` | two processes, one of them killed |
//! | `settings` | wrong and overridden configuration |
//!
//! Every test ends with a look at what is alive. Under a leak checker, also for UCX's own memory:
//! `valgrind --leak-check=full --errors-for-leak-kinds=definite target/debug/deps/ucx-* memory::`
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // They start threads and processes.

mod close;
mod connect;
mod memory;
mod messages;
mod processes;
mod settings;
mod sleep;
mod support;
