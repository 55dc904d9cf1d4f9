//! `ogive demo`: a cluster on this machine, a real file tree on it, a kill in the middle of a load,
//! and the proof that nothing was lost.
//!
//! - `tools`: the programs of others that it needs; `tree`, `files`: what is put on the volume;
//! - `load`: what is measured, and the kill; `paths`: how the processes reach each other; `report`:
//!   what came of it.
#![allow(clippy::disallowed_methods)] // a shell: times itself

mod files;
mod load;
mod paths;
mod report;
mod tools;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ogive_bench::NbdUri;
use ogive_hwtest::{Requirements, Verdict};

use self::files::Files;
use self::report::Outcome;
use self::tools::Tools;
use crate::args::DemoArgs;
use crate::local::{self, LocalCluster, Options};
use crate::output::{self, bytes};
use crate::progress::Progress;
use crate::role::checks;

/// The volume of the loads.
const LOAD_BYTES: u64 = 256 << 20;
/// Free space that is asked for beside the devices: the image, its copy, the files of the copy, and
/// metadata.
const MORE_BYTES: u64 = 1 << 30;
/// Chunkservers, and so zones and replicas.
const CHUNKSERVERS: u32 = 3;
/// How long a new cluster may take to be healthy: many times what it takes.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;

/// Runs the demo. The exit code is 0 only if everything held.
pub fn run(args: &DemoArgs, json: bool) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(&args.dir)?;
    if args.stop {
        return stop(&dir);
    }
    let start = Instant::now();
    checks::demanded(args.transport)?;
    let tools = Tools::find()?;
    remove_left_over(&dir)?;
    check_host(args, &dir)?;
    clean_on_interrupt(&dir)?;
    // Whatever fails stops all processes; the logs stay for whoever wants to know more.
    let left = |_: &_| {
        leave_to_the_interrupt();
        eprintln!("logs are in {}/log until the next demo", dir.display());
    };
    let mut cluster = create(args, &dir).inspect_err(left)?;
    let outcome = work(args, &tools, &mut cluster, start).inspect_err(left)?;
    let go_on = how_to_go_on(&cluster);
    if args.keep {
        cluster.detach();
    } else {
        cluster.stop()?;
        local::remove(&dir)?;
    }
    output::print(json, &outcome, Outcome::human)?;
    if args.keep {
        eprint!("{go_on}");
    }
    Ok(if outcome.verified { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stop(dir: &Path) -> anyhow::Result<ExitCode> {
    match LocalCluster::left_in(dir)? {
        Some(state) => {
            let stopped = LocalCluster::clean(dir, &state)?;
            eprintln!("stopped {stopped} processes and removed {}", dir.display());
        }
        None => eprintln!("there is no demo in {}", dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}

fn remove_left_over(dir: &Path) -> anyhow::Result<()> {
    let Some(state) = LocalCluster::left_in(dir)? else { return Ok(()) };
    let stopped = LocalCluster::clean(dir, &state)?;
    eprintln!(
        "an earlier demo was left in {}: stopped {stopped} processes, removed it",
        dir.display()
    );
    Ok(())
}

fn check_host(args: &DemoArgs, dir: &Path) -> anyhow::Result<()> {
    let needed = args.device * u64::from(CHUNKSERVERS) + MORE_BYTES;
    let requirements = Requirements::demo(dir, 1, needed);
    ogive_hwtest::raise_limits(&requirements);
    let report = ogive_hwtest::check(&requirements);
    if report.worst() != Verdict::Ok {
        eprint!("{}", report.problems());
    }
    if !report.may_start() {
        bail!("this machine is not fit for the demo; the advice above says what to change");
    }
    eprintln!("this machine is fit for the demo");
    Ok(())
}

/// Set as soon as an interrupt begins to clean up.
static INTERRUPTING: AtomicBool = AtomicBool::new(false);

/// While an interrupt ends the processes, the demo sees them fail. That is no failure to report:
/// the interrupt cleans up and ends this process too.
fn leave_to_the_interrupt() {
    while INTERRUPTING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Ctrl-C and SIGTERM end every process of the demo and remove its directory.
fn clean_on_interrupt(dir: &Path) -> anyhow::Result<()> {
    let dir = dir.to_owned();
    crate::progress::on_stop(move |signal| {
        INTERRUPTING.store(true, Ordering::SeqCst);
        eprintln!("\n{signal}: stopping the cluster and removing {}", dir.display());
        let _nothing_starts_now = local::freeze();
        let cleaned = match LocalCluster::left_in(&dir) {
            Ok(Some(state)) => LocalCluster::clean(&dir, &state).map(|_| ()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = cleaned {
            eprintln!("ogive: {error}");
        }
        std::process::exit(INTERRUPTED);
    })
}

fn create(args: &DemoArgs, dir: &Path) -> anyhow::Result<LocalCluster> {
    let mut progress = Progress::spinner("cluster        ");
    progress.say(format!("formatting {CHUNKSERVERS} devices of {}", bytes(args.device)));
    let exe = std::env::current_exe().context("cannot find the ogive binary")?;
    let options = Options {
        device_bytes: args.device,
        keep: args.keep,
        transport: args.transport,
        ..Options::new(dir.to_owned(), exe)
    };
    let mut cluster = LocalCluster::create(options)?;
    progress.say("starting 3 metadata servers and 3 chunkservers");
    cluster.start()?;
    let status = cluster.wait_healthy(START_WITHIN, |status| {
        progress.say(status.reasons.join("; "));
    })?;
    progress.done(&format!(
        "{} metadata servers, {} chunkservers in as many zones, {} copysets, all healthy",
        status.mds.len(),
        status.chunkservers.len(),
        status.copysets.len()
    ));
    Progress::at_once("paths          ", &paths::sentence(&paths::among_chunkservers(&status)));
    Ok(cluster)
}

fn work(
    args: &DemoArgs,
    tools: &Tools,
    cluster: &mut LocalCluster,
    start: Instant,
) -> anyhow::Result<Outcome> {
    let dir = cluster.dir().to_owned();
    let phase = Duration::from_secs(args.seconds);
    let files = Files::make(tools, args.tree.as_deref(), &dir)?;
    cluster.create_volume("files", files.image_bytes)?;
    cluster.create_volume("load", LOAD_BYTES)?;
    cluster.start_gateway(1, &["files", "load"])?;
    let sizes = (bytes(files.image_bytes), bytes(LOAD_BYTES));
    let volumes = format!("files ({}) and load ({}), each three times, over NBD", sizes.0, sizes.1);
    Progress::at_once("volumes        ", &volumes);
    let uri = cluster.uri(1, "files");
    files.put(tools, &uri)?;
    let load: NbdUri = cluster.uri(1, "load").parse()?;
    let phases = load::measure(&load, phase)?;
    let kill = load::survive_kill(cluster, &load, phase)?;
    let comparison = files.compare(tools, &uri, &dir)?;
    cluster.check()?;
    let paths = paths::Paths::of(&cluster.status()?);
    Ok(Outcome::new(&files, &phases, &kill, &comparison, paths, start.elapsed()))
}

fn how_to_go_on(cluster: &LocalCluster) -> String {
    let mds = cluster.mds_addresses().join(",");
    let (files, load) = (cluster.uri(1, "files"), cluster.uri(1, "load"));
    let dir = cluster.dir().display();
    format!(
        "\nThe cluster is still running. Go on with\n\
         \n  ogive status --mds {mds}\n  \
         nbdinfo '{files}'\n  \
         ogive bench volume '{load}' --reads 0 --depth 32\n\
         \nMount the files (as root, with nbdfuse from libnbd):\n\
         \n  mkdir {dir}/nbd {dir}/mnt\n  \
         nbdfuse {dir}/nbd '{files}' &\n  \
         mount -o loop {dir}/nbd/nbd {dir}/mnt\n\
         \nand stop it all with\n\
         \n  ogive demo --stop --dir {dir}\n"
    )
}
