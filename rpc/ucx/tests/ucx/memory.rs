//! Registered memory, put and get.

use ogive_buf::{ARENA_BYTES, Pool};
use ogive_ucx::{Done, Mode, Progress, UcxError};

use crate::support::{End, over_both, pair, pattern, send, until};

#[test]
fn registration_grows_with_the_pool() {
    over_both(|via| {
        let end = End::new(via);
        end.worker.register(&end.pool).unwrap();
        assert_eq!(ogive_ucx::alive().regions, 0, "no arena yet");
        let first = end.pool.alloc(100).unwrap();
        for _ in 0..3 {
            end.worker.register(&end.pool).unwrap();
            assert_eq!(ogive_ucx::alive().regions, 1);
        }
        let second = end.pool.alloc(ARENA_BYTES).unwrap();
        assert!(end.worker.region(second.arena()).is_none());
        end.worker.register(&end.pool).unwrap();
        assert_eq!(end.worker.region(second.arena()).unwrap().arena(), second.arena());
        assert!(end.worker.region(first.arena()).is_some());
        let other = Pool::new(ARENA_BYTES);
        let error = end.worker.register(&other).unwrap_err();
        assert_eq!(error, UcxError::Foreign("the pool"));
        let foreign = other.alloc(10).unwrap().parts().take(10).unwrap();
        let region = end.worker.region(foreign.arena()).expect("the same id");
        assert!(matches!(region.expose(foreign), Err(UcxError::Foreign(_))));
    });
}

#[test]
fn buffers_of_another_pool_are_sent_as_well() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        // So that the other pool's arena has the id of a registered one.
        drop(a.pool.alloc(1).unwrap());
        a.worker.register(&a.pool).unwrap();
        let other = Pool::new(ARENA_BYTES);
        for mode in [Mode::Eager, Mode::Rendezvous] {
            let mut buf = other.alloc(300_000).unwrap();
            buf.copy_from_slice(&pattern(300_000, 4));
            send(&to_b, b"", Some(buf.freeze()), mode, 1);
            until(&mut a, &mut b, |_, b| b.messages.len() == 1);
            assert!(b.seen.messages.pop().unwrap().1.bytes() == pattern(300_000, 4));
        }
        until(&mut a, &mut b, |a, _| a.done.iter().all(|done| done.result.is_ok()));
        while a.worker.operations() > 0 {
            a.turn();
        }
    });
}

/// Turns until the operation that answered so is completed.
fn complete<T>(a: &mut End, b: &mut End, progress: Progress<T>, token: u64) -> Result<T, Done> {
    match progress {
        Progress::Now(value) => Ok(value),
        Progress::Later => {
            until(a, b, |a, _| !a.done.is_empty());
            let done = a.seen.done.pop().unwrap();
            assert_eq!((done.token, done.result), (token, Ok(())));
            Err(done.what)
        }
    }
}

#[test]
fn put_and_get() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        // The description names memory only once the ends know each other.
        send(&to_b, b"hello", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        while a.worker.operations() > 0 {
            a.turn();
        }
        a.seen.done.clear();
        const LEN: usize = 2 << 20;
        let mut landing = b.pool.alloc(LEN).unwrap().parts();
        let mut part = landing.take(LEN).unwrap();
        part.fill(0xee);
        b.worker.register(&b.pool).unwrap();
        let exposed = b.worker.region(part.arena()).unwrap().expose(part).unwrap();
        let remote = to_b.remote(exposed.description()).unwrap();
        assert_eq!((remote.len(), ogive_ucx::alive().keys), (LEN, 1));
        let mut expected = vec![0xee; LEN];
        for (n, (offset, len)) in
            [(0, 1), (1, 7), (100, 64), (4096, 4096), (10_000, 20_000), (100_001, 1 << 20)]
                .into_iter()
                .enumerate()
        {
            let buf = a.data(len, n as u64);
            expected[offset..offset + len].copy_from_slice(&buf);
            let put = to_b.put(buf, &remote, offset, 20).unwrap();
            if let Err(done) = complete(&mut a, &mut b, put, 20) {
                let Done::Put { from } = done else { panic!("{done:?}") };
                assert_eq!(from.unwrap().len(), len);
            }
            let flush = to_b.flush(21).unwrap();
            let flushed = complete(&mut a, &mut b, flush, 21);
            assert!(matches!(flushed, Ok(()) | Err(Done::Flushed)));
            let mut part = a.pool.alloc(len + 2).unwrap().parts();
            let into = part.take(len).unwrap();
            let get = to_b.get(into, &remote, offset, 22).unwrap();
            let into = match complete(&mut a, &mut b, get, 22) {
                Ok(into) | Err(Done::Got { into: Some(into) }) => into,
                Err(done) => panic!("{done:?}"),
            };
            assert!(*into == expected[offset..offset + len], "got {len} bytes at {offset}");
        }
        let into = a.pool.alloc(LEN).unwrap().parts().take(LEN).unwrap();
        let get = to_b.get(into, &remote, 0, 23).unwrap();
        let all = match complete(&mut a, &mut b, get, 23) {
            Ok(into) | Err(Done::Got { into: Some(into) }) => into,
            Err(done) => panic!("{done:?}"),
        };
        assert!(*all == expected, "nothing else was written");
        assert!(*exposed.into_part() == expected);
    });
}

#[test]
fn remote_memory_is_used_where_it_belongs() {
    over_both(|via| {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        let other = a.worker.connect(&b.worker.address().unwrap()).unwrap();
        send(&to_b, b"hello", None, Mode::Auto, 1);
        send(&other, b"hello", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 2);
        let part = b.pool.alloc(1000).unwrap().parts().take(1000).unwrap();
        b.worker.register(&b.pool).unwrap();
        let exposed = b.worker.region(part.arena()).unwrap().expose(part).unwrap();
        let remote = to_b.remote(exposed.description()).unwrap();
        let outside = to_b.put(a.data(10, 1), &remote, 991, 1).unwrap_err();
        assert_eq!(outside, UcxError::OutOfRange { offset: 991, end: 1001, len: 1000 });
        let beyond = to_b.put(a.data(10, 1), &remote, usize::MAX, 1).unwrap_err();
        assert!(matches!(beyond, UcxError::OutOfRange { .. }));
        let foreign = other.put(a.data(10, 1), &remote, 0, 1).unwrap_err();
        assert_eq!(foreign, UcxError::Foreign("the remote memory"));
        let mut damaged = exposed.description().to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(to_b.remote(&damaged), Err(UcxError::Damaged(_))));
        let address = b.worker.address().unwrap();
        assert!(matches!(to_b.remote(&address), Err(UcxError::Damaged(_))));
        // The key outlives its endpoint and its worker's handle here.
        drop((to_b, other));
        drop(a);
        assert_eq!(ogive_ucx::alive().keys, 1);
        drop(remote);
        assert_eq!(ogive_ucx::alive().keys, 0);
    });
}
