//! The loop that keeps requests in flight and times them: the same for all that are compared.
#![allow(clippy::disallowed_methods)] // times requests

use std::time::{Duration, Instant};

use super::cpu::CpuClock;
use super::sample::{Meter, Sample, Totals};
use crate::limits::RPC_STALL;

/// One end of a connection with a fixed kind of request.
pub(super) trait End {
    /// Sends a request, or puts it aside to be sent by the next `turn`. Its answer is reported with
    /// the same number, which is below the depth.
    fn start(&mut self, slot: u32) -> Result<(), String>;

    /// Makes progress without waiting, and appends the numbers of the requests that were answered.
    fn turn(&mut self, done: &mut Vec<u32>) -> Result<(), String>;

    /// Counters of both ends since the connection was made; asked for when nothing is in flight.
    fn totals(&mut self) -> Result<Totals, String> {
        Ok(Totals::default())
    }
}

/// How a measurement goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) depth: usize,
    pub(super) warm: Duration,
    pub(super) duration: Duration,
    pub(super) bytes: usize,
}

impl Plan {
    pub(super) fn new(depth: usize, bytes: usize, duration: Duration) -> Plan {
        Plan { depth, warm: duration / 5, duration, bytes }
    }
}

/// Runs `end` at the depth of the plan.
pub(super) fn drive(end: &mut impl End, plan: &Plan, peer: u32) -> Result<Sample, String> {
    let clocks = [Some(CpuClock::own()), CpuClock::of(peer)];
    let mut run = Run { end, sent: Vec::new(), done: Vec::with_capacity(plan.depth) };
    run.fill(plan.depth)?;
    run.until(Instant::now() + plan.warm, None)?;
    // Counters are read with nothing in flight, which also empties the pipe: it is filled again.
    run.drain()?;
    let before = run.end.totals()?;
    run.fill(plan.depth)?;
    let mut meter = Meter::new();
    let cpu = clocks.map(|clock| clock.and_then(CpuClock::read));
    let begin = Instant::now();
    run.until(begin + plan.duration, Some(&mut meter))?;
    let seconds = begin.elapsed().as_secs_f64();
    let burnt = clocks.map(|clock| clock.and_then(CpuClock::read));
    let cpu = [0, 1].map(|i| Some(burnt[i]?.saturating_sub(cpu[i]?)));
    let rest = run.drain()?;
    let totals = run.end.totals()?.since(&before, meter.count() + rest);
    meter.sample(seconds, plan.bytes, cpu, totals).ok_or_else(|| "nothing was answered".into())
}

struct Run<'a, E> {
    end: &'a mut E,
    /// When each of the requests in flight was sent.
    sent: Vec<Instant>,
    done: Vec<u32>,
}

impl<E: End> Run<'_, E> {
    fn fill(&mut self, depth: usize) -> Result<(), String> {
        self.sent.clear();
        for slot in 0..depth {
            self.sent.push(Instant::now());
            self.end.start(slot as u32)?;
        }
        Ok(())
    }

    /// Sends a request for each answer, until the time has come and one more answer.
    fn until(&mut self, stop: Instant, mut meter: Option<&mut Meter>) -> Result<(), String> {
        loop {
            self.answers()?;
            let now = Instant::now();
            for slot in self.done.drain(..) {
                let place = &mut self.sent[slot as usize];
                if let Some(meter) = &mut meter {
                    meter.record(now - *place);
                }
                *place = now;
                self.end.start(slot)?;
            }
            if now >= stop {
                return Ok(());
            }
        }
    }

    /// Waits for all that is in flight; how many answers came.
    fn drain(&mut self) -> Result<u64, String> {
        let mut left = self.sent.len();
        while left > 0 {
            self.answers()?;
            left -= self.done.len();
            self.done.clear();
        }
        Ok(self.sent.len() as u64)
    }

    /// Spins until there is an answer.
    fn answers(&mut self) -> Result<(), String> {
        let mut turns = 0u32;
        let mut since = None;
        while self.done.is_empty() {
            self.end.turn(&mut self.done)?;
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(1 << 16) {
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() > RPC_STALL {
                    return Err(format!("no answer for {} s", RPC_STALL.as_secs()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Answers each request at the second turn after it.
    #[derive(Default)]
    struct Mirror {
        flight: VecDeque<(u32, u64)>,
        turns: u64,
        most: usize,
        frames: u64,
    }

    impl End for Mirror {
        fn start(&mut self, slot: u32) -> Result<(), String> {
            self.flight.push_back((slot, self.turns + 2));
            self.most = self.most.max(self.flight.len());
            self.frames += 1;
            Ok(())
        }

        fn turn(&mut self, done: &mut Vec<u32>) -> Result<(), String> {
            self.turns += 1;
            while self.flight.front().is_some_and(|&(_, at)| at <= self.turns) {
                done.extend(self.flight.pop_front().map(|(slot, _)| slot));
            }
            Ok(())
        }

        fn totals(&mut self) -> Result<Totals, String> {
            assert!(self.flight.is_empty(), "asked for when nothing is in flight");
            Ok(Totals { copied_bytes: Some(self.frames * 10), system_calls: Some(self.frames) })
        }
    }

    #[test]
    fn the_depth_is_kept_and_all_answers_are_counted() {
        for depth in [1, 7] {
            let mut end = Mirror::default();
            let plan = Plan::new(depth, 100, Duration::from_millis(5));
            let sample = drive(&mut end, &plan, std::process::id()).expect("a sample");
            assert_eq!(end.most, depth);
            assert!(sample.messages > 0 && sample.seconds >= 0.005);
            assert_eq!(sample.copied_bytes, Some(10.0), "per message");
            assert_eq!(sample.system_calls, Some(1.0));
            assert!(sample.cpu_us_here.is_some_and(|us| us > 0.0));
        }
    }
}
