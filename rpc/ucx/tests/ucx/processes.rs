//! Two processes over shared memory and TCP, one of them killed in each phase.
//!
//! The other process is this test binary again, told by the environment which test and which role.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ogive_ucx::{Done, Endpoint, Mode, Progress};

use crate::support::{Announced, Body, End, Via, over_both, pattern, send};

const ROLE: &str = "OGIVE_UCX_ROLE";
/// Beyond this something hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Runs a test in a process of its own. True in the process that has done so, and checked that it
/// passed; false in that of the test.
pub fn rerun_alone(test: &str) -> bool {
    rerun_with(test, &[], |output| {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    })
}

/// As [`rerun_alone`], with variables, and a look at the result.
pub fn rerun_with(test: &str, variables: &[(&str, &str)], check: impl FnOnce(&Output)) -> bool {
    if std::env::var_os(ROLE).is_some() {
        return false;
    }
    let output = again(test, "alone").envs(variables.iter().copied()).output().unwrap();
    check(&output);
    true
}

/// The other process, killed at the latest when this is dropped.
struct Other {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn start(test: &str, via: Via, phase: Phase) -> Other {
        let mut child = again(test, &format!("{via:?} {phase:?}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Other { child, lines }
    }

    fn told(&mut self, word: &str) -> String {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
        }
        panic!("the other process ended without saying {word}");
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// What goes on when the other process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing; in the first case it is told to end, not killed.
    Talk,
    Idle,
    /// It does not read what is sent to it.
    Eager,
    /// It was sent announcements, and has not received.
    Announced,
    /// It announced, and is killed before this end receives.
    Announcing,
    /// It is killed while data is moved in both directions.
    Moving,
    /// It exposed memory that this end puts to and gets from.
    Memory,
}

const PHASES: [Phase; 7] = [
    Phase::Talk,
    Phase::Idle,
    Phase::Eager,
    Phase::Announced,
    Phase::Announcing,
    Phase::Moving,
    Phase::Memory,
];

/// The other process's part.
fn other(role: &str) {
    let (via, phase) = role.split_once(' ').unwrap();
    let via = if via == "Shm" { Via::Shm } else { Via::Tcp };
    let phase = *PHASES.iter().find(|known| format!("{known:?}") == phase).unwrap();
    let mut end = End::new(via);
    end.worker.register(&end.pool).unwrap();
    let to_peer = meet(&mut end, via);
    send(&to_peer, b"hello", None, Mode::Auto, 0);
    while end.seen.messages.is_empty() {
        end.turn();
    }
    end.seen.messages.clear();
    match phase {
        Phase::Eager => {
            println!("READY");
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Phase::Announced => end.seen.announced = Announced::Hold,
        Phase::Announcing => {
            send(&to_peer, b"big", Some(end.data(4 << 20, 1)), Mode::Rendezvous, 1);
        }
        Phase::Memory => {
            let part = end.pool.alloc(4 << 20).unwrap().parts().take(4 << 20).unwrap();
            end.worker.register(&end.pool).unwrap();
            let exposed = end.worker.region(part.arena()).unwrap().expose(part).unwrap();
            println!("MEMORY {}", hex(exposed.description()));
            std::mem::forget(exposed);
        }
        Phase::Talk | Phase::Idle | Phase::Moving => {}
    }
    println!("READY");
    serve(&mut end, &to_peer, phase);
}

/// The ends exchange addresses. Over TCP the other end connects first, see `support::connect`.
/// Listeners are no help here: UCX 1.13 does not always notice that such a peer died.
fn meet(end: &mut End, via: Via) -> Endpoint {
    println!("ADDRESS {}", hex(&end.worker.address().unwrap()));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    while via == Via::Tcp && end.seen.messages.is_empty() {
        end.turn();
    }
    end.worker.connect(&unhex(line.trim())).unwrap()
}

/// Answers until it is killed, or told to end.
fn serve(end: &mut End, to_peer: &Endpoint, phase: Phase) {
    loop {
        end.turn();
        for (header, body) in std::mem::take(&mut end.seen.messages) {
            if header == b"end" {
                println!("ENDS");
                return;
            }
            let back = end.data(body.bytes().len(), 7);
            send(to_peer, &header, Some(back), Mode::Auto, 1);
        }
        if phase == Phase::Moving && end.worker.operations() < 4 {
            send(to_peer, b"more", Some(end.data(4 << 20, 1)), Mode::Rendezvous, 1);
        }
        end.seen.done.clear();
    }
}

/// This process's part: connects, begins what the phase says, and returns how many completions are
/// to come.
fn begin(end: &mut End, to_other: &Endpoint, other: &mut Other, phase: Phase) -> usize {
    send(to_other, b"hello", None, Mode::Auto, 0);
    turn_until(end, |end| end.seen.messages.len() == 1 && end.worker.operations() == 0);
    end.seen.done.clear();
    if phase == Phase::Memory {
        let description = unhex(&other.told("MEMORY"));
        other.told("READY");
        return memory(end, to_other, &description);
    }
    other.told("READY");
    let mut waiting = 0;
    match phase {
        Phase::Talk | Phase::Idle => {}
        Phase::Eager => {
            for n in 0..2000 {
                let data = Some(end.data(30_000, n));
                waiting += send(to_other, b"eager", data, Mode::Eager, n) as usize;
                end.turn();
            }
            assert!(waiting > 0);
        }
        Phase::Announced => {
            for n in 0..20 {
                let data = Some(end.data(500_000, n));
                waiting += send(to_other, b"wait", data, Mode::Rendezvous, n) as usize;
            }
            assert_eq!(waiting, 20);
            (0..2000).for_each(|_| _ = end.turn());
        }
        Phase::Announcing => {
            end.seen.announced = Announced::Hold;
            turn_until(end, |end| end.seen.pending.len() == 1);
        }
        Phase::Moving => {
            turn_until(end, |end| end.seen.messages.len() >= 5);
            for n in 0..8 {
                let data = Some(end.data(4 << 20, n));
                waiting += send(to_other, b"x", data, Mode::Rendezvous, n) as usize;
            }
        }
        Phase::Memory => unreachable!("done above"),
    }
    waiting
}

fn memory(end: &mut End, to_other: &Endpoint, description: &[u8]) -> usize {
    let remote = to_other.remote(description).unwrap();
    let mut waiting = 0;
    for n in 0..8 {
        let put = to_other.put(end.data(1 << 20, n), &remote, 0, n).unwrap();
        let into = end.pool.alloc(1 << 20).unwrap().parts().take(1 << 20).unwrap();
        let get = to_other.get(into, &remote, 1 << 20, n).unwrap();
        let flush = to_other.flush(n).unwrap();
        waiting += matches!(put, Progress::Later) as usize;
        waiting += matches!(get, Progress::Later) as usize;
        waiting += matches!(flush, Progress::Later) as usize;
    }
    waiting
}

fn turn_until(end: &mut End, done: impl Fn(&End) -> bool) {
    let begin = Instant::now();
    while !done(end) {
        end.turn();
        assert!(begin.elapsed() < HANGS_AFTER, "hangs: {:?} {:?}", end.worker, end.seen.failed);
    }
}

#[test]
fn a_killed_peer_wakes_every_waiter() {
    let name = "processes::a_killed_peer_wakes_every_waiter";
    if let Ok(role) = std::env::var(ROLE) {
        return other(&role);
    }
    over_both(|via| {
        for phase in PHASES {
            kill_in(name, via, phase);
        }
    });
}

fn kill_in(name: &str, via: Via, phase: Phase) {
    let mut end = End::new(via);
    end.worker.register(&end.pool).unwrap();
    let mut other = Other::start(name, via, phase);
    let address = other.told("ADDRESS");
    other.tell(&hex(&end.worker.address().unwrap()));
    let to_other = end.worker.connect(&unhex(&address)).unwrap();
    let waiting = begin(&mut end, &to_other, &mut other, phase);
    if phase == Phase::Talk {
        return talk(&mut end, &to_other, &mut other);
    }
    other.kill();
    let received = end.seen.messages.len();
    end.seen.receive_pending();
    // UCX 1.13 does not notice a peer that died with its queue full. Whoever learns of it otherwise
    // closes the endpoint, and that is enough.
    if !(via == Via::Shm && matches!(phase, Phase::Eager | Phase::Moving)) {
        fails(&mut end, &to_other, via, phase);
    }
    drop(to_other);
    returned(&mut end, waiting, via, phase);
    if phase == Phase::Announcing {
        assert_eq!(end.seen.messages.len(), received + 1);
        let body = &end.seen.messages[received].1;
        assert!(matches!(body, Body::Failed(_)), "{via:?}: {body:?}");
    }
    end.seen.messages.clear();
    // Data that was on its way in both directions is where UCX forgets requests.
    if end.worker.withheld() == 0 {
        assert_eq!(end.pool.stats().used_bytes, 0, "{phase:?} over {via:?}");
    } else {
        assert!(via == Via::Shm && phase == Phase::Moving, "{phase:?} over {via:?}");
    }
    let pool = end.pool.clone();
    drop(end);
    assert_eq!(pool.stats().used_bytes, 0, "{phase:?} over {via:?}");
}

fn talk(end: &mut End, to_other: &Endpoint, other: &mut Other) {
    end.seen.messages.clear();
    for len in [0, 1, 4096, 50_000, 4 << 20] {
        send(to_other, b"x", Some(end.data(len, 3)), Mode::Auto, 1);
        turn_until(end, |end| end.seen.messages.len() == 1);
        assert!(end.seen.messages.pop().unwrap().1.bytes() == pattern(len, 7), "{len} bytes");
    }
    send(to_other, b"end", None, Mode::Auto, 1);
    other.told("ENDS");
    assert!(other.child.wait().unwrap().success());
}

/// The other process is dead: the endpoint fails, once, and refuses everything from then on.
fn fails(end: &mut End, to_other: &Endpoint, via: Via, phase: Phase) {
    let what = format!("{phase:?} over {via:?}");
    turn_until(end, |end| end.seen.failed.len() == 1);
    let (id, error) = end.seen.failed[0].clone();
    assert!(id == to_other.id() && error.is_peer_gone(), "{what}: {error}");
    assert_eq!(to_other.flush(9), Err(error.clone()), "{what}");
    let refused = to_other.send(1, vec![], None, Mode::Auto, 1);
    assert_eq!(refused, Err(error), "{what}");
    (0..1000).for_each(|_| _ = end.turn());
    assert_eq!(end.seen.failed.len(), 1, "{what}: reported once");
}

/// Every operation ends, most of them with errors, and gives its buffers back, except for what UCX
/// forgot.
fn returned(end: &mut End, waiting: usize, via: Via, phase: Phase) {
    turn_until(end, |end| end.seen.done.len() == waiting && end.worker.operations() == 0);
    let mut kept_back = 0;
    for done in &end.seen.done {
        let returned = match &done.what {
            Done::Sent { payload, .. } => payload.is_some(),
            Done::Put { from } => from.is_some(),
            Done::Got { into } => into.is_some(),
            Done::Flushed => true,
            Done::Received { .. } => false,
        };
        assert!(returned || done.result.is_err());
        kept_back += !returned as usize;
    }
    assert!(kept_back <= end.worker.withheld(), "{phase:?} over {via:?}");
    let failed = end.seen.done.iter().filter(|done| done.result.is_err()).count();
    assert!(phase != Phase::Announced || failed == waiting, "nobody received it");
    end.seen.done.clear();
}
