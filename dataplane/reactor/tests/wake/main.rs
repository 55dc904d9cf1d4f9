//! No wake-up is lost: a reactor that sleeps on a queue, a transport, two disks and timers at once
//! is woken by them, in random company and at random moments. A transition is a sleep that the
//! kernel has counted: 20,000 by default, a million with `make stress` (`OGIVE_STRESS` says how
//! many). The last tests prove that the others would find a lost wake-up, and a reactor that spins
//! where it should sleep: that one is found by counting turns, not by time.
//!
//! `OGIVE_TEST_PATH` chooses the path of the frames: tcp (default), or shm and rdma in a build with
//! `--features ogive-rpc/ucx`.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods, reason = "these tests are about threads and sleep")]

mod board;
mod driver;
#[path = "../common/random.rs"]
mod random;
mod sleeper;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use board::Source;
use driver::{Lost, Plan, run};
use ogive_reactor::PollMode;
use ogive_rpc::transport::Path;
use sleeper::{Bed, Mutant};

/// A spin that ends in the midst of the pauses between two wake-ups.
const ADAPTIVE: PollMode = PollMode::Adaptive { spin: Duration::from_micros(20) };
/// Longer than any machine makes a woken thread wait, however busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Turns of a reactor in event mode for each thing that happens to it: that which finds it, those
/// that end what it began, and the one that finds nothing more.
const TURNS_PER_WAKE_UP_MAX: u64 = 20;
/// Tests that need the cores for themselves.
static ALONE: Mutex<()> = Mutex::new(());

/// Transitions of both modes together.
fn transitions() -> u64 {
    std::env::var("OGIVE_STRESS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

fn path() -> Path {
    std::env::var("OGIVE_TEST_PATH").map_or(Path::Tcp, |name| name.parse().unwrap())
}

fn plan(mode: PollMode, bed: Bed) -> Plan {
    let (mutant, sources, sleeps) = (None, &Source::ALL[..], transitions() / 4);
    let rounds_max = 3 * sleeps;
    Plan { mode, bed, path: path(), mutant, sources, sleeps, rounds_max, patience: PATIENCE }
}

/// Both rings in turn carry the sleep.
fn stress(mode: PollMode) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for bed in [Bed::File, Bed::Pipe] {
        let plan = plan(mode, bed);
        let outcome = match run(&plan) {
            Ok(outcome) => outcome,
            Err(Lost(sources)) => panic!("lost wake-up of {sources:?} with {plan:?}"),
        };
        println!(
            "{mode:?}, {}, on the ring of the {bed:?}: {} sleeps ended by {} wake-ups \
             and {} turns in {} rounds and {:.1} s",
            plan.path,
            outcome.sleeps,
            outcome.stimuli,
            outcome.turns,
            outcome.rounds,
            outcome.took.as_secs_f64()
        );
        assert!(outcome.sleeps >= plan.sleeps, "it hardly sleeps, which proves nothing");
        assert!(outcome.rests, "it spins though nothing comes");
        if mode == PollMode::Event {
            let bound = TURNS_PER_WAKE_UP_MAX * (outcome.sleeps + outcome.stimuli);
            assert!(outcome.turns < bound, "it spins before it sleeps: {outcome:?}");
        }
    }
}

#[test]
fn no_wake_up_is_lost_in_adaptive_mode() {
    stress(ADAPTIVE);
}

#[test]
fn no_wake_up_is_lost_in_event_mode() {
    stress(PollMode::Event);
}

#[test]
fn a_reactor_that_does_not_sleep_would_be_found() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for mutant in [Mutant::AlwaysDue, Mutant::NeverReady] {
        for mode in [ADAPTIVE, PollMode::Event] {
            let mutant = Some(mutant);
            let plan = Plan { mutant, rounds_max: 100, ..plan(mode, Bed::File) };
            let outcome = run(&plan).expect("who does not sleep loses nothing");
            assert!(!outcome.rests && outcome.sleeps < plan.sleeps, "{outcome:?} with {plan:?}");
        }
    }
}

#[test]
fn a_lost_wake_up_would_be_found() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    use Source::{File, Net, Pipe, Queue, Timer};
    let cases: [(Mutant, Bed, &'static [Source], Source); 6] = [
        (Mutant::QueueNotArmed, Bed::File, &[Queue], Queue),
        (Mutant::NetNotWatched, Bed::File, &[Net], Net),
        (Mutant::DiskNotWatched, Bed::File, &[Pipe], Pipe),
        (Mutant::DiskNotWatched, Bed::Pipe, &[File, Queue], File),
        (Mutant::TimerForgotten, Bed::File, &[Timer, Queue], Timer),
        (Mutant::QueueOverlooked, Bed::File, &[Queue, Net], Queue),
    ];
    for (mutant, bed, sources, lost) in cases {
        let plan = Plan {
            mutant: Some(mutant),
            sources,
            sleeps: u64::MAX,
            rounds_max: 20_000,
            // What comes later than this after all is no false alarm: it must have been woken by
            // hand.
            patience: Duration::from_secs(1),
            ..plan(PollMode::Event, bed)
        };
        let found = match run(&plan) {
            Err(found) => found,
            Ok(outcome) => panic!("{mutant:?} loses no wake-up: {outcome:?}"),
        };
        println!("{mutant:?}, {}: {found:?}", plan.path);
        assert!(found.0.contains(&lost), "{found:?} with {plan:?}");
    }
}
