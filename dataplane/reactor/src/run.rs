//! The loop: turn while there is work, spin a little, sleep.
//!
//! ```text
//!   turn --anything happened--> turn
//!   turn --nothing, and spun long enough--> background tasks live: let them run, and turn again
//!                                           while they compute
//!                                           arm polls, Work::prepare_sleep, deadline ahead? one
//!                                           enter that submits, arms and waits
//! ```
//!
//! No wake-up is lost: the polls look at their descriptors when they are submitted, which is after
//! `prepare_sleep` has armed the sources, so whatever came in between is seen. Reasons and figures
//! in `design/0002-sleeping.md`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::background::Background;
use crate::clock::{now, until};
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
}

impl Bed {
    fn new(work: &mut impl Work) -> io::Result<Bed> {
        let entries = limits::WAKE_FDS_MAX as u32;
        let own = match work.disk() {
            Some(_) => None,
            None => Some(Ring::new(entries, TaskRun::Deferred)?),
        };
        Ok(Bed { own })
    }

    async fn sleep<W: Work>(
        &mut self,
        work: &mut W,
        control: &Control,
        pulse: &Pulse,
        background: &Background,
    ) -> io::Result<()> {
        if background.is_alive() {
            background.breathe().await?;
            if background.take_active() {
                return Ok(());
            }
        }
        if !work.prepare_sleep() {
            return Ok(());
        }
        let at = now();
        let mut deadline = work.next_deadline();
        if background.is_alive() {
            deadline = deadline.min(at + limits::BACKGROUND_NAP);
        }
        let mut fds = work.wake_fds();
        fds.push(control.wake_fd());
        let ring = ring(&mut self.own, work);
        ring.arm(&fds);
        if deadline > at {
            pulse.sleep(deadline);
            ring.wait(until(deadline, at));
            pulse.turn();
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
