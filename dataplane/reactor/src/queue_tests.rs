#![allow(clippy::disallowed_methods, reason = "these tests are about threads")]

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// Waits on the descriptor; false when it stayed quiet for so long.
fn readable<T>(receiver: &Receiver<T>, within: Duration) -> bool {
    // SAFETY: the receiver that owns the descriptor outlives this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(receiver.wake_fd()) };
    let timeout = Timespec::try_from(within).expect("a short time");
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).expect("poll") == 1
}

const NOW: Duration = Duration::ZERO;
/// Longer than any machine makes a thread wait.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_value_that_is_there_forbids_sleep_and_one_that_comes_ends_it() {
    let (tx, mut rx) = channel(4).expect("a queue");
    tx.try_send(1).expect("room");
    assert!(!rx.prepare_sleep());
    assert!(!readable(&rx, NOW), "nobody slept, so nobody paid for a signal");
    assert_eq!((rx.try_recv(), rx.try_recv()), (Some(1), None));
    for round in 0..3 {
        assert!(rx.prepare_sleep());
        assert!(!readable(&rx, NOW), "the last signal is gone in round {round}");
        tx.try_send(2).expect("room");
        tx.try_send(3).expect("room");
        assert!(readable(&rx, NOW));
        assert_eq!((rx.try_recv(), rx.try_recv()), (Some(2), Some(3)));
    }
}

#[test]
fn a_signal_that_comes_late_costs_one_wake_up_and_is_drained() {
    let (tx, mut rx) = channel::<u32>(4).expect("a queue");
    assert!(rx.prepare_sleep());
    // A sender takes the flag and is suspended before it writes.
    assert!(tx.shared.sleeping.swap(false, Ordering::AcqRel));
    assert_eq!(rx.try_recv(), None);
    assert!(rx.prepare_sleep(), "nothing is there");
    tx.shared.event.signal();
    assert!(readable(&rx, NOW), "woken for nothing");
    assert_eq!(rx.try_recv(), None);
    assert!(rx.prepare_sleep());
    assert!(!readable(&rx, NOW), "but once only");
    tx.try_send(1).expect("room");
    assert!(readable(&rx, NOW), "and a true signal is still one");
}

#[test]
fn the_last_sender_wakes_whoever_waits_for_more() {
    let (tx, mut rx) = channel::<u32>(4).expect("a queue");
    let other = tx.clone();
    assert!(rx.prepare_sleep());
    drop(tx);
    assert!(!readable(&rx, NOW) && !rx.is_finished());
    other.try_send(1).expect("room");
    assert_eq!(rx.try_recv(), Some(1));
    assert!(rx.prepare_sleep());
    drop(other);
    assert!(readable(&rx, NOW) && rx.is_finished());
    assert!(rx.prepare_sleep(), "the loop ends by `is_finished`, not by spinning");
}

#[test]
fn values_that_cannot_be_sent_come_back() {
    let (tx, rx) = channel(1).expect("a queue");
    tx.try_send(1).expect("room");
    assert_eq!(tx.try_send(2), Err(SendError::Full(2)));
    assert!(!tx.is_closed());
    drop(rx);
    assert_eq!(tx.try_send(3), Err(SendError::Closed(3)));
    assert!(tx.is_closed());
}

/// Sends `count` numbers with pauses around the moment in which the receiver goes to sleep.
fn send_all(tx: &Sender<u64>, seed: u64, count: u64) {
    let mut x = seed;
    for n in 0..count {
        let mut value = n;
        while let Err(SendError::Full(back)) = tx.try_send(value) {
            value = back;
            std::thread::yield_now();
        }
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        match x >> 61 {
            0 => std::thread::sleep(Duration::from_micros(x >> 40 & 127)),
            1..4 => (0..x >> 40 & 4095).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

#[test]
fn many_senders_never_leave_a_sleeper_asleep() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 10_000;
    let (tx, mut rx) = channel::<u64>(64).expect("a queue");
    let (mut received, mut sum, mut sleeps) = (0, 0, 0u64);
    std::thread::scope(|scope| {
        for seed in 1..=SENDERS {
            let tx = tx.clone();
            scope.spawn(move || send_all(&tx, seed, EACH));
        }
        drop(tx);
        while !rx.is_finished() {
            while let Some(value) = rx.try_recv() {
                (received, sum) = (received + 1, sum + value);
            }
            if rx.prepare_sleep() && !rx.is_finished() {
                sleeps += 1;
                assert!(readable(&rx, LONG), "asleep for ever after {received} values");
            }
        }
    });
    assert_eq!((received, sum), (SENDERS * EACH, SENDERS * EACH * (EACH - 1) / 2));
    assert!(sleeps > EACH / 10, "it hardly slept: {sleeps}");
}
