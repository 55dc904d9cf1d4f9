//! The loop: turn while there is work, spin a little, sleep.
//!
//! ```text
//!            anything happened                    nothing, and spun long enough
//!   turn ------------------------> turn    turn ------------------------------> arm polls, Work::prepare_sleep,
//!                                                 |                             deadline ahead?
//!                                                 | no background task           yes: one enter that submits, arms
//!                                                 |                                   and waits
//!                                                 + background tasks live        submit, then read the ring's eventfd
//!                                                                                through glommio
//! ```
//!
//! No wake-up is lost: the polls look at their descriptors when they are submitted, which is after `prepare_sleep` has
//! armed the sources, so whatever came in between is seen. Reasons and figures in `design/0002-sleeping.md`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use ogive_types::Time;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::background::Background;
use crate::clock::{now, until};
use crate::foreign::ForeignFd;
use crate::handle::Control;
use crate::limits;
use crate::pulse::Pulse;
use crate::ring::{Ring, TaskRun};
use crate::work::{PollMode, Work};

/// Turns `work` until it is finished or stopped.
pub(crate) async fn run<W: Work>(
    mut work: W,
    mode: PollMode,
    control: &Control,
    pulse: &Arc<Pulse>,
    background: &Rc<Background>,
) -> io::Result<()> {
    let mut bed = Bed::new(&mut work)?;
    let mut idle_since = None;
    while !control.is_stopped() && !work.finished() {
        let at = now();
        pulse.turn();
        if work.turn(at) {
            idle_since = None;
        } else {
            let idle = at.since(*idle_since.get_or_insert(at));
            let sleepy = match mode {
                PollMode::Busy => false,
                PollMode::Adaptive { spin } => idle >= spin,
                PollMode::Event => true,
            };
            if sleepy {
                bed.sleep(&mut work, control, pulse, background).await?;
                continue;
            }
            std::hint::spin_loop();
        }
        if background.is_due(at) {
            background.breathe().await?;
        }
    }
    Ok(())
}

/// What the loop sleeps with.
struct Bed {
    /// The ring to sleep on when the work has no disk.
    own: Option<Ring>,
    /// For sleeps through glommio; made when the first one comes.
    glommio: Option<GlommioBed>,
}

/// A sleep through glommio: the ring's eventfd, read by glommio, and a timer that is one more descriptor of the ring.
struct GlommioBed {
    event: ForeignFd,
    timer: OwnedFd,
}

impl Bed {
    fn new(work: &mut impl Work) -> io::Result<Bed> {
        let entries = limits::WAKE_FDS_MAX as u32;
        let own = match work.disk() {
            Some(_) => None,
            None => Some(Ring::new(entries, TaskRun::Deferred)?),
        };
        Ok(Bed { own, glommio: None })
    }

    async fn sleep<W: Work>(
        &mut self,
        work: &mut W,
        control: &Control,
        pulse: &Pulse,
        background: &Background,
    ) -> io::Result<()> {
        let mut fds = work.wake_fds();
        fds.push(control.wake_fd());
        if background.is_alive() {
            return self.sleep_in_glommio(work, fds, pulse).await;
        }
        if !work.prepare_sleep() {
            return Ok(());
        }
        let deadline = work.next_deadline();
        let ring = ring(&mut self.own, work);
        ring.arm(&fds);
        let at = now();
        if deadline > at {
            pulse.sleep(deadline);
            ring.wait(until(deadline, at));
            pulse.turn();
        }
        self.tidy();
        Ok(())
    }

    async fn sleep_in_glommio<W: Work>(
        &mut self,
        work: &mut W,
        mut fds: Vec<RawFd>,
        pulse: &Pulse,
    ) -> io::Result<()> {
        if self.glommio.is_none() {
            self.glommio = Some(GlommioBed::new(ring(&mut self.own, work))?);
        }
        let bed = self.glommio.as_ref().expect("made above");
        if !work.prepare_sleep() {
            return Ok(());
        }
        let at = now();
        // With a heartbeat, so that a background task that never pauses shows as an overslept deadline.
        let deadline = work.next_deadline().min(at + limits::HEARTBEAT);
        if deadline > at {
            bed.set_timer(deadline)?;
            fds.push(bed.timer.as_raw_fd());
            let ring = ring(&mut self.own, work);
            ring.arm(&fds);
            ring.submit();
            if !ring.is_ready() {
                pulse.sleep(deadline);
                let read = bed.event.read(8).await;
                pulse.turn();
                read?;
            }
        }
        self.tidy();
        Ok(())
    }

    /// Notes which polls fired. A disk's ring does that in `Disk::poll`.
    fn tidy(&mut self) {
        if let Some(own) = &mut self.own {
            own.reap(|_, _| unreachable!("the ring has no operations but polls"));
        }
    }
}

fn ring<'a, W: Work>(own: &'a mut Option<Ring>, work: &'a mut W) -> &'a mut Ring {
    match own {
        Some(ring) => ring,
        None => work.disk().expect("a work keeps the disk that it has at the start").ring(),
    }
}

impl GlommioBed {
    fn new(ring: &mut Ring) -> io::Result<GlommioBed> {
        let event = ForeignFd::new(ring.event_fd()?.duplicate()?);
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(GlommioBed { event, timer })
    }

    /// Makes the timer readable from `deadline` on, and not before. Setting it also forgets its last expiry.
    fn set_timer(&self, deadline: Time) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = match deadline {
            Time::NEVER => zero,
            Time(us) => Timespec {
                tv_sec: (us / 1_000_000) as i64,
                // Zero would disarm it.
                tv_nsec: (us % 1_000_000 * 1000).max(1) as i64,
            },
        };
        let spec = Itimerspec { it_interval: zero, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }
}
