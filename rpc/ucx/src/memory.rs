//! Memory that the devices may reach: arenas of a pool, registered once, and memory of the peer.

use std::fmt;
use std::rc::Rc;

use ogive_buf::{ArenaId, ArenaInfo, PartMut, Pool};

use crate::alive::{Counted, OfKey, OfRegion};
use crate::context::RawContext;
use crate::core::{Core, Disposal};
use crate::endpoint::EndpointId;
use crate::envelope::{self, Content};
use crate::limits::KEY_BYTES_MAX;
use crate::{UcxError, sys};

/// An arena that is registered with the devices of a context. Operations on buffers inside it find
/// it by themselves; the object is for [`MemoryRegion::expose`].
#[derive(Clone)]
pub struct MemoryRegion {
    raw: Rc<RawRegion>,
}

struct RawRegion {
    context: Rc<RawContext>,
    handle: sys::ucp_mem_h,
    arena: ArenaInfo,
    /// Registered memory must not be given back to the system.
    _pool: Pool,
    _counted: Counted<OfRegion>,
}

impl RawRegion {
    fn new(context: Rc<RawContext>, pool: &Pool, arena: ArenaInfo) -> Result<RawRegion, UcxError> {
        // SAFETY: plain numbers and pointers, for all of which zero is a value.
        let mut params: sys::ucp_mem_map_params_t = unsafe { std::mem::zeroed() };
        let fields = sys::UCP_MEM_MAP_PARAM_FIELD_ADDRESS
            | sys::UCP_MEM_MAP_PARAM_FIELD_LENGTH
            | sys::UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
        params.field_mask = fields.into();
        params.address = arena.start.cast_mut().cast();
        params.length = arena.len;
        params.memory_type = sys::UCS_MEMORY_TYPE_HOST;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the arena is memory of the pool, which the region keeps; UCX fills the handle.
        let status =
            unsafe { sys::ucp_mem_map(context.handle(), &raw const params, &raw mut handle) };
        UcxError::check(status)?;
        Ok(RawRegion { context, handle, arena, _pool: pool.clone(), _counted: Counted::new() })
    }

    fn covers(&self, start: *const u8, len: usize) -> bool {
        let offset = (start as usize).checked_sub(self.arena.start as usize);
        offset.is_some_and(|offset| offset + len <= self.arena.len)
    }
}

impl Drop for RawRegion {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped only here. Operations that use it are over: the core
        // keeps its regions longer than its worker.
        let status = unsafe { sys::ucp_mem_unmap(self.context.handle(), self.handle) };
        debug_assert_eq!(status, sys::UCS_OK);
    }
}

/// The registered arenas of a worker's pool, by their ids.
#[derive(Default)]
pub(crate) struct Regions {
    pool: Option<Pool>,
    regions: Vec<MemoryRegion>,
}

impl Regions {
    /// Registers the arenas that are new.
    fn register(&mut self, pool: &Pool, context: &Rc<RawContext>) -> Result<(), UcxError> {
        let own = self.pool.get_or_insert_with(|| pool.clone());
        if !own.is_same(pool) {
            return Err(UcxError::Foreign("the pool"));
        }
        if pool.arena_count() == self.regions.len() {
            return Ok(());
        }
        for arena in pool.arenas().into_iter().skip(self.regions.len()) {
            assert_eq!(arena.id.0 as usize, self.regions.len(), "arenas are numbered in order");
            let raw = RawRegion::new(Rc::clone(context), pool, arena)?;
            self.regions.push(MemoryRegion { raw: Rc::new(raw) });
        }
        Ok(())
    }

    fn get(&self, arena: ArenaId) -> Option<&MemoryRegion> {
        self.regions.get(arena.0 as usize)
    }
}

impl Core {
    pub(crate) fn register(&self, pool: &Pool) -> Result<(), UcxError> {
        self.open()?;
        let context = self.context()?;
        self.regions.borrow_mut().register(pool, &context)
    }

    pub(crate) fn region(&self, arena: ArenaId) -> Option<MemoryRegion> {
        self.regions.borrow().get(arena).cloned()
    }

    /// The registration of `len` bytes at `start`, said to lie in `arena`. A buffer of another pool
    /// may have the same id, so the place is compared.
    pub(crate) fn memory_handle(
        &self,
        arena: ArenaId,
        start: *const u8,
        len: usize,
    ) -> Option<sys::ucp_mem_h> {
        let regions = self.regions.borrow();
        let region = regions.get(arena)?;
        region.raw.covers(start, len).then_some(region.raw.handle)
    }
}

impl MemoryRegion {
    /// The arena.
    pub fn arena(&self) -> ArenaId {
        self.raw.arena.id
    }

    /// Gives peers access to `part`, which must lie in this region.
    pub fn expose(&self, part: PartMut) -> Result<Exposed, UcxError> {
        if !self.raw.covers(part.as_ptr(), part.len()) {
            return Err(UcxError::Foreign("the buffer"));
        }
        let (mut key, mut len) = (std::ptr::null_mut(), 0);
        // SAFETY: context and registration are alive; UCX fills the place and the length.
        let status = unsafe {
            let context = self.raw.context.handle();
            sys::ucp_rkey_pack(context, self.raw.handle, &raw mut key, &raw mut len)
        };
        UcxError::check(status)?;
        let mut content = Vec::with_capacity(16 + len);
        content.extend_from_slice(&(part.as_ptr() as u64).to_le_bytes());
        content.extend_from_slice(&(part.len() as u64).to_le_bytes());
        // SAFETY: UCX gave `len` bytes at `key`, which are released once, after the copy.
        unsafe {
            content.extend_from_slice(std::slice::from_raw_parts(key.cast_const().cast(), len));
            sys::ucp_rkey_buffer_release(key);
        }
        let description = envelope::wrap(Content::Memory, &content);
        Ok(Exposed { part, description, _region: self.clone() })
    }
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryRegion({:?})", self.arena())
    }
}

/// Memory that peers may read and write by [`crate::Endpoint::get`] and put.
///
/// The access ends by agreement, not by force: the key covers the whole arena for as long as that
/// is registered. So descriptions go to members of the cluster only, and
/// [`Exposed::into_part`] comes after they said that they are done.
#[derive(Debug)]
pub struct Exposed {
    part: PartMut,
    description: Vec<u8>,
    _region: MemoryRegion,
}

impl Exposed {
    /// What the peer gives to [`crate::Endpoint::remote`].
    pub fn description(&self) -> &[u8] {
        &self.description
    }

    /// The memory again, with what peers wrote.
    pub fn into_part(self) -> PartMut {
        self.part
    }
}

/// Memory of a peer, as its [`Exposed::description`] says; bound to the endpoint that unpacked it.
pub struct RemoteMemory {
    pub(crate) key: Rc<RawKey>,
    pub(crate) endpoint: EndpointId,
    address: u64,
    len: usize,
    _hold: Hold,
}

/// A `ucp_rkey_h`.
pub(crate) struct RawKey {
    core: Rc<Core>,
    handle: sys::ucp_rkey_h,
    _counted: Counted<OfKey>,
}

/// Keeps the UCX worker: keys are released before it is destroyed.
struct Hold(Rc<Core>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.unhold();
    }
}

impl RemoteMemory {
    pub(crate) fn unpack(
        core: &Rc<Core>,
        endpoint: (EndpointId, sys::ucp_ep_h),
        description: &[u8],
    ) -> Result<RemoteMemory, UcxError> {
        let content = envelope::unwrap(Content::Memory, description, 16 + KEY_BYTES_MAX)?;
        let damaged = || UcxError::Damaged("a description of remote memory");
        let (address, rest) = content.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (len, key) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (address, len) = (u64::from_le_bytes(*address), u64::from_le_bytes(*len));
        if key.is_empty() || address.checked_add(len).is_none() {
            return Err(damaged());
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: the key is as a peer's UCX of the same version packed it, see `envelope`.
        let status =
            unsafe { sys::ucp_ep_rkey_unpack(endpoint.1, key.as_ptr().cast(), &raw mut handle) };
        UcxError::check(status)?;
        core.hold();
        let key = RawKey { core: Rc::clone(core), handle, _counted: Counted::new() };
        let (len, key) = (len as usize, Rc::new(key));
        let hold = Hold(Rc::clone(core));
        Ok(RemoteMemory { key, endpoint: endpoint.0, address, len, _hold: hold })
    }

    pub(crate) fn belongs_to(&self, core: &Rc<Core>) -> bool {
        Rc::ptr_eq(&self.key.core, core)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The peer's address of `len` bytes at `offset`.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Result<u64, UcxError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.address + offset as u64),
            end => {
                let end = end.unwrap_or(usize::MAX);
                Err(UcxError::OutOfRange { offset, end, len: self.len })
            }
        }
    }
}

impl fmt::Debug for RemoteMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteMemory({} bytes at {:?})", self.len, self.endpoint)
    }
}

impl RawKey {
    pub(crate) fn handle(&self) -> sys::ucp_rkey_h {
        self.handle
    }
}

impl Drop for RawKey {
    fn drop(&mut self) {
        // A key that only an abandoned operation had is gone with the memory of its worker.
        if !self.core.is_destroyed() {
            self.core.dispose(Disposal::Key(self.handle));
        }
    }
}
