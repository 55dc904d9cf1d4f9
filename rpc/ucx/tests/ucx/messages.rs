//! Active messages: lengths, protocols, order, what may be done with them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ogive_ucx::{Completion, Data, Done, Endpoint, EndpointId, Handler, Mode, UcxError};

use crate::support::{AM, Announced, End, over_both, pair, pattern, send, until};

const LENGTHS: [usize; 14] =
    [0, 1, 63, 64, 65, 511, 4095, 4096, 8193, 20_000, 65_536, 262_144, 1 << 20, 4 << 20];

#[test]
fn round_trips_of_all_lengths() {
    over_both(|via| {
        for mode in [Mode::Auto, Mode::Eager, Mode::Rendezvous] {
            let (mut a, mut b, to_b, to_a) = pair(via);
            for registered in [false, true] {
                if registered {
                    a.worker.register(&a.pool).unwrap();
                    b.worker.register(&b.pool).unwrap();
                }
                for len in LENGTHS {
                    round_trip(&mut a, &mut b, &to_b, &to_a, len, mode);
                }
            }
        }
    });
}

fn round_trip(a: &mut End, b: &mut End, to_b: &Endpoint, to_a: &Endpoint, len: usize, mode: Mode) {
    let header = pattern(len % 97, 3);
    let payload = a.data(len, len as u64);
    let later = send(to_b, &header, Some(payload), mode, 7);
    until(a, b, |_, b| !b.messages.is_empty());
    let (head, body) = b.seen.messages.pop().unwrap();
    assert_eq!(head, header);
    assert!(body.bytes() == pattern(len, len as u64), "{len} bytes there, {mode:?}");
    let back = b.data(len, len as u64 + 1);
    let later_back = send(to_a, &header, Some(back), mode, 8);
    until(a, b, |a, _| !a.messages.is_empty());
    let (_, body) = a.seen.messages.pop().unwrap();
    assert!(body.bytes() == pattern(len, len as u64 + 1), "{len} bytes back, {mode:?}");
    drop(body);
    until(a, b, |a, b| a.done.len() == later as usize && b.done.len() == later_back as usize);
    for (end, token) in [(a, 7), (b, 8)] {
        for done in end.seen.done.drain(..) {
            assert_eq!((done.token, &done.result), (token, &Ok(())));
            let Done::Sent { header: back, payload } = done.what else { panic!("{done:?}") };
            assert_eq!((back, payload.unwrap().len()), (header.clone(), len));
        }
        assert_eq!(end.worker.operations(), 0);
    }
}

#[test]
fn announced_data_may_wait_or_be_declined() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        for announced in [Announced::Hold, Announced::Drop] {
            b.seen.announced = announced;
            let later = send(&to_b, b"head", Some(a.data(100_000, 1)), Mode::Rendezvous, 1);
            assert!(later, "the data waits for the receiver");
            if announced == Announced::Hold {
                until(&mut a, &mut b, |_, b| b.pending.len() == 1);
                assert_eq!((b.seen.pending[0].1.len(), a.seen.done.len()), (100_000, 0));
                b.seen.receive_pending();
                until(&mut a, &mut b, |_, b| b.messages.len() == 1);
                assert!(b.seen.messages.pop().unwrap().1.bytes() == pattern(100_000, 1));
            }
            until(&mut a, &mut b, |a, _| a.done.len() == 1);
            assert_eq!(a.seen.done.pop().unwrap().result, Ok(()), "{announced:?}");
        }
        assert!(b.seen.messages.is_empty());
        // Put aside, and dropped outside of the callback.
        b.seen.announced = Announced::Hold;
        send(&to_b, b"", Some(a.data(70_000, 2)), Mode::Rendezvous, 2);
        until(&mut a, &mut b, |_, b| b.pending.len() == 1);
        b.seen.pending.clear();
        until(&mut a, &mut b, |a, _| a.done.len() == 1);
        assert_eq!(a.seen.done.pop().unwrap().result, Ok(()));
    });
}

#[test]
fn headers_of_all_lengths() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        let max = a.worker.max_am_header();
        assert!(max >= 1024, "{max}");
        for mode in [Mode::Auto, Mode::Eager, Mode::Rendezvous] {
            for len in [0, 1, 8, 100, 1024, max - 1, max] {
                for data in [0, 10, 100_000] {
                    let payload = (data > 0).then(|| a.data(data, 5));
                    send(&to_b, &pattern(len, 9), payload, mode, 1);
                    until(&mut a, &mut b, |_, b| b.messages.len() == 1);
                    let (header, body) = b.seen.messages.pop().unwrap();
                    assert!(header == pattern(len, 9), "header of {len}, {mode:?}");
                    assert!(body.bytes() == pattern(data, 5), "data of {data}, {mode:?}");
                }
            }
        }
        let error = to_b.send(AM, vec![0; max + 1], None, Mode::Auto, 1).unwrap_err();
        assert_eq!(error, UcxError::HeaderTooLong { bytes: max + 1, max });
        a.seen.done.clear();
    });
}

#[test]
fn messages_arrive_in_order() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        let lens = [0usize, 8, 70, 600, 4096, 9000, 12_000, 60_000];
        let (count, mut waiting) = (3000u32, 0);
        for n in 0..count {
            let len = lens[(n as usize * 7 + n as usize / 11) % lens.len()];
            let payload = (len > 0).then(|| a.data(len, n.into()));
            waiting += send(&to_b, &n.to_le_bytes(), payload, Mode::Auto, n.into()) as usize;
            if n % 50 == 0 {
                until(&mut a, &mut b, |_, b| b.arrived >= n as usize / 2);
            }
        }
        until(&mut a, &mut b, |a, b| b.messages.len() == count as usize && a.done.len() == waiting);
        // The handler hears of them in order; announced data may then take its time.
        assert!(b.seen.order.iter().copied().eq(0..count), "{via:?}");
        for (header, body) in &b.seen.messages {
            let n = u32::from_le_bytes(header[..].try_into().unwrap());
            let len = lens[(n as usize * 7 + n as usize / 11) % lens.len()];
            assert!(body.bytes() == pattern(len, n.into()), "message {n}");
        }
        assert!(a.seen.done.iter().all(|done| done.result == Ok(())));
    });
}

#[test]
fn eager_data_is_kept() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        b.seen.keep = true;
        let lens = [0usize, 1, 100, 1000, 8000, 30_000, 100_000];
        for round in 0..200u64 {
            for len in lens {
                let payload = a.data(len, round);
                send(&to_b, &[len as u8], Some(payload), Mode::Eager, 1);
            }
            until(&mut a, &mut b, |_, b| b.messages.len() == lens.len());
            // Let go out of order, and with later messages behind them.
            for (n, (_, body)) in b.seen.messages.iter().enumerate() {
                assert!(body.bytes() == pattern(lens[n], round), "{} bytes", lens[n]);
            }
            b.seen.messages.swap(0, 5);
            b.seen.messages.truncate(0);
        }
        a.seen.done.clear();
    });
}

/// Answers every message from within the handler, and counts how deep it is called.
struct Echo {
    to_self: Option<Endpoint>,
    depth: usize,
    deepest: usize,
    left: usize,
    got: usize,
}

impl Handler for Echo {
    fn message(&mut self, _header: &[u8], data: Data<'_>) {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.got += 1;
        assert!(data.is_empty());
        for _ in 0..2.min(self.left) {
            self.left -= 1;
            let to = self.to_self.as_ref().unwrap();
            let sent = to.send(AM, b"again".to_vec(), None, Mode::Auto, 0).unwrap();
            drop(sent);
        }
        // Closed within the call, in the middle of UCX's own.
        if self.got == 501 {
            self.to_self = None;
        }
        self.depth -= 1;
    }

    fn completed(&mut self, done: Completion) {
        // The first may have waited for the connection.
        assert_eq!(done.result, Ok(()));
    }

    fn failed(&mut self, _endpoint: EndpointId, error: UcxError) {
        panic!("{error}");
    }
}

#[test]
fn a_handler_that_sends_to_itself_is_not_entered_twice() {
    over_both(|via| {
        let end = End::new(via);
        let to_self = end.worker.connect(&end.worker.address().unwrap()).unwrap();
        send(&to_self, b"first", None, Mode::Auto, 0);
        let mut echo = Echo { to_self: Some(to_self), depth: 0, deepest: 0, left: 500, got: 0 };
        while echo.got < 501 {
            end.worker.progress(&mut echo);
        }
        assert_eq!((echo.deepest, echo.left), (1, 0));
    });
}

/// Panics when told to.
struct Panicker(bool);

impl Handler for Panicker {
    fn message(&mut self, _header: &[u8], data: Data<'_>) {
        let kept = match data {
            Data::Eager(eager) => Some(eager.keep()),
            Data::Rendezvous(_) => None,
        };
        assert!(!self.0, "told to");
        drop(kept);
    }

    fn completed(&mut self, _done: Completion) {
        assert!(!self.0, "told to");
    }

    fn failed(&mut self, _endpoint: EndpointId, error: UcxError) {
        panic!("{error}");
    }
}

#[test]
fn a_panic_in_the_handler_passes_through_progress() {
    over_both(|via| {
        let (mut a, b, to_b, to_a) = pair(via);
        for (len, mode) in [(10, Mode::Auto), (20_000, Mode::Eager), (20_000, Mode::Rendezvous)] {
            send(&to_b, b"x", Some(a.data(len, 1)), mode, 1);
            let mut handler = Panicker(true);
            let panic = loop {
                a.turn();
                let turn = || b.worker.progress(&mut handler);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(turn)) {
                    break panic;
                }
            };
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"told to"));
            // Everything works afterwards.
            assert!(!b.worker.progress(&mut Panicker(false)) || b.worker.operations() == 0);
        }
        send(&to_a, b"back", None, Mode::Auto, 1);
        while a.seen.messages.is_empty() {
            a.turn();
            b.worker.progress(&mut Panicker(false));
        }
        assert_eq!(a.seen.messages[0].0, b"back");
    });
}

#[test]
fn messages_of_an_unknown_id_are_dropped() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        to_b.send(AM + 1, b"lost".to_vec(), None, Mode::Auto, 1).unwrap();
        to_b.send(AM + 1, vec![], Some(a.data(100_000, 1)), Mode::Rendezvous, 2).unwrap();
        send(&to_b, b"kept", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        assert_eq!(b.seen.messages[0].0, b"kept");
        while a.worker.operations() > 0 {
            a.turn();
            b.turn();
        }
        // Of what was announced the sender learns it.
        assert_eq!(a.seen.done.iter().filter(|done| done.token == 2).count(), 1);
        assert!(a.seen.done.iter().all(|done| done.result.is_ok() == (done.token == 1)));
    });
}
