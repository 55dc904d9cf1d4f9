//! `ogive format`: prepares a device, or a file in its place.

use std::path::Path;

use anyhow::{Context, bail};
use ogive_store::file::DeviceFile;
use ogive_store::{FormatOptions, Label};
use serde::Serialize;
use uuid::Uuid;

use crate::Usage;
use crate::args::FormatArgs;
use crate::output::{self, bytes};
use crate::progress::Progress;

#[derive(Serialize)]
struct Formatted<'a> {
    path: &'a Path,
    device: Uuid,
    bytes: u64,
    shards: u16,
    log_bytes: u64,
    sector_bytes: u32,
}

fn default_shards() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 8) as u16
}

/// Formats the device and prints what it is now.
pub fn run(args: &FormatArgs, json: bool) -> anyhow::Result<()> {
    let mut file = open(args)?;
    let options = FormatOptions {
        shards: args.shards.unwrap_or_else(default_shards),
        sector: file.sector(),
        log_bytes: args.log_size,
        uuid: Uuid::new_v4(),
        force: args.force,
        quick: args.quick,
    };
    let mut progress = Progress::bytes(format!("formatting {}", args.path.display()), 0);
    let label = ogive_store::format(&mut file, &options, &mut |done, total| {
        progress.length(total);
        progress.at(done);
    });
    progress.clear();
    let label = label.with_context(|| format!("cannot format {}", args.path.display()))?;
    output::print(json, &describe(&args.path, &label), human)?;
    Ok(())
}

fn open(args: &FormatArgs) -> anyhow::Result<DeviceFile> {
    let path = &args.path;
    let there = path.metadata().ok();
    let is_file = there.as_ref().is_none_or(std::fs::Metadata::is_file);
    match (args.size, there) {
        (Some(_), Some(_)) if !is_file => {
            bail!(Usage(format!(
                "{} is a device and has its size; leave out --size",
                path.display()
            )))
        }
        (None, None) => {
            bail!(Usage(format!("{} does not exist; give --size to make it", path.display())))
        }
        (Some(size), None) => Ok(DeviceFile::create(path, size, false)?),
        (Some(size), Some(found)) if found.len() != size => {
            bail!(
                "{} exists with {} bytes; leave out --size to format it as it is, or remove it",
                path.display(),
                found.len()
            )
        }
        _ => Ok(DeviceFile::open(path)?),
    }
}

fn describe<'a>(path: &'a Path, label: &Label) -> Formatted<'a> {
    Formatted {
        path,
        device: label.uuid,
        bytes: label.capacity_bytes(),
        shards: label.shards,
        log_bytes: label.regions().first().map_or(0, |region| region.log_bytes),
        sector_bytes: label.sector,
    }
}

fn human(f: &Formatted<'_>) -> String {
    format!(
        "{} is ready: {}, {} of {} each for a log, sectors of {} bytes, device {}",
        f.path.display(),
        bytes(f.bytes),
        if f.shards == 1 { "1 shard".to_owned() } else { format!("{} shards", f.shards) },
        bytes(f.log_bytes),
        f.sector_bytes,
        f.device
    )
}
