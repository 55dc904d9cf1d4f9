//! The opening of a connection: fixed newstyle, one `NBD_OPT_GO`. It blocks, with a time-out.

// A shell: it opens sockets.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::limits::{HANDSHAKE_TIMEOUT, MAX_OPTION_REPLY_BYTES};
use crate::nbd::wire::{self, CLIENT_FLAGS, INIT_MAGIC, OPT_GO, OPTION_MAGIC, OPTION_REPLY_MAGIC};
use crate::nbd::{Address, NbdUri};

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers at the address.
    #[error("cannot connect to {address}: {error}; is the gateway running?")]
    Unreachable {
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The connection broke during the handshake.
    #[error("NBD handshake with {address} broke off: {error}")]
    Broken {
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The other end is no fixed-newstyle NBD server.
    #[error("{address} is no NBD server that this client can use: {what}")]
    Protocol {
        /// Where.
        address: Address,
        /// What it did.
        what: &'static str,
    },
    /// The server refuses the export.
    #[error("the server refuses export `{export}`: {reason}; `ogive volume list` shows volumes")]
    Refused {
        /// Name of the export.
        export: String,
        /// What the server said.
        reason: String,
    },
}

/// What the server says about an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// True when it takes no writes.
    pub(crate) read_only: bool,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Connects and negotiates; the descriptor is then in the transmission phase and non-blocking.
pub(crate) fn open(uri: &NbdUri) -> Result<(OwnedFd, Export), ConnectError> {
    let unreachable = |error| ConnectError::Unreachable { address: uri.address.clone(), error };
    match &uri.address {
        Address::Unix(path) => {
            let mut stream = UnixStream::connect(path).map_err(unreachable)?;
            stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(unreachable)?;
            stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(unreachable)?;
            let export = negotiate(&mut stream, uri)?;
            stream.set_nonblocking(true).map_err(unreachable)?;
            Ok((stream.into(), export))
        }
        Address::Tcp { host, port } => {
            let mut stream = connect_tcp(host, *port).map_err(unreachable)?;
            stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(unreachable)?;
            stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            let export = negotiate(&mut stream, uri)?;
            stream.set_nonblocking(true).map_err(unreachable)?;
            Ok((stream.into(), export))
        }
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn negotiate(stream: &mut dyn Stream, uri: &NbdUri) -> Result<Export, ConnectError> {
    let address = || uri.address.clone();
    let broken = |error| ConnectError::Broken { address: address(), error };
    let protocol = |what| ConnectError::Protocol { address: address(), what };
    if read_u64(stream).map_err(broken)? != INIT_MAGIC {
        return Err(protocol("it does not begin with NBDMAGIC"));
    }
    if read_u64(stream).map_err(broken)? != OPTION_MAGIC {
        return Err(protocol("it speaks oldstyle NBD"));
    }
    if read_u16(stream).map_err(broken)? & wire::FLAG_FIXED_NEWSTYLE == 0 {
        return Err(protocol("it does not speak fixed newstyle"));
    }
    stream.write_all(&hello(&uri.export)).map_err(broken)?;
    let mut found = None;
    loop {
        let reply = read_reply(stream).map_err(broken)?;
        match reply {
            Reply::Bad(what) => return Err(protocol(what)),
            Reply::Export(export) => found = Some(export),
            Reply::Other => {}
            Reply::Done => return found.ok_or_else(|| protocol("it named no size")),
            Reply::Refused(reason) => {
                return Err(ConnectError::Refused { export: uri.export.clone(), reason });
            }
        }
    }
}

/// Client flags and `NBD_OPT_GO` without information requests.
fn hello(export: &str) -> Vec<u8> {
    let name = export.as_bytes();
    let mut bytes = CLIENT_FLAGS.to_be_bytes().to_vec();
    bytes.extend(OPTION_MAGIC.to_be_bytes());
    bytes.extend(OPT_GO.to_be_bytes());
    bytes.extend((name.len() as u32 + 6).to_be_bytes());
    bytes.extend((name.len() as u32).to_be_bytes());
    bytes.extend(name);
    bytes.extend(0u16.to_be_bytes());
    bytes
}

/// One reply to the option, as far as it matters.
enum Reply {
    Export(Export),
    Other,
    Done,
    Refused(String),
    Bad(&'static str),
}

fn read_reply(stream: &mut dyn Stream) -> io::Result<Reply> {
    if read_u64(stream)? != OPTION_REPLY_MAGIC || read_u32(stream)? != OPT_GO {
        return Ok(Reply::Bad("its answer to NBD_OPT_GO is malformed"));
    }
    let kind = read_u32(stream)?;
    let length = read_u32(stream)?;
    if length > MAX_OPTION_REPLY_BYTES {
        return Ok(Reply::Bad("its answer to NBD_OPT_GO is too long"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    if kind & wire::REP_ERROR_BIT != 0 {
        return Ok(Reply::Refused(refusal(kind, &data)));
    }
    match kind {
        wire::REP_ACK => Ok(Reply::Done),
        wire::REP_INFO => Ok(info(&data)),
        _ => Ok(Reply::Bad("its answer to NBD_OPT_GO is of unknown type")),
    }
}

fn info(data: &[u8]) -> Reply {
    let kind = data.first_chunk::<2>().map(|b| u16::from_be_bytes(*b));
    if kind != Some(wire::INFO_EXPORT) {
        return Reply::Other;
    }
    let bytes = data.get(2..10).and_then(|b| b.first_chunk::<8>());
    let flags = data.get(10..12).and_then(|b| b.first_chunk::<2>());
    match (bytes, flags) {
        (Some(bytes), Some(flags)) => Reply::Export(Export {
            bytes: u64::from_be_bytes(*bytes),
            read_only: u16::from_be_bytes(*flags) & wire::EXPORT_READ_ONLY != 0,
        }),
        _ => Reply::Bad("its export information is too short"),
    }
}

fn refusal(kind: u32, data: &[u8]) -> String {
    let name = match kind & !wire::REP_ERROR_BIT {
        1 => "unsupported option",
        2 => "forbidden by policy",
        3 => "invalid request",
        4 => "not supported on its platform",
        5 => "TLS required",
        6 => "unknown export",
        7 => "shutting down",
        8 => "block size required",
        9 => "too big",
        _ => "unknown error",
    };
    match std::str::from_utf8(data) {
        Ok(text) if !text.is_empty() => format!("{name} ({text})"),
        _ => name.to_owned(),
    }
}

fn read_u16(stream: &mut dyn Stream) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn read_u32(stream: &mut dyn Stream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut dyn Stream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
