//! A network of our own for a cluster on this machine: a namespace for each part, and between them
//! a switch in this process that can lose, delay and reorder packets, in one direction or both.
//!
//! ```text
//!  chunkserver-1 ── tun ──┐            ┌── tun ── chunkserver-2
//!          (namespace)    ├── switch ──┤              (namespace)
//!  mds-1 ──────── tun ────┘            └── tun ── the one who watches
//! ```
//!
//! The kernels' own TCP runs on top, with its retransmissions and time-outs, as it does over a bad
//! cable. It needs `/dev/net/tun`, iproute2 and the right to make network namespaces.
//!
//! | file | content |
//! |---|---|
//! | `links.rs` | what becomes of a packet: pure |
//! | `switch.rs` | the thread that forwards |
//! | `tun.rs` | namespaces and their interfaces |

mod links;
mod switch;
mod tun;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use links::{Link, Links};
pub use switch::Switched;

use super::process::Part;
use switch::Switch;

/// Where a part runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its only address.
    pub address: Ipv4Addr,
    /// Its network namespace.
    pub namespace: Arc<OwnedFd>,
}

/// The network. Dropping it ends the switch: from then on all packets are lost.
#[derive(Debug)]
pub struct Network {
    hosts: BTreeMap<Part, Host>,
    switch: Switch,
}

impl Network {
    /// Makes a host for each of `parts`, and moves the calling thread (with all threads and
    /// processes that it starts from then on) to one more, from which all can be reached.
    ///
    /// # Errors
    ///
    /// What the system refuses; without the right to make namespaces `PermissionDenied`.
    pub fn new(parts: &[Part], seed: u64) -> io::Result<Network> {
        let (mut hosts, mut ports) = (BTreeMap::new(), Vec::new());
        for (&part, n) in parts.iter().zip(2..) {
            let (address, made) = (address(n), tun::apart(address(n))?);
            ports.push((address, made.interface));
            hosts.insert(part, Host { address, namespace: Arc::new(made.namespace) });
        }
        ports.push((address(1), tun::here(address(1))?));
        let switch = Switch::start(ports, seed)?;
        Ok(Network { hosts, switch })
    }

    /// The hosts by their parts.
    pub fn hosts(&self) -> &BTreeMap<Part, Host> {
        &self.hosts
    }

    /// Changes what becomes of packets `from` one part `to` another; only that way.
    pub fn set(&self, from: Part, to: Part, link: Link) {
        let (Some(from), Some(to)) = (self.hosts.get(&from), self.hosts.get(&to)) else { return };
        self.switch.links().set(from.address, to.address, link);
    }

    /// All packets arrive again.
    pub fn heal(&self) {
        self.switch.links().heal();
    }

    /// What the switch did so far.
    pub fn switched(&self) -> Switched {
        self.switch.links().switched()
    }
}

/// Address of host `n`, from a range that no machine of a test has a route to by accident.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n)
}
