//! Free TCP ports on loopback.
#![allow(clippy::disallowed_methods)] // a shell: asks the kernel for ports

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// So many different free ports. Another process may take one before it is used; the user of the
/// port then says so.
pub(super) fn free(count: usize) -> io::Result<Vec<u16>> {
    // All are held at once, so that none is given twice.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
