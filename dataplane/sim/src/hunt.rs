//! Many seeds at once, one for each thread, until one fails.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use ogive_sim::{Options, Report, run};

/// Which seeds.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    /// So many; else as many as there is time for.
    pub(crate) count: Option<u64>,
    pub(crate) until: Instant,
    pub(crate) jobs: usize,
}

/// A seed that fails.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) seed: u64,
    /// How, to be put behind the word.
    pub(crate) what: String,
}

/// What the threads share.
struct State {
    next: u64,
    /// Threads that still run seeds.
    working: usize,
    /// The smallest seed that failed.
    found: Option<Found>,
    sum: Report,
}

struct Shared {
    plan: Plan,
    state: Mutex<State>,
    ended: Condvar,
}

thread_local! {
    /// What this thread runs.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The next seed; `None` when it is time to end.
    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        let done = match self.plan.count {
            Some(count) => state.next - self.plan.first >= count,
            None => Instant::now() >= self.plan.until,
        };
        if done || state.found.is_some() {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn note(&self, result: Result<Report, Found>) {
        let mut state = self.lock();
        match result {
            Ok(report) => state.sum.add(&report),
            Err(found) if state.found.as_ref().is_none_or(|f| f.seed > found.seed) => {
                state.found = Some(found);
            }
            Err(_) => {}
        }
    }

    /// This thread runs no more seeds.
    fn leave(&self) {
        self.lock().working -= 1;
        self.ended.notify_all();
    }
}

/// Runs the seeds of a plan. Seeds are taken in order, and those that were taken are run to their
/// ends, so the smallest one that fails does not depend on the number of threads.
pub(crate) fn hunt(
    plan: Plan,
    options: impl Fn(u64) -> Options + Send + Sync + 'static,
) -> Result<Report, Found> {
    let jobs = plan.jobs.max(1);
    let sum = Report::default();
    let state = State { next: plan.first, working: jobs, found: None, sum };
    let shared = Shared { plan, state: Mutex::new(state), ended: Condvar::new() };
    let (shared, options) = (Arc::new(shared), Arc::new(options));
    catch_assertions(Arc::clone(&shared));
    for _ in 0..jobs {
        let (shared, options) = (Arc::clone(&shared), Arc::clone(&options));
        // Not joined: a thread that ran into an assertion stays where it is.
        thread::spawn(move || work(&shared, |seed| options(seed)));
    }
    let mut state = shared.lock();
    while state.working > 0 {
        state = shared.ended.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
    state.found.clone().map_or_else(|| Ok(state.sum.clone()), Err)
}

fn work(shared: &Shared, options: impl Fn(u64) -> Options) {
    while let Some(seed) = shared.take() {
        SEED.set(Some(seed));
        shared.note(run(options(seed)).map_err(|failure| {
            let (seconds, what) = (failure.at_us as f64 / 1e6, failure.what);
            Found { seed, what: format!(" after {seconds:.6} simulated seconds: {what}") }
        }));
        SEED.set(None);
    }
    shared.leave();
}

/// An assertion of the code under test is a failure of its seed. The release profile ends the
/// process when a panic goes on, so it does not: its thread is held.
fn catch_assertions(shared: Arc<Shared>) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let Some(seed) = SEED.get() else { return usual(info) };
        shared.note(Err(Found { seed, what: format!(": {info}") }));
        shared.leave();
        loop {
            thread::park();
        }
    }));
}
