//! The cluster: its directory, its processes, and waiting for it.
#![allow(clippy::disallowed_methods)] // a shell: files, processes, waiting

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ogive_api::types::{ClusterStatus, Health, NewVolume};
use ogive_api::{ApiError, MdsClient};
use ogive_types::Layout;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

use super::ports;
use super::process::{Part, Process};

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
    /// What the processes log.
    pub log: String,
    /// The processes outlive the one that started them.
    pub keep: bool,
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
        for sub in ["device", "mds", "log"] {
            let dir = options.dir.join(sub);
            let made = std::fs::create_dir_all(&dir);
            made.map_err(LocalError::io(format!("cannot make {}", dir.display())))?;
        }
        let count = (options.mds + options.chunkservers * u32::from(options.shards)) as usize;
        let ports = ports::free(count).map_err(LocalError::io("cannot find free ports"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LocalError::io("cannot start the asynchronous runtime"))?;
        let (processes, exports) = (BTreeMap::new(), BTreeMap::new());
        let cluster = LocalCluster { options, ports, runtime, processes, exports };
        cluster.save()?;
        for n in 1..=cluster.options.chunkservers {
            cluster.format(n)?;
        }
        Ok(cluster)
    }

    fn format(&self, n: u32) -> Result<(), LocalError> {
        let mut args = vec!["format".to_owned(), self.device(n).display().to_string()];
        args.extend(["--size".to_owned(), self.options.device_bytes.to_string()]);
        args.extend(["--shards".to_owned(), self.options.shards.to_string()]);
        args.extend(self.options.log_bytes.iter().flat_map(|b| ["--log".to_owned(), b.to_string()]));
        let output = std::process::Command::new(&self.options.exe).args(&args).output();
        let output = output.map_err(LocalError::io("cannot run ogive format"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(LocalError::Process(text.trim_end().to_owned()));
        }
        Ok(())
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

    /// Starts a gateway for volumes, and waits for its socket.
    pub fn start_gateway(&mut self, n: u32, volumes: &[&str]) -> Result<(), LocalError> {
        self.exports.insert(n, volumes.iter().map(|v| (*v).to_owned()).collect());
        let socket = self.socket(n);
        self.launch(Part::Gateway(n))?;
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
        let log = self.options.dir.join("log").join(format!("{part}.log"));
        let mut args = self.args(part);
        args.extend(["--log".to_owned(), self.options.log.clone()]);
        let started = Process::start(part, &self.options.exe, &args, &log, self.options.keep);
        let process = started.map_err(LocalError::io(format!("cannot start {part}")))?;
        self.processes.insert(part, process);
        self.save()
    }

    fn args(&self, part: Part) -> Vec<String> {
        let dir = &self.options.dir;
        let mds = self.mds_addresses();
        let text: Vec<String> = match part {
            Part::Mds(n) => {
                let peers = mds.iter().zip(1..).map(|(addr, id)| format!("{id}={addr}"));
                let peers = peers.collect::<Vec<_>>().join(",");
                let dir = dir.join("mds").join(n.to_string()).display().to_string();
                vec!["mds".into(), "--id".into(), n.to_string(), "--peers".into(), peers, "--dir".into(), dir]
            }
            Part::Chunkserver(n) => {
                let port = self.chunkserver_port(n);
                let device = self.device(n).display().to_string();
                let mut args = vec!["chunkserver".into(), "--mds".into(), mds.join(",")];
                args.extend(["--device".into(), device, "--zone".into(), format!("zone-{n}")]);
                args.extend(["--server".into(), format!("server-{n}")]);
                args.extend(["--listen".into(), format!("127.0.0.1:{port}")]);
                args
            }
            Part::Gateway(n) => {
                let socket = self.socket(n).display().to_string();
                let mut args = vec!["nbd".into(), "--mds".into(), mds.join(",")];
                let volumes = self.exports.get(&n).into_iter().flatten();
                args.extend(volumes.flat_map(|v| ["--volume".to_owned(), v.clone()]));
                // A gateway that was killed holds its volumes until its lease runs out.
                args.extend(["--socket".into(), socket, "--force".into()]);
                args
            }
        };
        text
    }

    /// Addresses of the metadata servers.
    pub fn mds_addresses(&self) -> Vec<String> {
        let ports = &self.ports[..self.options.mds as usize];
        ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
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
        let deadline = Instant::now() + bound;
        let mut state = "no answer from the metadata servers yet".to_owned();
        loop {
            self.check()?;
            match self.status() {
                Ok(status) if status.health == Health::Healthy && !status.copysets.is_empty() => {
                    return Ok(status);
                }
                Ok(status) => {
                    seen(&status);
                    state = status.reasons.join("; ");
                }
                Err(error) => state = error.to_string(),
            }
            if Instant::now() > deadline {
                let what = "becoming healthy".to_owned();
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

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    fn save(&self) -> Result<(), LocalError> {
        let pids = self.processes.values().map(|p| (p.part().to_string(), p.pid())).collect();
        let state = State { ogive_local_cluster: 1, mds: self.mds_addresses(), pids };
        let path = self.options.dir.join(STATE_FILE);
        let json = serde_json::to_vec_pretty(&state).expect("plain data");
        std::fs::write(&path, json)
            .map_err(LocalError::io(format!("cannot write {}", path.display())))
    }

    /// The state that a cluster left in `dir`; `None` when there is no such directory or it is empty.
    pub fn left_in(dir: &Path) -> Result<Option<State>, LocalError> {
        let path = dir.join(STATE_FILE);
        match std::fs::read(&path) {
            Ok(json) => {
                let state = serde_json::from_slice(&json).map_err(|e| {
                    LocalError::Directory(format!("{} is damaged ({e}); remove {} yourself", path.display(), dir.display()))
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

    /// Ends the processes that a state names, if they still are what they were, and removes the directory.
    pub fn clean(dir: &Path, state: &State) -> Result<usize, LocalError> {
        let ours: Vec<Pid> = state.pids.values().filter_map(|&pid| ours(pid, dir)).collect();
        for &pid in &ours {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while ours.iter().any(|&pid| test_kill_process(pid).is_ok()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for &pid in &ours {
            let _ = kill_process(pid, Signal::KILL);
        }
        let removed = std::fs::remove_dir_all(dir);
        removed.map_err(LocalError::io(format!("cannot remove {}", dir.display())))?;
        Ok(ours.len())
    }
}

/// The process with this id, if its command line names the directory: a number alone may belong to anybody by now.
fn ours(pid: u32, dir: &Path) -> Option<Pid> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let state = std::fs::read(dir.join(STATE_FILE)).unwrap_or_default();
    let mds: Option<State> = serde_json::from_slice(&state).ok();
    let mds = mds.map(|s| s.mds.join(",")).unwrap_or_default();
    let named = line.contains(&dir.display().to_string()) || (!mds.is_empty() && line.contains(&mds));
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    named.then_some(pid)
}
