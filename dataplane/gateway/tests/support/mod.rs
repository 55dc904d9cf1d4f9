//! A server over a volume in memory, for tests with real clients.

// Each test file uses its own part of this; and a test owns a thread, a clock and sockets.
#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ogive_buf::Pool;
use ogive_client::{VolumeError, VolumeOp, VolumeOutput};
use ogive_gateway::{ConnKey, Export, ExportRequest, NbdConfig, NbdListen, NbdServer};
use ogive_types::Time;

const BLOCK: usize = 4096;

/// A volume in memory that keeps track of what is mapped.
pub struct RamVolume {
    pub bytes: Vec<u8>,
    mapped: Vec<bool>,
    pool: Pool,
}

impl RamVolume {
    pub fn new(size: usize, pool: Pool) -> RamVolume {
        RamVolume { bytes: vec![0; size], mapped: vec![false; size.div_ceil(BLOCK)], pool }
    }

    pub fn run(&mut self, op: &VolumeOp) -> Result<VolumeOutput, VolumeError> {
        let (offset, len) = op.span();
        let (from, to) = (offset as usize, (offset + len) as usize);
        assert!(to <= self.bytes.len(), "sessions check ranges");
        match op {
            VolumeOp::Read { .. } => {
                assert!(len <= ogive_types::MAX_IO_BYTES as u64, "sessions cut reads");
                let mut buf = self.pool.alloc(to - from).ok_or(VolumeError::Overloaded)?;
                buf.copy_from_slice(&self.bytes[from..to]);
                let buf = buf.freeze();
                let middle = buf.len() / 3;
                Ok(VolumeOutput::Data(vec![buf.slice(0..middle), buf.slice(middle..buf.len())]))
            }
            VolumeOp::Write { data, .. } => {
                assert!(len <= ogive_types::MAX_IO_BYTES as u64, "sessions cut writes");
                self.bytes[from..to].copy_from_slice(data);
                self.mapped[from / BLOCK..to.div_ceil(BLOCK)].fill(true);
                Ok(VolumeOutput::Done)
            }
            VolumeOp::WriteZeroes { .. } | VolumeOp::Trim { .. } => {
                let (first, last) = (from.div_ceil(BLOCK), to / BLOCK);
                if matches!(op, VolumeOp::WriteZeroes { .. }) {
                    self.bytes[from..to].fill(0);
                } else if first < last {
                    self.bytes[first * BLOCK..last * BLOCK].fill(0);
                }
                if first < last {
                    self.mapped[first..last].fill(false);
                }
                Ok(VolumeOutput::Done)
            }
            VolumeOp::Map { .. } => {
                let mut runs: Vec<(u64, bool)> = Vec::new();
                for at in (from / BLOCK)..to.div_ceil(BLOCK) {
                    let part = ((at + 1) * BLOCK).min(to) - (at * BLOCK).max(from);
                    match runs.last_mut() {
                        Some((n, mapped)) if *mapped == self.mapped[at] => *n += part as u64,
                        _ => runs.push((part as u64, self.mapped[at])),
                    }
                }
                Ok(VolumeOutput::Map(runs))
            }
            VolumeOp::Flush => Ok(VolumeOutput::Done),
        }
    }
}

/// A running server; stops when dropped.
pub struct TestServer {
    pub dir: tempfile::TempDir,
    pub listening: Vec<NbdListen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// Serves `disk` (writable) and `frozen` (read-only), both of `size` bytes, with `pool_bytes`
    /// of buffers.
    pub fn start(size: usize, pool_bytes: usize) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let listen = vec![
            NbdListen::Unix(dir.path().join("nbd.sock")),
            NbdListen::Tcp("127.0.0.1:0".parse().unwrap()),
        ];
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let thread_stop = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let pool = Pool::new(pool_bytes);
            let export = |name: &str, read_only| Export {
                name: name.into(),
                description: format!("{name} in memory"),
                size_bytes: size as u64,
                read_only,
            };
            let exports = vec![export("disk", false), export("frozen", true)];
            let server = NbdServer::new(NbdConfig { listen, exports }, pool.clone()).unwrap();
            tell.send(server.listening().unwrap()).unwrap();
            serve(server, size, pool, &thread_stop);
        });
        let listening = told.recv().unwrap();
        TestServer { dir, listening, stop, thread: Some(thread) }
    }

    /// The URI of an export over the unix socket.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.dir.path().join("nbd.sock").display())
    }

    /// The URI of an export over TCP.
    pub fn tcp_uri(&self, export: &str) -> String {
        let NbdListen::Tcp(addr) = self.listening[1] else { unreachable!("second in the list") };
        format!("nbd://{addr}/{export}")
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Completes requests in a scrambled order, a few at a time.
fn serve(mut server: NbdServer, size: usize, pool: Pool, stop: &AtomicBool) {
    let start = Instant::now();
    let mut volumes = [RamVolume::new(size, pool.clone()), RamVolume::new(size, pool)];
    let mut waiting: Vec<(ConnKey, ExportRequest)> = Vec::new();
    let mut random = 1u64;
    while !stop.load(Ordering::Relaxed) {
        let now = Time(start.elapsed().as_micros() as u64);
        let any = server.poll(now, &mut waiting);
        for _ in 0..waiting.len().div_ceil(2) {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (key, request) = waiting.swap_remove((random >> 33) as usize % waiting.len());
            let result = volumes[request.export.0].run(&request.op);
            server.complete(key, request.token, result);
        }
        server.flush();
        if !any && waiting.is_empty() {
            sleep(&server, now);
        }
    }
}

/// Sleeps until the server's descriptor or deadline says otherwise: a wake-up that the server
/// misses shows as a hang.
fn sleep(server: &NbdServer, now: Time) {
    use rustix::event::{PollFd, PollFlags, poll};
    use std::os::fd::BorrowedFd;
    let limit = Duration::from_millis(100);
    let wait = match server.next_deadline() {
        Time::NEVER => limit,
        at => at.since(now).min(limit),
    };
    // SAFETY: the server owns the descriptor and outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(server.wake_fd()) };
    let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
}

/// Runs a tool and returns what it printed; panics with all of it when it fails.
pub fn run(tool: &str, args: &[&str]) -> String {
    let (ok, text) = try_run(tool, args);
    assert!(ok, "{tool} {args:?} failed:\n{text}");
    text
}

/// Runs a tool; true when it succeeded, and its output with its errors.
pub fn try_run(tool: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new("timeout").args(["60", tool]).args(args).output();
    let output = output.expect("timeout(1) runs");
    assert_ne!(
        output.status.code(),
        Some(127),
        "{tool} is not installed; `make test` installs what the tests need"
    );
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
