//! The watchdog ends a process whose reactor hangs, and only then. Each case runs in a child: this
//! test's own binary.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods, reason = "these tests are about threads and sleep")]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Counter, Seen, config};
use ogive_reactor::queue::channel;
use ogive_reactor::{PollMode, spawn, spawn_background, watchdog};

const CASE: &str = "OGIVE_WATCHDOG_CASE";

/// What the child does; it ends by itself after 4 s if nobody ends it.
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else { return };
    watchdog::set_limit(Duration::from_secs(1));
    let (_tx, rx) = channel(1).unwrap();
    let every = Some(Duration::from_millis(100));
    let make = move || {
        if case == "hangs" {
            spawn_background(async {
                glommio::timer::sleep(Duration::from_millis(300)).await;
                std::thread::sleep(Duration::from_secs(60));
            });
        }
        if case == "blocks" {
            return Ok(Counter::new(rx, Arc::new(Seen::default()), every).blocking());
        }
        let every = every.filter(|_| case == "ticks");
        Ok::<_, String>(Counter::new(rx, Arc::new(Seen::default()), every))
    };
    let handle = spawn(config("shard 7", PollMode::Event), make).unwrap();
    handle.ready().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    handle.stop();
    handle.join().unwrap();
}

fn start(case: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CASE, case)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

#[test]
fn a_background_task_that_never_pauses_aborts_the_process() {
    let output = end(start("hangs"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{message}");
    assert!(message.contains("reactor 'shard 7' made no turn for 1."), "{message}");
}

#[test]
fn a_hung_turn_aborts_the_process_with_the_name_of_its_reactor() {
    let output = end(start("blocks"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{message}");
    assert!(message.contains("reactor 'shard 7' made no turn for 1."), "{message}");
}

#[test]
fn sleeping_with_and_without_a_timer_is_not_hanging() {
    for child in ["ticks", "sleeps"].map(start) {
        let output = end(child);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_stopped_process_goes_on_when_continued() {
    let child = start("ticks");
    let pid = child.id() as i32;
    std::thread::sleep(Duration::from_millis(500));
    for (signal, pause) in [(libc::SIGSTOP, 2500), (libc::SIGCONT, 0)] {
        // SAFETY: the child is ours and not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        std::thread::sleep(Duration::from_millis(pause));
    }
    let output = end(child);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
