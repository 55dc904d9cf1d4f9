//! Operations in flight: each owns its buffers from the call to UCX until UCX is done with them.
//!
//! ```text
//!             begin             answer: a request          callback
//!   free ---------------> starting ---------------> flying ---------> free, reported
//!                            |  answer: done, or an error  |
//!                            +--------------------------------------> free, returned by the call
//!                            |  callback                   |    answer: a request
//!                            +----------> ended early -----|---------------> free, reported
//!                                                          |  forgotten            callback
//!                                                          +--> withheld, reported ------> free
//! ```
//!
//! A forgotten operation (see [`crate::forgotten`]) is reported as failed, without its buffers: UCX
//! may still use them, as far as anyone can tell, so they stay here until it calls back or the
//! worker is destroyed.
//!
//! The record of an operation has a fixed place, which UCX gets as `user_data`; it is used again
//! after the operation ended, so that a send that UCX completes at once allocates nothing.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;

use ogive_buf::{ArenaId, Buf, PartMut};

use crate::alive::{Counted, OfOperation};
use crate::core::Core;
use crate::endpoint::{EndpointId, EndpointState};
use crate::error::Answer;
use crate::limits::OPERATIONS_MAX;
use crate::memory::RawKey;
use crate::{UcxError, sys};

/// What a call returned: the result at once, or nothing yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// UCX completed it at once. No [`Completion`] follows.
    Now(T),
    /// It goes on and owns its buffers; a [`Completion`] with the token follows.
    Later,
}

impl<T> Progress<T> {
    /// Changes what came at once.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Progress<U> {
        match self {
            Progress::Now(value) => Progress::Now(f(value)),
            Progress::Later => Progress::Later,
        }
    }
}

/// What a send returned; `Now` gives the header back for reuse.
pub type Sent = Progress<Vec<u8>>;

/// An operation that ended.
#[derive(Debug)]
pub struct Completion {
    /// The token given with it.
    pub token: u64,
    /// Whether it worked. After an error the contents of a buffer to be written are unspecified.
    pub result: Result<(), UcxError>,
    /// What it was, with its buffers.
    pub what: Done,
}

/// Kinds of operations, with the buffers they give back. After success they always do; after an
/// error they do not when UCX did not say that it is done with them (see
/// [`crate::Worker::withheld`]).
#[derive(Debug)]
pub enum Done {
    /// A send: the receiver may not have it yet, but the buffers are free.
    Sent {
        /// The header.
        header: Vec<u8>,
        /// The data, if there was any and it is given back.
        payload: Option<Buf>,
    },
    /// A receive.
    Received {
        /// The buffer, longer than the message if it was given so.
        into: Option<PartMut>,
        /// Bytes of the message.
        len: usize,
    },
    /// A put: the buffer is free; `flush` says when the peer's memory has the data.
    Put {
        /// The data.
        from: Option<Buf>,
    },
    /// A get.
    Got {
        /// The buffer, filled.
        into: Option<PartMut>,
    },
    /// A flush: what was sent and put before it has arrived.
    Flushed,
}

/// What an operation in flight owns.
pub(crate) enum Owned {
    Send {
        header: Vec<u8>,
        payload: Option<Buf>,
    },
    Receive {
        into: PartMut,
        len: usize,
    },
    Put {
        from: Buf,
        _key: Rc<RawKey>,
    },
    Get {
        into: PartMut,
        _key: Rc<RawKey>,
    },
    Flush,
    /// UCX calls the error handler with this endpoint until it is closed.
    Close {
        _endpoint: Rc<EndpointState>,
    },
    /// A flush after a close of this endpoint, which ended its operations with this error.
    Settle {
        closed: EndpointId,
        error: UcxError,
    },
}

impl Owned {
    /// What the completion gives back; `None` for what only this crate knows of.
    fn done(self) -> Option<Done> {
        Some(match self {
            Owned::Send { header, payload } => Done::Sent { header, payload },
            Owned::Receive { into, len } => Done::Received { into: Some(into), len },
            Owned::Put { from, .. } => Done::Put { from: Some(from) },
            Owned::Get { into, .. } => Done::Got { into: Some(into) },
            Owned::Flush => Done::Flushed,
            Owned::Close { .. } | Owned::Settle { .. } => return None,
        })
    }

    /// What a forgotten operation was, without its buffers.
    fn forgotten(&self) -> Option<Done> {
        Some(match self {
            Owned::Send { .. } => Done::Sent { header: Vec::new(), payload: None },
            Owned::Receive { len, .. } => Done::Received { into: None, len: *len },
            Owned::Put { .. } => Done::Put { from: None },
            Owned::Get { .. } => Done::Got { into: None },
            Owned::Flush => Done::Flushed,
            Owned::Close { .. } | Owned::Settle { .. } => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    Starting,
    EndedEarly,
    Flying,
    Withheld,
}

pub(crate) struct Operation {
    index: u32,
    stage: Cell<Stage>,
    core: Cell<*const Core>,
    endpoint: Cell<Option<EndpointId>>,
    token: Cell<u64>,
    owned: Cell<Option<Owned>>,
    counted: Cell<Option<Counted<OfOperation>>>,
}

/// The records of all operations of a worker.
#[derive(Default)]
pub(crate) struct Slab {
    /// Boxed: UCX holds their addresses. Grows to the most that were in flight at once.
    #[allow(clippy::vec_box)] // They must not move when the vector grows.
    records: RefCell<Vec<Box<Operation>>>,
    free: RefCell<Vec<u32>>,
    in_flight: Cell<usize>,
    withheld: Cell<usize>,
}

impl Slab {
    /// An operation that is about to be started.
    #[inline]
    pub(crate) fn begin(
        &self,
        core: &Core,
        endpoint: Option<EndpointId>,
        token: u64,
        owned: Owned,
    ) -> Result<&Operation, UcxError> {
        if self.in_flight.get() >= OPERATIONS_MAX {
            return Err(UcxError::TooManyOperations(OPERATIONS_MAX));
        }
        Ok(self.start(core, endpoint, token, owned))
    }

    /// A close never fails for lack of room: it makes room.
    pub(crate) fn begin_close(&self, core: &Core, state: Rc<EndpointState>) -> &Operation {
        let id = Some(state.id);
        self.start(core, id, 0, Owned::Close { _endpoint: state })
    }

    /// A flush after a close.
    pub(crate) fn begin_settle(
        &self,
        core: &Core,
        closed: EndpointId,
        error: UcxError,
    ) -> &Operation {
        self.start(core, None, 0, Owned::Settle { closed, error })
    }

    #[inline]
    fn start(
        &self,
        core: &Core,
        endpoint: Option<EndpointId>,
        token: u64,
        owned: Owned,
    ) -> &Operation {
        let index = self.free.borrow_mut().pop();
        let index = index.unwrap_or_else(|| self.add());
        let record: *const Operation = &raw const *self.records.borrow()[index as usize];
        // SAFETY: records are boxed and dropped only with the slab, so they stay where they are;
        // they are used through shared references only.
        let operation = unsafe { &*record };
        assert_eq!(operation.stage.replace(Stage::Starting), Stage::Free);
        operation.core.set(core);
        operation.endpoint.set(endpoint);
        operation.token.set(token);
        operation.owned.set(Some(owned));
        self.in_flight.set(self.in_flight.get() + 1);
        operation
    }

    fn add(&self) -> u32 {
        let mut records = self.records.borrow_mut();
        let index = records.len() as u32;
        records.push(Box::new(Operation {
            index,
            stage: Cell::new(Stage::Free),
            core: Cell::new(std::ptr::null()),
            endpoint: Cell::new(None),
            token: Cell::new(0),
            owned: Cell::new(None),
            counted: Cell::new(None),
        }));
        index
    }

    /// Ends an operation; what it still owns is dropped.
    #[inline]
    pub(crate) fn end(&self, operation: &Operation) {
        let stage = operation.stage.replace(Stage::Free);
        assert_ne!(stage, Stage::Free, "an operation ended twice");
        drop(operation.owned.take());
        operation.counted.take();
        let count = if stage == Stage::Withheld { &self.withheld } else { &self.in_flight };
        count.set(count.get() - 1);
        self.free.borrow_mut().push(operation.index);
    }

    /// Operations that were begun and have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Operations that were reported as failed and whose buffers UCX may still have.
    pub(crate) fn withheld(&self) -> usize {
        self.withheld.get()
    }

    /// True when operations of the endpoint are in flight.
    pub(crate) fn any_of(&self, endpoint: EndpointId) -> bool {
        self.in_flight.get() > 0 && self.records.borrow().iter().any(|op| op.is_of(endpoint))
    }

    /// Reports what is still in flight of an endpoint as failed, and keeps the buffers.
    pub(crate) fn withhold(&self, core: &Core, endpoint: EndpointId, error: &UcxError) {
        let records = self.records.borrow();
        let forgotten: Vec<Completion> = records
            .iter()
            .filter(|operation| operation.is_of(endpoint))
            .filter_map(|operation| {
                let owned = operation.owned.take();
                let what = owned.as_ref().and_then(Owned::forgotten);
                operation.owned.set(owned);
                let what = what?;
                operation.stage.set(Stage::Withheld);
                operation.counted.take();
                self.in_flight.set(self.in_flight.get() - 1);
                self.withheld.set(self.withheld.get() + 1);
                Some(Completion { token: operation.token.get(), result: Err(error.clone()), what })
            })
            .collect();
        drop(records);
        forgotten.into_iter().for_each(|completion| core.complete(completion));
    }

    /// The UCX worker is gone, and with it all that used the buffers of what was in flight.
    pub(crate) fn abandon(&self) {
        let records = std::mem::take(&mut *self.records.borrow_mut());
        self.free.borrow_mut().clear();
        self.in_flight.set(0);
        self.withheld.set(0);
        drop(records);
    }
}

impl Operation {
    /// The operation that a callback is about.
    ///
    /// # Safety
    ///
    /// `user_data` comes from [`Operation::params`], and the operation has not ended.
    pub(crate) unsafe fn of<'a>(user_data: *mut c_void) -> &'a Operation {
        // SAFETY: as the caller promises.
        let operation = unsafe { &*user_data.cast_const().cast::<Operation>() };
        assert_ne!(operation.stage.get(), Stage::Free, "UCX completed an operation twice");
        operation
    }

    pub(crate) fn core(&self) -> &Core {
        // SAFETY: set by `start`; a core outlives its slab, and UCX calls back only while the core
        // is alive.
        unsafe { &*self.core.get() }
    }

    pub(crate) fn endpoint(&self) -> Option<EndpointId> {
        self.endpoint.get()
    }

    /// True when it is in flight, of this endpoint, and of the user.
    fn is_of(&self, endpoint: EndpointId) -> bool {
        self.stage.get() == Stage::Flying && self.endpoint.get() == Some(endpoint)
    }

    /// Parameters that lead a callback back here; the caller sets the callback.
    #[inline]
    pub(crate) fn params(&self) -> sys::ucp_request_param_t {
        // SAFETY: numbers, pointers and a union of them, for all of which zero is a value.
        let mut params: sys::ucp_request_param_t = unsafe { std::mem::zeroed() };
        params.op_attr_mask = sys::UCP_OP_ATTR_FIELD_CALLBACK | sys::UCP_OP_ATTR_FIELD_USER_DATA;
        params.user_data = (&raw const *self).cast_mut().cast();
        params
    }

    /// As [`Operation::params`], for memory of the host (arena, start, length), registered when its
    /// arena is.
    #[inline]
    pub(crate) fn params_for(
        &self,
        memory: Option<(ArenaId, *const u8, usize)>,
    ) -> sys::ucp_request_param_t {
        let mut params = self.params();
        params.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_MEMORY_TYPE;
        params.memory_type = sys::UCS_MEMORY_TYPE_HOST;
        let handle =
            memory.and_then(|(arena, start, len)| self.core().memory_handle(arena, start, len));
        if let Some(handle) = handle {
            params.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_MEMH;
            params.memh = handle;
        }
        params
    }

    /// Looks at what UCX answered. True when it goes on, or ended meanwhile and was reported; false
    /// when the caller ends it.
    pub(crate) fn settle(&self, answer: sys::ucs_status_ptr_t) -> bool {
        self.answer(answer).is_ok_and(|progress| progress == Progress::Later)
    }

    #[inline]
    fn answer(&self, answer: sys::ucs_status_ptr_t) -> Result<Progress<()>, UcxError> {
        match Answer::of(answer)? {
            Answer::Done => Ok(Progress::Now(())),
            Answer::Later => {
                match self.stage.get() {
                    Stage::Starting => {
                        self.stage.set(Stage::Flying);
                        self.counted.set(Some(Counted::new()));
                    }
                    // Its callback came before the call returned.
                    Stage::EndedEarly => self.core().slab.end(self),
                    stage => panic!("an operation was answered while {stage:?}"),
                }
                Ok(Progress::Later)
            }
        }
    }

    /// As [`Operation::settle`], for callers that want what it owns back when it is done at once.
    #[inline]
    pub(crate) fn started(
        &self,
        answer: sys::ucs_status_ptr_t,
    ) -> Result<Progress<Owned>, UcxError> {
        let answer = self.answer(answer);
        if let Ok(Progress::Later) = answer {
            return Ok(Progress::Later);
        }
        let owned = self.owned.take().expect("an operation owns its buffers until it ended");
        self.core().slab.end(self);
        answer.map(|_| Progress::Now(owned))
    }

    /// The endpoint whose close this flush is about, and its error.
    pub(crate) fn settled(&self) -> Option<(EndpointId, UcxError)> {
        match self.owned.take() {
            Some(Owned::Settle { closed, error }) => Some((closed, error)),
            _ => None,
        }
    }

    /// A callback came. True when the record is to be ended, false when the call that started it
    /// is still to return.
    pub(crate) fn finished(&self) -> bool {
        if self.stage.get() == Stage::Starting {
            self.stage.set(Stage::EndedEarly);
            return false;
        }
        true
    }

    /// A callback came with its result: reports it with the buffers.
    fn report(&self, result: Result<(), UcxError>, received: Option<usize>) {
        let core = self.core();
        if self.stage.get() == Stage::Withheld {
            return core.slab.end(self);
        }
        let token = self.token.get();
        let mut owned = self.owned.take().expect("an operation owns its buffers until it ended");
        if let (Owned::Receive { len, .. }, Some(received)) = (&mut owned, received) {
            *len = received;
        }
        if self.finished() {
            core.slab.end(self);
        }
        if let Some(what) = owned.done() {
            core.complete(Completion { token, result, what });
        }
    }
}

/// UCX's callback for send, put, get and flush.
pub(crate) unsafe extern "C" fn on_completed(
    request: *mut c_void,
    status: sys::ucs_status_t,
    operation: *mut c_void,
) {
    // SAFETY: `params` gave this operation, which the slab keeps in place until it ended.
    let operation = unsafe { Operation::of(operation) };
    // SAFETY: UCX hands the request over with its completion.
    unsafe { sys::ucp_request_free(request) };
    operation.report(UcxError::check(status), None);
}

/// UCX's callback for a receive.
pub(crate) unsafe extern "C" fn on_received(
    request: *mut c_void,
    status: sys::ucs_status_t,
    len: usize,
    operation: *mut c_void,
) {
    // SAFETY: `params` gave this operation, which the slab keeps in place until it ended.
    let operation = unsafe { Operation::of(operation) };
    // SAFETY: UCX hands the request over with its completion.
    unsafe { sys::ucp_request_free(request) };
    let result = UcxError::check(status);
    let received = result.is_ok().then_some(len);
    operation.report(result, received);
}
