//! The programs of others that the demo uses: a real file system and a real NBD client.
#![allow(clippy::disallowed_methods)] // a shell: starts programs and waits for them

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::Signal;

/// Where programs are looked for besides PATH: users of some systems lack the last ones there.
const MORE_PLACES: [&str; 5] =
    ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program, and the package of each family of distributions that has it.
struct Tool {
    name: &'static str,
    debian: &'static str,
    other: &'static str,
}

const TOOLS: [Tool; 4] = [
    Tool { name: "mke2fs", debian: "e2fsprogs", other: "e2fsprogs" },
    Tool { name: "debugfs", debian: "e2fsprogs", other: "e2fsprogs" },
    Tool { name: "e2fsck", debian: "e2fsprogs", other: "e2fsprogs" },
    Tool { name: "nbdcopy", debian: "libnbd-bin", other: "libnbd" },
];

/// How each package manager is asked to install something.
const MANAGERS: [(&str, &str); 4] = [
    ("apt-get", "apt-get install -y"),
    ("dnf", "dnf install -y"),
    ("zypper", "zypper install -y"),
    ("pacman", "pacman -S --needed"),
];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Tools {
    places: Vec<PathBuf>,
}

impl Tools {
    /// Finds all programs.
    ///
    /// # Errors
    /// Names everything that is missing, and the command that installs it.
    pub fn find() -> anyhow::Result<Tools> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
        places.extend(MORE_PLACES.map(PathBuf::from));
        let tools = Tools { places };
        let missing: Vec<&Tool> = TOOLS.iter().filter(|t| tools.place(t.name).is_none()).collect();
        if missing.is_empty() {
            return Ok(tools);
        }
        let names: Vec<&str> = missing.iter().map(|t| t.name).collect();
        bail!(
            "the demo needs {}, which this host lacks: {}",
            names.join(", "),
            tools.advice(&missing)
        )
    }

    fn advice(&self, missing: &[&Tool]) -> String {
        let manager = MANAGERS.iter().find(|(program, _)| self.place(program).is_some());
        let debian = manager.is_none_or(|(program, _)| *program == "apt-get");
        let mut packages: Vec<&str> =
            missing.iter().map(|t| if debian { t.debian } else { t.other }).collect();
        packages.dedup();
        let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
        match manager {
            Some((_, install)) => format!("run '{sudo}{install} {}'", packages.join(" ")),
            None => format!("install the packages {}", packages.join(" and ")),
        }
    }

    fn place(&self, name: &str) -> Option<PathBuf> {
        self.places.iter().map(|dir| dir.join(name)).find(|path| path.is_file())
    }

    /// A program with its arguments, ready to run. It dies with this process, whatever ends that.
    pub fn command<A: AsRef<OsStr>>(&self, name: &str, args: &[A]) -> Command {
        let mut command = Command::new(self.place(name).unwrap_or_else(|| name.into()));
        command.args(args).stdin(Stdio::null());
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        command
    }

    /// Runs a program to its end and returns what it printed, error output last.
    ///
    /// # Errors
    /// When it cannot be run or fails; with its last words.
    pub fn run<A: AsRef<OsStr>>(&self, name: &str, args: &[A]) -> anyhow::Result<String> {
        let output =
            self.command(name, args).output().with_context(|| format!("cannot run {name}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if !output.status.success() {
            bail!("{name} failed ({}): {}", output.status, last_lines(&text));
        }
        Ok(text)
    }

    /// Copies with nbdcopy, telling `progress` how many of a hundred parts are done.
    ///
    /// # Errors
    /// When it cannot be run or fails; with its last words.
    pub fn nbdcopy(
        &self,
        from: &str,
        to: &str,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<()> {
        let mut command = self.command("nbdcopy", &["--flush", "--progress=1", "--", from, to]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.context("cannot run nbdcopy")?;
        let mut stdout = child.stdout.take().context("nbdcopy has no output")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        // Lines such as "17/100"; the pipe ends with the program.
        while stdout.read(&mut byte)? == 1 {
            match byte[0] {
                b'\n' => {
                    let text = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                    let parts = text.split('/').next().and_then(|n| n.trim().parse().ok());
                    parts.into_iter().for_each(&mut progress);
                }
                other => line.push(other),
            }
        }
        let output = child.wait_with_output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("nbdcopy {from} {to} failed ({}): {}", output.status, last_lines(words.trim()));
        }
        Ok(())
    }
}

/// A path as an argument of a program.
pub fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not a name in UTF-8", path.display()))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_with_their_packages_once() {
        let tools = Tools { places: Vec::new() };
        let advice = tools.advice(&TOOLS.iter().collect::<Vec<_>>());
        assert_eq!(advice, "install the packages e2fsprogs and libnbd-bin");
    }

    #[test]
    fn a_failing_program_tells_its_last_words() {
        let tools = Tools { places: vec!["/bin".into(), "/usr/bin".into()] };
        let error = tools.run("ls", &["/no/such/place"]).unwrap_err().to_string();
        assert!(error.contains("ls failed") && error.contains("/no/such/place"), "{error}");
    }
}
