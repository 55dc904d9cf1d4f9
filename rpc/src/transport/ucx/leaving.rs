//! Endpoints of closed connections that cannot be closed yet.
//!
//! UCX 1.13 aborts the process when an endpoint over RDMA is closed while its request to connect
//! is under way (`ucp_request.c`: "got REQ message"), and also when it gives such a request up by
//! itself: a peer that packets do not reach would end us. So UCX is told never to give up, and such
//! an endpoint is kept until its first flush has ended, which is when it is connected. One whose
//! peer never answers is kept as long as the lane: with [`LEAVING_MAX`] of them no more are begun.

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
    }

    /// Why no further attempt is to be begun, if so.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.all.len() < LEAVING_MAX {
            return Ok(());
        }
        Err(format!("{LEAVING_MAX} earlier attempts to connect over RDMA are without an answer"))
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
