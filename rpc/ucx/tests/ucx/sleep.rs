//! Arming and waking: no message is slept over.

use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ogive_ucx::{Mode, alive};

use crate::support::{End, LOCAL, Via, over_both, pair, send};

/// Sleeps until the descriptor is readable; a sleep that nobody ends is a lost wake-up.
fn sleep(fd: RawFd) {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, in a place that lives through the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 20_000) };
    assert_eq!(ready, 1, "slept over a message");
}

/// Turns, and sleeps whenever it may, until `done`. Returns how often it slept.
fn turn_and_sleep(end: &mut End, done: impl Fn(&End) -> bool) -> usize {
    let mut slept = 0;
    while !done(end) {
        if !end.turn() && !done(end) && end.worker.arm().unwrap() {
            sleep(end.worker.event_fd());
            slept += 1;
        }
    }
    slept
}

#[test]
fn arming_sees_what_waits() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        send(&to_b, b"hello", None, Mode::Auto, 1);
        crate::support::until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        while a.turn() | b.turn() {}
        while !b.worker.arm().unwrap() {
            b.turn();
        }
        // Sent after arming: wakes. Sent before: arming refuses.
        send(&to_b, b"hello", None, Mode::Auto, 1);
        a.turn();
        sleep(b.worker.event_fd());
        crate::support::until(&mut a, &mut b, |_, b| b.messages.len() == 2);
        // What the handler has not been told yet is no reason to sleep either.
        send(&to_b, &[0; 8], Some(a.data(1 << 20, 1)), Mode::Rendezvous, 1);
        drop(to_b);
        assert!(!a.worker.arm().unwrap() || a.worker.operations() > 0);
        while a.worker.operations() > 0 || a.seen.done.is_empty() {
            a.turn();
            b.turn();
        }
    });
}

/// One of two threads: says its address, hears the other's, and does its part.
fn thread(via: Via, to: &Sender<Vec<u8>>, from: &Receiver<Vec<u8>>, first: bool, rounds: u32) {
    let mut end = End::new(via);
    let to_other = match via {
        Via::Shm => {
            to.send(end.worker.address().unwrap()).unwrap();
            end.worker.connect(&from.recv().unwrap()).unwrap()
        }
        Via::Tcp if first => {
            let to = String::from_utf8(from.recv().unwrap()).unwrap();
            end.worker.connect_to(to.parse().unwrap(), None).unwrap()
        }
        Via::Tcp => {
            let listener = end.worker.listen(LOCAL).unwrap();
            to.send(listener.local_addr().unwrap().to_string().into_bytes()).unwrap();
            turn_and_sleep(&mut end, |end| end.seen.requests.len() == 1);
            end.seen.requests.pop().unwrap().accept().unwrap()
        }
    };
    let mut random = 0x1234_5678_9abc_def1u64 ^ u64::from(first);
    let mut slept = 0;
    for n in 0..rounds {
        if first || n > 0 {
            // Sleeps of all lengths, so that messages come before, while and after the other arms.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 4 {
                0 => {}
                1 => (0..random % 2000).for_each(|_| std::hint::spin_loop()),
                2 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(random % 100)),
            }
            let len = [0, 64, 4096, 40_000][random as usize / 4 % 4];
            let payload = (len > 0).then(|| end.data(len, 1));
            send(&to_other, &n.to_le_bytes(), payload, Mode::Auto, 1);
        }
        slept += turn_and_sleep(&mut end, |end| end.seen.messages.len() == 1);
        end.seen.messages.clear();
        end.seen.done.clear();
    }
    if !first {
        send(&to_other, b"", None, Mode::Auto, 1);
    }
    slept += turn_and_sleep(&mut end, |end| end.worker.operations() == 0);
    assert!(slept > rounds as usize / 20, "slept {slept} times");
    // Nobody goes before the other has everything.
    to.send(Vec::new()).unwrap();
    while from.try_recv().is_err() {
        end.turn();
    }
    drop((to_other, end));
    assert_eq!(alive(), Default::default());
}

#[test]
fn no_message_is_slept_over() {
    for via in [Via::Tcp, Via::Shm] {
        let (to_second, from_first) = channel();
        let (to_first, from_second) = channel();
        let second = std::thread::spawn(move || thread(via, &to_first, &from_first, false, 20_000));
        thread(via, &to_second, &from_second, true, 20_000);
        second.join().unwrap();
    }
}
