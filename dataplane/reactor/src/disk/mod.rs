//! The disk ring: runs a store's operations on one file or device through our own io_uring.
//!
//! The flow of a turn: `poll` gives what ended, the store decides, `submit` queues its new
//! operations, and one `flush_sq` hands all of them to the kernel. Operations beyond the depth wait
//! here, in order.
//!
//! Order: none is promised between operations in flight. A flush covers the writes that ended
//! before it was submitted, which is what the store's protocol asks for.

mod inflight;
mod registered;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::{squeue, types};
use ogive_buf::Pool;

use self::inflight::{InFlight, Step};
use self::registered::Registered;
use crate::limits;
use crate::ring::{Ring, TaskRun};
use ogive_store::{DiskDone, DiskOp};

/// Operations on one file, for the thread that made it.
///
/// Dropping it waits until the kernel has finished with every buffer; operations that wait for a
/// place are discarded.
pub struct Disk {
    ring: Ring,
    /// Our own handle of the file, so that the caller may close his.
    file: OwnedFd,
    target: Target,
    registered: Registered,
    /// By slot; the slot's number is the operation's user data.
    slots: Vec<Option<Box<InFlight>>>,
    free: Vec<u32>,
    waiting: VecDeque<DiskOp>,
    /// Completions of the current reap; kept to reuse its memory.
    reaped: Vec<(u32, i32)>,
    /// `wake_fd` was handed out, so `poll` keeps it quiet.
    drain: bool,
    /// Completions were reaped, so the descriptor was signalled; it is drained before the next
    /// reap, which therefore misses nothing.
    signalled: bool,
}

/// How entries name the file.
#[derive(Clone, Copy)]
struct Target {
    file: types::Fd,
    /// FIXED_FILE when `file` is an index of the ring's table: no look-up and no reference count
    /// per operation.
    flags: squeue::Flags,
}

impl Disk {
    /// A ring over `fd`, an open file or block device, with at most `depth` operations in the
    /// kernel (1 to [`limits::DISK_DEPTH_MAX`]). The descriptor is duplicated. The buffers of
    /// operations may come from any pool; those of `pool` are registered with the ring as far as
    /// RLIMIT_MEMLOCK allows.
    ///
    /// Must be called on the thread that will use it.
    ///
    /// # Errors
    /// When the kernel refuses an io_uring; the message says why and what to do.
    pub fn new(fd: BorrowedFd<'_>, pool: Pool, depth: u32) -> io::Result<Disk> {
        Disk::with_task_run(fd, pool, depth, TaskRun::Deferred)
    }

    /// Like [`Disk::new`], but with no better mode than `best`; for measurements and tests of the
    /// fall-backs.
    ///
    /// # Errors
    /// As [`Disk::new`].
    pub fn with_task_run(
        fd: BorrowedFd<'_>,
        pool: Pool,
        depth: u32,
        best: TaskRun,
    ) -> io::Result<Disk> {
        let depth = depth.clamp(1, limits::DISK_DEPTH_MAX);
        let file = fd.try_clone_to_owned()?;
        let mut ring = Ring::new(depth, best)?;
        let target = match ring.uring().submitter().register_files(&[file.as_raw_fd()]) {
            Ok(()) => Target { file: types::Fd(0), flags: squeue::Flags::FIXED_FILE },
            Err(error) => {
                tracing::info!(%error, "the disk's file cannot be registered; going on without");
                Target { file: types::Fd(file.as_raw_fd()), flags: squeue::Flags::empty() }
            }
        };
        let registered = Registered::new(&mut ring, pool);
        Ok(Disk {
            ring,
            file,
            target,
            registered,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            waiting: VecDeque::new(),
            reaped: Vec::new(),
            drain: false,
            signalled: false,
        })
    }

    /// Takes an operation. It reaches the kernel with the next [`Disk::flush_sq`], or once a place
    /// is free; its [`DiskDone`] comes from [`Disk::poll`], always.
    pub fn submit(&mut self, op: DiskOp) {
        match self.free.pop() {
            Some(slot) if self.waiting.is_empty() => self.start(slot, op),
            slot => {
                self.free.extend(slot);
                assert!(self.waiting.len() < limits::DISK_QUEUE_MAX, "disk queue without bound");
                self.waiting.push_back(op);
            }
        }
    }

    /// Hands what was submitted to the kernel: one system call, none when there is nothing. Once
    /// per turn.
    pub fn flush_sq(&mut self) {
        self.ring.submit();
    }

    /// Appends what ended, without blocking. True when anything did, or when the ring moved on
    /// (call again).
    pub fn poll(&mut self, done: &mut Vec<DiskDone>) -> bool {
        if self.drain && std::mem::take(&mut self.signalled) {
            self.ring.made_event_fd().expect("made with `drain`").drain();
        }
        let mut reaped = std::mem::take(&mut self.reaped);
        let any = self.ring.reap(|user_data, result| reaped.push((user_data as u32, result)));
        self.signalled |= any;
        for (slot, result) in reaped.drain(..) {
            self.finish(slot, result, done);
        }
        self.reaped = reaped;
        while !self.free.is_empty() && !self.waiting.is_empty() {
            let (slot, op) = (self.free.pop(), self.waiting.pop_front());
            self.start(slot.expect("not empty"), op.expect("not empty"));
        }
        any
    }

    /// Submits what is queued and sleeps until something has ended or `timeout` has passed, for a
    /// loop that has nothing but this disk to wait for. A reactor waits itself.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.ring.wait(timeout);
    }

    /// Operations that the kernel has, or gets with the next [`Disk::flush_sq`].
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Operations that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How the kernel runs this ring's completions.
    pub fn task_run(&self) -> TaskRun {
        self.ring.task_run()
    }

    /// Arenas of the pool that are registered, for reports.
    pub fn registered_arenas(&self) -> usize {
        self.registered.count()
    }

    /// A descriptor that is readable after completions, for a loop that cannot sleep on this ring
    /// itself; made when first asked for. A reactor can: give the disk to it through
    /// [`crate::Work::disk`], which saves three system calls per sleep. It is an eventfd that
    /// [`Disk::poll`] drains.
    ///
    /// # Errors
    /// When no descriptor can be made.
    pub fn wake_fd(&mut self) -> io::Result<RawFd> {
        self.drain = true;
        Ok(self.ring.event_fd()?.raw())
    }

    /// The descriptor of [`Disk::wake_fd`], if it was made.
    pub fn event_fd(&self) -> Option<RawFd> {
        self.ring.made_event_fd().map(|event| event.raw())
    }

    pub(crate) fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    fn start(&mut self, slot: u32, op: DiskOp) {
        self.registered.follow(&mut self.ring);
        let op = Box::new(InFlight::new(op));
        let op = self.slots[slot as usize].insert(op);
        push(&mut self.ring, op, self.target, &self.registered, slot);
    }

    fn finish(&mut self, slot: u32, result: i32, done: &mut Vec<DiskDone>) {
        let place = &mut self.slots[slot as usize];
        let op = place.as_mut().expect("a completion belongs to an operation in flight");
        match op.step(result) {
            Step::Again => push(&mut self.ring, op, self.target, &self.registered, slot),
            Step::Done(outcome) => {
                let op = place.take().expect("seen above");
                self.free.push(slot);
                done.push(op.end(outcome));
            }
        }
    }
}

fn push(ring: &mut Ring, op: &mut InFlight, to: Target, registered: &Registered, slot: u32) {
    let entry = op.entry(to, registered).user_data(u64::from(slot));
    // SAFETY: the operation owns its buffers and vectors, is boxed (so they do not move), and
    // leaves its slot only when its completion was reaped; `Drop` waits for those. The file is ours
    // until then.
    unsafe { ring.push(&entry) };
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.waiting.clear();
        let mut done = Vec::new();
        while self.in_flight() > 0 {
            self.ring.wait(None);
            self.poll(&mut done);
        }
    }
}

impl AsRawFd for Disk {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
