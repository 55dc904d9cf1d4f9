//! The `ogive` command.
//!
//! - `args`: the command line, one definition for parsing, help, completions and manual pages;
//! - `config`: the TOML file under it;
//! - `command`: what people run: each command does one thing, prints its result, and ends;
//! - `role`: what makes up a cluster: each runs until it is told to stop;
//! - [`local`]: a whole cluster on this machine, for the demo and the tests;
//! - `demo`: `ogive demo`;
//! - `output`, `progress`: results on standard output, progress on standard error.

pub mod args;
mod command;
mod config;
mod demo;
pub mod local;
mod output;
mod progress;
mod role;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use args::{BenchCommand, Cli, Command};

/// A mistake in how the command was called: exit code 2, as for those that the parser finds.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Exit code of a command that failed, or whose verdict is bad.
const FAILURE: u8 = 1;
/// Exit code of a command that was called wrongly.
const USAGE: u8 = 2;

/// Runs the command line of this process and returns its exit code: 0 when all is well, 1 when
/// something failed, 2 when the call itself is wrong.
pub fn run() -> ExitCode {
    let cli = match parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match log(&cli).and_then(|()| dispatch(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ogive: {error:#}");
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILURE })
        }
    }
}

fn parse(line: Vec<OsString>) -> Result<Cli, ExitCode> {
    let mut command = Cli::command();
    if let Some(file) = config::find(config_file(&line).as_deref()) {
        command = config::apply(command, &file).map_err(|error| {
            eprintln!("ogive: {error}");
            ExitCode::from(USAGE)
        })?;
    }
    let matches = command.try_get_matches_from(line);
    matches.and_then(|m| Cli::from_arg_matches(&m)).map_err(|error| {
        // A reader that goes away while help is printed is nothing to complain about.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
    })
}

/// The value of --config, which must be known before the line can be parsed.
fn config_file(line: &[OsString]) -> Option<PathBuf> {
    let mut words = line.iter().skip(1).take_while(|word| *word != "--");
    let mut named = None;
    while let Some(word) = words.next() {
        if word == "--config" {
            named = words.next().map(PathBuf::from);
        } else if let Some(value) = word.to_str().and_then(|w| w.strip_prefix("--config=")) {
            named = Some(PathBuf::from(value));
        }
    }
    let from_environment = || std::env::var_os("OGIVE_CONFIG").map(PathBuf::from);
    named.or_else(from_environment)
}

/// Logs go to standard error, so that results on standard output stay clean.
fn log(cli: &Cli) -> anyhow::Result<()> {
    let role = matches!(cli.command, Command::Mds(_) | Command::Chunkserver(_) | Command::Nbd(_));
    let wanted = cli.global.log.as_deref().unwrap_or(if role { "info" } else { "warn" });
    let filter = EnvFilter::try_new(widen(wanted)).map_err(|e| {
        Usage(format!("--log {wanted}: {e}; write a level such as debug, or TARGET=LEVEL,..."))
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .finish();
    // It fails only when there is one already: then whoever embeds this keeps its own.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// A bare level means Ogive's own words at that level; libraries are heard when they warn.
fn widen(filter: &str) -> String {
    match filter {
        "error" | "warn" => format!("{filter},openraft=error"),
        "info" | "debug" | "trace" => format!("warn,openraft=error,ogive={filter}"),
        other => other.to_owned(),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let json = cli.global.json;
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Command::Demo(args) => demo::run(&args, json),
        Command::Mds(args) => role::mds::run(&args).map(done),
        Command::Chunkserver(args) => role::chunkserver::run(&args).map(done),
        Command::Nbd(args) => role::nbd::run(&args).map(done),
        Command::Format(args) => command::format::run(&args, json).map(done),
        Command::Device(args) => command::device::run(&args.command, json),
        Command::Volume(args) => command::volume::run(&args.command, json).map(done),
        Command::Status(mds) => command::status::run(&mds, json).map(done),
        Command::Hwtest(args) => command::hwtest::run(&args, json),
        Command::Bench(args) => match args.command {
            BenchCommand::Volume(args) => command::bench::run(&args, json),
            BenchCommand::Rpc(args) => command::bench::rpc(&args, json),
            BenchCommand::Store(args) => command::bench::store(&args, json),
            BenchCommand::Copyset(args) => command::bench::copyset(&args, json),
            BenchCommand::RpcPeer(args) => command::bench::rpc_peer(&args).map(done),
        },
        Command::Completions { shell } => command::manual::completions(shell).map(done),
        Command::Man { dir } => command::manual::man(dir.as_deref()).map(done),
        Command::Version => command::version::run(json).map(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_configuration_file_is_found_in_the_line() {
        let named = |line| config_file(&words(line));
        assert_eq!(named("ogive status --config a.toml"), Some("a.toml".into()));
        assert_eq!(named("ogive --config=b.toml status"), Some("b.toml".into()));
        assert_eq!(
            named("ogive -- --config c.toml"),
            std::env::var_os("OGIVE_CONFIG").map(Into::into)
        );
    }

    #[test]
    fn a_bare_level_is_about_ogive() {
        assert_eq!(widen("debug"), "warn,openraft=error,ogive=debug");
        assert_eq!(widen("ogive_shard=trace"), "ogive_shard=trace");
        assert!(EnvFilter::try_new(widen("trace")).is_ok());
    }
}
