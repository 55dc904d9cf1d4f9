//! Runs seeds for a while and says what they found.
#![allow(clippy::disallowed_methods)] // a shell: clocks, threads, processes of its own

mod hunt;
mod shrink;
mod story;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use ogive_sim::{CHAOS_US, FaultSet, Mutant, Options, Report};

use self::hunt::{Found, Plan};

/// Simulates clusters of real shards under faults, and checks that nothing is lost.
///
/// A seed that fails is made smaller, and told.
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
    /// Threads, each with a seed of its own; as many as there are cores when it is not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Another course of the same world.
    #[arg(long, default_value_t = 0)]
    salt: u64,
    /// Simulated milliseconds of load and faults in each.
    #[arg(long, default_value_t = CHAOS_US / 1000)]
    millis: u64,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Kinds of faults to leave out, by their names in the report, with commas between them.
    #[arg(long, default_value = "")]
    without: FaultSet,
    /// At most so many volumes.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    volumes: u64,
    /// At most so many operations in flight for each client.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    depth: u64,
    /// Put a known bug in, to see it found.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Leave a seed that fails as it is.
    #[arg(long)]
    no_shrink: bool,
}

/// Runs of a smaller world, at the most, to make a failing one smaller.
const SHRINK_TRIES_MAX: usize = 400;
/// Time for them.
const SHRINK_WITHIN: Duration = Duration::from_secs(120);
/// Lines of the story of a failure.
const STORY_LINES: usize = 80;

impl Args {
    fn options(&self, seed: u64) -> Options {
        Options {
            salt: self.salt,
            chaos_us: self.millis * 1000,
            faults: !self.calm,
            without: self.without,
            volumes_max: self.volumes,
            depth_max: self.depth,
            mutant: self.mutant,
            trace: self.trace,
            ..Options::seed(seed)
        }
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
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    println!("first seed {first}");
    let begin = Instant::now();
    let plan = Plan {
        first,
        count,
        until: begin + Duration::from_secs(args.seconds),
        jobs: args.jobs.unwrap_or(cores),
    };
    let args = Arc::new(args);
    let of_seed = Arc::clone(&args);
    match hunt::hunt(plan, move |seed| of_seed.options(seed)) {
        Ok(sum) => {
            print_sum(&sum, begin.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(found) => {
            failed(&args, &found);
            ExitCode::FAILURE
        }
    }
}

fn print_sum(sum: &Report, seconds: f64) {
    println!("{sum}");
    println!("speed            {:.0} events/s", sum.events as f64 / seconds);
    println!("simulated : real {:.1}", sum.simulated_us as f64 / 1e6 / seconds);
    println!("digest           {:016x}", sum.digest);
}

fn failed(args: &Args, found: &Found) {
    let options = args.options(found.seed);
    eprintln!("seed {} FAILED{}", found.seed, found.what);
    eprintln!("replay it with: {}", replay(&options));
    if args.trace || args.no_shrink {
        return;
    }
    let begin = Instant::now();
    let mut tries = 0;
    let mut fails = |options: &Options| {
        tries += 1;
        let enough = tries > SHRINK_TRIES_MAX || begin.elapsed() > SHRINK_WITHIN;
        !enough && run_alone(options, false).0
    };
    let small = shrink::shrink(options, &mut fails);
    let (_, output) = run_alone(&small, true);
    let lines: Vec<&str> = output.lines().collect();
    eprintln!("\nmade smaller in {tries} runs; what led there:");
    story::story(&lines, STORY_LINES).iter().for_each(|line| eprintln!("{line}"));
    eprintln!("\nreplay the smaller one with: {} --trace", replay(&small));
}

fn replay(options: &Options) -> String {
    format!("cargo run --release -p ogive-sim -- {options}")
}

/// Runs one world in a process of its own, since a failure may be an assertion that ends it:
/// whether it fails, and what it prints.
fn run_alone(options: &Options, trace: bool) -> (bool, String) {
    let Ok(program) = std::env::current_exe() else { return (false, String::new()) };
    let mut command = Command::new(program);
    command.args(options.to_string().split(' ')).arg("--no-shrink").arg("--jobs=1");
    if trace {
        command.arg("--trace");
    }
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            (!output.status.success(), text)
        }
        Err(_) => (false, String::new()),
    }
}

fn seed_of_the_moment() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |d| d.as_micros() as u64)
}
