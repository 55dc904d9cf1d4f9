use std::time::Duration;

use ogive_types::{ClusterId, SessionId};
use proptest::prelude::*;

use super::*;
use crate::hello::Identity;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

fn grants(credit_requests: u32, credit_bytes: u64) -> Hello {
    Hello {
        cluster: ClusterId(1),
        identity: Identity::Client { session: SessionId(1) },
        features: 0,
        token: Vec::new(),
        credit_requests,
        credit_bytes,
    }
}

fn connected(requests: u32, bytes: u64) -> Requests<&'static str> {
    let mut table = Requests::new();
    table.opened(A, &grants(requests, bytes));
    table.opened(B, &grants(requests, bytes));
    table
}

#[test]
fn credits_bound_what_is_in_flight() {
    let mut table = connected(2, 8192);
    let first = table.issue(A, 8192, Time::NEVER, "first").expect("credit");
    let refused = table.issue(A, 1, Time::NEVER, "second");
    assert_eq!(refused, Err(NoCredit::Bytes { bytes: 8192, max: 8192 }));
    table.issue(A, 0, Time::NEVER, "second").expect("credit");
    assert_eq!(table.issue(A, 0, Time::NEVER, "third"), Err(NoCredit::Requests(2)));
    assert!(table.issue(B, 8192, Time::NEVER, "other").is_ok());
    assert_eq!(table.complete(A, first), Some("first"));
    assert_eq!((table.in_flight(A), table.bytes_in_flight(A)), (1, 0));
    assert!(table.issue(A, 8192, Time::NEVER, "third").is_ok());
    assert_eq!(table.issue(ConnId(9), 0, Time::NEVER, "-"), Err(NoCredit::NotConnected));
}

#[test]
fn an_answer_counts_once_and_only_on_its_connection() {
    let mut table = connected(4, 0);
    let id = table.issue(A, 0, Time::NEVER, "x").expect("credit");
    assert_ne!(id, 0);
    assert_eq!(table.complete(B, id), None);
    assert_eq!(table.complete(A, id), Some("x"));
    assert_eq!(table.complete(A, id), None);
    let next = table.issue(A, 0, Time::NEVER, "y").expect("credit");
    assert_ne!(next, id, "ids are not used again");
    assert_eq!(table.complete(A, id), None);
    assert_eq!(table.complete(A, u64::MAX), None);
    assert_eq!(table.complete(A, next), Some("y"));
}

#[test]
fn a_request_given_up_keeps_its_credit_until_the_answer() {
    let mut table = connected(1, 4096);
    let id = table.issue(A, 4096, Time(1000), "slow").expect("credit");
    assert_eq!(table.next_deadline(), Time(1000));
    let mut overdue = Vec::new();
    table.expire(Time(999), &mut overdue);
    assert!(overdue.is_empty());
    table.expire(Time(1000), &mut overdue);
    assert_eq!(overdue, [(A, id, "slow")]);
    assert_eq!((table.waiting(), table.next_deadline()), (0, Time::NEVER));
    assert!(table.issue(A, 0, Time::NEVER, "next").is_err(), "the peer still counts it");
    assert_eq!(table.complete(A, id), None, "nobody waits for it");
    assert!(table.issue(A, 4096, Time::NEVER, "next").is_ok());
}

#[test]
fn a_closed_connection_wakes_its_waiters_in_order() {
    let mut table = connected(4, 0);
    let (x, y) = (table.issue(A, 0, Time(5), "x"), table.issue(A, 0, Time(9), "y"));
    let other = table.issue(B, 0, Time(9), "other").expect("credit");
    table.complete(A, x.expect("credit"));
    let z = table.issue(A, 0, Time(9), "z").expect("credit");
    let late = table.issue(A, 0, Time(1), "late").expect("credit");
    let mut overdue = Vec::new();
    table.expire(Time(1), &mut overdue);
    assert_eq!(overdue, [(A, late, "late")]);
    assert_eq!(table.closed(A), [(y.expect("credit"), "y"), (z, "z")]);
    assert_eq!(table.closed(A), []);
    assert_eq!(table.complete(B, other), Some("other"));
    table.opened(A, &grants(4, 0));
    assert_eq!(table.in_flight(A), 0);
}

#[test]
fn a_generous_peer_does_not_unbound_the_table() {
    let mut table = Requests::new();
    table.opened(A, &grants(u32::MAX, u64::MAX));
    for i in 0..REQUESTS_PER_CONN_MAX {
        table.issue(A, u64::from(i), Time::NEVER, i).expect("credit");
    }
    assert!(table.issue(A, 0, Time::NEVER, 0).is_err());
    assert!(table.issue(A, u64::MAX, Time::NEVER, 0).is_err());
}

#[derive(Clone, Debug)]
enum Act {
    Issue { conn: u64, bytes: u64, in_us: u64 },
    Answer(usize),
    Pass(u64),
    Reconnect(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..3u64, 0..5000u64, 0..20_000u64)
            .prop_map(|(conn, bytes, in_us)| Act::Issue { conn, bytes, in_us }),
        3 => any::<usize>().prop_map(Act::Answer),
        2 => (0..10_000u64).prop_map(Act::Pass),
        1 => (0..3u64).prop_map(Act::Reconnect),
    ]
}

/// What the table should know of a request.
struct Known {
    conn: ConnId,
    id: u64,
    bytes: u64,
    deadline: Time,
    ctx: u64,
    waits: bool,
}

proptest! {
    /// Against a list of all requests: every context comes back exactly once, deadlines are kept to
    /// within the granularity, and credit is conserved.
    #[test]
    fn behaves_like_a_list(acts in prop::collection::vec(act(), 1..200)) {
        let (requests_max, bytes_max) = (5, 12_000);
        let mut table = Requests::new();
        let mut list: Vec<Known> = Vec::new();
        let (mut now, mut serial) = (Time(1), 0);
        for conn in 0..3 {
            table.opened(ConnId(conn), &grants(requests_max, bytes_max));
        }
        for act in acts {
            match act {
                Act::Issue { conn, bytes, in_us } => {
                    let (conn, deadline) = (ConnId(conn), now + Duration::from_micros(in_us));
                    let mine = || list.iter().filter(|k| k.conn == conn);
                    let fits = mine().count() < requests_max as usize
                        && mine().map(|k| k.bytes).sum::<u64>() + bytes <= bytes_max;
                    serial += 1;
                    let got = table.issue(conn, bytes, deadline, serial);
                    prop_assert_eq!(got.is_ok(), fits);
                    if let Ok(id) = got {
                        prop_assert!(list.iter().all(|k| k.id != id));
                        list.push(Known { conn, id, bytes, deadline, ctx: serial, waits: true });
                    }
                }
                Act::Answer(which) if !list.is_empty() => {
                    let known = list.remove(which % list.len());
                    let got = table.complete(known.conn, known.id);
                    prop_assert_eq!(got, known.waits.then_some(known.ctx));
                }
                Act::Answer(_) => prop_assert_eq!(table.complete(A, 1 << 32), None),
                Act::Pass(us) => {
                    now = now + Duration::from_micros(us);
                    let mut overdue = Vec::new();
                    table.expire(now, &mut overdue);
                    prop_assert!(overdue.is_sorted_by_key(|&(_, _, ctx)| ctx));
                    for (conn, id, ctx) in overdue {
                        let known = list.iter_mut().find(|k| k.id == id).expect("known");
                        prop_assert!(known.waits && known.conn == conn && known.ctx == ctx);
                        prop_assert!(known.deadline <= now);
                        known.waits = false;
                    }
                    let late = now - EXPIRE_EVERY;
                    prop_assert!(list.iter().all(|k| !k.waits || k.deadline >= late));
                }
                Act::Reconnect(conn) => {
                    let conn = ConnId(conn);
                    let woken = table.closed(conn);
                    let waits = |k: &&Known| k.conn == conn && k.waits;
                    let expected: Vec<_> =
                        list.iter().filter(waits).map(|k| (k.id, k.ctx)).collect();
                    prop_assert_eq!(&woken, &expected);
                    list.retain(|k| k.conn != conn);
                    table.opened(conn, &grants(requests_max, bytes_max));
                }
            }
            let waiting = list.iter().filter(|k| k.waits);
            prop_assert_eq!(table.waiting(), waiting.clone().count());
            let first = waiting.map(|k| k.deadline).min().unwrap_or(Time::NEVER);
            prop_assert!(table.next_deadline() <= first + EXPIRE_EVERY);
        }
    }
}
