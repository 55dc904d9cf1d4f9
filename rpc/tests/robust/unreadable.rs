//! Shared memory between processes of which one may not read the other's memory, as under seccomp
//! filters of containers: large payloads are copied, and the log says so.

use std::io;
use std::sync::{Arc, Mutex};

use ogive_rpc::limits::PAYLOAD_BYTES_MAX;

use super::process::{Process, say};
use super::*;

/// Has `process_vm_readv` fail with EPERM on the calling thread, as a container's filter does.
fn refuse_reading() {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The number of the system call is the first word that a filter sees.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_process_vm_readv as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is alive and as long as it says.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        let done = libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program);
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In a child: answers each request with its own payload, and says at the end what its log said of
/// memory.
pub fn mirror() {
    refuse_reading();
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(lines.finish()).unwrap();
    let mut end = End::start(server_config());
    say(end.endpoint());
    settle("mirrored", &mut [&mut end], |ends| {
        for (conn, frame) in ends[0].received() {
            ends[0].send(conn, frame.id, true, frame.payload);
        }
        ends[0].ends() > 0
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("cannot be read"));
    say(line.unwrap_or("nothing"));
}

#[test]
fn where_memory_cannot_be_read_payloads_are_copied_and_the_log_says_so() {
    if path() != Path::Shm {
        return println!("skipped: {} reads no other process' memory", path());
    }
    let mut child = Process::start("mirror", "");
    let to = Endpoint(child.hear());
    let mut client = End::start(client_config());
    let conn = client.net.connect(&to, now());
    settle("connected", &mut [&mut client], |ends| !ends[0].connected().is_empty());
    assert_eq!(client.net.path(conn), Some(Path::Shm), "it stays on shared memory");
    for (id, bytes) in (1..).zip([1, 4096, 64 << 10, 100_001, PAYLOAD_BYTES_MAX]) {
        let mut payload = client.pool.alloc(bytes).unwrap();
        payload.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i ^ (i >> 8) ^ bytes) as u8);
        let payload = payload.freeze();
        client.send(conn, id, false, Some(payload.clone()));
        let mut back = Vec::new();
        settle("back", &mut [&mut client], |ends| {
            back.extend(ends[0].received());
            !back.is_empty()
        });
        let (_, frame) = back.pop().unwrap();
        assert_eq!(frame.id, id);
        assert!(frame.payload.is_some_and(|p| p[..] == payload[..]), "{bytes} bytes");
    }
    client.net.close(conn, CloseReason::Local);
    settle("closed", &mut [&mut client], |ends| ends[0].ends() == 1);
    let said = child.hear();
    assert!(said.contains("Operation not permitted") && said.contains("copied"), "{said}");
    child.finish();
}
