//! Addresses of NBD exports, as the NBD URI specification writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A host name or address, and a port.
    Tcp {
        /// Name or address, without the brackets of IPv6.
        host: String,
        /// Port.
        port: u16,
    },
}

/// `nbd://HOST[:PORT]/NAME` or `nbd+unix:///NAME?socket=PATH`; the name may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    /// Where the server listens.
    pub address: Address,
    /// Name of the export.
    pub export: String,
}

/// Port of NBD when the URI names none.
const DEFAULT_PORT: u16 = 10809;

/// Why an address was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Not one of the two schemes.
    #[error("`{0}` is no NBD address; write nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH")]
    Scheme(String),
    /// A unix address without its socket.
    #[error("`{0}` names no socket; write nbd+unix:///NAME?socket=PATH")]
    NoSocket(String),
    /// An empty host or a port that is no number.
    #[error("`{0}` has no valid host and port; write nbd://HOST:PORT/NAME")]
    HostPort(String),
    /// `%` without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("`{0}` has a bad %-escape; write % itself as %25")]
    Escape(String),
}

impl FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<NbdUri, UriError> {
        if let Some(rest) = text.strip_prefix("nbd+unix://") {
            return unix(text, rest);
        }
        match text.strip_prefix("nbd://") {
            Some(rest) => tcp(text, rest),
            None => Err(UriError::Scheme(text.to_owned())),
        }
    }
}

fn unix(whole: &str, rest: &str) -> Result<NbdUri, UriError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket="));
    let socket = socket.filter(|s| !s.is_empty());
    let socket = socket.ok_or_else(|| UriError::NoSocket(whole.to_owned()))?;
    let export = unescape(whole, path.strip_prefix('/').unwrap_or(path))?;
    Ok(NbdUri { address: Address::Unix(unescape(whole, socket)?.into()), export })
}

fn tcp(whole: &str, rest: &str) -> Result<NbdUri, UriError> {
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let bad = || UriError::HostPort(whole.to_owned());
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(digits) => digits.parse().map_err(|_| bad())?,
        None => DEFAULT_PORT,
    };
    if host.is_empty() {
        return Err(bad());
    }
    let address = Address::Tcp { host: host.to_owned(), port };
    Ok(NbdUri { address, export: unescape(whole, path)? })
}

fn unescape(whole: &str, text: &str) -> Result<String, UriError> {
    let bad = || UriError::Escape(whole.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@:".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = escape(&self.export);
        match &self.address {
            Address::Unix(path) => {
                write!(f, "nbd+unix:///{export}?socket={}", escape(&path.to_string_lossy()))
            }
            Address::Tcp { host, port } if host.contains(':') => {
                write!(f, "nbd://[{host}]:{port}/{export}")
            }
            Address::Tcp { host, port } => write!(f, "nbd://{host}:{port}/{export}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<NbdUri, UriError> {
        text.parse()
    }

    #[test]
    fn both_schemes() {
        let unix = parse("nbd+unix:///vol/a%20b?x=1&socket=/run/o.sock").unwrap();
        assert_eq!(unix.address, Address::Unix("/run/o.sock".into()));
        assert_eq!(unix.export, "vol/a b");
        let tcp = parse("nbd://localhost/v").unwrap();
        assert_eq!(tcp.address, Address::Tcp { host: "localhost".into(), port: 10809 });
        let v6 = parse("nbd://[::1]:99").unwrap();
        assert_eq!(v6.address, Address::Tcp { host: "::1".into(), port: 99 });
        assert_eq!(v6.export, "");
    }

    #[test]
    fn refusals_name_the_form_to_write() {
        assert!(matches!(parse("http://x"), Err(UriError::Scheme(_))));
        assert!(matches!(parse("nbd+unix:///v"), Err(UriError::NoSocket(_))));
        assert!(matches!(parse("nbd+unix:///v?socket="), Err(UriError::NoSocket(_))));
        assert!(matches!(parse("nbd:///v"), Err(UriError::HostPort(_))));
        assert!(matches!(parse("nbd://h:x/v"), Err(UriError::HostPort(_))));
        assert!(matches!(parse("nbd://[::1/v"), Err(UriError::HostPort(_))));
        for bad in ["nbd://h/%", "nbd://h/%1", "nbd://h/%zz", "nbd://h/%ff", "nbd://h/%+1"] {
            assert!(matches!(parse(bad), Err(UriError::Escape(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(export in ".{0,40}", path in "/.{1,40}", port in 0u16..) {
            let unix = NbdUri { address: Address::Unix(path.into()), export: export.clone() };
            prop_assert_eq!(unix.to_string().parse::<NbdUri>(), Ok(unix));
            let tcp = NbdUri { address: Address::Tcp { host: "h".into(), port }, export };
            prop_assert_eq!(tcp.to_string().parse::<NbdUri>(), Ok(tcp));
        }

        #[test]
        fn nothing_panics(text in ".{0,60}") {
            let _ = text.parse::<NbdUri>();
            let _ = format!("nbd://{text}").parse::<NbdUri>();
            let _ = format!("nbd+unix://{text}").parse::<NbdUri>();
        }
    }
}
