//! All paths behind one [`Transport`](super::Transport): connections meet over TCP and take the
//! best path that both ends have.
//!
//! | file | what |
//! |---|---|
//! | `config` | configuration, start-up errors |
//! | `host` | which processes can share memory |
//! | `assess` | which paths two ends can share, by their HELLOs |
//! | `negotiate` | how they agree on one |
//! | `avoid` | paths that failed and are left out for a while |
//! | `lanes` | the lanes of this build and machine, or why there are none |
//! | `conn` | one connection: its path, and why no better one |
//! | `pace`, `wake` | when TCP is asked beside lanes; the descriptor to sleep on |
//! | `transport`, `stats` | [`NetTransport`] and its counters |

mod assess;
mod avoid;
mod config;
mod conn;
mod host;
mod lanes;
mod negotiate;
mod pace;
mod stats;
mod transport;
mod wake;

pub use config::{NetConfig, NetError};
pub use lanes::{Missing, check, lanes};
pub use stats::NetStats;
pub use transport::NetTransport;
