//! Active messages: lengths, protocols, order, what may be done with them.

use ogive_ucx::{Done, Mode};

use crate::support::{Announced, over_both, pair, pattern, send, until};

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

fn round_trip(
    a: &mut crate::support::End,
    b: &mut crate::support::End,
    to_b: &ogive_ucx::Endpoint,
    to_a: &ogive_ucx::Endpoint,
    len: usize,
    mode: Mode,
) {
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
