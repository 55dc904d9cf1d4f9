//! `ogive volume`: create, list, show, delete and resize.

use anyhow::Context;
use ogive_api::MdsClient;
use ogive_api::types::{NewVolume, Volume};
use ogive_types::Layout;
use serde::Serialize;

use crate::args::{MdsClient as MdsArgs, VolumeCommand};
use crate::output::{self, Table, bytes};
use crate::role::runtime;

/// Runs a volume command.
pub fn run(command: &VolumeCommand, json: bool) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match command {
            VolumeCommand::Create { mds, name, size, stripe_chunks, stripe_unit } => {
                let layout = Layout::new(*stripe_unit, *stripe_chunks).context(
                    "--stripe-unit must be a power of two from 4KiB to 16MiB, --stripe-chunks one \
                     from 1 to 64",
                )?;
                let new = NewVolume {
                    name: name.clone(),
                    size_bytes: *size,
                    layout,
                    copysets_per_segment: None,
                };
                let volume = client(mds)?.create_volume(new).await?;
                print(json, &volume)
            }
            VolumeCommand::List { mds } => {
                let volumes = client(mds)?.list_volumes("").await?;
                Ok(output::print(json, &volumes, |all| list(all))?)
            }
            VolumeCommand::Show { mds, name } => {
                let volume = client(mds)?.get_volume(name).await?;
                print(json, &volume)
            }
            VolumeCommand::Delete { mds, name, force } => {
                client(mds)?.delete_volume(name, *force).await?;
                let deleted = Deleted { deleted: name };
                Ok(output::print(json, &deleted, |d| format!("volume {} deleted", d.deleted))?)
            }
            VolumeCommand::Resize { mds, name, size } => {
                let volume = client(mds)?.resize_volume(name, *size).await?;
                print(json, &volume)
            }
        }
    })
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: &'a str,
}

fn client(mds: &MdsArgs) -> anyhow::Result<MdsClient> {
    Ok(MdsClient::new(&mds.mds)?)
}

fn print(json: bool, volume: &Volume) -> anyhow::Result<()> {
    Ok(output::print(json, volume, show)?)
}

fn show(v: &Volume) -> String {
    let layout = match v.layout.stripe_chunks() {
        1 => "not striped".to_owned(),
        n => format!("{} over {n} chunks", bytes(v.layout.stripe_unit_bytes())),
    };
    format!(
        "name      {}\nid        {}\nsize      {} ({} bytes)\nsegments  {} of {} with space\n\
         layout    {layout}\nattached  {}\nepoch     {}",
        v.name,
        v.id,
        bytes(v.size_bytes),
        v.size_bytes,
        v.segments,
        v.size_bytes.div_ceil(ogive_types::SEGMENT_BYTES),
        attached(v),
        v.epoch.0,
    )
}

/// The volumes as a table.
pub fn list(volumes: &[Volume]) -> String {
    let mut table = Table::new(&["volume", "size", "segments", "attached"]);
    for v in volumes {
        table.row([v.name.clone(), bytes(v.size_bytes), v.segments.to_string(), attached(v)]);
    }
    if volumes.is_empty() { "no volumes".to_owned() } else { table.to_string() }
}

fn attached(v: &Volume) -> String {
    match &v.session {
        Some(s) if s.alive => s.client.clone(),
        Some(s) => format!("{} (silent, its lease ran out)", s.client),
        None => "-".to_owned(),
    }
}
