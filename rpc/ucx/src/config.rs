//! UCX's settings: given in code, overridden by `UCX_<KEY>` in the environment.
#![allow(clippy::disallowed_methods)] // Settings may come from the environment.

use std::ffi::{CStr, CString};
use std::io;

use crate::UcxError;
use crate::sys;

/// Settings for a [`crate::Context`], by UCX's names without `UCX_` (`TLS`, `NET_DEVICES`).
///
/// A variable `UCX_<KEY>` of the environment wins over the same key in code, so that an operator
/// has the last word. UCX writes its log to the standard output, where it would mix with what a
/// program prints; so `LOG_LEVEL`, a setting of the whole process, is `fatal` unless given. What
/// UCX would log as errors is reported in types by this crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    entries: Vec<(String, String)>,
}

/// Settings of transports that may be given in code, and their names in the transports' own tables.
///
/// UCX learns of those only as it opens the transport, and answers a wrong name with a line in its
/// log and nothing else. Up to 1.13 it compares with the name in the transport's table, later with
/// the whole name; so it is given both.
const TRANSPORT_KEYS: [(&str, &str); 20] = [
    ("IB_GID_INDEX", "GID_INDEX"),
    ("IB_SL", "IB_SL"),
    ("IB_TRAFFIC_CLASS", "IB_TRAFFIC_CLASS"),
    ("POSIX_DIR", "DIR"),
    ("POSIX_ERROR_HANDLING", "MM_ERROR_HANDLING"),
    ("POSIX_FIFO_SIZE", "MM_FIFO_SIZE"),
    ("POSIX_SEG_SIZE", "MM_SEG_SIZE"),
    ("POSIX_USE_PROC_LINK", "USE_PROC_LINK"),
    ("RC_RETRY_COUNT", "RC_RETRY_COUNT"),
    ("RC_RNR_RETRY_COUNT", "RC_RNR_RETRY_COUNT"),
    ("RC_RNR_TIMEOUT", "RC_RNR_TIMEOUT"),
    ("RC_TIMEOUT", "RC_TIMEOUT"),
    ("SYSV_ERROR_HANDLING", "MM_ERROR_HANDLING"),
    ("SYSV_FIFO_SIZE", "MM_FIFO_SIZE"),
    ("SYSV_SEG_SIZE", "MM_SEG_SIZE"),
    ("TCP_CM_REUSEADDR", "REUSEADDR"),
    ("TCP_KEEPIDLE", "KEEPIDLE"),
    ("TCP_KEEPINTVL", "KEEPINTVL"),
    ("UD_TIMEOUT", "UD_TIMEOUT"),
    ("UD_VERBS_ETH_DGID_CHECK", "UD_ETH_DGID_CHECK"),
];

const LOG_LEVEL: &str = "LOG_LEVEL";

impl Config {
    /// UCX's defaults.
    pub fn new() -> Config {
        Config::default()
    }

    /// Gives `key` a value; the last one given counts. Checked by [`crate::Context::new`].
    pub fn set(mut self, key: &str, value: &str) -> Config {
        self.entries.retain(|(known, _)| known != key);
        self.entries.push((key.into(), value.into()));
        self
    }

    /// The value given in code.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Reads UCX's configuration of the environment, and changes it accordingly.
    pub(crate) fn read(&self) -> Result<RawConfig, UcxError> {
        self.set_log_level()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: both names may be null, and UCX fills the handle.
        let status =
            unsafe { sys::ucp_config_read(std::ptr::null(), std::ptr::null(), &raw mut handle) };
        UcxError::check(status)?;
        let raw = RawConfig(handle);
        // Of the two names of a transport's setting one is always unknown, see `TRANSPORT_KEYS`.
        if std::env::var_os("UCX_WARN_INVALID_CONFIG").is_none() {
            raw.modify("WARN_INVALID_CONFIG", "n")?;
        }
        let known = raw.keys().map_err(|_| UcxError::NoMemory)?;
        for (key, value) in &self.entries {
            if key == LOG_LEVEL {
                continue;
            }
            let own = TRANSPORT_KEYS.iter().find(|(name, _)| name == key).map(|(_, own)| *own);
            if own.is_none() && !known.iter().any(|name| name == key) {
                return Err(UcxError::UnknownKey(key.clone()));
            }
            if std::env::var_os(format!("UCX_{key}")).is_none() {
                raw.modify(key, value)?;
                own.map_or(Ok(()), |own| raw.modify(own, value))?;
            }
        }
        Ok(raw)
    }

    fn set_log_level(&self) -> Result<(), UcxError> {
        if std::env::var_os("UCX_LOG_LEVEL").is_some() {
            return Ok(());
        }
        let level = self.get(LOG_LEVEL).unwrap_or("fatal");
        let (key, value) = pair(LOG_LEVEL, level)?;
        // SAFETY: two strings that end with a zero; UCX copies them.
        let status = unsafe { sys::ucs_global_opts_set_value(key.as_ptr(), value.as_ptr()) };
        UcxError::check(status).map_err(|_| bad(LOG_LEVEL, level))
    }
}

/// A `ucp_config_t`.
pub(crate) struct RawConfig(*mut sys::ucp_config_t);

impl RawConfig {
    pub(crate) fn handle(&self) -> *const sys::ucp_config_t {
        self.0
    }

    fn modify(&self, key: &str, value: &str) -> Result<(), UcxError> {
        let (name, text) = pair(key, value)?;
        // SAFETY: a live configuration and two strings that end with a zero; UCX copies them.
        let status = unsafe { sys::ucp_config_modify(self.0, name.as_ptr(), text.as_ptr()) };
        UcxError::check(status).map_err(|_| bad(key, value))
    }

    /// Names of the settings that the context itself has, without `UCX_`.
    fn keys(&self) -> io::Result<Vec<String>> {
        let flags = sys::UCS_CONFIG_PRINT_CONFIG | sys::UCS_CONFIG_PRINT_HIDDEN;
        // SAFETY: a live configuration, a stream that is open, and a title that may be null.
        let text = printed(|stream| unsafe {
            sys::ucp_config_print(self.0, stream, std::ptr::null(), flags);
        })?;
        let name = |line: &str| {
            let (name, _) = line.strip_prefix("UCX_")?.split_once('=')?;
            Some(name.to_owned())
        };
        Ok(text.lines().filter_map(name).collect())
    }
}

impl Drop for RawConfig {
    fn drop(&mut self) {
        // SAFETY: read by `Config::read`, released only here.
        unsafe { sys::ucp_config_release(self.0) }
    }
}

/// What a function of UCX prints to a stream.
pub(crate) fn printed(print: impl FnOnce(*mut libc::FILE)) -> io::Result<String> {
    let (mut text, mut len) = (std::ptr::null_mut(), 0);
    // SAFETY: the C library fills both places as the stream is flushed and closed.
    let stream = unsafe { libc::open_memstream(&raw mut text, &raw mut len) };
    if stream.is_null() {
        return Err(io::Error::last_os_error());
    }
    print(stream);
    // SAFETY: the stream is open and closed only here. `text` then holds a string that ends with a
    // zero and belongs to this function.
    unsafe {
        libc::fclose(stream);
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        Ok(owned)
    }
}

fn pair(key: &str, value: &str) -> Result<(CString, CString), UcxError> {
    match (CString::new(key), CString::new(value)) {
        (Ok(key), Ok(value)) => Ok((key, value)),
        _ => Err(bad(key, value)),
    }
}

fn bad(key: &str, value: &str) -> UcxError {
    UcxError::BadValue { key: key.into(), value: value.into() }
}
