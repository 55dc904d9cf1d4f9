//! Little memory that may be locked (RLIMIT_MEMLOCK): a clear error, or work without what needs it.
//! Each case is a child, this test's own binary, because limits and capabilities are the process's.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods, reason = "these tests start processes and open files")]

mod common;

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Counter, Seen, config, eventually};
use ogive_buf::{ARENA_BYTES, Pool};
use ogive_reactor::queue::channel;
use ogive_reactor::{Disk, PollMode, limits, spawn};
use ogive_store::{DiskOp, OpId};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const CASE: &str = "OGIVE_MEMLOCK_CASE";

/// Locks no more than `bytes` from now on, also when it is root's.
fn limit(bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Memlock, limit).unwrap();
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
}

#[test]
fn child() {
    match std::env::var(CASE).as_deref() {
        Ok("too-little") => too_little(),
        Ok("just-enough") => just_enough(),
        Ok("no-registration") => no_registration(),
        _ => {}
    }
}

fn too_little() {
    limit(64 << 10);
    let (_tx, rx) = channel(1).unwrap();
    let make = move || Ok::<_, String>(Counter::new(rx, Arc::new(Seen::default()), None));
    let refused = spawn(config("poor", PollMode::Event), make).err().unwrap().to_string();
    for said in ["RLIMIT_MEMLOCK is 64 KiB", "need 512 KiB", "ulimit -l", "LimitMEMLOCK"] {
        assert!(refused.contains(said), "`{refused}` does not say `{said}`");
    }
}

fn just_enough() {
    limit(limits::MEMLOCK_MIN);
    let (tx, rx) = channel(1).unwrap();
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    let every = Some(Duration::from_millis(1));
    let make = move || Ok::<_, String>(Counter::new(rx, theirs, every));
    let reactor = spawn(config("modest", PollMode::Event), make).unwrap();
    reactor.ready().unwrap();
    eventually("ticks", || seen.ticks.load(Ordering::Acquire) > 3);
    drop(tx);
    reactor.join().unwrap();
}

fn no_registration() {
    limit(limits::MEMLOCK_MIN);
    let file = tempfile::tempfile().unwrap();
    let pool = Pool::new(4 * ARENA_BYTES);
    let mut disk = Disk::new(file.as_fd(), pool.clone(), 8).unwrap();
    let mut buf = pool.alloc(8192).unwrap();
    buf.fill(7);
    disk.submit(DiskOp::Write { id: OpId(1), addr: 0, bufs: vec![buf.freeze()] });
    let mut done = Vec::new();
    for count in 1..3 {
        while done.len() < count {
            disk.flush_sq();
            disk.poll(&mut done);
        }
        let buf = pool.alloc(8192).unwrap();
        disk.submit(DiskOp::Read { id: OpId(2), addr: 0, buf });
    }
    let read = done.pop().unwrap().result.unwrap().unwrap();
    assert!(read.iter().all(|&byte| byte == 7));
    // An arena is eight times the limit.
    assert_eq!(disk.registered_arenas(), 0);
}

fn run(case: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]).env(CASE, case);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {said}");
}

#[test]
fn too_little_is_refused_with_what_to_do() {
    run("too-little");
}

#[test]
fn what_is_asked_for_is_enough() {
    run("just-enough");
}

#[test]
fn buffers_that_cannot_be_registered_are_used_as_they_are() {
    run("no-registration");
}
