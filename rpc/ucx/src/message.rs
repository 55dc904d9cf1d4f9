//! Messages that arrive: with their data, or announced (rendezvous) and to be received.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::alive::{Counted, OfMessage};
use crate::core::{Core, Deferred};
use crate::endpoint::EndpointId;
use crate::sys;

/// The data of an active message.
#[derive(Debug)]
pub enum Data<'a> {
    /// It came along; none is an empty slice.
    Eager(Eager<'a>),
    /// It stays with the sender until [`crate::Worker::receive`] names a buffer.
    Rendezvous(Pending),
}

impl Data<'_> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Data::Eager(data) => data.len(),
            Data::Rendezvous(pending) => pending.len(),
        }
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes in UCX's own memory, valid during the handler's call.
pub struct Eager<'a> {
    bytes: &'a [u8],
    from: Source<'a>,
}

/// Where the bytes of an [`Eager`] lie.
enum Source<'a> {
    /// In a descriptor that UCX offers to leave to us.
    Offered(&'a Core),
    /// In memory that UCX uses again.
    Volatile,
    /// In what a deferred message had kept.
    Deferred(&'a Cell<Option<Kept>>),
}

impl Eager<'_> {
    /// Keeps the bytes beyond the call: without a copy when UCX lets go of its descriptor, which it
    /// does for all but small messages.
    pub fn keep(self) -> Kept {
        match self.from {
            Source::Offered(core) => {
                let data = NonNull::from(self.bytes).cast();
                let mut current = core.current.get();
                assert!(current.is(data) && current.fate == Fate::Untouched);
                current.fate = Fate::Taken;
                core.current.set(current);
                Kept(Bytes::Held(Descriptor::new(core, data, self.bytes.len())))
            }
            Source::Volatile => Kept(Bytes::Copied(self.bytes.to_vec())),
            Source::Deferred(kept) => kept.take().expect("a deferred message is delivered once"),
        }
    }
}

impl Deref for Eager<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl fmt::Debug for Eager<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Eager({} bytes)", self.bytes.len())
    }
}

/// Data that came along with a message, kept beyond the handler's call. Drop it soon: as long as it
/// lives, UCX has one receive buffer less, and the worker is not destroyed.
pub struct Kept(Bytes);

enum Bytes {
    Held(Descriptor),
    Copied(Vec<u8>),
}

impl Kept {
    /// True when the bytes had to be copied to be kept.
    pub fn is_copied(&self) -> bool {
        matches!(self.0, Bytes::Copied(_))
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: UCX leaves these bytes alone until the descriptor is released.
            Bytes::Held(held) => unsafe {
                std::slice::from_raw_parts(held.data.as_ptr().cast_const(), held.len)
            },
            Bytes::Copied(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes)", self.len())
    }
}

/// A message whose data is still at the sender. Received with [`crate::Worker::receive`]; dropped,
/// it is declined, and the sender's operation ends as if the data had arrived.
pub struct Pending {
    held: Descriptor,
    endpoint: Option<EndpointId>,
}

impl Pending {
    /// Length of the data in bytes.
    pub fn len(&self) -> usize {
        self.held.len
    }

    /// The endpoint that leads to the sender, unless this end has none.
    pub fn endpoint(&self) -> Option<EndpointId> {
        self.endpoint
    }

    /// True when there is no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn belongs_to(&self, core: &Rc<Core>) -> bool {
        Rc::ptr_eq(&self.held.core, core)
    }

    /// Hands the descriptor to a receive, which takes it over whatever UCX answers. The returned
    /// guard keeps the worker until the receive is under way.
    pub(crate) fn give(mut self) -> (*mut c_void, impl Sized) {
        self.held.owned = false;
        let core = &self.held.core;
        let mut current = core.current.get();
        if current.is(self.held.data) {
            current.fate = Fate::Taken;
            core.current.set(current);
        }
        (self.held.data.as_ptr().cast(), self)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({} bytes)", self.len())
    }
}

/// A descriptor of UCX that was left to us. It holds the worker.
struct Descriptor {
    core: Rc<Core>,
    data: NonNull<u8>,
    len: usize,
    owned: bool,
    _counted: Counted<OfMessage>,
}

impl Descriptor {
    fn new(core: &Core, data: NonNull<u8>, len: usize) -> Descriptor {
        core.hold();
        Descriptor { core: core.rc(), data, len, owned: true, _counted: Counted::new() }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut current = self.core.current.get();
        if self.owned && current.is(self.data) {
            // Inside the callback about it: not ours yet, UCX learns it from the return value.
            current.fate = Fate::Dropped;
            self.core.current.set(current);
        } else if self.owned {
            // SAFETY: the callback about it returned UCS_INPROGRESS, so it is ours until here; the
            // hold keeps the worker.
            unsafe { sys::ucp_am_data_release(self.core.handle(), self.data.as_ptr().cast()) };
        }
        self.core.unhold();
    }
}

/// What becomes of the message that a callback is about.
#[derive(Clone, Copy, Default)]
pub(crate) struct Current {
    data: Option<NonNull<u8>>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// UCX may have it back.
    #[default]
    Untouched,
    /// Kept, pending, or being received.
    Taken,
    /// Was taken, and let go again before the callback returned.
    Dropped,
}

impl Current {
    fn is(&self, data: NonNull<u8>) -> bool {
        self.data == Some(data)
    }
}

/// The data of a deferred message.
pub(crate) enum Held {
    Eager(Cell<Option<Kept>>, NonNull<[u8]>),
    Rendezvous(Cell<Option<Pending>>),
}

impl Held {
    fn eager(kept: Kept) -> Held {
        let bytes = NonNull::from(&*kept);
        Held::Eager(Cell::new(Some(kept)), bytes)
    }

    pub(crate) fn data(&self) -> Data<'_> {
        match self {
            Held::Eager(kept, bytes) => {
                // SAFETY: the bytes lie in a vector or a descriptor, not in `Kept` itself, and both
                // live until `keep` takes them out, which ends the only loan of these bytes.
                let bytes = unsafe { bytes.as_ref() };
                Data::Eager(Eager { bytes, from: Source::Deferred(kept) })
            }
            Held::Rendezvous(pending) => {
                let pending = pending.take();
                Data::Rendezvous(pending.expect("a deferred message is delivered once"))
            }
        }
    }
}

/// UCX's callback for an active message.
pub(crate) unsafe extern "C" fn on_message(
    core: *mut c_void,
    header: *const c_void,
    header_len: usize,
    data: *mut c_void,
    len: usize,
    params: *const sys::ucp_am_recv_param_t,
) -> sys::ucs_status_t {
    // SAFETY: `Worker::receive_messages` gave this core, which lives as long as the UCX worker.
    let core = unsafe { &*core.cast_const().cast::<Core>() };
    // SAFETY: UCX passes parameters that are valid during the call.
    let params = unsafe { &*params };
    if core.is_shut() {
        return sys::UCS_OK;
    }
    let descriptor = NonNull::new(data.cast::<u8>());
    let outer = core.current.replace(Current { data: descriptor, fate: Fate::Untouched });
    // SAFETY: header and data are valid during the call, and so are what is made of them here.
    let (header, data) =
        unsafe { (slice(header.cast(), header_len), view(core, params, data, len)) };
    if core.can_deliver() {
        core.call_handler(|handler| handler.message(header, data));
    } else {
        let held = match data {
            Data::Eager(eager) => Held::eager(eager.keep()),
            Data::Rendezvous(pending) => Held::Rendezvous(Cell::new(Some(pending))),
        };
        core.defer(Deferred::Message(header.to_vec(), held));
    }
    match core.current.replace(outer).fate {
        Fate::Taken => sys::UCS_INPROGRESS,
        Fate::Untouched | Fate::Dropped => sys::UCS_OK,
    }
}

/// The data of the message that is current.
///
/// # Safety
///
/// The arguments are those of UCX's callback, and the result is used during that only.
unsafe fn view<'a>(
    core: &'a Core,
    params: &sys::ucp_am_recv_param_t,
    data: *mut c_void,
    len: usize,
) -> Data<'a> {
    let flags = params.recv_attr;
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let reply = has(sys::UCP_AM_RECV_ATTR_FIELD_REPLY_EP).then_some(params.reply_ep as usize);
    let Some(data) = NonNull::new(data.cast::<u8>()) else {
        return Data::Eager(Eager { bytes: &[], from: Source::Volatile });
    };
    if has(sys::UCP_AM_RECV_ATTR_FLAG_RNDV) {
        core.current.set(Current { data: Some(data), fate: Fate::Taken });
        let by_handle = core.by_handle.borrow();
        let endpoint = reply.and_then(|reply| by_handle.get(&reply).copied());
        let held = Descriptor::new(core, data, len);
        return Data::Rendezvous(Pending { held, endpoint });
    }
    let offered = has(sys::UCP_AM_RECV_ATTR_FLAG_DATA) && len > 0;
    let from = if offered { Source::Offered(core) } else { Source::Volatile };
    // SAFETY: UCX's bytes are valid during the call, and longer when they are kept.
    Data::Eager(Eager { bytes: unsafe { slice(data.as_ptr(), len) }, from })
}

/// Bytes that UCX points to; of none the pointer may be anything.
///
/// # Safety
///
/// Unless `len` is 0, `len` bytes are readable at `start` for the lifetime that the caller uses.
unsafe fn slice<'a>(start: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: as the caller promises.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(start, len) } }
}
