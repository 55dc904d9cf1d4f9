//! One io_uring of a reactor's thread: set-up with fall-backs, submission, completions without
//! needless system calls, and the wait that lets the thread sleep until a completion, a readable
//! descriptor or a deadline.
//!
//! The fastest mode the kernel has is taken: DEFER_TASKRUN with TASKRUN_FLAG (6.1), in which
//! completion work runs only when we enter, and a flag in shared memory says when entering is worth
//! it; else COOP_TASKRUN (5.19); else none. Figures in `design/0001-disk-ring.md`.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;

use crate::limits;
use crate::wake::EventFd;

/// Completions with this bit in their user data are the ring's own (polls); all others belong to
/// its user.
const OWN: u64 = 1 << 63;

/// How the kernel runs our completion work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// Only inside io_uring_enter, batched; a flag says when there is some. Linux 6.1.
    Deferred,
    /// At the next system call of the thread, without interrupting it. Linux 5.19.
    Cooperative,
    /// By interrupting the thread. Older kernels.
    Interrupting,
}

/// A ring, for one thread.
pub(crate) struct Ring {
    uring: IoUring,
    task_run: TaskRun,
    /// Descriptors polled so far; a poll that has not fired stays armed from sleep to sleep.
    polls: Vec<Poll>,
    event: Option<EventFd>,
}

struct Poll {
    fd: RawFd,
    armed: bool,
    failed: bool,
}

impl Ring {
    /// A ring for `entries` operations in flight (plus the polls), in the best mode out of those
    /// from `best` on.
    pub(crate) fn new(entries: u32, best: TaskRun) -> io::Result<Ring> {
        let modes = [TaskRun::Deferred, TaskRun::Cooperative, TaskRun::Interrupting];
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for task_run in modes.into_iter().skip_while(|&m| m != best) {
            match build(entries, task_run) {
                Ok(uring) => return Ok(Ring { uring, task_run, polls: Vec::new(), event: None }),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = e,
                Err(e) => return Err(explain(e)),
            }
        }
        Err(explain(refused))
    }

    pub(crate) fn task_run(&self) -> TaskRun {
        self.task_run
    }

    pub(crate) fn uring(&mut self) -> &mut IoUring {
        &mut self.uring
    }

    /// Queues an entry for the next enter.
    ///
    /// # Safety
    /// The memory and the descriptors that the entry names must stay valid until its completion was
    /// reaped.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: handed on to the caller.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.submit();
        }
    }

    /// Gives the kernel what was pushed; no system call when that is nothing.
    pub(crate) fn submit(&mut self) {
        while !self.uring.submission().is_empty() {
            match self.uring.submit() {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                // Out of kernel memory, or too many unreaped completions: the entries stay, the
                // next turn tries again.
                Err(e) if is_passing(&e) => return,
                Err(e) => broken(&e),
            }
        }
    }

    /// Hands each completion of the user to `take`. True when there was any, or a poll fired.
    /// Enters the kernel only when it says that there is work to run.
    pub(crate) fn reap(&mut self, mut take: impl FnMut(u64, i32)) -> bool {
        let must_enter = {
            let sq = self.uring.submission();
            sq.taskrun() || sq.cq_overflow()
        };
        if must_enter {
            match self.uring.submit() {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINTR) || is_passing(&e) => {}
                Err(e) => broken(&e),
            }
        }
        let mut any = false;
        for done in self.uring.completion() {
            any = true;
            if done.user_data() & OWN == 0 {
                take(done.user_data(), done.result());
            } else {
                fired(&mut self.polls, done.user_data() & !OWN, done.result());
            }
        }
        any
    }

    /// Queues a one-shot poll for each descriptor that has none armed. The kernel looks at the
    /// descriptor's state when the poll is submitted, so one that is readable by then completes at
    /// once.
    pub(crate) fn arm(&mut self, fds: &[RawFd]) {
        for &fd in fds {
            let index = self.polls.iter().position(|p| p.fd == fd).unwrap_or_else(|| {
                assert!(self.polls.len() < limits::WAKE_FDS_MAX, "too many wake descriptors");
                self.polls.push(Poll { fd, armed: false, failed: false });
                self.polls.len() - 1
            });
            if !self.polls[index].armed {
                self.polls[index].armed = true;
                let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
                    .build()
                    .user_data(OWN | index as u64);
                // SAFETY: a poll names no memory, and the kernel holds the file itself once
                // submitted.
                unsafe { self.push(&entry) };
            }
        }
    }

    /// Submits what is queued and sleeps until there is a completion or `timeout` has passed.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) {
        let span = timeout.map(types::Timespec::from);
        let mut args = types::SubmitArgs::new();
        if let Some(span) = &span {
            args = args.timespec(span);
        }
        match self.uring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
            Err(e) if is_passing(&e) => {}
            Err(e) => broken(&e),
        }
    }

    /// True when `reap` would find something, as far as can be seen without a system call.
    pub(crate) fn is_ready(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    /// The eventfd, if it was asked for.
    pub(crate) fn made_event_fd(&self) -> Option<&EventFd> {
        self.event.as_ref()
    }

    /// An eventfd that becomes readable with each completion; made and registered when first asked
    /// for.
    pub(crate) fn event_fd(&mut self) -> io::Result<&EventFd> {
        if self.event.is_none() {
            let event = EventFd::new()?;
            self.uring.submitter().register_eventfd(event.raw())?;
            self.event = Some(event);
            // What completed before the registration signalled nothing.
            if self.is_ready() {
                self.event.as_ref().expect("set above").signal();
            }
        }
        Ok(self.event.as_ref().expect("set above"))
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

fn build(entries: u32, task_run: TaskRun) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(entries * 2 + 2 * limits::WAKE_FDS_MAX as u32);
    match task_run {
        TaskRun::Deferred => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        TaskRun::Cooperative => {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        TaskRun::Interrupting => {}
    }
    builder.build(entries)
}

fn fired(polls: &mut [Poll], index: u64, result: i32) {
    let poll = &mut polls[index as usize];
    poll.armed = false;
    if result < 0 && !poll.failed {
        poll.failed = true;
        let error = io::Error::from_raw_os_error(-result);
        tracing::error!(
            fd = poll.fd,
            %error,
            "a wake descriptor cannot be polled; the loop will not sleep well"
        );
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
}

/// An enter can then only fail because our own ring is damaged. Operations in flight can neither be
/// finished nor given up (the kernel may own their buffers), so the process ends and its peers take
/// over.
fn broken(error: &io::Error) -> ! {
    panic!("io_uring_enter failed on a ring of our own: {error}")
}

fn explain(error: io::Error) -> io::Error {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM) => {
            "io_uring is forbidden here; set sysctl kernel.io_uring_disabled=0 and allow it in the \
             container's seccomp profile"
        }
        Some(Errno::NOSYS) => "this kernel has no io_uring; Linux 5.15 or newer is needed",
        Some(Errno::NOMEM) => "not enough locked memory; raise RLIMIT_MEMLOCK (ulimit -l)",
        Some(Errno::MFILE | Errno::NFILE) => {
            "no file descriptor left; raise RLIMIT_NOFILE (ulimit -n)"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("cannot set up an io_uring: {error}; {hint}"))
}
