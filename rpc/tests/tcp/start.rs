use std::net::TcpListener;

use ogive_rpc::transport::tcp::{Accept, TcpError};

use super::*;

fn listen(on: &str) -> Result<TcpTransport, TcpError> {
    TcpTransport::new(TcpConfig {
        listen: vec![Endpoint(on.into())],
        ..TcpConfig::new(server_hello(), Pool::new(4 << 20))
    })
}

#[test]
fn a_free_port_is_chosen_and_told() {
    let tcp = listen("tcp:127.0.0.1:0").unwrap();
    assert_ne!(tcp.local_endpoints()[0].tcp_addr().unwrap().port(), 0);
    let v6 = listen("tcp:[::1]:0");
    assert!(v6.is_ok() || matches!(v6, Err(TcpError::AddressForeign(_))), "no IPv6 here");
}

#[test]
fn what_cannot_be_bound_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = listen(&format!("tcp:{}", taken.local_addr().unwrap())).err().unwrap();
    assert!(matches!(error, TcpError::PortTaken(_)));
    assert!(error.to_string().contains("ss -ltnp"), "{error}");
    // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    let error = listen("tcp:192.0.2.1:0").err().unwrap();
    assert!(matches!(error, TcpError::AddressForeign(_)), "{error}");
    let error = listen("tcp:here:1").err().unwrap();
    assert!(matches!(error, TcpError::Endpoint(_)), "{error}");
}

#[test]
fn connecting_to_nobody_fails_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = End::client();
    for (to, says) in [
        (Endpoint::tcp(free), free.to_string()),
        (Endpoint("tcp:name:1".into()), "name".into()),
        (Endpoint("udp:127.0.0.1:1".into()), "tcp:".into()),
    ] {
        let conn = client.tcp.connect(&to, Time(1));
        client.send(conn, 1, false, 0, Time(1));
        settle(&mut [&mut client], Time(1), |ends| ends[0].closed().is_some());
        match client.closed().unwrap() {
            (closed, CloseReason::Connect(why)) => {
                assert_eq!(closed, conn);
                assert!(why.contains(&says), "{why}");
            }
            other => panic!("{other:?}"),
        }
        client.events.clear();
    }
    assert_eq!(client.tcp.connections(), 0);
}

#[test]
fn a_listener_that_never_answers_is_given_up() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = End::client();
    let conn = client.tcp.connect(&Endpoint::tcp(mute.local_addr().unwrap()), seconds(1));
    for _ in 0..100 {
        client.poll(seconds(1));
    }
    assert!(client.closed().is_none());
    settle(&mut [&mut client], seconds(20), |ends| ends[0].closed().is_some());
    let (closed, reason) = client.closed().unwrap();
    assert!(closed == conn && matches!(reason, CloseReason::Connect(_)), "{reason:?}");
}

/// Connects with `said`; why both ends closed.
fn refused(accept: Accept, said: Hello) -> String {
    let mut server = End::start(TcpConfig {
        listen: vec![loopback()],
        accept,
        ..TcpConfig::new(server_hello(), Pool::new(4 << 20))
    });
    let mut client = End::start(TcpConfig::new(said, Pool::new(4 << 20)));
    client.tcp.connect(&server.endpoint(), Time(1));
    settle(&mut [&mut client, &mut server], Time(1), |ends| ends[0].closed().is_some());
    assert!(server.events.is_empty(), "a stranger is not reported");
    assert_eq!(server.tcp.stats().refused, 1);
    match client.closed().unwrap() {
        (_, CloseReason::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_not_enter_is_told_why() {
    let other = Hello { cluster: ClusterId(78), ..client_hello() };
    assert!(refused(Accept::default(), other).contains("cluster"));
    let shards_only = Accept { clients: false, ..Accept::default() };
    assert!(refused(shards_only, client_hello()).contains("clients"));
    let clients_only = Accept { shards: false, ..Accept::default() };
    assert!(refused(clients_only, server_hello()).contains("shards"));
    let check = |hello: &Hello| match &hello.token[..] {
        b"good" => Ok(()),
        _ => Err("ticket is not valid".to_string()),
    };
    let strict = Accept { token: std::rc::Rc::new(check), ..Accept::default() };
    let bad = Hello { token: b"bad".into(), ..client_hello() };
    assert!(refused(strict, bad).contains("ticket"));
}

#[test]
fn a_new_hello_is_used_from_then_on() {
    let (mut server, mut client) = (End::server(), End::client());
    let later = hello(Identity::Client { session: SessionId(6) });
    client.tcp.set_hello(later.clone());
    pair(&mut client, &mut server, Time(1));
    assert!(matches!(&server.events[0], Event::Connected { peer, .. } if *peer == later));
}
