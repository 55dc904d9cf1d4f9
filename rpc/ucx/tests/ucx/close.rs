//! Closing, with everything in flight that there is; and what keeps a worker.

use std::time::{Duration, Instant};

use ogive_ucx::{Alive, Done, Mode, UcxError, alive};

use crate::support::{Announced, Via, connect, over_both, pair, send, until};

/// Lets both ends work until nothing is in flight at either.
fn settle(a: &mut crate::support::End, b: &mut crate::support::End) {
    let begin = Instant::now();
    while a.worker.operations() + b.worker.operations() > 0 {
        a.turn();
        b.turn();
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?} {:?}", a.worker, b.worker);
    }
    for _ in 0..100 {
        a.turn();
        b.turn();
    }
}

#[test]
fn closing_gives_every_buffer_back() {
    over_both(|via| {
        for mode in [Mode::Auto, Mode::Eager, Mode::Rendezvous] {
            let (mut a, mut b, to_b, to_a) = pair(via);
            b.seen.announced = Announced::Hold;
            send(&to_b, b"hello", None, Mode::Auto, 1);
            until(&mut a, &mut b, |_, b| b.messages.len() == 1);
            settle(&mut a, &mut b);
            a.seen.done.clear();
            let mut waiting = 0;
            for n in 0..40 {
                // The peer does not turn, so that most of it waits.
                waiting += send(&to_b, b"head", Some(a.data(200_000, n)), mode, n) as usize;
            }
            assert!(waiting > 0, "{mode:?} over {via:?}");
            drop(to_b);
            settle(&mut a, &mut b);
            assert_eq!(a.seen.done.len(), waiting);
            for done in a.seen.done.drain(..) {
                let ok = matches!(done.result, Ok(()) | Err(UcxError::Canceled));
                assert!(ok, "{:?}", done.result);
                let Done::Sent { header, payload } = done.what else { panic!("{done:?}") };
                assert_eq!((&header[..], payload.unwrap().len()), (&b"head"[..], 200_000));
            }
            assert_eq!(a.pool.stats().used_bytes, 0);
            drop(to_a);
            b.seen.pending.clear();
            b.seen.messages.clear();
            settle(&mut a, &mut b);
            assert_eq!(alive().endpoints, 0);
        }
    });
}

#[test]
fn a_receive_under_way_ends_when_the_sender_closes() {
    over_both(|via| {
        let (mut a, mut b, to_b, to_a) = pair(via);
        b.seen.announced = Announced::Hold;
        assert!(send(&to_b, b"head", Some(a.data(4 << 20, 1)), Mode::Rendezvous, 1));
        until(&mut a, &mut b, |_, b| b.pending.len() == 1);
        drop(to_b);
        settle(&mut a, &mut b);
        assert_eq!(a.seen.done.len(), 1, "the sender has its buffer back");
        b.seen.receive_pending();
        // The receiver gets its buffer back too: over TCP UCX tells it; else it closes its end.
        for _ in 0..1000 {
            a.turn();
            b.turn();
        }
        drop(to_a);
        settle(&mut a, &mut b);
        assert_eq!(b.seen.messages.len(), 1);
        assert_eq!(b.worker.operations(), 0);
    });
}

#[test]
fn a_dropped_worker_takes_everything_along() {
    over_both(|via| {
        let (mut a, mut b, to_b, to_a) = pair(via);
        b.seen.announced = Announced::Hold;
        send(&to_b, b"hello", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        for n in 0..20 {
            let mode = if n % 2 == 0 { Mode::Eager } else { Mode::Rendezvous };
            send(&to_b, b"head", Some(a.data(300_000, n)), mode, n);
        }
        let pool = a.pool.clone();
        drop(a);
        assert_eq!(pool.stats().used_bytes, 0, "operations gave their buffers back");
        assert_eq!(alive().workers, 1);
        // What is left of it says so.
        let error = to_b.send(1, vec![], None, Mode::Auto, 1).unwrap_err();
        assert_eq!((error, to_b.flush(1)), (UcxError::ShutDown, Err(UcxError::ShutDown)));
        assert!(matches!(to_b.transports(), Err(UcxError::ShutDown)));
        drop(to_b);
        for _ in 0..1000 {
            b.turn();
        }
        drop((b, to_a));
    });
}

#[test]
fn kept_and_announced_messages_hold_their_worker() {
    over_both(|via| {
        let (mut a, mut b, to_b, to_a) = pair(via);
        (b.seen.announced, b.seen.keep) = (Announced::Hold, true);
        send(&to_b, b"", Some(a.data(100_000, 1)), Mode::Eager, 1);
        send(&to_b, b"", Some(a.data(30_000, 2)), Mode::Rendezvous, 2);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1 && b.pending.len() == 1);
        let (_, kept) = b.seen.messages.pop().unwrap();
        let (_, pending) = b.seen.pending.pop().unwrap();
        drop((to_a, b));
        assert_eq!((alive().workers, alive().messages), (2, 2));
        assert!(kept.bytes() == crate::support::pattern(100_000, 1));
        drop(pending);
        assert_eq!(alive().workers, 2);
        drop(kept);
        assert_eq!(alive().workers, 1, "the last message took its worker along");
        drop((to_b, a));
    });
}

#[test]
fn what_is_deferred_when_a_worker_goes_is_dropped() {
    over_both(|via| {
        let (mut a, mut b, to_b, to_a) = pair(via);
        send(&to_b, b"hello", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        send(&to_b, b"", Some(a.data(1 << 20, 1)), Mode::Rendezvous, 1);
        // Completed by the close, within the drop: nobody has heard of it when the worker goes.
        drop(to_b);
        drop(a);
        drop((b, to_a));
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Alone in its process, since it counts the descriptors of the process.
#[test]
fn a_thousand_connections_leave_nothing() {
    if crate::processes::rerun_alone("close::a_thousand_connections_leave_nothing") {
        return;
    }
    for via in [Via::Shm, Via::Tcp] {
        let (mut a, mut b) = (crate::support::End::new(via), crate::support::End::new(via));
        let mut after_warm_up = None;
        for n in 0..1000u64 {
            let (from_a, from_b) = connect(&mut a, &mut b, via);
            send(&from_a, b"there", Some(a.data(100, n)), Mode::Auto, n);
            send(&from_b, b"back", None, Mode::Auto, n);
            until(&mut a, &mut b, |a, b| a.messages.len() == 1 && b.messages.len() == 1);
            a.seen.messages.clear();
            b.seen.messages.clear();
            if n % 2 == 0 {
                drop((from_a, from_b));
            } else {
                drop(from_b);
                a.turn();
                drop(from_a);
            }
            settle(&mut a, &mut b);
            assert_eq!(alive().endpoints, 0);
            assert_eq!(alive().operations, 0);
            if n == 100 {
                after_warm_up = Some(descriptors());
            }
        }
        let (before, after) = (after_warm_up.unwrap(), descriptors());
        assert!(after <= before + 8, "{before} descriptors became {after} over {via:?}");
        drop((a, b));
        assert_eq!(alive(), Alive::default());
    }
}
