//! Network namespaces, and the interfaces whose packets come to this process.
#![allow(clippy::disallowed_methods)] // a shell: devices, threads, a program

use std::ffi::c_short;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Largest packet in bytes: a block of 4 KiB with its headers goes in one.
pub(super) const MTU: usize = 8192;
const NAME: &str = "ogive0";

/// A namespace and its only interface beside loopback.
pub(super) struct Made {
    pub(super) namespace: OwnedFd,
    pub(super) interface: OwnedFd,
}

/// A namespace with this address; it goes when nothing refers to it any more.
pub(super) fn apart(address: Ipv4Addr) -> io::Result<Made> {
    let make = move || {
        let interface = here(address)?;
        let namespace = File::open("/proc/thread-self/ns/net")?.into();
        Ok(Made { namespace, interface })
    };
    // A thread of its own, since it moves the thread.
    let thread = std::thread::Builder::new().name("namespace".into()).spawn(make)?;
    thread.join().map_err(|_| io::Error::other("the thread that makes a namespace panicked"))?
}

/// Moves the calling thread to a new namespace with this address; its interface.
pub(super) fn here(address: Ipv4Addr) -> io::Result<OwnedFd> {
    // SAFETY: a network namespace changes which sockets are made from here on; no descriptor, no
    // memory and no other thread is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
    let interface = open()?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", NAME, "mtu", &MTU.to_string(), "up"])?;
    ip(&["address", "add", &format!("{address}/24"), "dev", NAME])?;
    Ok(interface)
}

/// The interface, non-blocking.
fn open() -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all fields of ifreq are plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::io::ioctl_fionbio(&file, true)?;
    Ok(file.into())
}

/// Runs iproute2 in the calling thread's namespace.
fn ip(args: &[&str]) -> io::Result<()> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("ip").args(args).env("PATH", path).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
