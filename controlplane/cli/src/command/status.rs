//! `ogive status`: the cluster at a glance, and what is wrong with it.

use std::fmt::Write;

use ogive_api::MdsClient;
use ogive_api::types::names::{of_health, of_presence};
use ogive_api::types::{ChunkserverStatus, ClusterStatus, DeviceHealth, Health};

use super::volume;
use crate::args;
use crate::output::{self, Table, bytes};
use crate::role::runtime;

/// Prints the state of the cluster. The exit code is that of the command, not of the cluster's
/// health.
pub fn run(mds: &args::MdsClient, json: bool) -> anyhow::Result<()> {
    let client = MdsClient::new(&mds.mds)?;
    let status = runtime()?.block_on(client.status())?;
    Ok(output::print(json, &status, human)?)
}

/// The state as text.
pub fn human(s: &ClusterStatus) -> String {
    let mut out = format!("cluster {} is {}\n", s.cluster, of_health(s.health));
    for reason in &s.reasons {
        let _ = writeln!(out, "  - {reason}");
    }
    if s.drops_pending > 0 {
        let _ = writeln!(out, "  - {} deleted volumes still being freed", s.drops_pending);
    }
    let mut table = Table::new(&["mds", "address", "role", "state"]);
    for m in &s.mds {
        let role = if m.leader { "leader" } else { "follower" };
        let state = of_presence(m.presence).to_owned();
        table.row([m.node_id.to_string(), m.address.clone(), role.to_owned(), state]);
    }
    let _ = write!(out, "\n{table}");
    let _ = write!(out, "\n{}", chunkservers(s));
    let _ = write!(out, "\n{}", devices(s));
    let _ = writeln!(out, "\ncopysets  {}", copysets(s));
    for c in s.copysets.iter().filter(|c| c.health != Health::Healthy) {
        let _ = writeln!(out, "  {}: {}", c.id, c.reason);
    }
    let _ = write!(out, "\n{}", volume::list(&s.volumes));
    out
}

fn chunkservers(s: &ClusterStatus) -> Table {
    let mut table = Table::new(&[
        "chunkserver",
        "zone",
        "server",
        "state",
        "used",
        "size",
        "replicas",
        "leads",
        "paths",
        "peers over",
    ]);
    for c in &s.chunkservers {
        table.row([
            c.id.to_string(),
            c.zone.clone(),
            c.server.clone(),
            of_presence(c.presence).to_owned(),
            bytes(c.used_bytes),
            bytes(c.total_bytes),
            c.replicas.to_string(),
            c.leaders.to_string(),
            offered(c),
            peers_over(c),
        ]);
    }
    table
}

/// How the devices do.
fn devices(s: &ClusterStatus) -> Table {
    let mut table = Table::new(&[
        "device of",
        "space",
        "damaged",
        "unreadable",
        "repaired",
        "without good copy",
        "scrub laps",
        "this lap",
        "last lap",
    ]);
    for c in &s.chunkservers {
        let h = &c.device_health;
        table.row([
            c.id.to_string(),
            space(h).to_owned(),
            h.damaged_blocks.to_string(),
            h.read_errors.to_string(),
            h.repaired_blocks.to_string(),
            h.unrepairable_blocks.to_string(),
            h.scrub_laps.to_string(),
            format!("{} of {}", bytes(h.scrub_bytes), bytes(h.scrub_bytes_expected)),
            last_lap(h),
        ]);
    }
    table
}

fn space(h: &DeviceHealth) -> &'static str {
    match h {
        h if h.full => "full",
        h if h.near_full => "near full",
        _ => "ok",
    }
}

fn last_lap(h: &DeviceHealth) -> String {
    if h.scrub_laps == 0 {
        return "-".to_owned();
    }
    format!("{} in {:.1} s", bytes(h.last_lap_bytes), h.last_lap_ms as f64 / 1000.0)
}

/// Paths that its shards offer, as their endpoints have them.
fn offered(c: &ChunkserverStatus) -> String {
    let schemes = c.endpoints.iter().filter_map(|e| e.split_once(':')).map(|(scheme, _)| scheme);
    let mut each: Vec<&str> = schemes.collect();
    each.dedup();
    each.join(" ")
}

/// Connections with other chunkservers by the path that they take.
fn peers_over(c: &ChunkserverStatus) -> String {
    let used = c.paths.iter().filter(|p| p.chunkservers > 0);
    let each: Vec<String> = used.map(|p| format!("{} ×{}", p.path, p.chunkservers)).collect();
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}

/// How many copysets are in each state.
fn copysets(s: &ClusterStatus) -> String {
    let count = |h: Health| s.copysets.iter().filter(|c| c.health == h).count();
    let all = [Health::Healthy, Health::Degraded, Health::Unavailable, Health::Unknown];
    let each =
        all.iter().filter(|&&h| count(h) > 0).map(|&h| format!("{} {}", count(h), of_health(h)));
    let each = each.collect::<Vec<_>>().join(", ");
    if each.is_empty() { "none yet".to_owned() } else { each }
}
