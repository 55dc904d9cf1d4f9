//! Processes of a test: this test's own binary, told its role by the environment. What a child has
//! to say it writes as a line with a prefix, among those of the test harness.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The child's role.
pub const ROLE: &str = "OGIVE_ROBUST_ROLE";
/// What the child is told, often an endpoint.
const ARGUMENT: &str = "OGIVE_ROBUST_ARGUMENT";
const PREFIX: &str = "child says: ";

/// A child, which ends with its handle.
pub struct Process {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(role: &str, argument: &str) -> Process {
        Process::start_by(Command::new(std::env::current_exe().unwrap()), role, argument)
    }

    /// Starts it through another command, which gets this binary as its last argument.
    pub fn start_under(command: &mut Command, role: &str, argument: &str) -> Process {
        command.arg(std::env::current_exe().unwrap());
        let command = std::mem::replace(command, Command::new("true"));
        Process::start_by(command, role, argument)
    }

    fn start_by(mut command: Command, role: &str, argument: &str) -> Process {
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(ARGUMENT, argument).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Process { child, says }
    }

    /// The next thing that it says.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let n = self.says.read_line(&mut line).unwrap();
            assert!(n > 0, "the child ended: {:?}", self.child.wait());
            if let Some((_, said)) = line.split_once(PREFIX) {
                return said.trim().to_string();
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end, which must be a good one; what it said last is lost.
    pub fn finish(mut self) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.says, &mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {rest}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: tells the parent.
pub fn say(what: impl std::fmt::Display) {
    println!("{PREFIX}{what}");
}

/// In a child: what the parent told it at its start.
pub fn argument() -> String {
    std::env::var(ARGUMENT).unwrap()
}

/// A line of /proc/PID/status in bytes: VmRSS (now) or VmHWM (the most ever).
pub fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    let kib = line.trim_start_matches(':').trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().unwrap() << 10
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
