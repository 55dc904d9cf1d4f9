//! `ogive device`: looks at a device that nobody serves, without changing it.

use std::process::ExitCode;

use anyhow::Context;
use ogive_store::file::DeviceFile;
use ogive_store::inspect::{self, BatchView, LogEnd, SpaceView};
use ogive_store::{Label, read_label};
use serde::Serialize;

use crate::Usage;
use crate::args::{DeviceArg, DeviceCommand};
use crate::output;
use crate::progress::Progress;

/// Runs a command; the exit code is 1 when it found damage.
pub fn run(command: &DeviceCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        DeviceCommand::Inspect { device, force } => inspect(device, *force, json),
        DeviceCommand::Verify { device } => verify(device, json),
        DeviceCommand::DumpLog { device, shard } => dump_log(device, *shard, json),
        DeviceCommand::Audit { device } => audit(device, json),
    }
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn open(device: &DeviceArg, force: bool) -> anyhow::Result<DeviceFile> {
    Ok(DeviceFile::open_read_only(&device.path, force)?)
}

fn on(device: &DeviceArg) -> impl Fn() -> String {
    let path = device.path.display().to_string();
    move || path.clone()
}

fn inspect(device: &DeviceArg, force: bool, json: bool) -> anyhow::Result<ExitCode> {
    let file = open(device, force)?;
    let view = inspect::inspect(&file).with_context(on(device))?;
    output::print(json, &view, |view| view.to_string().trim_end().to_owned())?;
    let sound = |region: &inspect::RegionView| {
        region.problem.is_none() && region.log.is_some_and(|log| log.end == LogEnd::Clean)
    };
    Ok(verdict(view.regions.iter().all(sound)))
}

fn verify(device: &DeviceArg, json: bool) -> anyhow::Result<ExitCode> {
    let file = open(device, false)?;
    let mut progress = Progress::bytes(format!("reading {}", device.path.display()), 0);
    let verified = inspect::verify(&file, &mut |at| {
        progress.length(at.total_bytes);
        progress.at(at.done_bytes);
    });
    progress.clear();
    let verified = verified.with_context(on(device))?;
    output::print(json, &verified, ToString::to_string)?;
    Ok(verdict(verified.damages == 0))
}

/// A line of the log in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Batch {
        shard: u16,
        #[serde(flatten)]
        batch: &'a BatchView,
    },
    End {
        shard: u16,
        end: LogEnd,
    },
}

fn dump_log(device: &DeviceArg, shard: Option<u16>, json: bool) -> anyhow::Result<ExitCode> {
    let file = open(device, false)?;
    let label = read_label(&file).with_context(on(device))?;
    let shards = match shard {
        Some(shard) if shard >= label.shards => {
            let (path, has) = (device.path.display(), label.shards);
            anyhow::bail!(Usage(format!("{path} has {has} shards, from 0 on; there is no {shard}")))
        }
        Some(shard) => shard..shard + 1,
        None => 0..label.shards,
    };
    let mut good = true;
    for shard in shards {
        good &= dump_shard(&file, &label, shard, json).with_context(on(device))?;
    }
    Ok(verdict(good))
}

fn dump_shard(file: &DeviceFile, label: &Label, shard: u16, json: bool) -> anyhow::Result<bool> {
    let line = |line: &Line<'_>, text: String| -> anyhow::Result<()> {
        let line = if json { serde_json::to_string(line)? } else { text };
        Ok(output::write(format!("{line}\n").as_bytes())?)
    };
    let (mut good, mut failed) = (true, None);
    let end = inspect::dump_log(file, label, shard, &mut |batch| {
        good &= batch.records.is_some();
        let text = format!("shard {shard}  {batch}");
        failed = line(&Line::Batch { shard, batch: &batch }, text).err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    line(&Line::End { shard, end }, format!("shard {shard}  the log {end}"))?;
    Ok(good && end == LogEnd::Clean)
}

fn audit(device: &DeviceArg, json: bool) -> anyhow::Result<ExitCode> {
    let file = open(device, false)?;
    let label = read_label(&file).with_context(on(device))?;
    let mut shards: Vec<SpaceView> = Vec::new();
    for shard in 0..label.shards {
        let space = inspect::audit_space(&file, &label, shard);
        shards.push(space.with_context(|| format!("{}: shard {shard}", device.path.display()))?);
    }
    output::print(json, &shards, |shards| {
        let texts: Vec<String> = shards.iter().map(ToString::to_string).collect();
        texts.join("\n")
    })?;
    Ok(verdict(shards.iter().all(|space| space.contradiction.is_none())))
}
