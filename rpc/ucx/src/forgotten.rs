//! Closed endpoints whose operations UCX has not ended.
//!
//! UCX promises that a forced close ends all operations, and mostly does so within the close or a
//! few turns later. But 1.13, over shared memory, forgets some whose data was moving when the peer
//! died. So endpoints that leave operations behind are watched: when [`FORGOTTEN_AFTER`] has
//! passed, and a flush of the worker says that all transports of closed endpoints are torn down,
//! what is left is reported as failed. Meanwhile the worker does not sleep.
#![allow(clippy::disallowed_methods)] // UCX does not tell when it has forgotten; only time does.

use std::cell::RefCell;
use std::time::Instant;

use crate::UcxError;
use crate::endpoint::EndpointId;
use crate::limits::FORGOTTEN_AFTER;

#[derive(Default)]
pub(crate) struct Forgotten {
    watched: RefCell<Vec<Watched>>,
}

struct Watched {
    endpoint: EndpointId,
    error: UcxError,
    since: Instant,
}

impl Forgotten {
    /// The endpoint is closed, and left operations in flight, which end with `error`.
    pub(crate) fn watch(&self, endpoint: EndpointId, error: UcxError) {
        self.watched.borrow_mut().push(Watched { endpoint, error, since: Instant::now() });
    }

    /// Nothing is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.watched.borrow().is_empty()
    }

    /// An endpoint that was watched for long enough, and no longer is. Those that have nothing
    /// `left` are no longer watched either.
    pub(crate) fn due(&self, left: impl Fn(EndpointId) -> bool) -> Option<(EndpointId, UcxError)> {
        let mut watched = self.watched.borrow_mut();
        watched.retain(|endpoint| left(endpoint.endpoint));
        let is_due = |endpoint: &Watched| endpoint.since.elapsed() >= FORGOTTEN_AFTER;
        let index = watched.iter().position(is_due)?;
        let due = watched.swap_remove(index);
        Some((due.endpoint, due.error))
    }
}
