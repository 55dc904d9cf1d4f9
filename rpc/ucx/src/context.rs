//! The context: which devices and transports UCX may use.

use std::rc::Rc;

use crate::alive::{Counted, OfContext};
use crate::{Config, UcxError, sys};

/// The oldest release whose interface is used here.
const OLDEST: (u32, u32, u32) = (1, 13, 0);

/// Version of the libucp that is loaded: major, minor, release.
pub fn version() -> (u32, u32, u32) {
    let (mut major, mut minor, mut release) = (0, 0, 0);
    // SAFETY: fills three numbers.
    unsafe { sys::ucp_get_version(&raw mut major, &raw mut minor, &raw mut release) };
    (major, minor, release)
}

/// Devices and transports, opened by its configuration, for active messages, put and get. Cloning
/// gives another handle; it is closed after the last handle and its last worker are gone.
#[derive(Clone)]
pub struct Context {
    raw: Rc<RawContext>,
}

pub(crate) struct RawContext {
    handle: sys::ucp_context_h,
    _counted: Counted<OfContext>,
}

impl Context {
    /// Opens the devices that `config` allows. `endpoints` is the number expected, by which UCX
    /// chooses transports that scale; it is no limit.
    ///
    /// Errors: [`UcxError::NoDevice`] when none of the transports exists here, errors of the
    /// configuration, [`UcxError::TooOld`].
    pub fn new(config: &Config, endpoints: usize) -> Result<Context, UcxError> {
        let found = version();
        if found < OLDEST {
            let found = format!("{}.{}.{}", found.0, found.1, found.2);
            return Err(UcxError::TooOld { found });
        }
        let config = config.read()?;
        let fields = sys::UCP_PARAM_FIELD_FEATURES
            | sys::UCP_PARAM_FIELD_REQUEST_SIZE
            | sys::UCP_PARAM_FIELD_ESTIMATED_NUM_EPS;
        let features = sys::UCP_FEATURE_AM | sys::UCP_FEATURE_RMA | sys::UCP_FEATURE_WAKEUP;
        // SAFETY: plain numbers and pointers, for all of which zero is a value.
        let mut params: sys::ucp_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = fields.into();
        params.features = features.into();
        params.estimated_num_eps = endpoints;
        let mut handle = std::ptr::null_mut();
        // SAFETY: parameters and configuration live through the call, and UCX fills the handle.
        let status = unsafe {
            sys::ucp_init_version(
                sys::UCP_API_MAJOR,
                sys::UCP_API_MINOR,
                &raw const params,
                config.handle(),
                &raw mut handle,
            )
        };
        UcxError::check(status)?;
        Ok(Context { raw: Rc::new(RawContext { handle, _counted: Counted::new() }) })
    }

    pub(crate) fn raw(&self) -> &Rc<RawContext> {
        &self.raw
    }
}

impl RawContext {
    pub(crate) fn handle(&self) -> sys::ucp_context_h {
        self.handle
    }
}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: initialised in `Context::new`. Workers and regions hold an Rc of this and are
        // gone.
        unsafe { sys::ucp_cleanup(self.handle) }
    }
}
