//! Clients that write down what they asked and what they were told, and the judge of it.
//!
//! The verifying load of [`crate::VolumeBench`] sends no two writes of a block at once, so that it
//! knows their order. Here many clients read and write the same few blocks at the same time,
//! through several gateways, and nobody knows an order: the history is right when there is one.
//!
//! | file | content |
//! |---|---|
//! | `register.rs` | the judge: is a history linearizable, block by block? Pure |
//! | `client.rs` | one client: a connection, its requests, its notes |
//! | `crowd.rs` | many clients, and where the gateways are |

mod client;
mod crowd;
mod register;

pub use crowd::{Crowd, CrowdSpec, Gateway, Told};
pub use register::{Action, Op, Value, Violation, check};
