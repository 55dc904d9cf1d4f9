//! TCP: plain non-blocking sockets behind one epoll descriptor, polled by the owner.
//!
//! | file | what |
//! |---|---|
//! | `config` | configuration, accept policy, start-up errors |
//! | `transport` | the connections of one owner; [`TcpTransport`] |
//! | `conn` | one connection: reading, assembling, writing |
//! | `queue` | frames on their way out |
//! | `greet` | what HELLO, PING and GOODBYE do |
//! | `paths` | what HELLO offers beside TCP, and who may send PATH frames |
//! | `tick` | time-outs and keep-alive |
//! | `listener`, `linger` | the beginning and the end of sockets |
//! | `epoll`, `hot` | which sockets to look at |
//! | `table`, `stats`, `report` | connections by id, counters, log lines |

mod config;
mod conn;
mod epoll;
mod greet;
mod hot;
mod linger;
mod listener;
mod paths;
mod queue;
mod report;
mod stats;
mod table;
mod tick;
mod transport;

pub use config::{Accept, TcpConfig, TcpError, Timing, TokenCheck};
pub(super) use paths::Paths;
pub use stats::TcpStats;
pub use transport::TcpTransport;
