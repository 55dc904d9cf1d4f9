//! A cluster of real processes for a test, and the programs that use it.
#![allow(dead_code)] // each test binary uses a part of it
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // a shell: processes and waiting

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ogive_api::types::Health;
use ogive_bench::{Report, Running, VolumeBench};
use ogive_cli::local::{LocalCluster, Options, Part};
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const OGIVE: &str = env!("CARGO_BIN_EXE_ogive");
/// How long anything that must happen is waited for. Far more than it takes, also on a machine that
/// writes back what a build left: it bounds a failure.
pub const SOON: Duration = Duration::from_secs(120);
/// What a device holds in most tests.
pub const DEVICE_BYTES: u64 = 256 << 20;

/// One cluster at a time: the machine is shared by all of its processes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A cluster in a directory of its own; both go with it.
pub struct TestCluster {
    cluster: LocalCluster,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl TestCluster {
    /// Three metadata servers and three chunkservers with devices of 256 MiB, healthy.
    pub fn start() -> TestCluster {
        TestCluster::with(|_| {})
    }

    /// The same with other options.
    pub fn with(change: impl FnOnce(&mut Options)) -> TestCluster {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = scratch();
        let mut options = Options {
            device_bytes: DEVICE_BYTES,
            quick: true,
            ..Options::new(dir.path().to_owned(), OGIVE.into())
        };
        change(&mut options);
        let mut cluster = LocalCluster::create(options).expect("a new cluster");
        cluster.start().expect("its processes");
        let mut test = TestCluster { cluster, dir, _turn: turn };
        test.healthy();
        test
    }

    /// With one volume, exported by gateway 1.
    pub fn with_volume(name: &str, bytes: u64) -> TestCluster {
        let mut test = TestCluster::start();
        test.export(name, bytes);
        test
    }

    /// Creates a volume and exports it by gateway 1.
    pub fn export(&mut self, name: &str, bytes: u64) {
        self.create_volume(name, bytes).expect("a volume");
        self.start_gateway(1, &[name]).expect("a gateway");
    }

    /// Waits until everything is healthy.
    pub fn healthy(&mut self) {
        if let Err(error) = self.cluster.wait_healthy(SOON, |_| {}) {
            panic!("{error}");
        }
    }

    /// Kills a chunkserver and starts it again, once the metadata servers have missed it: what they
    /// say of it from then on is of the new process.
    pub fn restart_noticed(&mut self, n: u32) {
        self.kill(Part::Chunkserver(n)).expect("it runs");
        let missed = self
            .cluster
            .wait_until(SOON, "being missed", |status| status.health != Health::Healthy);
        missed.expect("the status of a cluster without a chunkserver");
        self.launch(Part::Chunkserver(n)).expect("it starts again");
        self.healthy();
    }

    /// The chunkserver that leads most copysets, and one that leads fewest.
    pub fn leader_and_follower(&mut self) -> (Part, Part) {
        let status = self.status().expect("a status");
        let part = |zone: &str| Part::Chunkserver(zone.replace("zone-", "").parse().unwrap());
        let most = status.chunkservers.iter().max_by_key(|c| c.leaders).unwrap();
        let others = status.chunkservers.iter().filter(|c| c.id != most.id);
        let least = others.min_by_key(|c| c.leaders).unwrap();
        (part(&most.zone), part(&least.zone))
    }

    /// The metadata server that leads.
    pub fn mds_leader(&self) -> Part {
        let status = self.status().expect("a status");
        let leader = status.mds.iter().find(|m| m.leader).expect("a leader");
        Part::Mds(u32::try_from(leader.node_id).unwrap())
    }

    /// Runs `ogive` against this cluster.
    pub fn ogive(&self, args: &[&str]) -> Output {
        let mds = self.mds_addresses().join(",");
        let mut all: Vec<&str> = args.to_vec();
        all.extend(["--mds", &mds]);
        ogive(&all)
    }

    /// Runs `ogive --json` against this cluster; it must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all: Vec<&str> = args.to_vec();
        all.push("--json");
        let output = self.ogive(&all);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    /// A checked load on a volume of gateway 1: random 4 KiB, half of it reads, over 64 MiB.
    pub fn load(&self, volume: &str) -> VolumeBench {
        VolumeBench {
            depth: 16,
            read_percent: 50,
            range: Some(0..64 << 20),
            verify: true,
            reconnect: SOON,
            ..VolumeBench::new(self.uri(1, volume).parse().expect("a URI"))
        }
    }

    /// The end of each log, for failures.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.path().join("log")).into_iter().flatten().flatten()
        {
            let log = std::fs::read(entry.path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n  ");
            text.push_str(&format!("{}:\n  {tail}\n", entry.path().display()));
        }
        text
    }
}

impl Drop for TestCluster {
    /// Says what the cluster thinks of itself when a test fails; the logs go with the directory.
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self.status() {
                Ok(status) => {
                    eprintln!(
                        "FAILED with a cluster that is {:?}: {:?}",
                        status.health, status.reasons
                    )
                }
                Err(error) => eprintln!("FAILED with a cluster without status: {error}"),
            }
            eprintln!("{}", self.logs());
        }
    }
}

impl Deref for TestCluster {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        &self.cluster
    }
}

impl DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }
}

/// Starts a load on a thread of its own.
pub fn spawn(bench: VolumeBench) -> Running {
    bench.spawn(|_| {}).expect("a thread")
}

/// Waits until a load has made so many requests more.
pub struct Meter {
    ops: std::sync::Arc<std::sync::atomic::AtomicU64>,
    /// The load.
    pub running: Running,
}

impl Meter {
    /// Starts a load that ends when it is stopped.
    pub fn start(bench: VolumeBench) -> Meter {
        let ops = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let told = std::sync::Arc::clone(&ops);
        let seen = move |p: &ogive_bench::Progress| {
            told.store(p.ops, std::sync::atomic::Ordering::Relaxed);
        };
        Meter { ops, running: bench.spawn(seen).expect("a thread") }
    }

    /// Waits until `more` requests have succeeded from now on.
    pub fn wait(&self, more: u64) {
        let at = || self.ops.load(std::sync::atomic::Ordering::Relaxed);
        let goal = at() + more;
        let deadline = Instant::now() + SOON;
        while at() < goal {
            assert!(!self.running.is_finished(), "the load ended by itself");
            assert!(Instant::now() < deadline, "no progress: {} of {goal} requests", at());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the load; everything that was written must be there.
    pub fn verified(self) -> Report {
        self.running.stop_handle().stop();
        verified(self.running)
    }
}

/// Waits for the end of a load; everything that was written must be there.
pub fn verified(running: Running) -> Report {
    let report = running.join().expect("a report");
    assert!(report.is_ok(), "{report}");
    let checked = report.verify.as_ref().expect("a verifying load");
    assert!(checked.read_back > 0, "nothing was read back");
    report
}

/// Runs `ogive`; never longer than four minutes.
pub fn ogive(args: &[&str]) -> Output {
    run(Command::new(OGIVE).args(args))
}

/// Runs a tool that `make test` installs; it must succeed. Returns what it printed.
pub fn tool(name: &str, args: &[&str]) -> String {
    let output = try_tool(name, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} {args:?} failed: {text}{}", stderr(&output));
    text
}

/// Runs a tool that `make test` installs, whatever comes of it.
pub fn try_tool(name: &str, args: &[&str]) -> Output {
    // Where users of some systems have no path to.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    run(Command::new(name).args(args).env("PATH", path))
}

/// Runs a program to its end, killed after four minutes.
fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("OGIVE_MDS")
        .env_remove("OGIVE_LOG")
        .spawn();
    let child =
        spawned.unwrap_or_else(|e| panic!("cannot run {name} ({e}); `make test` installs it"));
    let pid = child.id().to_string();
    let (done, waited) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if waited
            .recv_timeout(SOON * 2)
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(done);
    guard.join().expect("the guard");
    output
}

/// What a program said on standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program must fail with this exit code, and say each of these.
pub fn fails(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is missing in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
}

/// A directory on a file system that takes direct I/O.
pub fn scratch() -> TempDir {
    TempDir::with_prefix_in("t", env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A file of bytes that do not repeat, in 4 KiB blocks some of which are zero.
pub fn make_image(path: PathBuf, bytes: usize) -> PathBuf {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut data = vec![0u8; bytes];
    for (number, block) in data.chunks_mut(4096).enumerate() {
        if number % 5 == 3 {
            continue;
        }
        for word in block.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
    }
    std::fs::write(&path, data).expect("a file");
    path
}
