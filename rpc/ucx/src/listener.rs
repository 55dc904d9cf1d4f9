//! Listening on a socket address (TCP or rdmacm), for peers that have no worker address yet.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use socket2::SockAddr;

use crate::alive::{Counted, OfListener, OfRequest};
use crate::core::{Core, Deferred, Disposal};
use crate::endpoint::{Endpoint, raw_address};
use crate::{UcxError, sys};

/// Accepts connections at a socket address until it is dropped. Connections that were accepted
/// stay; the UCX worker lives at least as long as its listeners.
pub struct Listener {
    state: Rc<ListenerState>,
    core: Rc<Core>,
}

/// What UCX's callback gets; alive until UCX has destroyed the listener.
pub(crate) struct ListenerState {
    core: *const Core,
    handle: Cell<sys::ucp_listener_h>,
    /// The listener object and the requests, each of which needs UCX's listener to exist.
    users: Cell<usize>,
    _counted: Counted<OfListener>,
}

impl ListenerState {
    fn enter(self: &Rc<ListenerState>, core: &Core) -> Rc<ListenerState> {
        self.users.set(self.users.get() + 1);
        core.hold();
        Rc::clone(self)
    }

    /// Refuses a connection; the peer's endpoint fails with [`UcxError::Rejected`].
    pub(crate) fn reject(&self, request: sys::ucp_conn_request_h) {
        // SAFETY: the listener exists while there are requests of it, and each is accepted or
        // rejected once.
        unsafe { sys::ucp_listener_reject(self.handle.get(), request) };
        self.leave();
    }

    /// One user less; with the last one the listener goes.
    pub(crate) fn leave(&self) {
        let users = self.users.get() - 1;
        self.users.set(users);
        // SAFETY: the core exists as long as its worker, which this user holds until the end of
        // this function.
        let core = unsafe { &*self.core }.rc();
        if users == 0 {
            // SAFETY: created in `Listener::new`, destroyed when the last user left.
            unsafe { sys::ucp_listener_destroy(self.handle.get()) };
        }
        core.unhold();
    }
}

impl Listener {
    pub(crate) fn new(core: &Rc<Core>, address: SocketAddr) -> Result<Listener, UcxError> {
        let worker = core.open()?;
        let state = Rc::new(ListenerState {
            core: Rc::as_ptr(core),
            handle: Cell::new(std::ptr::null_mut()),
            users: Cell::new(0),
            _counted: Counted::new(),
        });
        let address = SockAddr::from(address);
        // SAFETY: plain numbers and pointers, for all of which zero is a value.
        let mut params: sys::ucp_listener_params_t = unsafe { std::mem::zeroed() };
        let fields =
            sys::UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | sys::UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
        params.field_mask = fields.into();
        params.sockaddr = raw_address(&address);
        params.conn_handler.cb = Some(on_request);
        params.conn_handler.arg = Rc::as_ptr(&state).cast_mut().cast();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the worker is alive, parameters and address live through the call, and UCX fills
        // the handle.
        let status =
            unsafe { sys::ucp_listener_create(worker, &raw const params, &raw mut handle) };
        UcxError::check(status)?;
        state.handle.set(handle);
        Ok(Listener { state: state.enter(core), core: Rc::clone(core) })
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> Result<SocketAddr, UcxError> {
        // SAFETY: plain numbers, for all of which zero is a value.
        let mut attr: sys::ucp_listener_attr_t = unsafe { std::mem::zeroed() };
        attr.field_mask = sys::UCP_LISTENER_ATTR_FIELD_SOCKADDR.into();
        // SAFETY: the listener exists while this object does; UCX fills the attributes.
        let status = unsafe { sys::ucp_listener_query(self.state.handle.get(), &raw mut attr) };
        UcxError::check(status)?;
        socket_address(&attr.sockaddr).ok_or(UcxError::NotConnected)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.core.dispose(Disposal::Listener(Rc::clone(&self.state)));
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({:?})", self.local_addr().ok())
    }
}

/// A peer wants to connect. Dropped, it is rejected.
pub struct ConnRequest {
    core: Rc<Core>,
    listener: Rc<ListenerState>,
    handle: sys::ucp_conn_request_h,
    accepted: bool,
    _counted: Counted<OfRequest>,
}

impl ConnRequest {
    /// The endpoint to that peer.
    pub fn accept(mut self) -> Result<Endpoint, UcxError> {
        // UCX takes the request over, whether it succeeds or not, unless the worker is shut.
        self.core.open()?;
        self.accepted = true;
        Endpoint::by_request(&self.core, self.handle)
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        // SAFETY: plain numbers, for all of which zero is a value.
        let mut attr: sys::ucp_conn_request_attr_t = unsafe { std::mem::zeroed() };
        attr.field_mask = sys::UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ADDR.into();
        // SAFETY: the request was neither accepted nor rejected; UCX fills the attributes.
        let status = unsafe { sys::ucp_conn_request_query(self.handle, &raw mut attr) };
        UcxError::check(status).ok()?;
        socket_address(&attr.client_address)
    }
}

impl Drop for ConnRequest {
    fn drop(&mut self) {
        let listener = Rc::clone(&self.listener);
        self.core.dispose(if self.accepted {
            Disposal::Listener(listener)
        } else {
            Disposal::Request(listener, self.handle)
        });
    }
}

impl fmt::Debug for ConnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnRequest({:?})", self.peer_addr())
    }
}

/// UCX's callback for a connection request.
unsafe extern "C" fn on_request(request: sys::ucp_conn_request_h, state: *mut c_void) {
    // SAFETY: `Listener::new` gave this record, which lives until UCX has destroyed the listener.
    let state = unsafe { Rc::from_raw(state.cast_const().cast::<ListenerState>()) };
    let state = std::mem::ManuallyDrop::new(state);
    // SAFETY: the worker calls back only while its core is alive.
    let core = unsafe { &*state.core };
    let request = ConnRequest {
        core: core.rc(),
        listener: state.enter(core),
        handle: request,
        accepted: false,
        _counted: Counted::new(),
    };
    core.defer(Deferred::Request(request));
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage is initialised, and `as_socket` looks at its family first.
    let address = unsafe {
        SockAddr::try_init(|place, place_len| {
            std::ptr::copy_nonoverlapping(
                (&raw const *storage).cast::<u8>(),
                place.cast::<u8>(),
                len as usize,
            );
            *place_len = len;
            Ok(())
        })
    };
    address.ok()?.1.as_socket()
}
