//! Reactors on real threads: no lost wake-up, timers, background tasks, starting and ending.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods, reason = "these tests are about threads and sleep")]

mod common;

use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::random::Random;
use common::{Counter, Seen, config, eventually};
use ogive_buf::{ARENA_BYTES, Pool};
use ogive_reactor::queue::{Receiver, channel};
use ogive_reactor::{Disk, PollMode, ReactorError, Work, pause_point, spawn, spawn_background};
use ogive_store::{DiskDone, DiskOp, OpId};
use ogive_types::Time;

const ADAPTIVE: PollMode = PollMode::Adaptive { spin: Duration::from_micros(50) };

/// The many sources and the long run are in `tests/wake`; here, a reactor with background tasks,
/// which let it sleep for moments only.
#[test]
fn no_wake_up_is_lost_beside_background_tasks() {
    let (tx, rx) = channel(16).unwrap();
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    let handle = spawn(config("stress", PollMode::Event), move || {
        spawn_background(std::future::pending());
        Ok::<_, String>(Counter::new(rx, theirs, None))
    })
    .unwrap();
    let mut random = Random(0x9E37_79B9);
    for value in 1..=3000 {
        tx.try_send(value).unwrap();
        let mut spins = 0u64;
        while seen.value.load(Ordering::Acquire) != value {
            spins += 1;
            if spins > 1000 {
                std::thread::sleep(Duration::from_micros(20));
            }
            assert!(spins < 1_000_000, "wake-up {value} lost");
        }
        // From "it still spins" to "it sleeps", in nanoseconds, mostly around the edge.
        match random.below(8) {
            0 => {}
            1 => std::thread::sleep(Duration::from_micros(random.below(200))),
            _ => (0..random.below(20_000)).for_each(|_| std::hint::spin_loop()),
        }
    }
    drop(tx);
    handle.join().unwrap();
    assert!(seen.sleeps.load(Ordering::Relaxed) > 0);
}

#[test]
fn timers_fire_in_every_mode_with_and_without_background_tasks() {
    for mode in [PollMode::Busy, ADAPTIVE, PollMode::Event] {
        for background in [false, true] {
            let (tx, rx) = channel(1).unwrap();
            let seen = Arc::new(Seen::default());
            let theirs = Arc::clone(&seen);
            let handle = spawn(config("timer", mode), move || {
                if background {
                    spawn_background(std::future::pending());
                }
                Ok::<_, String>(Counter::new(rx, theirs, Some(Duration::from_millis(2))))
            })
            .unwrap();
            eventually("20 ticks", || seen.ticks.load(Ordering::Acquire) >= 20);
            drop(tx);
            handle.join().unwrap();
        }
    }
}

#[test]
fn an_idle_reactor_sleeps() {
    for background in [false, true] {
        let (_tx, rx) = channel(1).unwrap();
        let seen = Arc::new(Seen::default());
        let theirs = Arc::clone(&seen);
        let handle = spawn(config("idle", ADAPTIVE), move || {
            if background {
                spawn_background(std::future::pending());
            }
            Ok::<_, String>(Counter::new(rx, theirs, None))
        })
        .unwrap();
        handle.ready().unwrap();
        eventually("asleep", || {
            let before = seen.turns.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            seen.turns.load(Ordering::Relaxed) <= before + if background { 100 } else { 0 }
        });
        handle.stop();
        handle.join().unwrap();
    }
}

/// Spins without end, so that the loop never sleeps.
struct Spinner {
    ready: Arc<AtomicBool>,
}

impl Work for Spinner {
    fn turn(&mut self, _now: Time) -> bool {
        true
    }

    fn next_deadline(&self) -> Time {
        Time::NEVER
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn prepare_sleep(&mut self) -> bool {
        true
    }

    fn finished(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

#[test]
fn background_tasks_compute_and_use_timers_beside_a_busy_loop() {
    let done = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&done);
    let handle = spawn(config("busy", PollMode::Busy), move || {
        let ready = Arc::clone(&theirs);
        spawn_background(async move {
            for _ in 0..5 {
                glommio::timer::sleep(Duration::from_millis(1)).await;
            }
            let start = ogive_reactor::now();
            while ogive_reactor::now().since(start) < Duration::from_millis(20) {
                pause_point().await;
            }
            theirs.store(true, Ordering::Relaxed);
        });
        Ok::<_, String>(Spinner { ready })
    })
    .unwrap();
    handle.join().unwrap();
    assert!(done.load(Ordering::Relaxed));
}

#[test]
fn a_computing_background_task_does_not_hold_up_the_loop() {
    let (tx, rx) = channel(1).unwrap();
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    let rounds = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&rounds);
    let handle = spawn(config("mixed", PollMode::Event), move || {
        spawn_background(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                pause_point().await;
            }
        });
        Ok::<_, String>(Counter::new(rx, theirs, None))
    })
    .unwrap();
    for value in 1..100 {
        tx.try_send(value).unwrap();
        eventually("received", || seen.value.load(Ordering::Acquire) == value);
    }
    assert!(rounds.load(Ordering::Relaxed) > 1000);
    drop(tx);
    handle.join().unwrap();
}

/// Writes the numbers it is sent to a disk, and counts the ends.
struct Writer {
    disk: Disk,
    pool: Pool,
    inbox: Receiver<u64>,
    done: Vec<DiskDone>,
    ended: Arc<AtomicU64>,
    give_disk: bool,
}

impl Writer {
    fn new(inbox: Receiver<u64>, ended: Arc<AtomicU64>, give_disk: bool) -> Writer {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let pool = Pool::new(ARENA_BYTES);
        let mut disk = Disk::new(file.as_fd(), pool.clone(), 4).unwrap();
        if !give_disk {
            disk.wake_fd().unwrap();
        }
        Writer { disk, pool, inbox, done: Vec::new(), ended, give_disk }
    }
}

impl Work for Writer {
    fn turn(&mut self, _now: Time) -> bool {
        let mut any = self.disk.poll(&mut self.done);
        for done in self.done.drain(..) {
            done.result.unwrap();
            self.ended.fetch_add(1, Ordering::Release);
        }
        while let Some(n) = self.inbox.try_recv() {
            let bufs = vec![self.pool.alloc(4096).unwrap().freeze()];
            self.disk.submit(DiskOp::Write { id: OpId(n), addr: n % 256 * 4096, bufs });
            any = true;
        }
        self.disk.flush_sq();
        any
    }

    fn next_deadline(&self) -> Time {
        Time::NEVER
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        let mut fds = vec![self.inbox.wake_fd()];
        fds.extend((!self.give_disk).then(|| self.disk.event_fd()).flatten());
        fds
    }

    fn prepare_sleep(&mut self) -> bool {
        self.inbox.prepare_sleep()
    }

    fn finished(&self) -> bool {
        self.inbox.is_finished() && self.disk.in_flight() == 0
    }

    fn disk(&mut self) -> Option<&mut Disk> {
        self.give_disk.then_some(&mut self.disk)
    }
}

#[test]
fn completions_wake_a_sleeping_reactor() {
    for (give_disk, background) in [(true, false), (true, true), (false, false), (false, true)] {
        let (tx, rx) = channel(64).unwrap();
        let ended = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&ended);
        let handle = spawn(config("writer", PollMode::Event), move || {
            if background {
                spawn_background(std::future::pending());
            }
            Ok::<_, String>(Writer::new(rx, theirs, give_disk))
        })
        .unwrap();
        for n in 1..=100 {
            tx.try_send(n).unwrap();
            eventually("written", || ended.load(Ordering::Acquire) == n);
        }
        drop(tx);
        handle.join().unwrap();
    }
}

#[test]
fn starting_and_ending() {
    let mode = PollMode::Event;
    let refused = spawn(config("refuses", mode), || Err::<Spinner, _>("no such device")).unwrap();
    assert!(refused.ready().is_err());
    let error = refused.join().unwrap_err();
    assert!(matches!(&error, ReactorError::Make { reason, .. } if reason == "no such device"));

    let panics = spawn(config("panics", mode), || -> Result<Spinner, String> { panic!("oh") });
    let error = panics.unwrap().join().unwrap_err();
    assert!(matches!(&error, ReactorError::Panicked { message, .. } if message == "oh"), "{error}");

    let mut nowhere = config("nowhere", mode);
    nowhere.core = Some(1000);
    let ready = Arc::new(AtomicBool::new(true));
    let made = Arc::clone(&ready);
    let refused = spawn(nowhere, || Ok::<_, String>(Spinner { ready: made }));
    assert!(refused.err().unwrap().to_string().contains("core 1000"));

    let mut pinned = config("pinned", mode);
    pinned.core = Some(0);
    spawn(pinned, || Ok::<_, String>(Spinner { ready })).unwrap().join().unwrap();
}
