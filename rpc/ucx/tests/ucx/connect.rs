//! Connecting: by address, by listener, and what is refused.

use std::net::TcpListener;

use ogive_ucx::{Mode, UcxError};

use crate::support::{End, LOCAL, Via, over_both, pair, send, until};

#[test]
fn the_transports_are_the_ones_asked_for() {
    for (via, name) in [(Via::Tcp, "tcp/lo"), (Via::Shm, "/memory")] {
        let (mut a, mut b, to_b, _to_a) = pair(via);
        send(&to_b, b"hello", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        let transports = to_b.transports().unwrap();
        assert!(transports.split(' ').all(|t| t.contains(name)), "{transports}");
    }
}

/// One end connects by the other's address, the other when it has heard of it.
#[test]
fn addresses_lead_to_their_worker() {
    over_both(|via| {
        let (mut a, mut b) = (End::new(via), End::new(via));
        let to_b = a.worker.connect(&b.worker.address().unwrap()).unwrap();
        send(&to_b, b"there", None, Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        let to_a = b.worker.connect(&a.worker.address().unwrap()).unwrap();
        send(&to_a, b"back", Some(b.data(100_000, 1)), Mode::Auto, 1);
        until(&mut a, &mut b, |a, b| a.messages.len() == 1 && b.worker_is_idle());
    });
}

#[test]
fn damaged_addresses_are_refused() {
    over_both(|via| {
        let end = End::new(via);
        let address = end.worker.address().unwrap();
        assert!(address.len() < 1024, "{}", address.len());
        for cut in [0, 1, 15, 16, 17, address.len() - 1] {
            let error = end.worker.connect(&address[..cut]).unwrap_err();
            assert_eq!(error, UcxError::Damaged("the address of a worker"));
        }
        for at in 0..address.len() {
            let mut damaged = address.clone();
            damaged[at] ^= 0x10;
            assert!(end.worker.connect(&damaged).is_err(), "byte {at}");
        }
    });
}

#[test]
fn ends_without_a_common_transport_do_not_connect() {
    let (tcp, shm) = (End::new(Via::Tcp), End::new(Via::Shm));
    let error = tcp.worker.connect(&shm.worker.address().unwrap()).unwrap_err();
    assert_eq!(error, UcxError::Unreachable);
}

/// Over TCP: shared memory has no socket addresses.
#[test]
fn a_listener_accepts() {
    for bind in [None, Some(LOCAL)] {
        let (mut a, mut b) = (End::new(Via::Tcp), End::new(Via::Tcp));
        let listener = b.worker.listen(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.port() != 0 && address.ip() == LOCAL.ip());
        let to_b = a.worker.connect_to(address, bind).unwrap();
        // Queued until the connection is made.
        send(&to_b, b"there", Some(a.data(50_000, 1)), Mode::Auto, 1);
        until(&mut a, &mut b, |_, b| b.requests.len() == 1);
        let request = b.seen.requests.pop().unwrap();
        assert_eq!(request.peer_addr().unwrap().ip(), LOCAL.ip());
        let to_a = request.accept().unwrap();
        // Connections stay when the listener goes.
        drop(listener);
        until(&mut a, &mut b, |_, b| b.messages.len() == 1);
        send(&to_a, b"back", Some(b.data(50_000, 2)), Mode::Auto, 1);
        until(&mut a, &mut b, |a, b| a.messages.len() == 1 && a.done.len() + b.done.len() == 2);
        drop((to_a, to_b, a, b));
        assert_eq!(ogive_ucx::alive(), Default::default());
    }
}

#[test]
fn a_dropped_request_is_a_refusal() {
    let (mut a, mut b) = (End::new(Via::Tcp), End::new(Via::Tcp));
    let listener = b.worker.listen(LOCAL).unwrap();
    let to_b = a.worker.connect_to(listener.local_addr().unwrap(), None).unwrap();
    until(&mut a, &mut b, |_, b| b.requests.len() == 1);
    // The listener is gone first; its request holds what it needs.
    drop(listener);
    b.seen.requests.clear();
    until(&mut a, &mut b, |a, _| a.failed.len() == 1);
    assert_eq!(a.seen.failed, [(to_b.id(), UcxError::Rejected)]);
    assert!(to_b.is_failed());
    assert_eq!(to_b.flush(1), Err(UcxError::Rejected));
    drop((to_b, a, b));
    assert_eq!(ogive_ucx::alive(), Default::default());
}

#[test]
fn nobody_listens() {
    let (mut a, mut b) = (End::new(Via::Tcp), End::new(Via::Tcp));
    let port = TcpListener::bind(LOCAL).unwrap().local_addr().unwrap();
    let to_b = a.worker.connect_to(port, None).unwrap();
    let later = send(&to_b, b"lost", Some(a.data(10, 1)), Mode::Auto, 5);
    assert!(later, "the operation waits for the connection");
    until(&mut a, &mut b, |a, _| a.failed.len() == 1 && a.done.len() == 1);
    assert_eq!(a.seen.failed[0].0, to_b.id());
    assert!(a.seen.done[0].result.is_err() && a.seen.done[0].token == 5);
    drop((to_b, a, b));
    assert_eq!(ogive_ucx::alive(), Default::default());
}

#[test]
fn an_address_that_is_taken_cannot_be_listened_at() {
    let b = End::new(Via::Tcp);
    let taken = TcpListener::bind(LOCAL).unwrap();
    let error = b.worker.listen(taken.local_addr().unwrap()).unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    drop(b);
    assert_eq!(ogive_ucx::alive(), Default::default());
}
