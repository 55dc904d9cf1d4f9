//! What is exported.

use ogive_client::VolumeOp;

use super::protocol::{self, TransmissionFlags};

/// A volume as NBD clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name, at most 4096 bytes of UTF-8.
    pub name: String,
    /// A line for people; may be empty.
    pub description: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// True when writes are refused.
    pub read_only: bool,
}

/// Names an export of one [`Exports`] table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportId(pub usize);

/// The exports of a server.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    list: Vec<Export>,
}

/// A volume operation that a session asks for.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The volume.
    pub export: ExportId,
    /// To be given back with the result; unique in its session.
    pub token: u64,
    /// What to do; reads and writes are at most [`ogive_types::MAX_IO_BYTES`] long.
    pub op: VolumeOp,
}

impl Exports {
    /// A table of exports; their order gives them their ids.
    pub fn new(list: Vec<Export>) -> Exports {
        Exports { list }
    }

    /// The export that a client means by `name`; the empty name means the first.
    pub fn find(&self, name: &[u8]) -> Option<ExportId> {
        if name.is_empty() {
            return (!self.list.is_empty()).then_some(ExportId(0));
        }
        self.list.iter().position(|e| e.name.as_bytes() == name).map(ExportId)
    }

    /// An export of this table. Panics on an id of another one.
    pub fn get(&self, id: ExportId) -> &Export {
        &self.list[id.0]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.list.iter()
    }

    /// Changes a size. NBD has no way to tell connected clients; requests are checked against it
    /// from now on.
    pub fn resize(&mut self, id: ExportId, size_bytes: u64) {
        self.list[id.0].size_bytes = size_bytes;
    }
}

impl Export {
    /// What the protocol's transmission flags say of it.
    ///
    /// Many connections are safe: all of them feed one client, and a completed write is durable and
    /// visible to all. `CACHE` is not offered, for there is no cache to fill. Zeroing is always
    /// fast: it only changes maps.
    pub fn flags(&self, structured: bool) -> TransmissionFlags {
        let mut flags =
            protocol::FLAG_HAS_FLAGS | protocol::FLAG_SEND_FLUSH | protocol::FLAG_CAN_MULTI_CONN;
        if self.read_only {
            flags |= protocol::FLAG_READ_ONLY;
        } else {
            flags |= protocol::FLAG_SEND_FUA
                | protocol::FLAG_SEND_TRIM
                | protocol::FLAG_SEND_WRITE_ZEROES
                | protocol::FLAG_SEND_FAST_ZERO;
        }
        if structured {
            flags |= protocol::FLAG_SEND_DF;
        }
        flags
    }
}
