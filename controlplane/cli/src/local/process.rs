//! One process of a local cluster.
#![allow(clippy::disallowed_methods)] // a shell: starts processes and waits for them

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::net::Host;

/// Which part of the cluster a process is; numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// A metadata server.
    Mds(u32),
    /// A chunkserver.
    Chunkserver(u32),
    /// An NBD gateway.
    Gateway(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Mds(n) => write!(f, "mds-{n}"),
            Part::Chunkserver(n) => write!(f, "chunkserver-{n}"),
            Part::Gateway(n) => write!(f, "nbd-{n}"),
        }
    }
}

/// How to start a process.
pub struct Start<'a> {
    /// The program.
    pub exe: &'a Path,
    /// Its arguments.
    pub args: &'a [String],
    /// Its environment, beside ours.
    pub env: &'a BTreeMap<String, String>,
    /// What its output is appended to.
    pub log: &'a Path,
    /// It outlives us; otherwise the kernel kills it when the calling thread ends, however that
    /// comes about.
    pub keep: bool,
    /// Where it runs; on this machine's network by default.
    pub host: Option<&'a Host>,
}

/// A running process. Dropping it kills it, unless it was detached.
#[derive(Debug)]
pub struct Process {
    part: Part,
    child: Child,
    log: PathBuf,
    detached: bool,
}

impl Process {
    /// Starts a part.
    pub fn start(part: Part, start: &Start<'_>) -> io::Result<Process> {
        let out = File::options().create(true).append(true).open(start.log)?;
        let mut command = Command::new(start.exe);
        command
            .args(start.args)
            .envs(start.env)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        // Signals from the terminal are for the one who started the cluster, who then ends it in
        // order.
        command.process_group(0);
        if let Some(host) = start.host {
            let namespace = Arc::clone(&host.namespace);
            // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe.
            unsafe {
                command.pre_exec(move || {
                    let network = Some(LinkNameSpaceType::Network);
                    Ok(move_into_link_name_space(namespace.as_fd(), network)?)
                });
            }
        }
        if !start.keep {
            // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
            unsafe {
                command.pre_exec(|| {
                    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                    Ok(())
                });
            }
        }
        let child = command.spawn()?;
        Ok(Process { part, child, log: start.log.to_owned(), detached: false })
    }

    /// Leaves it running when this value goes; only of use when it was started to be kept.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// Which part it is.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `Err` with the end of its log when it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(format!("{} ended ({status}): {}", self.part, last_lines(&self.log)))
            }
            Err(error) => Err(format!("{}: {error}", self.part)),
        }
    }

    /// SIGKILL, as a power cut of the process; returns once it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// SIGTERM, and SIGKILL if it does not end in time.
    pub fn stop(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            // Nothing more can be done about a process that cannot be killed.
            let _ = self.kill();
        }
    }
}

/// The end of a log file, for error messages.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(6)..].join("\n  ");
    format!("the end of {} says\n  {tail}", log.display())
}
