//! The second process: how it is started, and what it does.
#![allow(clippy::disallowed_methods)] // starts a thread that ends the process with its parent

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use super::cores::pin;
use super::spec::{Contender, RpcBench, RpcBenchError};
use super::{bare, unary, wire};

/// First word of the line that tells where the process listens.
const READY: &str = "ready";
/// First word of the line that tells why there is nothing to measure here.
const ABSENT: &str = "absent";

/// What the second process is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerKind(Contender);

impl FromStr for PeerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerKind, String> {
        let served = [Contender::PATHS.as_slice(), &[Contender::Bare, Contender::Tonic]].concat();
        let kind = served.into_iter().find(|contender| contender.name() == text);
        kind.map(PeerKind).ok_or_else(|| format!("`{text}` is not rdma, shm, tcp, bare or tonic"))
    }
}

/// The second process: says on its standard output where it listens, answers until its standard
/// input ends, and then ends the process. Returns only when it cannot begin or go on.
pub fn serve(kind: PeerKind, core: Option<usize>) -> Result<(), String> {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    pin(core);
    let ready = |address: String| say(READY, &address);
    match kind.0 {
        Contender::Bare => bare::serve(ready),
        Contender::Tonic => unary::serve(ready),
        path => match wire::Net::new(path, true) {
            Ok(net) => wire::serve(net, ready),
            Err(why) => say(ABSENT, &why),
        },
    }
}

fn say(word: &str, rest: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {rest}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}

/// A second process, which ends with this value.
pub(super) struct Peer {
    child: Child,
    /// Where it listens.
    pub(super) address: String,
}

impl Peer {
    /// Starts the process that serves a contender; `Err` within tells why it is not there.
    pub(super) fn start(
        bench: &RpcBench,
        contender: Contender,
    ) -> Result<Result<Peer, String>, RpcBenchError> {
        let broken = |why: String| RpcBenchError::Peer(contender, why);
        let mut command = Command::new(&bench.exe);
        command.args(&bench.peer_args).arg(contender.name());
        if let Some(core) = bench.cores.there {
            command.args(["--core", &core.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|e| broken(format!("{}: {e}", bench.exe.display())))?;
        let mut peer = Peer { child, address: String::new() };
        let out = peer.child.stdout.take().expect("its output was redirected");
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        read.map_err(|e| broken(e.to_string()))?;
        match line.trim_end().split_once(' ') {
            Some((READY, address)) => {
                peer.address = address.to_owned();
                Ok(Ok(peer))
            }
            Some((ABSENT, why)) => Ok(Err(why.to_owned())),
            _ => Err(broken(format!("it said `{}`", line.trim_end()))),
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_of_contenders() {
        for name in ["rdma", "shm", "tcp", "bare", "tonic"] {
            assert_eq!(name.parse::<PeerKind>().unwrap().0.name(), name);
        }
        assert!("ucx".parse::<PeerKind>().is_err(), "it brings a program of its own");
        assert!("".parse::<PeerKind>().is_err());
    }
}
