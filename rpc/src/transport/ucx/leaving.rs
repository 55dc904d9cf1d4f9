//! Endpoints of closed connections that cannot be closed yet.
//!
//! UCX 1.13 aborts the process when an endpoint over RDMA is closed while its request to connect
//! is under way (`ucp_request.c`: "got REQ message"): a peer that packets do not reach would end
//! us. So such an endpoint is kept until its first flush has ended, which is when it is connected,
//! or until it failed, which UCX tells when the peer has not answered for long.

use super::conn::Remote;
use crate::limits::LEAVING_MAX;

#[derive(Default)]
pub(super) struct Leaving {
    all: Vec<(u64, Remote)>,
}

impl Leaving {
    /// A connection is closed: its endpoint is too, at once or when it can be.
    pub(super) fn leave(&mut self, key: u64, remote: Remote) {
        if remote.settled || remote.endpoint.is_failed() {
            return;
        }
        self.all.push((key, remote));
        if self.all.len() == LEAVING_MAX {
            tracing::warn!("{LEAVING_MAX} attempts to connect over RDMA are without an answer");
        }
    }

    /// The first flush of an endpoint ended.
    pub(super) fn flushed(&mut self, key: u64) {
        self.all.retain(|(leaving, _)| *leaving != key);
    }

    /// Closes the endpoints that failed.
    pub(super) fn tick(&mut self) {
        self.all.retain(|(_, remote)| !remote.endpoint.is_failed());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Gives them up without closing them.
    pub(super) fn forget(self) {
        self.all.into_iter().for_each(std::mem::forget);
    }
}
