//! Peers that fall silent without a word to the kernel: a stopped process, and a machine whose link
//! is gone. And what keeps the others alive meanwhile.

use std::process::Command;

use super::process::{Process, argument, say};
use super::*;

/// A peer that lives but gets no core for so long is taken for dead too: not shorter.
const SILENT_AFTER: Duration = Duration::from_secs(5);

fn timing(mut config: TcpConfig) -> TcpConfig {
    config.timing.ping_after = Duration::from_millis(200);
    config.timing.silent_after = SILENT_AFTER;
    config
}

/// In a child: stays connected until the connection ends, and says so.
pub fn idle() {
    let mut end = End::start(timing(client_config()));
    end.net.connect(&Endpoint(argument()), now());
    settle("connected", &mut [&mut end], |ends| {
        assert_eq!(ends[0].ends(), 0, "{:?}", ends[0].events);
        ends[0].connected().len() == 1
    });
    say("connected");
    settle("closed", &mut [&mut end], |ends| ends[0].ends() == 1);
    say("closed");
}

/// Starts an idle peer; its connection.
fn join(server: &mut End, start: impl FnOnce(&str) -> Process) -> (Process, ConnId) {
    let before = server.connected().len();
    let child = start(&server.endpoint().0);
    settle("peer connected", &mut [server], |ends| ends[0].connected().len() > before);
    (child, *server.connected().last().unwrap())
}

#[test]
fn a_stopped_process_is_found_and_the_others_stay() {
    let mut server = End::start(timing(server_config()));
    let idle = |to: &str| Process::start("idle", to);
    let (mut stopped, lost) = join(&mut server, idle);
    let (other, kept) = join(&mut server, idle);
    assert_eq!(stopped.hear(), "connected");
    stopped.signal(libc::SIGSTOP);
    settle("found", &mut [&mut server], |ends| ends[0].end_of(lost).is_some());
    assert!(matches!(server.end_of(lost), Some(CloseReason::Silent(_))), "{:?}", server.events);
    assert_eq!(server.end_of(kept), None, "it lives by PING alone");
    // Continued, it learns that it was given up.
    stopped.signal(libc::SIGCONT);
    settle("told", &mut [&mut server], |_| stopped.hear() == "closed");
    stopped.finish();
    // A process that dies is known at once, from the kernel.
    drop(other);
    settle("dead", &mut [&mut server], |ends| ends[0].end_of(kept).is_some());
    assert_eq!(server.end_of(kept), Some(&CloseReason::Peer));
}

/// Grows with each PING, over whichever path the connection takes.
fn signs_of_life(end: &End) -> u64 {
    let stats = end.net.stats();
    let lanes: u64 = stats.lanes.iter().map(|(_, lane)| lane.bytes_received).sum();
    stats.tcp.pings_received + lanes
}

#[test]
fn a_ping_is_no_work() {
    let patient = |mut config: TcpConfig| {
        config.timing.silent_after = Duration::from_secs(1000);
        config
    };
    let mut server = End::start(patient(timing(server_config())));
    let mut client = End::start(patient(timing(client_config())));
    pair(&mut client, &mut server);
    while server.turn() || client.turn() {}
    let (mut heard, mut pings) = (signs_of_life(&server), 0);
    settle("three PINGs", &mut [&mut client], |_| {
        assert!(!server.turn(), "an owner would spin for nothing");
        pings += usize::from(std::mem::replace(&mut heard, signs_of_life(&server)) != heard);
        pings >= 3
    });
    assert!(server.events.len() == 1 && client.ends() == 0);
}

/// A network namespace of its own, linked to this one.
struct Elsewhere {
    name: String,
}

impl Elsewhere {
    const HERE: &str = "10.231.77.1";

    /// Needs root and `ip`; why not, otherwise.
    fn new() -> Result<Elsewhere, String> {
        let name = format!("ogv{}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let elsewhere = Elsewhere { name };
        let name = &elsewhere.name;
        ip(&format!("link add {name}a type veth peer name {name}b netns {name}"))?;
        ip(&format!("addr add {}/30 dev {name}a", Elsewhere::HERE))?;
        ip(&format!("link set {name}a up"))?;
        ip(&format!("-n {name} addr add 10.231.77.2/30 dev {name}b"))?;
        ip(&format!("-n {name} link set {name}b up"))?;
        Ok(elsewhere)
    }

    /// Everything that is sent there from now on vanishes, in both directions.
    fn cut(&self) {
        ip(&format!("-n {0} link set {0}b down", self.name)).unwrap();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}a", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(args: &str) -> Result<(), String> {
    let done = Command::new("ip").args(args.split(' ')).output().map_err(|e| e.to_string())?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {args}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

#[test]
fn a_half_open_connection_is_found_from_both_ends() {
    if path() != Path::Tcp {
        return println!("skipped: {} does not leave the machine", path());
    }
    let elsewhere = match Elsewhere::new() {
        Ok(elsewhere) => elsewhere,
        Err(why) => return println!("skipped: no network namespace here ({why})"),
    };
    let listen = vec![Endpoint(format!("tcp:{}:0", Elsewhere::HERE))];
    let mut server = End::start(TcpConfig { listen, ..timing(server_config()) });
    let (mut far, conn) = join(&mut server, |to| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &elsewhere.name]);
        Process::start_under(&mut command, "idle", to)
    });
    assert_eq!(far.hear(), "connected");
    elsewhere.cut();
    // What was under way when the link went down is lost too.
    server.send(conn, 1, false, None);
    settle("found here", &mut [&mut server], |ends| ends[0].end_of(conn).is_some());
    assert!(matches!(server.end_of(conn), Some(CloseReason::Silent(_))), "{:?}", server.events);
    assert_eq!(far.hear(), "closed", "found there");
    far.finish();
    assert_eq!(server.net.connections(), 0);
}
