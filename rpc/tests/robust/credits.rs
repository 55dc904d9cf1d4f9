//! Credits and deadlines, end to end: what the server grants, the client's tracker keeps to, and
//! the server holds against it.

use ogive_rpc::inbound::Inbound;
use ogive_rpc::requests::{NoCredit, Requests};

use super::*;

/// A server that answers when it is told to, and closes who takes more than was granted, as a shard
/// does.
struct Server {
    end: End,
    inbound: Inbound,
    open: Vec<(ConnId, Incoming)>,
    refused: Vec<ConnId>,
}

impl Server {
    fn new() -> Server {
        let end = End::start(server_config());
        Server { end, inbound: Inbound::new(), open: Vec::new(), refused: Vec::new() }
    }

    /// A connection came up, with the credits of our HELLO.
    fn opened(&mut self, conn: ConnId) {
        let Hello { credit_requests, credit_bytes, .. } = server_config().hello;
        self.inbound.opened(conn, credit_requests, credit_bytes);
    }

    fn hear(end: &mut End, inbound: &mut Inbound) -> (Vec<(ConnId, Incoming)>, Vec<ConnId>) {
        let (mut open, mut refused) = (Vec::new(), Vec::new());
        for (conn, frame) in end.received() {
            let bytes = frame.payload.as_ref().map_or(0, |p| p.len() as u64);
            match inbound.admit(conn, bytes) {
                Ok(()) => open.push((conn, frame)),
                Err(_) if refused.contains(&conn) => {}
                Err(over) => {
                    end.net.close(conn, CloseReason::Protocol(over.to_string()));
                    inbound.closed(conn);
                    refused.push(conn);
                }
            }
        }
        (open, refused)
    }

    /// Turns the server and `client` until `done`.
    fn until(&mut self, what: &str, client: &mut End, mut done: impl FnMut(&Server, &End) -> bool) {
        let start = now();
        while !done(self, client) {
            client.turn();
            self.end.turn();
            let (open, refused) = Server::hear(&mut self.end, &mut self.inbound);
            self.open.extend(open);
            self.refused.extend(refused);
            assert!(now().since(start) < Duration::from_secs(100), "never: {what}");
        }
    }

    fn answer_all(&mut self) -> usize {
        let open = std::mem::take(&mut self.open);
        for (conn, frame) in &open {
            let bytes = frame.payload.as_ref().map_or(0, |p| p.len() as u64);
            self.inbound.answered(*conn, bytes);
            self.end.send(*conn, frame.id, true, None);
        }
        open.len()
    }
}

/// Issues requests of `bytes` until there is no credit; how many, and what was missing.
fn issue_all(
    client: &mut End,
    requests: &mut Requests<u64>,
    conn: ConnId,
    bytes: usize,
    deadline: Time,
) -> (u64, NoCredit) {
    for n in 0.. {
        match requests.issue(conn, bytes as u64, deadline, n) {
            Ok(id) => {
                let payload = (bytes > 0).then(|| client.payload(bytes));
                client.send(conn, id, false, payload);
            }
            Err(missing) => return (n, missing),
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn whoever_takes_more_than_was_granted_is_thrown_out_alone() {
    let mut server = Server::new();
    let mut client = End::start(client_config());
    let mut conns = Vec::new();
    for _ in 0..3 {
        let (out, inn) = pair(&mut client, &mut server.end);
        server.opened(inn);
        conns.push((out, inn));
    }
    let [honest, many, large] = conns[..] else { unreachable!("three") };
    let mut requests = Requests::new();
    requests.opened(honest.0, &server_config().hello);
    for round in 0..20 {
        let bytes = if round % 2 == 0 { 4096 } else { 16 << 10 };
        let (count, missing) = issue_all(&mut client, &mut requests, honest.0, bytes, Time::NEVER);
        let expected = if round % 2 == 0 { 8 } else { 4 };
        assert_eq!(count, expected, "{missing}");
        if round == 3 {
            // One request more than was granted; one byte more than was granted.
            (0..9).for_each(|id| client.send(many.0, id, false, None));
            let whole = client.payload(64 << 10);
            client.send(large.0, 1, false, Some(whole));
            let one = client.payload(1);
            client.send(large.0, 2, false, Some(one));
        }
        server.until("all requests", &mut client, |server, _| {
            let here = server.open.iter().filter(|(conn, _)| *conn == honest.1).count() as u64;
            here == count && (round != 3 || server.refused.len() == 2)
        });
        server.open.retain(|(conn, _)| *conn == honest.1);
        assert_eq!(server.answer_all() as u64, count);
        let mut answered = 0;
        settle("all answers", &mut [&mut client, &mut server.end], |ends| {
            for (conn, frame) in ends[0].received() {
                assert_eq!(requests.complete(conn, frame.id), Some(answered), "in order");
                answered += 1;
            }
            answered == count
        });
    }
    assert_eq!(client.end_of(honest.0), None);
    settle("told why", &mut [&mut client, &mut server.end], |ends| ends[0].ends() == 2);
    for (out, what) in [(many.0, "9 requests of 8"), (large.0, "65537 bytes of 65536")] {
        let reason = client.end_of(out).unwrap().to_string();
        assert!(reason.contains(what), "{reason}");
    }
}

#[test]
fn a_deadline_passes_and_the_late_answer_goes_to_nobody() {
    let mut server = Server::new();
    let mut client = End::start(client_config());
    let (out, inn) = pair(&mut client, &mut server.end);
    server.opened(inn);
    let mut requests = Requests::new();
    requests.opened(out, &server_config().hello);
    let (count, _) = issue_all(&mut client, &mut requests, out, 0, now());
    server.until("requests", &mut client, |server, _| server.open.len() as u64 == count);
    let mut late = Vec::new();
    while late.len() as u64 != count {
        requests.expire(now(), &mut late);
    }
    assert!(late.iter().map(|(_, _, n)| *n).eq(0..count), "in the order of their issue");
    let refused = requests.issue(out, 0, Time::NEVER, 0);
    assert_eq!(refused, Err(NoCredit::Requests(8)), "the server still counts them");
    server.answer_all();
    let mut answers = 0;
    settle("late answers", &mut [&mut client, &mut server.end], |ends| {
        for (conn, frame) in ends[0].received() {
            assert_eq!(requests.complete(conn, frame.id), None, "nobody waits for it");
            answers += 1;
        }
        answers == count
    });
    let (again, _) = issue_all(&mut client, &mut requests, out, 0, Time::NEVER);
    assert_eq!(again, count, "the answers gave the credits back");
}
