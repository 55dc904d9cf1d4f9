//! Runs seeds on all cores for a while and says what they covered.
#![allow(clippy::disallowed_methods)] // a shell: reads the clock for the seeds and for its speed

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use ogive_crash::cover::Cover;
use ogive_crash::run;

/// Cuts the power of stores at every moment and damages their devices, and checks what they make
/// of it.
#[derive(Parser)]
#[command(name = "ogive-crash", version)]
struct Args {
    /// Run new seeds for this long; 30 when --seeds is not given either.
    #[arg(long)]
    seconds: Option<u64>,
    /// First seed; drawn from the clock, and printed, when it is not given. Without --seeds a
    /// given seed runs alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this many seeds, and no longer than --seconds if that is given too.
    #[arg(long)]
    seeds: Option<u64>,
    /// Threads; as many as there are cores when it is not given.
    #[arg(long)]
    threads: Option<usize>,
}

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// What the threads share.
struct Shared {
    next: AtomicU64,
    end: Option<u64>,
    until: Option<Instant>,
    begin: Instant,
    cover: Mutex<Cover>,
    failed: Mutex<bool>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let first = args.seed.unwrap_or_else(seed_of_the_moment);
    let count = args.seeds.or(args.seed.map(|_| 1));
    let seconds = args.seconds.or(count.is_none().then_some(30));
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    println!("first seed {first}");
    let begin = Instant::now();
    let shared = Shared {
        next: AtomicU64::new(first),
        end: count.map(|count| first + count),
        until: seconds.map(|seconds| begin + Duration::from_secs(seconds)),
        begin,
        cover: Mutex::default(),
        failed: Mutex::new(false),
    };
    std::panic::set_hook(Box::new(move |info| {
        failed(SEED.get(), begin, &info.to_string());
        std::process::exit(1);
    }));
    std::thread::scope(|scope| {
        for _ in 0..args.threads.unwrap_or_else(cores) {
            scope.spawn(|| work(&shared));
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let cover = shared.cover.lock().expect("nobody panicked");
    let opened = cover.images + cover.damaged_all();
    print!("{cover}");
    println!("speed            {:.0} images/s", opened as f64 / seconds);
    ExitCode::from(u8::from(*shared.failed.lock().expect("nobody panicked")))
}

fn work(shared: &Shared) {
    loop {
        let late = shared.until.is_some_and(|until| Instant::now() >= until);
        let done = shared.end.is_some_and(|end| shared.next.load(Ordering::Relaxed) >= end);
        if late || done || *shared.failed.lock().expect("nobody panicked") {
            return;
        }
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        SEED.set(seed);
        match run(seed) {
            Ok(cover) => shared.cover.lock().expect("nobody panicked").add(&cover),
            Err(what) => {
                failed(seed, shared.begin, &what);
                *shared.failed.lock().expect("nobody panicked") = true;
            }
        }
    }
}

fn failed(seed: u64, begin: Instant, what: &str) {
    eprintln!(
        "seed {seed} FAILED after {:.1} s: {what}\n\
         replay it with: cargo run --release -p ogive-crash -- --seed {seed}",
        begin.elapsed().as_secs_f64()
    );
}

fn seed_of_the_moment() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |d| d.as_micros() as u64)
}
