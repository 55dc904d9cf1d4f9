//! Scrub: the shard reads what it stores, slowly and again and again, and has repaired what it
//! finds damaged.
//!
//! One step is under way at a time, and steps follow one another at the byte rate of the options. A
//! step that is due gives way to other operations on the disk, but not for ever: under constant
//! load the rate falls to a share of what was asked for.

use std::time::Duration;

use ogive_store::ScrubCursor;
use ogive_types::{BLOCK_BYTES, Time};

use crate::calls::Token;
use crate::limits::{SCRUB_BLOCKS, SCRUB_EMPTY_PAUSE, SCRUB_YIELDS_MAX, TIMER_GRID};
use crate::report::ScrubReport;
use crate::shard::{Shard, on_grid};

/// How to scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes that a shard reads in a second; 0 for no scrub.
    pub bytes_per_second: u64,
    /// Pause after each lap.
    pub pause: Duration,
}

impl Default for ScrubOptions {
    /// 8 MiB/s: a TiB in a day and a half, at a few percent of what a hard disk can do. The pause
    /// keeps small devices from being read all the time.
    fn default() -> ScrubOptions {
        ScrubOptions { bytes_per_second: 8 << 20, pause: Duration::from_secs(3600) }
    }
}

pub(crate) struct Scrub {
    options: ScrubOptions,
    cursor: ScrubCursor,
    reading: Option<Token>,
    next_at: Time,
    yields: u32,
    lap_began: Option<Time>,
    report: ScrubReport,
}

impl Scrub {
    pub(crate) fn new(options: ScrubOptions, now: Time) -> Scrub {
        let off = options.bytes_per_second == 0;
        Scrub {
            options,
            cursor: ScrubCursor::default(),
            reading: None,
            next_at: if off { Time::NEVER } else { now },
            yields: 0,
            lap_began: None,
            report: ScrubReport::default(),
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        if self.reading.is_some() { Time::NEVER } else { self.next_at }
    }

    pub(crate) fn report(&self) -> ScrubReport {
        self.report
    }

    /// How long a step over so many blocks takes at the rate of the options.
    fn pace(&self, blocks: usize) -> Duration {
        let micros = (blocks * BLOCK_BYTES) as u64 * 1_000_000 / self.options.bytes_per_second;
        Duration::from_micros(micros)
    }
}

impl Shard {
    /// Takes a step, if one is due.
    pub(crate) fn pump_scrub(&mut self, now: Time) {
        if now < self.scrub.next_deadline() {
            return;
        }
        if self.store.is_busy() && self.scrub.yields < SCRUB_YIELDS_MAX {
            self.scrub.yields += 1;
            self.scrub.next_at = on_grid(now + TIMER_GRID);
            return;
        }
        self.scrub.yields = 0;
        if self.scrub.lap_began.is_none() {
            self.scrub.lap_began = Some(now);
            self.scrub.report.lap_bytes = 0;
            let blocks = self.store.stats().blocks_mapped;
            self.scrub.report.lap_bytes_expected = blocks * BLOCK_BYTES as u64;
        }
        let token = self.calls.token();
        let step = self.store.scrub(token.0, self.scrub.cursor, SCRUB_BLOCKS);
        let scrub = &mut self.scrub;
        scrub.report.lap_bytes += (step.blocks * BLOCK_BYTES) as u64;
        scrub.next_at = on_grid(now + scrub.pace(step.blocks.max(1)));
        if step.blocks > 0 {
            scrub.reading = Some(token);
        }
        match step.next {
            Some(next) => scrub.cursor = next,
            None => {
                scrub.cursor = ScrubCursor::default();
                scrub.report.laps += 1;
                let began = scrub.lap_began.take().expect("set above");
                scrub.report.last_lap = now.since(began);
                scrub.report.last_lap_bytes = scrub.report.lap_bytes;
                let pause = match scrub.report.lap_bytes {
                    0 => scrub.options.pause.min(SCRUB_EMPTY_PAUSE),
                    _ => scrub.options.pause,
                };
                scrub.next_at = on_grid(now + pause.max(TIMER_GRID));
            }
        }
    }

    /// A step has ended.
    pub(crate) fn scrubbed(&mut self, token: Token) {
        if self.scrub.reading == Some(token) {
            self.scrub.reading = None;
        }
    }
}
