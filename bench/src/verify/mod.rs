//! The verifying load: what every block must hold, remembered and compared with what is read.

mod block;
mod model;
mod report;

pub(crate) use block::{BLOCK, Content, Seq, classify, fill};
pub(crate) use model::{Model, ReadTicket, WriteEnd};
pub use report::{Fault, FaultKind, VerifyReport};
