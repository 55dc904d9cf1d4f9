//! Runs seeds for a while and says what they found.
#![allow(clippy::disallowed_methods)] // a shell: reads the clock for the seeds and for its speed

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use ogive_sim::{Failure, Mutant, Options, Report, run};

/// Simulates clusters of real shards under faults, and checks that nothing is lost.
#[derive(Parser)]
#[command(name = "ogive-sim", version)]
struct Args {
    /// Run new seeds for this long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// First seed; drawn from the clock, and printed, when it is not given. Without --seeds a
    /// given seed runs alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Run exactly this many seeds in place of --seconds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Simulated milliseconds of load and faults in each.
    #[arg(long, default_value_t = 6_000)]
    millis: u64,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Put a known bug in, to see it found.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

impl Args {
    fn options(&self, seed: u64) -> Options {
        Options {
            chaos_us: self.millis * 1000,
            faults: !self.calm,
            mutant: self.mutant,
            trace: self.trace,
            ..Options::seed(seed)
        }
    }

    fn replay(&self, seed: u64) -> String {
        let mut line = format!("cargo run --release -p ogive-sim -- --seed {seed}");
        if self.millis != 6_000 {
            line += &format!(" --millis {}", self.millis);
        }
        if self.calm {
            line += " --calm";
        }
        if let Some(mutant) = self.mutant {
            line += &format!(" --mutant {}", mutant.name());
        }
        line + " --trace"
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.trace {
        let subscriber = tracing_subscriber::fmt().without_time().with_writer(std::io::stderr);
        subscriber.with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).init();
    }
    let first = args.seed.unwrap_or_else(seed_of_the_moment);
    let count = args.seeds.or(args.seed.map(|_| 1));
    println!("first seed {first}");
    let begin = Instant::now();
    let mut sum = Report::default();
    for seed in first.. {
        let over = begin.elapsed() >= Duration::from_secs(args.seconds);
        if count.map_or(over, |n| sum.seeds >= n) {
            break;
        }
        let replay = args.replay(seed);
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("seed {seed} FAILED: {info}\nreplay it with: {replay}");
        }));
        match run(args.options(seed)) {
            Ok(report) => sum.add(&report),
            Err(failure) => return failed(&args, &failure),
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{sum}");
    println!("speed            {:.0} events/s", sum.events as f64 / seconds);
    println!("simulated : real {:.1}", sum.simulated_us as f64 / 1e6 / seconds);
    println!("digest           {:016x}", sum.digest);
    ExitCode::SUCCESS
}

fn failed(args: &Args, failure: &Failure) -> ExitCode {
    eprintln!(
        "seed {} FAILED after {:.6} simulated seconds: {}\nreplay it with: {}",
        failure.seed,
        failure.at_us as f64 / 1e6,
        failure.what,
        args.replay(failure.seed)
    );
    ExitCode::FAILURE
}

fn seed_of_the_moment() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |d| d.as_micros() as u64)
}
