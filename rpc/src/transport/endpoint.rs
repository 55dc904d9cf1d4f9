//! Where a peer is met, and what it offers there, as text.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use super::Path;

/// Where a peer is met over TCP, and the paths that it offers: `PATH[,PATH..]:HOST:PORT`, best
/// path first, as `rdma,shm,tcp:10.0.0.1:7001` or `tcp:[::1]:7001`.
///
/// `HOST` is an address, IPv6 in brackets. Names are resolved before use, with
/// [`Endpoint::resolve`], because a polled transport must not wait for a name server. Paths that
/// this release does not know are passed over, for a newer peer may offer them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(pub String);

/// Why a text is not an endpoint that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No paths, or none that this release knows.
    #[error(
        "endpoint `{0}` does not start with a path (rdma, shm, tcp); write tcp:127.0.0.1:7001 or \
         rdma,shm,tcp:127.0.0.1:7001"
    )]
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
    /// The endpoint that is met at `addr` and offers `paths`. Panics when there are none.
    pub fn new(paths: &[Path], addr: SocketAddr) -> Endpoint {
        let names: Vec<&str> = paths.iter().map(|path| path.name()).collect();
        Endpoint::from_parts(&names.join(","), addr)
    }

    /// The endpoint of a TCP address.
    pub fn tcp(addr: SocketAddr) -> Endpoint {
        Endpoint::new(&[Path::Tcp], addr)
    }

    /// The paths that it offers and this release knows, best first.
    pub fn paths(&self) -> Result<Vec<Path>, EndpointError> {
        let (scheme, _) = self.parts()?;
        let mut paths: Vec<Path> = known(scheme).collect();
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    /// The address at which it is met over TCP, whatever the path taken then.
    pub fn addr(&self) -> Result<SocketAddr, EndpointError> {
        let (_, rest) = self.parts()?;
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

    /// The same as [`Endpoint::addr`].
    pub fn tcp_addr(&self) -> Result<SocketAddr, EndpointError> {
        self.addr()
    }

    /// Endpoints with the addresses of the name in this one and the same paths; itself when it has
    /// an address already. Asks the system's resolver, so it may block for seconds: call it outside
    /// of the loops.
    pub fn resolve(&self) -> Result<Vec<Endpoint>, EndpointError> {
        match self.addr() {
            Err(EndpointError::Host(_)) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(vec![self.clone()]),
        }
        let unresolved = |why: String| EndpointError::Unresolved { endpoint: self.0.clone(), why };
        let (scheme, rest) = self.parts()?;
        let addrs = rest.to_socket_addrs().map_err(|e| unresolved(e.to_string()))?;
        let found: Vec<Endpoint> = addrs.map(|addr| Endpoint::from_parts(scheme, addr)).collect();
        if found.is_empty() { Err(unresolved("no address".into())) } else { Ok(found) }
    }

    fn from_parts(scheme: &str, addr: SocketAddr) -> Endpoint {
        assert!(!scheme.is_empty(), "an endpoint offers a path");
        Endpoint(format!("{scheme}:{addr}"))
    }

    /// The paths, and where it is met; at least one path is known.
    fn parts(&self) -> Result<(&str, &str), EndpointError> {
        let parts = self.0.split_once(':').filter(|(scheme, _)| known(scheme).next().is_some());
        parts.ok_or_else(|| EndpointError::Scheme(self.0.clone()))
    }
}

fn known(scheme: &str) -> impl Iterator<Item = Path> {
    scheme.split(',').filter_map(|name| name.parse().ok())
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
        Endpoint(text.into()).addr()
    }

    fn paths(text: &str) -> Result<Vec<Path>, EndpointError> {
        Endpoint(text.into()).paths()
    }

    #[test]
    fn addresses_survive_the_text() {
        for text in ["tcp:127.0.0.1:7001", "tcp:[::1]:7001", "tcp:0.0.0.0:0"] {
            let addr = parse(text).expect("valid");
            assert_eq!(Endpoint::tcp(addr).to_string(), text);
        }
        let text = "rdma,shm,tcp:[::1]:7001";
        let addr = parse(text).expect("valid");
        assert_eq!(Endpoint::new(&Path::ALL, addr).to_string(), text);
    }

    #[test]
    fn paths_are_those_that_are_known_best_first() {
        assert_eq!(paths("tcp:127.0.0.1:1"), Ok(vec![Path::Tcp]));
        assert_eq!(paths("rdma,shm,tcp:127.0.0.1:1"), Ok(Path::ALL.to_vec()));
        assert_eq!(paths("tcp,rdma,tcp:127.0.0.1:1"), Ok(vec![Path::Rdma, Path::Tcp]));
        assert_eq!(paths("cxl,shm:127.0.0.1:1"), Ok(vec![Path::Shm]), "a newer peer");
        for none in ["cxl:127.0.0.1:1", ":127.0.0.1:1", "", "tcp", " tcp:127.0.0.1:1"] {
            assert_eq!(paths(none), Err(EndpointError::Scheme(none.into())));
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert!(matches!(parse("127.0.0.1:7001"), Err(EndpointError::Scheme(_))));
        assert!(matches!(parse("tpc:127.0.0.1:7001"), Err(EndpointError::Scheme(_))));
        assert!(matches!(parse("tcp:127.0.0.1"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp:127.0.0.1:70000"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp::7001"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("tcp:"), Err(EndpointError::Port(_))));
        assert!(matches!(parse("shm,tcp:localhost:7001"), Err(EndpointError::Host(_))));
    }

    #[test]
    fn names_are_resolved_on_request_and_the_paths_stay() {
        let named = Endpoint("cxl,shm,tcp:localhost:7001".into());
        let found = named.resolve().expect("every host has it");
        assert!(found.iter().all(|e| e.addr().is_ok_and(|a| a.ip().is_loopback())));
        assert!(found.iter().all(|e| e.0.starts_with("cxl,shm,tcp:")));
        let same = Endpoint("tcp:[::1]:7001".into());
        assert_eq!(same.resolve(), Ok(vec![same.clone()]));
    }
}
