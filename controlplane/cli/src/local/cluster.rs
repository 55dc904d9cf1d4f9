//! The cluster: its directory, its processes, and waiting for it.
#![allow(clippy::disallowed_methods)] // a shell: files, processes, waiting

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ogive_api::types::{ClusterStatus, Health, NewVolume};
use ogive_api::{ApiError, MdsClient};
use ogive_rpc::transport::PathChoice;
use ogive_types::Layout;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::net::Host;
use super::ports;
use super::process::{Part, Process, Start};

/// How to make a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory; made if it does not exist.
    pub dir: PathBuf,
    /// The `ogive` binary.
    pub exe: PathBuf,
    /// Metadata servers.
    pub mds: u32,
    /// Chunkservers, each in a zone of its own.
    pub chunkservers: u32,
    /// Bytes of each device.
    pub device_bytes: u64,
    /// Bytes of each shard's log; `None` leaves it to `format`.
    pub log_bytes: Option<u64>,
    /// Shards of each chunkserver.
    pub shards: u16,
    /// Which paths the processes may take to each other.
    pub transport: PathChoice,
    /// What the processes log.
    pub log: String,
    /// Devices are not filled with zeroes first: made faster, slower at the first writes.
    pub quick: bool,
    /// The processes outlive the one that started them.
    pub keep: bool,
    /// Where parts run that do not share this machine's network.
    pub hosts: BTreeMap<Part, Host>,
    /// Environment of the processes, beside this one's: further options of theirs.
    pub env: BTreeMap<String, String>,
}

impl Options {
    /// Three metadata servers and three chunkservers of one shard and 1 GiB each.
    pub fn new(dir: PathBuf, exe: PathBuf) -> Options {
        Options {
            dir,
            exe,
            mds: 3,
            chunkservers: 3,
            device_bytes: 1 << 30,
            log_bytes: None,
            shards: 1,
            transport: PathChoice::Auto,
            log: "info".to_owned(),
            quick: false,
            keep: false,
            hosts: BTreeMap::new(),
            env: BTreeMap::new(),
        }
    }
}

/// What goes wrong with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The directory is in use or is not ours.
    #[error("{0}")]
    Directory(String),
    /// A file or process operation failed.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// A process ended, or did not do its work.
    #[error("{0}")]
    Process(String),
    /// The metadata servers refuse something.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The cluster did not reach a state in time.
    #[error("{what} took longer than {seconds} s: {state}")]
    Slow {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// The last state seen.
        state: String,
    },
}

impl LocalError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LocalError {
        let what = what.into();
        move |error| LocalError::Io { what, error }
    }
}

/// What `cluster.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Marks the directory as one of ours.
    pub ogive_local_cluster: u32,
    /// Addresses of the metadata servers.
    pub mds: Vec<String>,
    /// Process ids by part.
    pub pids: BTreeMap<String, u32>,
}

const STATE_FILE: &str = "cluster.json";

/// A cluster on this machine.
pub struct LocalCluster {
    options: Options,
    ports: Vec<u16>,
    runtime: tokio::runtime::Runtime,
    processes: BTreeMap<Part, Process>,
    /// Volumes of each gateway.
    exports: BTreeMap<u32, Vec<String>>,
}

impl LocalCluster {
    /// Makes the directory and formats the devices; starts nothing yet.
    pub fn create(options: Options) -> Result<LocalCluster, LocalError> {
        make_dir(&options.dir)?;
        let count = (options.mds + options.chunkservers * u32::from(options.shards)) as usize;
        let ports = ports::free(count).map_err(LocalError::io("cannot find free ports"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LocalError::io("cannot start the asynchronous runtime"))?;
        let (processes, exports) = (BTreeMap::new(), BTreeMap::new());
        let cluster = LocalCluster { options, ports, runtime, processes, exports };
        // First, so that whatever happens from here on is recognised and cleaned up later.
        cluster.save_state()?;
        for sub in ["device", "mds", "log"] {
            make_dir(&cluster.options.dir.join(sub))?;
        }
        let all = (1..=cluster.options.chunkservers).map(|n| cluster.format(n));
        // All are started before the first is waited for.
        let all: Vec<_> = all.collect();
        all.into_iter().try_for_each(formatted)?;
        Ok(cluster)
    }

    fn format(&self, n: u32) -> io::Result<Child> {
        let mut args = vec!["format".to_owned(), self.device(n).display().to_string()];
        args.extend(["--size".to_owned(), self.options.device_bytes.to_string()]);
        args.extend(["--shards".to_owned(), self.options.shards.to_string()]);
        args.extend(
            self.options.log_bytes.iter().flat_map(|b| ["--log-size".to_owned(), b.to_string()]),
        );
        args.extend(self.options.quick.then(|| "--quick".to_owned()));
        let mut command = Command::new(&self.options.exe);
        command.args(&args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    }

    /// Starts the metadata servers and chunkservers.
    pub fn start(&mut self) -> Result<(), LocalError> {
        for n in 1..=self.options.mds {
            self.launch(Part::Mds(n))?;
        }
        for n in 1..=self.options.chunkservers {
            self.launch(Part::Chunkserver(n))?;
        }
        Ok(())
    }

    /// Says which volumes a gateway exports when it is launched.
    pub fn will_export(&mut self, n: u32, volumes: &[&str]) {
        self.exports.insert(n, volumes.iter().map(|v| (*v).to_owned()).collect());
    }

    /// Starts a gateway for volumes, and waits for its socket.
    pub fn start_gateway(&mut self, n: u32, volumes: &[&str]) -> Result<(), LocalError> {
        self.will_export(n, volumes);
        self.launch(Part::Gateway(n))?;
        self.wait_gateway(n)
    }

    /// Waits until a gateway takes connections.
    pub fn wait_gateway(&mut self, n: u32) -> Result<(), LocalError> {
        let socket = self.socket(n);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            self.check()?;
            if Instant::now() > deadline {
                let what = "starting the gateway".to_owned();
                return Err(LocalError::Slow { what, seconds: 20, state: "no socket".to_owned() });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts a part, for the first time or again.
    pub fn launch(&mut self, part: Part) -> Result<(), LocalError> {
        let _may_start = freeze();
        let log = self.options.dir.join("log").join(format!("{part}.log"));
        let mut args = self.args(part);
        args.extend(["--log".to_owned(), self.options.log.clone()]);
        let start = Start {
            exe: &self.options.exe,
            args: &args,
            env: &self.options.env,
            log: &log,
            keep: self.options.keep,
            host: self.options.hosts.get(&part),
        };
        let started = Process::start(part, &start);
        let process = started.map_err(LocalError::io(format!("cannot start {part}")))?;
        self.processes.insert(part, process);
        self.save_state()
    }

    fn args(&self, part: Part) -> Vec<String> {
        let dir = &self.options.dir;
        let mds = self.mds_addresses();
        let text: Vec<String> = match part {
            Part::Mds(n) => {
                let peers = mds.iter().zip(1..).map(|(addr, id)| format!("{id}={addr}"));
                let peers = peers.collect::<Vec<_>>().join(",");
                let dir = dir.join("mds").join(n.to_string()).display().to_string();
                vec![
                    "mds".into(),
                    "--id".into(),
                    n.to_string(),
                    "--peers".into(),
                    peers,
                    "--dir".into(),
                    dir,
                ]
            }
            Part::Chunkserver(n) => {
                let port = self.chunkserver_port(n);
                let device = self.device(n).display().to_string();
                let mut args = vec!["chunkserver".into(), "--mds".into(), mds.join(",")];
                args.extend(["--device".into(), device, "--zone".into(), format!("zone-{n}")]);
                args.extend(["--server".into(), format!("server-{n}")]);
                args.extend(["--listen".into(), format!("{}:{port}", self.address(part))]);
                args.extend(["--transport".into(), self.options.transport.to_string()]);
                args.extend(self.spin());
                args
            }
            Part::Gateway(n) => {
                let socket = self.socket(n).display().to_string();
                let mut args = vec!["nbd".into(), "--mds".into(), mds.join(",")];
                let volumes = self.exports.get(&n).into_iter().flatten();
                args.extend(volumes.flat_map(|v| ["--volume".to_owned(), v.clone()]));
                // A gateway that was killed holds its volumes until its lease runs out.
                args.extend(["--socket".into(), socket, "--force".into()]);
                args.extend(["--transport".into(), self.options.transport.to_string()]);
                args.extend(self.spin());
                args
            }
        };
        text
    }

    /// Each process knows only its own loops. Where all of them together have no core each, none
    /// may spin: it would delay the very one that it waits for.
    fn spin(&self) -> Vec<String> {
        let loops = self.options.chunkservers as usize * usize::from(self.options.shards) + 1;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let options = if loops < cores { &[][..] } else { &["--spin-us", "0"] };
        options.iter().map(|&o| o.to_owned()).collect()
    }

    /// Addresses of the metadata servers.
    pub fn mds_addresses(&self) -> Vec<String> {
        let ports = &self.ports[..self.options.mds as usize];
        let parts = (1..).map(Part::Mds);
        ports
            .iter()
            .zip(parts)
            .map(|(port, part)| format!("{}:{port}", self.address(part)))
            .collect()
    }

    fn address(&self, part: Part) -> Ipv4Addr {
        self.options.hosts.get(&part).map_or(Ipv4Addr::LOCALHOST, |host| host.address)
    }

    fn chunkserver_port(&self, n: u32) -> u16 {
        let first = self.options.mds + (n - 1) * u32::from(self.options.shards);
        self.ports[first as usize]
    }

    /// The device of a chunkserver.
    pub fn device(&self, n: u32) -> PathBuf {
        self.options.dir.join("device").join(format!("{n}.ogive"))
    }

    /// The socket of a gateway.
    pub fn socket(&self, n: u32) -> PathBuf {
        self.options.dir.join(format!("nbd-{n}.sock"))
    }

    /// The NBD URI of a volume at a gateway.
    pub fn uri(&self, n: u32, volume: &str) -> String {
        format!("nbd+unix:///{volume}?socket={}", self.socket(n).display())
    }

    /// A client of the metadata servers.
    pub fn mds(&self) -> Result<MdsClient, LocalError> {
        Ok(MdsClient::new(&self.mds_addresses())?)
    }

    /// Creates a volume.
    pub fn create_volume(&self, name: &str, size_bytes: u64) -> Result<(), LocalError> {
        let new = NewVolume {
            name: name.to_owned(),
            size_bytes,
            layout: Layout::default(),
            copysets_per_segment: None,
        };
        self.runtime.block_on(self.mds()?.create_volume(new))?;
        Ok(())
    }

    /// The cluster as the metadata servers see it.
    pub fn status(&self) -> Result<ClusterStatus, LocalError> {
        Ok(self.runtime.block_on(self.mds()?.with_deadline(Duration::from_secs(2)).status())?)
    }

    /// Waits until everything is healthy, telling `seen` each state on the way.
    pub fn wait_healthy(
        &mut self,
        bound: Duration,
        mut seen: impl FnMut(&ClusterStatus),
    ) -> Result<ClusterStatus, LocalError> {
        self.wait_until(bound, "becoming healthy", |status| {
            seen(status);
            status.health == Health::Healthy && !status.copysets.is_empty()
        })
    }

    /// Waits for a state of the cluster; `what` names it in the error when it does not come.
    pub fn wait_until(
        &mut self,
        bound: Duration,
        what: &str,
        mut reached: impl FnMut(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, LocalError> {
        let deadline = Instant::now() + bound;
        loop {
            self.check()?;
            let state = match self.status() {
                Ok(status) if reached(&status) => return Ok(status),
                Ok(status) => status.reasons.join("; "),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                let what = what.to_owned();
                return Err(LocalError::Slow { what, seconds: bound.as_secs(), state });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `Err` when a process ended that should run.
    pub fn check(&mut self) -> Result<(), LocalError> {
        self.processes.values_mut().try_for_each(Process::check).map_err(LocalError::Process)
    }

    /// Kills a part with SIGKILL.
    pub fn kill(&mut self, part: Part) -> Result<(), LocalError> {
        let Some(mut process) = self.processes.remove(&part) else { return Ok(()) };
        process.kill().map_err(LocalError::io(format!("cannot kill {part}")))
    }

    /// Sends a signal to a part.
    pub fn signal(&self, part: Part, signal: Signal) -> Result<(), LocalError> {
        let Some(process) = self.processes.get(&part) else { return Ok(()) };
        process.signal(signal).map_err(LocalError::io(format!("cannot signal {part}")))
    }

    /// The running processes.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Stops a part in order.
    pub fn stop_part(&mut self, part: Part) -> Result<(), LocalError> {
        let Some(mut process) = self.processes.remove(&part) else { return Ok(()) };
        process.stop().map_err(LocalError::io(format!("cannot stop {part}")))
    }

    /// Stops everything in order: gateways first, metadata servers last.
    pub fn stop(&mut self) -> Result<(), LocalError> {
        let parts: Vec<Part> = self.processes.keys().rev().copied().collect();
        parts.into_iter().try_for_each(|part| self.stop_part(part))
    }

    /// Leaves everything running; `cluster.json` says how to find it.
    pub fn detach(mut self) {
        self.processes.values_mut().for_each(Process::detach);
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Writes down which processes run, for later commands.
    pub fn save_state(&self) -> Result<(), LocalError> {
        let pids = self.processes.values().map(|p| (p.part().to_string(), p.pid())).collect();
        let state = State { ogive_local_cluster: 1, mds: self.mds_addresses(), pids };
        let path = self.options.dir.join(STATE_FILE);
        let json = serde_json::to_vec_pretty(&state).expect("plain data");
        std::fs::write(&path, json)
            .map_err(LocalError::io(format!("cannot write {}", path.display())))
    }

    /// The state that a cluster left in `dir`; `None` when there is no such directory or it is
    /// empty.
    pub fn left_in(dir: &Path) -> Result<Option<State>, LocalError> {
        let path = dir.join(STATE_FILE);
        match std::fs::read(&path) {
            Ok(json) => {
                let state = serde_json::from_slice(&json).map_err(|e| {
                    LocalError::Directory(format!(
                        "{} is damaged ({e}); remove {} yourself",
                        path.display(),
                        dir.display()
                    ))
                })?;
                Ok(Some(state))
            }
            Err(_) if std::fs::read_dir(dir).map_or(true, |mut d| d.next().is_none()) => Ok(None),
            Err(_) => Err(LocalError::Directory(format!(
                "{} exists and was not made by ogive; choose another directory with --dir",
                dir.display()
            ))),
        }
    }

    /// Ends the processes that a state names, if they still are what they were, and removes the
    /// directory.
    pub fn clean(dir: &Path, state: &State) -> Result<usize, LocalError> {
        let ours: Vec<Pid> = state.pids.values().filter_map(|&pid| ours(pid, dir)).collect();
        for &pid in &ours {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let alive = || ours.iter().filter(|&&pid| is_running(pid));
        while alive().next().is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for &pid in alive() {
            let _ = kill_process(pid, Signal::KILL);
        }
        remove(dir)?;
        Ok(ours.len())
    }
}

/// Held while a process is started and written down.
static STARTING: Mutex<()> = Mutex::new(());

/// Keeps this process from starting parts of clusters as long as the result lives.
pub fn freeze() -> MutexGuard<'static, ()> {
    // It guards no data that a panic could leave half done.
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the directory of a cluster whose processes have ended.
pub fn remove(dir: &Path) -> Result<(), LocalError> {
    let removed = std::fs::remove_dir_all(dir);
    removed.map_err(LocalError::io(format!("cannot remove {}", dir.display())))
}

fn make_dir(dir: &Path) -> Result<(), LocalError> {
    let made = std::fs::create_dir_all(dir);
    made.map_err(LocalError::io(format!("cannot make {}", dir.display())))
}

fn formatted(child: io::Result<Child>) -> Result<(), LocalError> {
    let output = child.and_then(Child::wait_with_output);
    let output = output.map_err(LocalError::io("cannot run ogive format"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim_end();
    Err(LocalError::Process(text.strip_prefix("ogive: ").unwrap_or(text).to_owned()))
}

/// True for a process that exists and is no zombie (whose command line is empty).
fn is_running(pid: Pid) -> bool {
    std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
        .is_ok_and(|line| !line.is_empty())
}

/// The process with this id, if its command line names the directory: a number alone may belong to
/// anybody by now.
fn ours(pid: u32, dir: &Path) -> Option<Pid> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let state = std::fs::read(dir.join(STATE_FILE)).unwrap_or_default();
    let mds: Option<State> = serde_json::from_slice(&state).ok();
    let mds = mds.map(|s| s.mds.join(",")).unwrap_or_default();
    let named =
        line.contains(&dir.display().to_string()) || (!mds.is_empty() && line.contains(&mds));
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    named.then_some(pid)
}
