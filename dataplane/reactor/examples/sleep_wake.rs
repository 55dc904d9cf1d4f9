//! Measures a reactor's wake-up latency from another thread, and its idle CPU with a 100 ms timer.
//!
//! `sleep_wake adaptive|event [background]`; run it under `strace -f -c` to count system calls.

#![allow(clippy::disallowed_methods, reason = "a measurement owns its threads and clock")]

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ogive_reactor::queue::{Receiver, channel};
use ogive_reactor::{PollMode, ReactorConfig, Work, now, spawn, spawn_background};
use ogive_types::Time;

struct Echo {
    inbox: Receiver<u64>,
    answer: Arc<AtomicU64>,
    next: Time,
}

impl Work for Echo {
    fn turn(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(value) = self.inbox.try_recv() {
            self.answer.store(value, Ordering::Release);
            any = true;
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(100);
        }
        any
    }

    fn next_deadline(&self) -> Time {
        self.next
    }

    fn wake_fds(&self) -> Vec<RawFd> {
        vec![self.inbox.wake_fd()]
    }

    fn prepare_sleep(&mut self) -> bool {
        self.inbox.prepare_sleep()
    }

    fn finished(&self) -> bool {
        self.inbox.is_finished()
    }
}

fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mode = match args.get(1).map(String::as_str) {
        Some("adaptive") => PollMode::Adaptive { spin: ogive_reactor::limits::SPIN },
        _ => PollMode::Event,
    };
    let background = args.get(2).is_some();
    let (tx, inbox) = channel(16).expect("descriptors");
    let answer = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&answer);
    let config = ReactorConfig { name: "echo".into(), core: None, mode };
    let reactor = spawn(config, move || {
        if background {
            spawn_background(std::future::pending());
        }
        Ok::<_, String>(Echo { inbox, answer: theirs, next: now() })
    });
    let reactor = reactor.expect("a thread");
    reactor.ready().expect("a loop");
    let mut wakes = Vec::new();
    for value in 1..=2000 {
        std::thread::sleep(Duration::from_micros(500));
        let start = Instant::now();
        tx.try_send(value).expect("room");
        while answer.load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
        wakes.push(start.elapsed());
    }
    wakes.sort();
    println!("wake-up: median {:?}, 99 % {:?}", wakes[1000], wakes[1980]);
    let before = cpu();
    std::thread::sleep(Duration::from_secs(5));
    println!("idle: {:.3} % of a core", (cpu() - before).as_secs_f64() / 5.0 * 100.0);
    drop(tx);
    reactor.join().expect("a good end");
}
