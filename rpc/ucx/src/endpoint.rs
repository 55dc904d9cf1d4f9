//! Endpoints: a worker's way to one peer.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use ogive_buf::{Buf, PartMut};
use socket2::SockAddr;

use crate::alive::{Counted, OfEndpoint};
use crate::config::printed;
use crate::core::{Core, Deferred, Disposal};
use crate::envelope::{self, Content};
use crate::limits::{ADDRESS_BYTES_MAX, AUTO_EAGER_BYTES};
use crate::memory::RemoteMemory;
use crate::operation::{Owned, Progress, Sent, on_completed};
use crate::{UcxError, sys};

/// An endpoint of one worker; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u64);

/// By which protocol a message travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// UCX decides by length and transport.
    #[default]
    Auto,
    /// The data goes along, through buffers of UCX at both ends.
    Eager,
    /// The data stays until the receiver names its buffer, and is then moved there at once.
    Rendezvous,
}

impl Mode {
    /// What is announced names its endpoint, so that a receive ends with it.
    fn flags(self, data_len: usize) -> u32 {
        match self {
            Mode::Eager => sys::UCP_AM_SEND_FLAG_EAGER,
            Mode::Rendezvous if data_len > 0 => {
                sys::UCP_AM_SEND_FLAG_RNDV | sys::UCP_AM_SEND_FLAG_REPLY
            }
            Mode::Auto if data_len > AUTO_EAGER_BYTES => sys::UCP_AM_SEND_FLAG_REPLY,
            Mode::Auto | Mode::Rendezvous => 0,
        }
    }
}

/// A connection to a peer. Dropping it closes it at once: operations in flight end with
/// [`UcxError::Canceled`], or with the error of an endpoint that failed before, and the worker
/// completes the close in the background. To make sure that what was sent arrived, wait for
/// [`Endpoint::flush`] first.
///
/// An endpoint that failed must be dropped: some of its operations end only then. And one whose
/// peer is known to be dead is dropped without waiting for its failure: over shared memory UCX 1.13
/// does not notice a peer that died while its queue was full.
pub struct Endpoint {
    core: Rc<Core>,
    state: Rc<EndpointState>,
}

/// What UCX's error handler gets; alive until UCX has closed the endpoint.
pub(crate) struct EndpointState {
    pub(crate) id: EndpointId,
    core: *const Core,
    handle: Cell<sys::ucp_ep_h>,
    error: RefCell<Option<UcxError>>,
    _counted: Counted<OfEndpoint>,
}

impl EndpointState {
    /// The endpoint to be closed, once.
    pub(crate) fn take_handle(&self) -> Option<sys::ucp_ep_h> {
        let handle = self.handle.replace(std::ptr::null_mut());
        (!handle.is_null()).then_some(handle)
    }

    /// Why it failed, if it did.
    pub(crate) fn error(&self) -> Option<UcxError> {
        self.error.borrow().clone()
    }
}

impl Endpoint {
    /// To the worker with this address.
    pub(crate) fn by_address(core: &Rc<Core>, wrapped: &[u8]) -> Result<Endpoint, UcxError> {
        let address = envelope::unwrap(Content::Address, wrapped, ADDRESS_BYTES_MAX)?;
        // UCX reads without a length; what it reads too much is zero.
        let padded = [address, &[0; 64]].concat();
        Endpoint::create(core, |params| {
            params.field_mask |= u64::from(sys::UCP_EP_PARAM_FIELD_REMOTE_ADDRESS);
            params.address = padded.as_ptr().cast();
        })
    }

    /// To the listener at `to`.
    pub(crate) fn by_socket(
        core: &Rc<Core>,
        to: SocketAddr,
        bind: Option<SocketAddr>,
    ) -> Result<Endpoint, UcxError> {
        let (to, bind) = (SockAddr::from(to), bind.map(SockAddr::from));
        Endpoint::create(core, |params| {
            let fields = sys::UCP_EP_PARAM_FIELD_SOCK_ADDR | sys::UCP_EP_PARAM_FIELD_FLAGS;
            params.field_mask |= u64::from(fields);
            params.flags = sys::UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
            params.sockaddr = raw_address(&to);
            if let Some(bind) = &bind {
                params.field_mask |= u64::from(sys::UCP_EP_PARAM_FIELD_LOCAL_SOCK_ADDR);
                params.local_sockaddr = raw_address(bind);
            }
        })
    }

    /// To the peer that asked for it.
    pub(crate) fn by_request(
        core: &Rc<Core>,
        request: sys::ucp_conn_request_h,
    ) -> Result<Endpoint, UcxError> {
        Endpoint::create(core, |params| {
            params.field_mask |= u64::from(sys::UCP_EP_PARAM_FIELD_CONN_REQUEST);
            params.conn_request = request;
        })
    }

    /// `target` says whom the endpoint leads to; what it points to lives through this call.
    fn create(
        core: &Rc<Core>,
        target: impl FnOnce(&mut sys::ucp_ep_params_t),
    ) -> Result<Endpoint, UcxError> {
        let worker = core.open()?;
        let id = EndpointId(core.next_endpoint.get());
        core.next_endpoint.set(id.0 + 1);
        let state = Rc::new(EndpointState {
            id,
            core: Rc::as_ptr(core),
            handle: Cell::new(std::ptr::null_mut()),
            error: RefCell::new(None),
            _counted: Counted::new(),
        });
        let mut params = params(&state);
        target(&mut params);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the worker is alive, the parameters and what they point to live through the call,
        // and UCX fills the handle.
        let status = unsafe { sys::ucp_ep_create(worker, &raw const params, &raw mut handle) };
        UcxError::check(status)?;
        state.handle.set(handle);
        core.endpoints.borrow_mut().insert(id, Rc::clone(&state));
        core.by_handle.borrow_mut().insert(handle as usize, id);
        Ok(Endpoint { core: Rc::clone(core), state })
    }

    /// Its number, by which the handler learns of its failure.
    pub fn id(&self) -> EndpointId {
        self.state.id
    }

    /// True once it failed: nothing can be sent any more.
    pub fn is_failed(&self) -> bool {
        self.state.error.borrow().is_some()
    }

    /// The endpoint, or why it cannot be used.
    fn open(&self) -> Result<sys::ucp_ep_h, UcxError> {
        self.core.open()?;
        match &*self.state.error.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(self.state.handle.get()),
        }
    }

    /// Sends an active message. `header` is at most [`crate::Worker::max_am_header`] long. The
    /// operation owns header and payload until it ended; `Now` gives the header back.
    pub fn send(
        &self,
        am_id: u16,
        header: Vec<u8>,
        payload: Option<Buf>,
        mode: Mode,
        token: u64,
    ) -> Result<Sent, UcxError> {
        let endpoint = self.open()?;
        let max = self.core.max_am_header;
        if header.len() > max {
            return Err(UcxError::HeaderTooLong { bytes: header.len(), max });
        }
        let (head, head_len) = (header.as_ptr(), header.len());
        let (data, data_len) = match payload.as_deref() {
            Some(data) => (data.as_ptr(), data.len()),
            None => (std::ptr::null(), 0),
        };
        let memory = payload.as_ref().map(|buf| (buf.arena(), data, data_len));
        let owned = Owned::Send { header, payload };
        let operation = self.core.slab.begin(&self.core, Some(self.id()), token, owned)?;
        let mut params = operation.params_for(memory);
        params.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_FLAGS;
        params.flags = mode.flags(data_len);
        params.cb.send = Some(on_completed);
        // SAFETY: the endpoint is open; the operation owns header and payload until it ended.
        let answer = unsafe {
            let (id, header, data) = (am_id.into(), head.cast(), data.cast());
            sys::ucp_am_send_nbx(endpoint, id, header, head_len, data, data_len, &raw const params)
        };
        match operation.started(answer)? {
            Progress::Now(Owned::Send { header, .. }) => Ok(Progress::Now(header)),
            Progress::Now(_) => unreachable!("it was begun as a send"),
            Progress::Later => Ok(Progress::Later),
        }
    }

    /// Writes `from` into the peer's memory at `offset`. When the operation ended the buffer is
    /// free; the peer has the data when a later [`Endpoint::flush`] ended.
    pub fn put(
        &self,
        from: Buf,
        to: &RemoteMemory,
        offset: usize,
        token: u64,
    ) -> Result<Progress<()>, UcxError> {
        let endpoint = self.open()?;
        let address = self.remote_address(to, offset, from.len())?;
        let (data, len, arena) = (from.as_ptr(), from.len(), from.arena());
        let owned = Owned::Put { from, _key: Rc::clone(&to.key) };
        let operation = self.core.slab.begin(&self.core, Some(self.id()), token, owned)?;
        let mut params = operation.params_for(Some((arena, data, len)));
        params.cb.send = Some(on_completed);
        // SAFETY: the endpoint is open and the key is its own; the operation owns both buffer and
        // key until it ended.
        let answer = unsafe {
            let (data, key) = (data.cast(), to.key.handle());
            sys::ucp_put_nbx(endpoint, data, len, address, key, &raw const params)
        };
        Ok(operation.started(answer)?.map(|_| ()))
    }

    /// Reads from the peer's memory at `offset` until `into` is full.
    pub fn get(
        &self,
        mut into: PartMut,
        from: &RemoteMemory,
        offset: usize,
        token: u64,
    ) -> Result<Progress<PartMut>, UcxError> {
        let endpoint = self.open()?;
        let address = self.remote_address(from, offset, into.len())?;
        let (data, len, arena) = (into.as_mut_ptr(), into.len(), into.arena());
        let owned = Owned::Get { into, _key: Rc::clone(&from.key) };
        let operation = self.core.slab.begin(&self.core, Some(self.id()), token, owned)?;
        let mut params = operation.params_for(Some((arena, data.cast_const(), len)));
        params.cb.send = Some(on_completed);
        // SAFETY: as in `put`, and the part is writable by its owner alone.
        let answer = unsafe {
            let (data, key) = (data.cast(), from.key.handle());
            sys::ucp_get_nbx(endpoint, data, len, address, key, &raw const params)
        };
        match operation.started(answer)? {
            Progress::Now(Owned::Get { into, .. }) => Ok(Progress::Now(into)),
            Progress::Now(_) => unreachable!("it was begun as a get"),
            Progress::Later => Ok(Progress::Later),
        }
    }

    fn remote_address(
        &self,
        memory: &RemoteMemory,
        offset: usize,
        len: usize,
    ) -> Result<u64, UcxError> {
        if memory.endpoint != self.id() || !memory.belongs_to(&self.core) {
            return Err(UcxError::Foreign("the remote memory"));
        }
        memory.at(offset, len)
    }

    /// Ends when all that was sent and put before has arrived at the peer's UCX.
    pub fn flush(&self, token: u64) -> Result<Progress<()>, UcxError> {
        let endpoint = self.open()?;
        let id = Some(self.id());
        let operation = self.core.slab.begin(&self.core, id, token, Owned::Flush)?;
        let mut params = operation.params();
        params.cb.send = Some(on_completed);
        // SAFETY: the endpoint is open.
        let answer = unsafe { sys::ucp_ep_flush_nbx(endpoint, &raw const params) };
        Ok(operation.started(answer)?.map(|_| ()))
    }

    /// Makes memory that the peer exposed usable with this endpoint. `description` comes from
    /// [`crate::Exposed::description`]; see there about trust.
    pub fn remote(&self, description: &[u8]) -> Result<RemoteMemory, UcxError> {
        let endpoint = self.open()?;
        RemoteMemory::unpack(&self.core, (self.id(), endpoint), description)
    }

    /// Transports and devices that it uses now, such as `posix/memory cma/memory`, for logs. They
    /// may change until the first message has gone both ways.
    pub fn transports(&self) -> Result<String, UcxError> {
        let endpoint = self.open()?;
        // SAFETY: the endpoint and the stream are open.
        let text = printed(|stream| unsafe { sys::ucp_ep_print_info(endpoint, stream) });
        Ok(lanes(&text.map_err(|_| UcxError::NoMemory)?))
    }
}

/// The transports in UCX's description of an endpoint, which has lines such as
/// `#                 lane[0]:  2:posix/memory.0 md[1]        -> md[1]/posix/sysdev[255]`.
fn lanes(text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| line.contains(" lane[")) {
        let word = line.split_whitespace().find(|word| word.contains('/'));
        let name = word.map(|word| word.split_once(':').map_or(word, |(_, name)| name));
        let name = name.map(|name| name.rsplit_once('.').map_or(name, |(name, _)| name));
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names.join(" ")
}

fn params(state: &Rc<EndpointState>) -> sys::ucp_ep_params_t {
    // SAFETY: plain numbers and pointers, for all of which zero is a value.
    let mut params: sys::ucp_ep_params_t = unsafe { std::mem::zeroed() };
    let arg = Rc::as_ptr(state).cast_mut().cast();
    let fields = sys::UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
        | sys::UCP_EP_PARAM_FIELD_ERR_HANDLER
        | sys::UCP_EP_PARAM_FIELD_USER_DATA;
    params.field_mask = fields.into();
    params.err_mode = sys::UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler = sys::ucp_err_handler_t { cb: Some(on_failed), arg };
    params.user_data = arg;
    params
}

pub(crate) fn raw_address(address: &SockAddr) -> sys::ucs_sock_addr_t {
    sys::ucs_sock_addr_t { addr: address.as_ptr().cast(), addrlen: address.len() }
}

/// UCX's callback for a failed endpoint.
unsafe extern "C" fn on_failed(
    state: *mut c_void,
    _endpoint: sys::ucp_ep_h,
    status: sys::ucs_status_t,
) {
    // SAFETY: `params` gave this record, which the core, or the close under way, keeps until UCX
    // has closed the endpoint.
    let state = unsafe { &*state.cast_const().cast::<EndpointState>() };
    let error = UcxError::of(status);
    let first = state.error.borrow_mut().replace(error.clone()).is_none();
    // An endpoint that is being closed has nobody who wants to know.
    if first && !state.handle.get().is_null() {
        // SAFETY: an endpoint is destroyed before its worker, and so before the core.
        let core = unsafe { &*state.core };
        core.defer(Deferred::Failed(state.id, error));
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if !self.core.is_shut() {
            self.core.dispose(Disposal::Endpoint(Rc::clone(&self.state)));
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.id().0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lanes() {
        let text = "#\n# UCP endpoint worker\n#\n#               peer: a\n\
            #      lane[0]:  2:posix/memory.0 md[1]    -> md[1]/posix/sysdev[255] am\n\
            #      lane[1]:  4:cma/memory.0 md[3]      -> md[3]/cma/sysdev[255] rma_bw#0\n\
            #      lane[2]:  4:cma/memory.0 md[3]      -> md[3]/cma/sysdev[255] rma_bw#1\n";
        assert_eq!(lanes(text), "posix/memory cma/memory");
        assert_eq!(lanes(""), "");
    }
}
