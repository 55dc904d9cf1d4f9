//! All paths behind one [`Transport`](super::Transport): connections meet over TCP and take the
//! best path that both ends have.
//!
//! | file | what |
//! |---|---|
//! | `config` | configuration, start-up errors |
//! | `lanes` | the lanes of this build and machine, or why there are none |
//! | `transport` | [`NetTransport`] |

mod config;
mod lanes;
mod transport;

pub use config::{NetConfig, NetError};
pub use lanes::{Missing, lanes};
pub use transport::{NetStats, NetTransport};
