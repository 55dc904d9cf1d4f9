//! Round trips of active messages over shared memory, between two processes that spin.
//!
//! ```text
//! cargo run --release -p ogive-ucx --example pingpong [-- ROUNDS]
//! ```
//!
//! Each case is measured in ten batches; printed are the fastest and the median one, as half a
//! round trip in µs, which is what `ucx_perftest -t ucp_am_lat` prints:
//!
//! ```text
//! export UCX_TLS=posix,self
//! ucx_perftest -c 1 & ucx_perftest -c 0 -t ucp_am_lat -s 64 localhost
//! ```
#![allow(clippy::disallowed_methods)] // It measures, and starts a process.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use ogive_buf::{Buf, Pool};
use ogive_ucx::{
    Completion, Config, Context, Data, Endpoint, EndpointId, Handler, Mode, Progress, UcxError,
    Worker,
};

const AM: u16 = 1;
/// Header alone, and header with data. Up to here UCX itself sends eagerly.
const CASES: [(usize, usize, Mode); 7] = [
    (64, 0, Mode::Eager),
    (8, 64, Mode::Eager),
    (8, 4096, Mode::Eager),
    (8, 65_536, Mode::Eager),
    (8, 65_536, Mode::Rendezvous),
    (8, 1 << 20, Mode::Eager),
    (8, 1 << 20, Mode::Rendezvous),
];

struct Peer {
    worker: Worker,
    pool: Pool,
    heard: Heard,
}

#[derive(Default)]
struct Heard {
    messages: usize,
    /// Copied out of UCX's memory, as a user has to.
    into: Option<ogive_buf::BufMut>,
    pending: Option<ogive_ucx::Pending>,
    received: bool,
    failed: Option<UcxError>,
    spare: Option<Vec<u8>>,
}

impl Handler for Heard {
    fn message(&mut self, _header: &[u8], data: Data<'_>) {
        match data {
            Data::Eager(bytes) => {
                if let Some(into) = &mut self.into {
                    into[..bytes.len()].copy_from_slice(&bytes);
                }
                self.messages += 1;
            }
            Data::Rendezvous(pending) => self.pending = Some(pending),
        }
    }

    fn completed(&mut self, done: Completion) {
        match done.what {
            ogive_ucx::Done::Received { .. } => self.received = true,
            ogive_ucx::Done::Sent { header, .. } => self.spare = Some(header),
            _ => {}
        }
    }

    fn failed(&mut self, _endpoint: EndpointId, error: UcxError) {
        self.failed = Some(error);
    }
}

impl Peer {
    fn new() -> Result<Peer, UcxError> {
        let config = Config::new().set("TLS", "posix,cma,self").set("POSIX_ERROR_HANDLING", "y");
        let worker = Worker::new(&Context::new(&config, 2)?)?;
        worker.receive_messages(AM)?;
        let pool = Pool::new(32 << 20);
        let heard = Heard { into: pool.alloc(1 << 20), ..Heard::default() };
        worker.register(&pool)?;
        Ok(Peer { worker, pool, heard })
    }

    fn send(&mut self, to: &Endpoint, head: usize, data: Option<Buf>, mode: Mode) {
        let mut header = self.heard.spare.take().unwrap_or_default();
        header.resize(head, 7);
        match to.send(AM, header, data, mode, 0) {
            Ok(Progress::Now(header)) => self.heard.spare = Some(header),
            Ok(Progress::Later) => {}
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// Waits for one message with its data in memory of this end.
    fn hear(&mut self) {
        let before = self.heard.messages;
        while self.heard.messages == before {
            self.worker.progress(&mut self.heard);
            if let Some(pending) = self.heard.pending.take() {
                let len = pending.len();
                let part = self.pool.alloc(len).and_then(|buf| buf.parts().take(len));
                let part = part.expect("the pool is large enough");
                match self.worker.receive(pending, part, 1) {
                    Ok(Progress::Now(_)) => self.heard.received = true,
                    Ok(Progress::Later) => {}
                    Err(error) => panic!("cannot receive: {error}"),
                }
            }
            if std::mem::take(&mut self.heard.received) {
                self.heard.messages += 1;
            }
            assert!(self.heard.failed.is_none(), "{:?}", self.heard.failed);
        }
    }
}

fn pin(cpu: usize) {
    // SAFETY: a set of processors on the stack, filled by the C library's own macros.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    let at = |i| u8::from_str_radix(&text[i..i + 2], 16);
    (0..text.trim().len()).step_by(2).map(at).collect()
}

fn rounds_of(rounds: usize, data: usize) -> usize {
    if data > 10_000 { (rounds / 20).max(10) } else { rounds }
}

fn echo(rounds: usize) -> Result<(), Box<dyn Error>> {
    pin(1);
    let mut peer = Peer::new()?;
    println!("{}", hex(&peer.worker.address()?));
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let back = peer.worker.connect(&unhex(line.trim())?)?;
    for (head, len, mode) in CASES {
        let data = peer.pool.alloc(len).expect("space").freeze();
        for _ in 0..11 * rounds_of(rounds, len) {
            peer.hear();
            peer.send(&back, head, (len > 0).then(|| data.clone()), mode);
        }
    }
    while peer.worker.operations() > 0 {
        peer.worker.progress(&mut peer.heard);
    }
    // Its end is the end of this process.
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// Half a round trip of each batch in µs, sorted.
fn batches(peer: &mut Peer, to: &Endpoint, case: (usize, usize, Mode), rounds: usize) -> Vec<f64> {
    let (head, len, mode) = case;
    let data = peer.pool.alloc(len).expect("space").freeze();
    let rounds = rounds_of(rounds, len);
    let mut batch = || {
        let begin = Instant::now();
        for _ in 0..rounds {
            peer.send(to, head, (len > 0).then(|| data.clone()), mode);
            peer.hear();
        }
        begin.elapsed().as_secs_f64() * 1e6 / (2 * rounds) as f64
    };
    batch();
    let mut batches: Vec<f64> = (0..10).map(|_| batch()).collect();
    batches.sort_by(f64::total_cmp);
    batches
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().unwrap_or("20000".into()).parse()?;
    if arguments.next().is_some() {
        return echo(rounds);
    }
    pin(0);
    let mut peer = Peer::new()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([&rounds.to_string(), "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
    let mut tell = child.stdin.take().expect("piped");
    writeln!(tell, "{}", hex(&peer.worker.address()?))?;
    let to = peer.worker.connect(&unhex(line.trim())?)?;
    println!("{:>6} {:>8} {:<10} {:>9} {:>9}", "header", "data", "mode", "fastest", "median");
    for case in CASES {
        let batches = batches(&mut peer, &to, case, rounds);
        let ((head, len, mode), fastest, median) = (case, batches[0], batches[5]);
        let mode = format!("{mode:?}");
        println!("{head:>6} {len:>8} {mode:<10} {fastest:>9.3} {median:>9.3}");
    }
    println!("over {}", to.transports()?);
    drop(tell);
    child.wait()?;
    Ok(())
}
