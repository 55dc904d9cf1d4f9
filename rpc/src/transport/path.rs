//! The ways on which frames can go, and which of them a user allows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A way on which the frames of a connection go; the better ones first. The order is also that of
/// the numbers in PATH frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Path {
    /// Remote direct memory access, through UCX.
    Rdma,
    /// Memory shared by two processes of one host, through UCX.
    Shm,
    /// Plain sockets, always there.
    Tcp,
}

impl Path {
    /// All of them, best first.
    pub const ALL: [Path; 3] = [Path::Rdma, Path::Shm, Path::Tcp];

    /// As endpoints, options and log lines write it.
    pub fn name(self) -> &'static str {
        match self {
            Path::Rdma => "rdma",
            Path::Shm => "shm",
            Path::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport `{0}`; write auto, tcp, shm or rdma")]
pub struct UnknownPath(pub String);

impl FromStr for Path {
    type Err = UnknownPath;

    fn from_str(text: &str) -> Result<Path, UnknownPath> {
        let found = Path::ALL.into_iter().find(|path| path.name() == text);
        found.ok_or_else(|| UnknownPath(text.into()))
    }
}

/// Which paths may be taken: `--transport`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathChoice {
    /// The best that both ends have.
    #[default]
    Auto,
    /// This one or none: a connection that cannot have it is closed.
    Only(Path),
}

impl PathChoice {
    /// True when connections may end up on `path`.
    pub fn allows(self, path: Path) -> bool {
        match self {
            PathChoice::Auto => true,
            PathChoice::Only(only) => only == path,
        }
    }
}

impl fmt::Display for PathChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathChoice::Auto => f.pad("auto"),
            PathChoice::Only(path) => path.fmt(f),
        }
    }
}

impl FromStr for PathChoice {
    type Err = UnknownPath;

    fn from_str(text: &str) -> Result<PathChoice, UnknownPath> {
        if text == "auto" { Ok(PathChoice::Auto) } else { text.parse().map(PathChoice::Only) }
    }
}

/// What went over one path since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Frames handed over for sending.
    pub frames_sent: u64,
    /// Frames received whole.
    pub frames_received: u64,
    /// Bytes of those sent: headers, bodies and payloads.
    pub bytes_sent: u64,
    /// Bytes of those received.
    pub bytes_received: u64,
    /// Payload bytes that were copied on their way into the buffer that the owner sees.
    pub copied_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_text() {
        for path in Path::ALL {
            assert_eq!(path.to_string().parse(), Ok(path));
            assert_eq!(path.to_string().parse(), Ok(PathChoice::Only(path)));
        }
        assert_eq!("auto".parse(), Ok(PathChoice::Auto));
        assert_eq!(PathChoice::Auto.to_string(), "auto");
        assert_eq!("quic".parse::<PathChoice>(), Err(UnknownPath("quic".into())));
        assert!("auto".parse::<Path>().is_err());
    }

    #[test]
    fn the_better_path_is_the_lesser() {
        assert!(Path::ALL.is_sorted());
    }
}
