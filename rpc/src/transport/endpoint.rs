//! Where a peer listens, as text.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

/// Where a peer listens: `tcp:HOST:PORT` (other schemes come with other transports).
///
/// `HOST` is an address, IPv6 in brackets. Names are resolved before use, with
/// [`Endpoint::resolve`], because a polled transport must not wait for a name server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(pub String);

/// Why a text is not an endpoint that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No scheme, or one that this build does not have.
    #[error("endpoint `{0}` does not start with `tcp:`; write tcp:127.0.0.1:7001")]
    Scheme(String),
    /// No port, or not a number up to 65535.
    #[error("endpoint `{0}` has no valid port; write tcp:127.0.0.1:7001 or tcp:[::1]:7001")]
    Port(String),
    /// The host is not an address.
    #[error("endpoint `{0}` needs an address in place of a name; write tcp:127.0.0.1:7001")]
    Host(String),
    /// The name server has no address for it.
    #[error("endpoint `{endpoint}`: cannot resolve the name: {why}; check it, or use an address")]
    Unresolved {
        /// The text.
        endpoint: String,
        /// What the resolver said.
        why: String,
    },
}

impl Endpoint {
    /// The endpoint of a TCP address.
    pub fn tcp(addr: SocketAddr) -> Endpoint {
        Endpoint(format!("tcp:{addr}"))
    }

    /// The address in a `tcp:` endpoint.
    pub fn tcp_addr(&self) -> Result<SocketAddr, EndpointError> {
        let rest = self.tcp_part()?;
        if let Ok(addr) = rest.parse() {
            return Ok(addr);
        }
        match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Err(EndpointError::Host(self.0.clone()))
            }
            _ => Err(EndpointError::Port(self.0.clone())),
        }
    }

    /// Endpoints with the addresses of the name in this one; itself when it has an address already.
    /// Asks the system's resolver, so it may block for seconds: call it outside of the loops.
    pub fn resolve(&self) -> Result<Vec<Endpoint>, EndpointError> {
        match self.tcp_addr() {
            Err(EndpointError::Host(_)) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(vec![self.clone()]),
        }
        let unresolved = |why: String| EndpointError::Unresolved { endpoint: self.0.clone(), why };
        let addrs = self.tcp_part()?.to_socket_addrs().map_err(|e| unresolved(e.to_string()))?;
        let found: Vec<Endpoint> = addrs.map(Endpoint::tcp).collect();
        if found.is_empty() { Err(unresolved("no address".into())) } else { Ok(found) }
    }

    fn tcp_part(&self) -> Result<&str, EndpointError> {
        self.0.strip_prefix("tcp:").ok_or_else(|| EndpointError::Scheme(self.0.clone()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SocketAddr, EndpointError> {
        Endpoint(text.into()).tcp_addr()
    }

    #[test]
    fn addresses_survive_the_text() {
        for text in ["tcp:127.0.0.1:7001", "tcp:[::1]:7001", "tcp:0.0.0.0:0"] {
            let addr = parse(text).expect("valid");
            assert_eq!(Endpoint::tcp(addr).to_string(), text);
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert!(matches!(parse("127.0.0.1:7001"), Err(EndpointError::Scheme(_))));
        assert!(matches!(parse("rdma:127.0.0.1:7001"), Err(EndpointError::Scheme(_))));
        assert!(matches!(parse("tcp:127.0.0.1"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp:127.0.0.1:70000"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp::7001"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp:"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp:localhost:7001"), Err(EndpointError::Host(_))));
    }

    #[test]
    fn names_are_resolved_on_request() {
        let found = Endpoint("tcp:localhost:7001".into()).resolve().expect("every host has it");
        assert!(found.iter().all(|e| e.tcp_addr().is_ok_and(|a| a.ip().is_loopback())));
        let same = Endpoint("tcp:[::1]:7001".into());
        assert_eq!(same.resolve(), Ok(vec![same.clone()]));
    }
}
