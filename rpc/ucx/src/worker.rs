//! The worker: what one thread sends and receives with, polled by its owner.
#![allow(clippy::disallowed_methods)] // A worker that is dropped waits, bounded by the clock.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

use ogive_buf::{ArenaId, PartMut, Pool};

use crate::core::Core;
use crate::endpoint::{Endpoint, EndpointId};
use crate::envelope::{self, Content};
use crate::limits::DRAIN_WITHIN;
use crate::listener::{ConnRequest, Listener};
use crate::memory::MemoryRegion;
use crate::message::{Data, Pending, on_message};
use crate::operation::{Completion, Owned, Progress, on_received};
use crate::{Context, UcxError, sys};

/// What a worker reports. The handler is lent to [`Worker::progress`] for one call.
///
/// `message` and `completed` may be called from within UCX: they may send, receive, and drop
/// anything, and must not call `progress`. A panic passes through `progress` to its caller.
pub trait Handler {
    /// An active message. `header` is valid during the call only.
    fn message(&mut self, header: &[u8], data: Data<'_>);

    /// A send, receive, put, get or flush that went on ended; its buffers come back.
    fn completed(&mut self, done: Completion);

    /// An endpoint failed, or its peer is gone; reported once, unless it was dropped before. Its
    /// operations end with an error of their own, before or after this.
    fn failed(&mut self, endpoint: EndpointId, error: UcxError);

    /// A peer wants to connect at a listener: accept it, or drop it.
    fn request(&mut self, request: ConnRequest) {
        drop(request);
    }
}

/// An owner of connections, used by one thread.
///
/// Dropped, it closes its endpoints, waits a moment for what is in flight, and is destroyed; or, if
/// there are messages, listeners or remote memory of it yet, with the last of these.
pub struct Worker {
    core: Rc<Core>,
    event_fd: RawFd,
}

impl Worker {
    /// A worker on the devices of `context`.
    pub fn new(context: &Context) -> Result<Worker, UcxError> {
        // SAFETY: plain numbers and pointers, for all of which zero is a value.
        let mut params: sys::ucp_worker_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = sys::UCP_WORKER_PARAM_FIELD_THREAD_MODE.into();
        params.thread_mode = sys::UCS_THREAD_MODE_SINGLE;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is alive, and UCX fills the handle.
        let status = unsafe {
            sys::ucp_worker_create(context.raw().handle(), &raw const params, &raw mut handle)
        };
        UcxError::check(status)?;
        let attr = query(handle, sys::UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER);
        let max_am_header = attr.as_ref().map_or(0, |attr| attr.max_am_header);
        // From here on dropping the core's worker cleans up.
        let core = Core::new(Rc::clone(context.raw()), handle, max_am_header);
        let mut worker = Worker { core, event_fd: -1 };
        attr?;
        // SAFETY: the worker is alive, and UCX fills the descriptor, which stays its own.
        let status = unsafe { sys::ucp_worker_get_efd(handle, &raw mut worker.event_fd) };
        UcxError::check(status)?;
        Ok(worker)
    }

    /// From now on messages sent with `am_id` reach the handler; those with ids that were not named
    /// here are dropped. The handler is not told the id: it belongs into the header.
    pub fn receive_messages(&self, am_id: u16) -> Result<(), UcxError> {
        // SAFETY: plain numbers and pointers, for all of which zero is a value.
        let mut params: sys::ucp_am_handler_param_t = unsafe { std::mem::zeroed() };
        let fields = sys::UCP_AM_HANDLER_PARAM_FIELD_ID
            | sys::UCP_AM_HANDLER_PARAM_FIELD_FLAGS
            | sys::UCP_AM_HANDLER_PARAM_FIELD_CB
            | sys::UCP_AM_HANDLER_PARAM_FIELD_ARG;
        params.field_mask = fields.into();
        params.id = am_id.into();
        params.flags = sys::UCP_AM_FLAG_WHOLE_MSG;
        params.cb = Some(on_message);
        params.arg = Rc::as_ptr(&self.core).cast_mut().cast();
        // SAFETY: the worker is alive, and the core, which the callback gets, lives longer.
        let status =
            unsafe { sys::ucp_worker_set_am_recv_handler(self.core.open()?, &raw const params) };
        UcxError::check(status)
    }

    /// Lets UCX work, and tells `handler` what happened, also since the last call. True when
    /// anything did. Panics when called from a handler.
    pub fn progress(&self, handler: &mut impl Handler) -> bool {
        self.core.progress(handler)
    }

    /// Prepares to sleep on [`Worker::event_fd`]: true when it will wake, false when something came
    /// meanwhile and `progress` must be called again.
    pub fn arm(&self) -> Result<bool, UcxError> {
        let handle = self.core.open()?;
        if !self.core.is_quiet() {
            return Ok(false);
        }
        // SAFETY: the worker is alive.
        match unsafe { sys::ucp_worker_arm(handle) } {
            sys::UCS_ERR_BUSY => Ok(false),
            status => UcxError::check(status).map(|()| true),
        }
    }

    /// A descriptor that becomes readable when there is something to do after [`Worker::arm`]. It
    /// belongs to UCX: poll it, do not read or close it.
    pub fn event_fd(&self) -> RawFd {
        self.event_fd
    }

    /// Longest header of a message in bytes.
    pub fn max_am_header(&self) -> usize {
        self.core.max_am_header
    }

    /// Operations in flight, closes in the background included.
    pub fn operations(&self) -> usize {
        self.core.slab.in_flight()
    }

    /// Operations that ended with an error while UCX may still use their buffers. Those come free
    /// when UCX says so, or with the worker. It is how UCX 1.13 ends what was announced and moving
    /// over shared memory when the peer died; a worker with many of them should be replaced.
    pub fn withheld(&self) -> usize {
        self.core.slab.withheld()
    }

    /// How peers reach this worker, at most [`crate::limits::ADDRESS_BYTES_MAX`] and a few bytes.
    pub fn address(&self) -> Result<Vec<u8>, UcxError> {
        let handle = self.core.open()?;
        let attr = query(handle, sys::UCP_WORKER_ATTR_FIELD_ADDRESS)?;
        // SAFETY: UCX gave so many bytes, which are released once, after the copy.
        unsafe {
            let bytes = std::slice::from_raw_parts(attr.address.cast::<u8>(), attr.address_length);
            let wrapped = envelope::wrap(Content::Address, bytes);
            sys::ucp_worker_release_address(handle, attr.address);
            Ok(wrapped)
        }
    }

    /// Connects to the worker with this [`Worker::address`]. It does not wait: what cannot be
    /// reached fails later.
    ///
    /// Damaged addresses, and those of another release of UCX, are refused. UCX itself trusts the
    /// rest: take addresses only from peers that proved to be of the cluster.
    pub fn connect(&self, address: &[u8]) -> Result<Endpoint, UcxError> {
        Endpoint::by_address(&self.core, address)
    }

    /// Connects to a [`Listener`], from the local address `bind` if given.
    pub fn connect_to(
        &self,
        to: SocketAddr,
        bind: Option<SocketAddr>,
    ) -> Result<Endpoint, UcxError> {
        Endpoint::by_socket(&self.core, to, bind)
    }

    /// Listens at `address`; port 0 lets the system choose.
    pub fn listen(&self, address: SocketAddr) -> Result<Listener, UcxError> {
        Listener::new(&self.core, address)
    }

    /// Registers what is new of `pool` with the devices; cheap when nothing is. Registered buffers
    /// are sent and received without a copy where the transport can; others work as well. A worker
    /// has one pool.
    pub fn register(&self, pool: &Pool) -> Result<(), UcxError> {
        self.core.register(pool)
    }

    /// The registration of an arena of the pool.
    pub fn region(&self, arena: ArenaId) -> Option<MemoryRegion> {
        self.core.region(arena)
    }

    /// Fetches the data of an announced message into `into`, which may be longer. On an error the
    /// message is lost, and so is the sender's operation.
    pub fn receive(
        &self,
        pending: Pending,
        mut into: PartMut,
        token: u64,
    ) -> Result<Progress<PartMut>, UcxError> {
        let handle = self.core.open()?;
        if !pending.belongs_to(&self.core) {
            return Err(UcxError::Foreign("the message"));
        }
        let len = pending.len();
        if len > into.len() {
            return Err(UcxError::Truncated { message: len, buffer: into.len() });
        }
        let endpoint = pending.endpoint();
        if endpoint.is_some_and(|id| !self.core.endpoints.borrow().contains_key(&id)) {
            return Err(UcxError::Canceled);
        }
        let (data, arena) = (into.as_mut_ptr(), into.arena());
        let owned = Owned::Receive { into, len };
        let operation = self.core.slab.begin(&self.core, endpoint, token, owned)?;
        let mut params = operation.params_for(Some((arena, data.cast_const(), len)));
        let mut received = 0;
        params.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_RECV_INFO;
        params.recv_info.length = &raw mut received;
        params.cb.recv_am = Some(on_received);
        let (descriptor, _hold) = pending.give();
        // SAFETY: the descriptor was ours and is UCX's from here on; the operation owns the buffer
        // until it ended.
        let answer = unsafe {
            sys::ucp_am_recv_data_nbx(handle, descriptor, data.cast(), len, &raw const params)
        };
        match operation.started(answer)? {
            Progress::Now(Owned::Receive { into, .. }) => Ok(Progress::Now(into)),
            Progress::Now(_) => unreachable!("it was begun as a receive"),
            Progress::Later => Ok(Progress::Later),
        }
    }
}

fn query(
    handle: sys::ucp_worker_h,
    field: sys::ucp_worker_attr_field,
) -> Result<sys::ucp_worker_attr_t, UcxError> {
    // SAFETY: plain numbers and pointers, for all of which zero is a value.
    let mut attr: sys::ucp_worker_attr_t = unsafe { std::mem::zeroed() };
    attr.field_mask = field.into();
    // SAFETY: the worker is alive, and UCX fills what was asked for.
    let status = unsafe { sys::ucp_worker_query(handle, &raw mut attr) };
    UcxError::check(status).map(|()| attr)
}

impl Drop for Worker {
    fn drop(&mut self) {
        let begin = Instant::now();
        self.core.shut_down(|| begin.elapsed() < DRAIN_WITHIN);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({} operations in flight)", self.operations())
    }
}
