//! What a TCP transport is told at its start, and why it may not start.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ogive_buf::Pool;

use crate::hello::{Hello, Identity};
use crate::limits;
use crate::transport::{Endpoint, EndpointError};

/// Configuration of a [`TcpTransport`](super::TcpTransport). Start from [`TcpConfig::new`].
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Addresses to listen on; none for a client. Port 0 lets the system choose.
    pub listen: Vec<Endpoint>,
    /// What we say of ourselves.
    pub hello: Hello,
    /// Whom we let in.
    pub accept: Accept,
    /// Where payloads are received. It should hold the payload bytes that our HELLO grants to all
    /// peers together: a smaller one is safe but makes peers wait for each other.
    pub pool: Pool,
    /// Time-outs.
    pub timing: Timing,
    /// Connections at once, in both directions.
    pub connections_max: usize,
    /// Inbound connections at once that have not said HELLO, at least 1.
    pub ungreeted_max: usize,
}

impl TcpConfig {
    /// A configuration with the defaults of [`crate::limits`] that listens nowhere and takes
    /// everyone of its own cluster.
    pub fn new(hello: Hello, pool: Pool) -> TcpConfig {
        TcpConfig {
            listen: Vec::new(),
            hello,
            accept: Accept::default(),
            pool,
            timing: Timing::default(),
            connections_max: limits::CONNECTIONS_MAX,
            ungreeted_max: limits::UNGREETED_MAX,
        }
    }
}

/// Checks the token of a HELLO; the text of an `Err` is told to the peer and logged.
pub type TokenCheck = Rc<dyn Fn(&Hello) -> Result<(), String>>;

/// Whom a transport lets in. Peers of another cluster never are.
#[derive(Clone)]
pub struct Accept {
    /// Shards of chunkservers may connect.
    pub shards: bool,
    /// Clients may connect.
    pub clients: bool,
    /// Called for every peer, also for those that we connect to.
    pub token: TokenCheck,
}

impl Default for Accept {
    fn default() -> Accept {
        Accept { shards: true, clients: true, token: Rc::new(|_| Ok(())) }
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accept {{ shards: {}, clients: {} }}", self.shards, self.clients)
    }
}

impl Accept {
    /// Decides about a peer that said `theirs` to one who says `ours`; `Err` tells it why not.
    pub fn judge(&self, ours: &Hello, theirs: &Hello, inbound: bool) -> Result<(), String> {
        if ours.cluster != theirs.cluster {
            return Err(format!(
                "you are of cluster {:032x}, this is cluster {:032x}; check the address",
                theirs.cluster.0, ours.cluster.0
            ));
        }
        match theirs.identity {
            Identity::Shard { .. } if inbound && !self.shards => {
                return Err("shards may not connect here".into());
            }
            Identity::Client { .. } if inbound && !self.clients => {
                return Err("clients may not connect here".into());
            }
            _ => {}
        }
        (self.token)(theirs)
    }
}

/// Time-outs of a transport; see [`crate::limits`] for the reasons of the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// PING is sent when nothing was sent for this long.
    pub ping_after: Duration,
    /// A peer is dead when nothing was heard for this long.
    pub silent_after: Duration,
    /// A connection is made, or fails, within this.
    pub connect_within: Duration,
    /// HELLO arrives within this.
    pub hello_within: Duration,
    /// A frame is complete this long after its first byte.
    pub frame_within: Duration,
    /// A peer is stalled when its queue is too long for this long.
    pub stalled_after: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            ping_after: limits::PING_AFTER,
            silent_after: limits::SILENT_AFTER,
            connect_within: limits::CONNECT_WITHIN,
            hello_within: limits::HELLO_WITHIN,
            frame_within: limits::FRAME_WITHIN,
            stalled_after: limits::STALLED_AFTER,
        }
    }
}

/// Why a transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The text is not an endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Something listens there already.
    #[error("cannot listen on {0}: the port is taken; stop its owner (`ss -ltnp`), or use another")]
    PortTaken(Endpoint),
    /// A port below 1024 without the right to it.
    #[error("cannot listen on {0}: no permission; use a port above 1023, or CAP_NET_BIND_SERVICE")]
    PortPrivileged(Endpoint),
    /// The address belongs to another machine, or to none.
    #[error("cannot listen on {0}: not an address of this machine; `ip addr` shows them")]
    AddressForeign(Endpoint),
    /// The limit of open files is reached.
    #[error("cannot open a socket: too many open files; raise the limit (`ulimit -n`)")]
    TooManyFiles,
    /// Anything else.
    #[error("cannot listen on {endpoint}: {source}")]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no epoll descriptor.
    #[error("cannot start the TCP transport: {0}")]
    System(#[source] std::io::Error),
}
