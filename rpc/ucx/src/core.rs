//! The worker's inside: what UCX's callbacks reach, and what is kept for the next `progress`.
//!
//! UCX calls back with a pointer to a [`Core`] (or to a record that has one), inside `progress` and
//! also inside send, receive, close and destroy. A callback goes straight to the handler when
//! `progress` has lent one, the handler is not running already, and nothing older waits; otherwise
//! what it says is queued. All state is in cells, since such calls nest.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use crate::alive::{Counted, OfWorker};
use crate::context::RawContext;
use crate::endpoint::{EndpointId, EndpointState};
use crate::forgotten::Forgotten;
use crate::listener::{ConnRequest, ListenerState};
use crate::memory::Regions;
use crate::message::{Current, Held};
use crate::operation::{Completion, Operation, Slab};
use crate::{Handler, UcxError, sys};

pub(crate) struct Core {
    me: Weak<Core>,
    handle: Cell<sys::ucp_worker_h>,
    context: RefCell<Option<Rc<RawContext>>>,
    counted: Cell<Option<Counted<OfWorker>>>,
    pub(crate) max_am_header: usize,

    handler: Cell<Option<NonNull<dyn Handler>>>,
    progressing: Cell<bool>,
    in_ucx: Cell<bool>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
    deferred: RefCell<VecDeque<Deferred>>,
    disposals: RefCell<Vec<Disposal>>,
    /// The message that UCX's callback is about.
    pub(crate) current: Cell<Current>,

    pub(crate) slab: Slab,
    forgotten: Forgotten,
    pub(crate) endpoints: RefCell<HashMap<EndpointId, Rc<EndpointState>>>,
    /// Endpoints by the address of UCX's, by which messages name them.
    pub(crate) by_handle: RefCell<HashMap<usize, EndpointId>>,
    pub(crate) next_endpoint: Cell<u64>,
    pub(crate) regions: RefCell<Regions>,
    /// Things of the user that need the UCX worker to exist.
    holds: Cell<usize>,
    shut: Cell<bool>,
}

/// What a callback said, kept for the next `progress`.
pub(crate) enum Deferred {
    Message(Vec<u8>, Held),
    Completed(Completion),
    Failed(EndpointId, UcxError),
    Request(ConnRequest),
}

/// What is to be released, but not inside one of UCX's callbacks.
pub(crate) enum Disposal {
    Endpoint(Rc<EndpointState>),
    Key(sys::ucp_rkey_h),
    Listener(Rc<ListenerState>),
    Request(Rc<ListenerState>, sys::ucp_conn_request_h),
}

impl Core {
    pub(crate) fn new(
        context: Rc<RawContext>,
        handle: sys::ucp_worker_h,
        max_am_header: usize,
    ) -> Rc<Core> {
        Rc::new_cyclic(|me| Core {
            me: Weak::clone(me),
            handle: Cell::new(handle),
            context: RefCell::new(Some(context)),
            counted: Cell::new(Some(Counted::new())),
            max_am_header,
            handler: Cell::new(None),
            progressing: Cell::new(false),
            in_ucx: Cell::new(false),
            panic: Cell::new(None),
            deferred: RefCell::default(),
            disposals: RefCell::default(),
            current: Cell::default(),
            slab: Slab::default(),
            forgotten: Forgotten::default(),
            endpoints: RefCell::default(),
            by_handle: RefCell::default(),
            next_endpoint: Cell::new(1),
            regions: RefCell::default(),
            holds: Cell::new(0),
            shut: Cell::new(false),
        })
    }

    pub(crate) fn rc(&self) -> Rc<Core> {
        self.me.upgrade().expect("UCX calls back only while the core is alive")
    }

    /// The worker, or `ShutDown`.
    pub(crate) fn open(&self) -> Result<sys::ucp_worker_h, UcxError> {
        if self.shut.get() { Err(UcxError::ShutDown) } else { Ok(self.handle.get()) }
    }

    /// The worker, also while it is being shut down. Not for callers that may come after its end.
    pub(crate) fn handle(&self) -> sys::ucp_worker_h {
        let handle = self.handle.get();
        assert!(!handle.is_null(), "the worker is destroyed");
        handle
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.shut.get()
    }

    pub(crate) fn is_destroyed(&self) -> bool {
        self.handle.get().is_null()
    }

    pub(crate) fn context(&self) -> Result<Rc<RawContext>, UcxError> {
        self.context.borrow().clone().ok_or(UcxError::ShutDown)
    }

    /// Lends `handler` for one turn: what was deferred, UCX's progress, what came of it.
    pub(crate) fn progress(&self, handler: &mut dyn Handler) -> bool {
        assert!(!self.progressing.replace(true), "`progress` was called from a handler");
        let lent: NonNull<dyn Handler + '_> = NonNull::from(handler);
        // SAFETY: only the lifetime changes. `Lent` takes the pointer back before this function
        // ends, also in a panic, and everything that uses it is called from here.
        let lent: NonNull<dyn Handler> = unsafe { std::mem::transmute(lent) };
        self.handler.set(Some(lent));
        let back = Lent(self);
        let mut busy = self.deliver_deferred();
        busy |= self.progress_ucx();
        if let Some(panic) = self.panic.take() {
            drop(back);
            std::panic::resume_unwind(panic);
        }
        busy | self.deliver_deferred()
    }

    /// Lets UCX work, then releases what its callbacks left.
    fn progress_ucx(&self) -> bool {
        self.in_ucx.set(true);
        // SAFETY: the worker is alive, as `progress` and `shut_down` need it to be.
        let count = unsafe { sys::ucp_worker_progress(self.handle()) };
        self.in_ucx.set(false);
        while let Some(disposal) = self.pop_disposal() {
            self.dispose_now(disposal);
        }
        if !self.forgotten.is_empty() {
            self.look_after_closed();
        }
        count > 0
    }

    fn pop_disposal(&self) -> Option<Disposal> {
        self.disposals.borrow_mut().pop()
    }

    /// Nothing waits for the next `progress`, so that the owner may sleep.
    pub(crate) fn is_quiet(&self) -> bool {
        self.deferred.borrow().is_empty()
            && self.disposals.borrow().is_empty()
            && self.forgotten.is_empty()
    }

    /// True when a callback may go to the handler without overtaking anything.
    pub(crate) fn can_deliver(&self) -> bool {
        let handler = self.handler.take();
        self.handler.set(handler);
        handler.is_some() && self.deferred.borrow().is_empty()
    }

    /// Calls the handler from one of UCX's callbacks. A panic does not pass through C: it goes on
    /// when UCX has returned.
    pub(crate) fn call_handler(&self, f: impl FnOnce(&mut dyn Handler)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.with_handler(f))) {
            self.panic.set(Some(panic));
        }
    }

    /// Calls the handler, which is out of reach for nested callbacks meanwhile; after a panic for
    /// good.
    fn with_handler(&self, f: impl FnOnce(&mut dyn Handler)) {
        let mut lent = self.handler.take().expect("callers checked that there is a handler");
        // SAFETY: `progress` holds the handler exclusively while it is lent, and taking the pointer
        // out of its cell makes this the only use.
        f(unsafe { lent.as_mut() });
        self.handler.set(Some(lent));
    }

    pub(crate) fn defer(&self, event: Deferred) {
        self.deferred.borrow_mut().push_back(event);
    }

    /// Delivers what was deferred before this call; what is added meanwhile waits.
    fn deliver_deferred(&self) -> bool {
        let count = self.deferred.borrow().len();
        for _ in 0..count {
            let event = self.deferred.borrow_mut().pop_front();
            let Some(event) = event else { break };
            self.with_handler(|handler| match event {
                Deferred::Message(header, held) => handler.message(&header, held.data()),
                Deferred::Completed(completion) => handler.completed(completion),
                Deferred::Failed(endpoint, error) => handler.failed(endpoint, error),
                Deferred::Request(request) => handler.request(request),
            });
        }
        count > 0
    }

    /// Reports an operation that ended.
    pub(crate) fn complete(&self, completion: Completion) {
        if self.can_deliver() {
            self.call_handler(|handler| handler.completed(completion));
        } else {
            self.defer(Deferred::Completed(completion));
        }
    }

    /// Releases something now, or after UCX's callback.
    pub(crate) fn dispose(&self, disposal: Disposal) {
        if self.in_ucx.get() {
            self.disposals.borrow_mut().push(disposal);
        } else {
            self.dispose_now(disposal);
        }
    }

    fn dispose_now(&self, disposal: Disposal) {
        match disposal {
            Disposal::Endpoint(state) => self.close(state),
            Disposal::Listener(state) => state.leave(),
            Disposal::Request(listener, request) => listener.reject(request),
            // SAFETY: unpacked by `Endpoint::remote`, its owner is gone, the worker is alive.
            Disposal::Key(key) => unsafe { sys::ucp_rkey_destroy(key) },
        }
    }

    pub(crate) fn hold(&self) {
        self.holds.set(self.holds.get() + 1);
    }

    pub(crate) fn unhold(&self) {
        self.holds.set(self.holds.get() - 1);
        if self.shut.get() && self.holds.get() == 0 {
            self.destroy();
        }
    }

    /// Closes all endpoints and waits, as long as `more` allows, for what is in flight. Then the
    /// UCX worker is destroyed, or by whoever holds it last.
    pub(crate) fn shut_down(&self, mut more: impl FnMut() -> bool) {
        assert!(!self.progressing.get(), "a worker was dropped by its own handler");
        self.shut.set(true);
        self.hold();
        let states: Vec<_> = self.endpoints.borrow().values().cloned().collect();
        states.into_iter().for_each(|state| self.close(state));
        while self.slab.in_flight() > 0 && more() {
            self.progress_ucx();
        }
        self.drop_deferred();
        self.unhold();
    }

    /// Drops events one by one, outside of the borrow: they may hold this worker.
    fn drop_deferred(&self) {
        loop {
            let event = self.deferred.borrow_mut().pop_front();
            if event.is_none() {
                break;
            }
        }
    }

    /// The end: worker, then what operations and regions held, then the context.
    fn destroy(&self) {
        let handle = self.handle();
        let me = self.rc();
        // SAFETY: created in `Worker::new` and destroyed only here. Callbacks that come meanwhile
        // find the core alive.
        unsafe { sys::ucp_worker_destroy(handle) };
        self.handle.set(std::ptr::null_mut());
        self.drop_deferred();
        self.slab.abandon();
        self.endpoints.borrow_mut().clear();
        let regions = std::mem::take(&mut *self.regions.borrow_mut());
        drop(regions);
        self.counted.take();
        let context = self.context.borrow_mut().take();
        drop(context);
        drop(me);
    }

    /// Closes an endpoint by force, in the background when UCX needs time.
    fn close(&self, state: Rc<EndpointState>) {
        let Some(endpoint) = state.take_handle() else { return };
        let id = state.id;
        let operation = self.slab.begin_close(self, state);
        let mut params = operation.params();
        params.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_FLAGS;
        params.flags = sys::UCP_EP_CLOSE_FLAG_FORCE;
        params.cb.send = Some(on_closed);
        // SAFETY: the endpoint was created on this worker and is closed only here.
        let answer = unsafe { sys::ucp_ep_close_nbx(endpoint, &raw const params) };
        if !operation.settle(answer) {
            self.closed(id);
            self.slab.end(operation);
        }
    }

    /// UCX has closed an endpoint.
    fn closed(&self, id: EndpointId) {
        let state = self.endpoints.borrow_mut().remove(&id);
        let Some(state) = state else { return };
        self.by_handle.borrow_mut().retain(|_, known| *known != id);
        if self.slab.any_of(id) {
            let error = state.error().unwrap_or(UcxError::Canceled);
            self.forgotten.watch(id, error);
        }
    }

    /// Looks after the operations that closed endpoints left in flight.
    fn look_after_closed(&self) {
        while let Some((id, error)) = self.forgotten.due(|id| self.slab.any_of(id)) {
            let operation = self.slab.begin_settle(self, id, error.clone());
            let mut params = operation.params();
            params.cb.send = Some(on_settled);
            // SAFETY: the worker is alive in `progress` and while it is shut down.
            let answer = unsafe { sys::ucp_worker_flush_nbx(self.handle(), &raw const params) };
            if !operation.settle(answer) {
                self.slab.end(operation);
                self.slab.withhold(self, id, &error);
            }
        }
    }
}

/// UCX's callback for the flush after a close.
unsafe extern "C" fn on_settled(
    request: *mut std::ffi::c_void,
    _status: sys::ucs_status_t,
    operation: *mut std::ffi::c_void,
) {
    // SAFETY: `params` gave this operation, which the slab keeps in place until it ended.
    let operation = unsafe { Operation::of(operation) };
    let core = operation.core();
    // SAFETY: UCX hands the request over with its completion.
    unsafe { sys::ucp_request_free(request) };
    if let Some((id, error)) = operation.settled() {
        core.slab.withhold(core, id, &error);
    }
    if operation.finished() {
        core.slab.end(operation);
    }
}

/// Takes the handler back.
struct Lent<'a>(&'a Core);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.handler.set(None);
        self.0.progressing.set(false);
    }
}

unsafe extern "C" fn on_closed(
    request: *mut std::ffi::c_void,
    _status: sys::ucs_status_t,
    operation: *mut std::ffi::c_void,
) {
    // SAFETY: `params` gave this operation, which the slab keeps in place until it ended.
    let operation = unsafe { Operation::of(operation) };
    let core = operation.core();
    // SAFETY: UCX hands the request over with its completion.
    unsafe { sys::ucp_request_free(request) };
    if let Some(id) = operation.endpoint() {
        core.closed(id);
    }
    if operation.finished() {
        core.slab.end(operation);
    }
}
