//! What can go wrong, by type: UCX's status codes, and what this crate refuses by itself.

use std::ffi::CStr;

use crate::sys;

/// Why an operation, an endpoint or an object could not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UcxError {
    /// The endpoint was closed by this side, so its operations ended early.
    #[error("canceled: the endpoint was closed by this side")]
    Canceled,
    /// The peer closed the connection or its process died.
    #[error("connection reset by the peer")]
    ConnectionReset,
    /// The peer does not answer, or its host cannot be reached any more.
    #[error("the peer does not answer any more")]
    EndpointTimeout,
    /// No transport that both ends have leads there.
    #[error("unreachable: no transport that is allowed here (see UCX_TLS) leads to the peer")]
    Unreachable,
    /// The peer refused the connection, or nobody listens there.
    #[error("the peer refused the connection, or nobody listens there")]
    Rejected,
    /// The connection is not made yet, or was closed.
    #[error("not connected")]
    NotConnected,
    /// No device for the transports that are asked for.
    #[error("no device for the transports asked for (UCX_TLS, UCX_NET_DEVICES); see `ucx_info -d`")]
    NoDevice,
    /// The local network, or a memory lock, cannot be used.
    #[error("input/output error of the device; is `ulimit -l` (locked memory) large enough?")]
    Io,
    /// Memory ran out.
    #[error("out of memory, or above the limit of locked memory (`ulimit -l`)")]
    NoMemory,
    /// Received data does not fit.
    #[error("message of {message} bytes does not fit into a buffer of {buffer} bytes")]
    Truncated {
        /// Length of the message.
        message: usize,
        /// Length of the buffer.
        buffer: usize,
    },
    /// Anything else that UCX reports.
    #[error("UCX reports: {text} (status {code})")]
    Status {
        /// The `ucs_status_t`.
        code: i8,
        /// UCX's words for it.
        text: String,
    },

    /// The worker of this object is gone.
    #[error("the worker of this object was shut down")]
    ShutDown,
    /// The installed library is older than this crate needs.
    #[error("libucp {found} is too old: 1.13 or newer is needed; install a newer libucx")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// The configuration names a key that UCX does not have.
    #[error("UCX has no setting `{0}`; `ucx_info -f` lists them (here without `UCX_`)")]
    UnknownKey(String),
    /// The configuration gives a key a value that UCX does not take.
    #[error("UCX does not take {key}={value}; `ucx_info -cf` says what {key} means")]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A header above [`crate::Worker::max_am_header`].
    #[error("header of {bytes} bytes, at most {max} are possible")]
    HeaderTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More operations in flight than [`crate::limits::OPERATIONS_MAX`].
    #[error("{0} operations are in flight already; wait until some are completed")]
    TooManyOperations(usize),
    /// Bytes that are no address or description, or were cut or changed on the way.
    #[error("not {0}, or damaged on the way")]
    Damaged(&'static str),
    /// An address or description from another release of UCX, which need not be compatible.
    #[error("the peer has UCX {}.{}, this end {}.{}; they need not understand each other",
        theirs.0, theirs.1, ours.0, ours.1)]
    PeerVersion {
        /// Major and minor number.
        theirs: (u16, u16),
        /// Major and minor number.
        ours: (u16, u16),
    },
    /// Remote memory is used with the endpoint it was described for, and within its length.
    #[error("bytes {offset}..{end} are outside of the remote memory of {len} bytes")]
    OutOfRange {
        /// First byte.
        offset: usize,
        /// One past the last byte.
        end: usize,
        /// Length of the remote memory.
        len: usize,
    },
    /// An object was used with a worker, endpoint or pool that it does not belong to.
    #[error("{0} belongs to another owner")]
    Foreign(&'static str),
}

impl UcxError {
    /// The error of a negative status.
    pub(crate) fn of(status: sys::ucs_status_t) -> UcxError {
        match status {
            sys::UCS_ERR_CANCELED => UcxError::Canceled,
            sys::UCS_ERR_CONNECTION_RESET => UcxError::ConnectionReset,
            sys::UCS_ERR_ENDPOINT_TIMEOUT | sys::UCS_ERR_TIMED_OUT => UcxError::EndpointTimeout,
            sys::UCS_ERR_UNREACHABLE => UcxError::Unreachable,
            sys::UCS_ERR_REJECTED => UcxError::Rejected,
            sys::UCS_ERR_NOT_CONNECTED => UcxError::NotConnected,
            sys::UCS_ERR_NO_DEVICE => UcxError::NoDevice,
            sys::UCS_ERR_IO_ERROR => UcxError::Io,
            sys::UCS_ERR_NO_MEMORY => UcxError::NoMemory,
            code => UcxError::Status { code, text: text(code) },
        }
    }

    /// Ok for a status that is no error.
    pub(crate) fn check(status: sys::ucs_status_t) -> Result<(), UcxError> {
        if status < 0 { Err(UcxError::of(status)) } else { Ok(()) }
    }

    /// True when it says that the peer is gone, or cannot be reached any more.
    pub fn is_peer_gone(&self) -> bool {
        match self {
            UcxError::ConnectionReset
            | UcxError::EndpointTimeout
            | UcxError::NotConnected
            | UcxError::Unreachable => true,
            UcxError::Status { code, .. } => {
                let endpoint = sys::UCS_ERR_LAST_ENDPOINT_FAILURE..=sys::UCS_ERR_FIRST_LINK_FAILURE;
                endpoint.contains(code)
            }
            _ => false,
        }
    }
}

fn text(status: sys::ucs_status_t) -> String {
    // SAFETY: UCX answers every value with a static text; the one for unknown values lies in a
    // buffer of the thread, and is copied at once.
    let text = unsafe { CStr::from_ptr(sys::ucs_status_string(status)) };
    text.to_string_lossy().into_owned()
}

/// What a call that may go on in the background returned.
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The callback will follow, with this request.
    Later,
}

impl Answer {
    pub(crate) fn of(pointer: sys::ucs_status_ptr_t) -> Result<Answer, UcxError> {
        let value = pointer as isize;
        match value {
            0 => Ok(Answer::Done),
            // As `UCS_PTR_IS_ERR`: the last addresses are negative status codes.
            _ if value < 0 && value >= sys::UCS_ERR_LAST as isize => {
                Err(UcxError::of(value as sys::ucs_status_t))
            }
            _ => Ok(Answer::Later),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_types() {
        assert_eq!(UcxError::check(sys::UCS_OK), Ok(()));
        assert_eq!(UcxError::check(sys::UCS_INPROGRESS), Ok(()));
        assert_eq!(UcxError::of(sys::UCS_ERR_CANCELED), UcxError::Canceled);
        assert!(UcxError::of(sys::UCS_ERR_CONNECTION_RESET).is_peer_gone());
        assert!(UcxError::of(sys::UCS_ERR_ENDPOINT_TIMEOUT).is_peer_gone());
        assert!(UcxError::of(-45).is_peer_gone() && !UcxError::of(-30).is_peer_gone());
        let other = UcxError::of(sys::UCS_ERR_BUSY);
        assert!(other.to_string().contains("busy") && !other.is_peer_gone(), "{other}");
    }

    #[test]
    fn answers_are_told_apart() {
        assert!(matches!(Answer::of(std::ptr::null_mut()), Ok(Answer::Done)));
        let request = 0x7f00_1234_5678_usize as sys::ucs_status_ptr_t;
        assert!(matches!(Answer::of(request), Ok(Answer::Later)));
        for code in [-1i8, -16, -100] {
            let pointer = code as isize as sys::ucs_status_ptr_t;
            assert_eq!(Answer::of(pointer).err(), Some(UcxError::of(code)));
        }
    }
}
