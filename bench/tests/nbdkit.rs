//! The load generator against a real NBD server: nbdkit with a disk in RAM.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // It starts a server and waits for it.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ogive_bench::{Pattern, StopHandle, VolumeBench};

struct Server {
    child: Child,
    uri: String,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None`, with a note, where nbdkit is not installed; `make test` installs it.
fn start(options: &[&str]) -> Option<Server> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nbd.sock");
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--unix"]).arg(&socket).args(options);
    let child = match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("nbdkit cannot be started ({error}): not tested; run `make test`");
            return None;
        }
    };
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let server = Server { child, uri, _dir: dir };
    let patience = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < patience, "nbdkit does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(server)
}

fn bench(server: &Server) -> VolumeBench {
    let ops = Some(20_000);
    VolumeBench { depth: 32, ops, ..VolumeBench::new(server.uri.parse().unwrap()) }
}

#[test]
fn a_disk_in_ram_is_verified() {
    let Some(server) = start(&["memory", "64M"]) else { return };
    let bench = VolumeBench { read_percent: 50, verify: true, connections: 2, ..bench(&server) };
    let report = bench.run(&StopHandle::new(), |_| ()).unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.ops, report.errors, report.disconnects), (20_000, 0, 0), "{report}");
    let verify = report.verify.as_ref().unwrap();
    assert!(verify.read_back > 5_000 && verify.checked > 9_000, "{report}");
}

#[test]
fn large_sequential_requests() {
    let Some(server) = start(&["memory", "64M"]) else { return };
    let bench = VolumeBench {
        depth: 4,
        block_bytes: 1 << 20,
        pattern: Pattern::Sequential,
        read_percent: 50,
        ops: Some(300),
        ..bench(&server)
    };
    let report = bench.run(&StopHandle::new(), |_| ()).unwrap();
    assert!(report.is_ok() && report.ops == 300, "{report}");
}

#[test]
fn a_disk_that_fails_now_and_then_is_told_from_one_that_lies() {
    let failing =
        ["--filter=error", "memory", "64M", "error-pwrite-rate=1%", "error-pread-rate=1%"];
    let Some(server) = start(&failing) else { return };
    let bench = VolumeBench { read_percent: 50, verify: true, ..bench(&server) };
    let report = bench.run(&StopHandle::new(), |_| ()).unwrap();
    assert!(report.is_ok(), "{report}");
    assert!(report.errors > 0 && report.verify.as_ref().unwrap().unknown_writes > 0, "{report}");
}

#[test]
fn a_disk_whose_writes_vanish_is_found_out() {
    // nbdkit's null plugin acknowledges writes and reads zeroes.
    let Some(server) = start(&["null", "64M"]) else { return };
    let bench = VolumeBench { read_percent: 50, verify: true, ..bench(&server) };
    let report = bench.run(&StopHandle::new(), |_| ()).unwrap();
    let verify = report.verify.as_ref().unwrap();
    assert!(verify.fault_count >= verify.read_back && verify.read_back > 5_000, "{report}");
}
