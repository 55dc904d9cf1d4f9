//! `ogive chunkserver`: shards on their reactors, and beside them a task that talks to the metadata
//! servers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use ogive_api::types::{
    Credential, DeviceHealth, Drop, FollowerReport, Heartbeat, Registration, ReplicaReport, Role,
    Topology,
};
use ogive_api::{ApiError, MdsClient};
use ogive_chunkserver::{Card, CardKeeper, Chunkserver, ChunkserverConfig, Device, ShardReport};
use ogive_copyset::Timing;
use ogive_rpc::token::UnixSeconds;
use ogive_rpc::transport::Endpoint;
use ogive_rpc::transport::usage::add_up;
use ogive_shard::{Admin, ReplicaRole, ReplicaSpec, ScrubOptions};
use ogive_store::file::DeviceFile;
use ogive_types::{ChunkserverId, CopysetId, ShardAddr};
use uuid::Uuid;

use super::{asked_to_stop, checks, paths, runtime};
use crate::args::ChunkserverArgs;

/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a shard may take to report; a busy one is asked again with the next heartbeat.
const REPORT_WAIT: Duration = Duration::from_millis(200);
/// Between two tries to reach the metadata servers at the start.
const RETRY: Duration = Duration::from_millis(300);

/// Runs a chunkserver until it is asked to stop.
pub fn run(args: &ChunkserverArgs) -> anyhow::Result<()> {
    let mut device = Device::open(&args.device)?;
    let shards = usize::from(device.label().shards);
    checks::chunkserver(&args.device, shards, args.transport)?;
    let listen = resolve(&args.listen)?;
    let runtime = runtime()?;
    let mds = MdsClient::new(&args.mds.mds)?;
    let me = registration(args, &device, placeholder_endpoints(listen, shards))?;
    let mut given = None;
    if device.label().chunkserver().is_none() {
        tracing::info!("first start: asking the metadata servers for an identity");
        let Some(registered) = runtime.block_on(register(&mds, &me)) else { return Ok(()) };
        let registered = registered?;
        device.assign(registered.cluster, registered.id)?;
        given = Some(paths::credential(&registered.credential));
    }
    let memory = device.card()?;
    let id = device.label().chunkserver().context("the device has no identity")?;
    let credential = given.or_else(|| memory.card().map(|card| card.credential.clone()));
    let server =
        device.start(&ChunkserverConfig { credential, ..config(args, listen, shards)? })?;
    for endpoint in server.endpoints() {
        tracing::info!(%id, endpoint = endpoint.0, "chunkserver listens");
    }
    if let Some(card) = memory.card() {
        // Until the metadata servers say better; they may be down.
        server.tell_all(&Admin::Endpoints(card.endpoints.clone()));
    }
    let me = Registration { endpoints: texts(&server.endpoints()), ..me };
    let result = runtime.block_on(control(&mds, me, id, &server, memory));
    server.stop();
    result
}

/// What the options say.
fn config(
    args: &ChunkserverArgs,
    listen: SocketAddr,
    shards: usize,
) -> anyhow::Result<ChunkserverConfig> {
    Ok(ChunkserverConfig {
        listen,
        cores: args.cores.clone(),
        poll: args.poll.mode(args.spin_us, shards),
        buffer_bytes: usize::try_from(args.buffers).context("--buffers is too large")?,
        map_bytes_max: usize::try_from(args.maps).context("--maps is too large")?,
        timing: Timing::default(),
        scrub: ScrubOptions { bytes_per_second: args.scrub_rate, ..ScrubOptions::default() },
        transport: args.transport,
        credential: None,
    })
}

fn registration(
    args: &ChunkserverArgs,
    device: &Device,
    endpoints: Vec<String>,
) -> anyhow::Result<Registration> {
    Ok(Registration {
        cluster: device.label().cluster(),
        device: device.label().uuid,
        zone: args.zone.clone(),
        server: args.server.clone().map_or_else(checks::host_name, Ok)?,
        endpoints,
        capacity_bytes: device.label().capacity_bytes(),
    })
}

fn resolve(listen: &str) -> anyhow::Result<SocketAddr> {
    let found = listen.to_socket_addrs().with_context(|| {
        format!(
            "--listen {listen}: not an address of this machine; write HOST:PORT, such as \
             127.0.0.1:0"
        )
    })?;
    found.into_iter().next().with_context(|| format!("--listen {listen}: no such address"))
}

/// What a device that has never served announces, before its shards listen: a path that nobody
/// knows, so that nobody connects to what may be somebody else's port. The shards' own endpoints
/// follow in a moment.
fn placeholder_endpoints(listen: SocketAddr, shards: usize) -> Vec<String> {
    (0..shards)
        .map(|n| format!("none:{}:{}", listen.ip(), listen.port().max(1) as usize + n))
        .collect()
}

fn texts(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(|e| e.0.clone()).collect()
}

/// Registers, however long it takes to find a leader; `None` when asked to stop meanwhile.
async fn register(
    mds: &MdsClient,
    me: &Registration,
) -> Option<anyhow::Result<ogive_api::types::Registered>> {
    let attempts = async {
        loop {
            match mds.register_chunkserver(me.clone()).await {
                Ok(registered) => return Ok(registered),
                Err(error) if error.refusal().is_some() => return Err(refused(&error)),
                Err(error) => tracing::warn!(%error, "not registered yet, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        result = attempts => Some(result),
        _ = asked_to_stop() => None,
    }
}

fn refused(error: &ApiError) -> anyhow::Error {
    anyhow::anyhow!("the metadata servers refuse this chunkserver: {error}")
}

async fn control(
    mds: &MdsClient,
    me: Registration,
    id: ChunkserverId,
    server: &Chunkserver,
    memory: CardKeeper<DeviceFile>,
) -> anyhow::Result<()> {
    let beats = async {
        let (device, topology) = (me.device, Topology::default());
        let mut control =
            Control { mds, id, device, server, topology, token_not_after_s: 0, memory };
        let Some(registered) = register(mds, &me).await else { return Ok(()) };
        control.take(&registered?.credential);
        loop {
            if !server.is_alive() {
                bail!("a shard stopped; the messages above say why");
            }
            match control.beat(&me.endpoints).await {
                Err(error) if error.refusal().is_some() => return Err(refused(&error)),
                Err(error) => tracing::warn!(%error, "no heartbeat; data I/O goes on"),
                Ok(()) => {}
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    };
    tokio::select! {
        result = beats => result,
        signal = asked_to_stop() => {
            tracing::info!("{signal}: stopping");
            Ok(())
        }
    }
}

struct Control<'a> {
    mds: &'a MdsClient,
    id: ChunkserverId,
    device: Uuid,
    server: &'a Chunkserver,
    topology: Topology,
    /// Until when the token that the shards show holds, in seconds of Unix time; 0 for none of this
    /// run.
    token_not_after_s: u64,
    memory: CardKeeper<DeviceFile>,
}

impl Control<'_> {
    /// Shows another token from now on, and remembers it.
    fn take(&mut self, given: &Credential) {
        let credential = paths::credential(given);
        if !self.server.set_credential(&credential) {
            // One that is not noted is given again with the next heartbeat.
            return tracing::warn!("a shard is too far behind to take a new token");
        }
        self.token_not_after_s = given.not_after_s;
        tracing::info!(until = %UnixSeconds(given.not_after_s), "token renewed");
        let endpoints = self.memory.card().map(|card| card.endpoints.clone()).unwrap_or_default();
        self.remember(Card { credential, endpoints });
    }

    fn remember(&mut self, card: Card) {
        if let Err(error) = self.memory.keep(card) {
            tracing::warn!(%error, "cannot note token and peers on the device; if it starts again \
                                    without metadata servers, it waits for them");
        }
    }

    /// Remembers where the shards listen with which this chunkserver shares copysets.
    fn remember_peers(&mut self, members: impl Iterator<Item = ShardAddr>) {
        let Some(card) = self.memory.card() else { return };
        let all = &self.topology.endpoints;
        let known = |addr: ShardAddr| Some((addr, Endpoint(all.get(&addr)?.clone())));
        let endpoints = members.filter(|addr| addr.server != self.id).filter_map(known).collect();
        self.remember(Card { endpoints, ..card.clone() });
    }

    async fn beat(&mut self, endpoints: &[String]) -> Result<(), ApiError> {
        let reports = self.server.report(REPORT_WAIT);
        let heartbeat = Heartbeat {
            id: self.id,
            device: self.device,
            endpoints: endpoints.to_vec(),
            used_bytes: reports.iter().map(|r| r.store.used_bytes()).sum(),
            total_bytes: reports.iter().map(|r| r.store.total_bytes()).sum(),
            replicas: reports.iter().flat_map(replicas).collect(),
            drops_done: reports.iter().flat_map(drops_done).collect(),
            topology_version: self.topology.version,
            token_not_after_s: self.token_not_after_s,
            paths: path_uses(&reports),
            device_health: device_health(&reports),
        };
        let reply = self.mds.heartbeat(heartbeat).await?;
        if let Some(credential) = &reply.credential {
            self.take(credential);
        }
        if let Some(topology) = reply.topology {
            self.topology = topology;
            let all = &self.topology.endpoints;
            let all = all.iter().map(|(&addr, text)| (addr, Endpoint(text.clone()))).collect();
            self.server.tell_all(&Admin::Endpoints(all));
        }
        self.remember_peers(reply.replicas.values().flatten().copied());
        self.tell_replicas(&reply.replicas);
        for Drop { copyset, volume } in reply.drops {
            self.server.tell_all(&Admin::DropVolume { copyset, volume });
        }
        Ok(())
    }

    /// Tells each shard which replicas belong on it.
    fn tell_replicas(&self, replicas: &BTreeMap<CopysetId, Vec<ShardAddr>>) {
        let mut here: BTreeMap<u16, Vec<ReplicaSpec>> = BTreeMap::new();
        for (&copyset, members) in replicas {
            for addr in members.iter().filter(|addr| addr.server == self.id) {
                let spec = ReplicaSpec { copyset, members: members.clone() };
                here.entry(addr.shard).or_default().push(spec);
            }
        }
        for (shard, specs) in here {
            self.server.tell(shard, Admin::Replicas(specs));
        }
    }
}

/// How the device does, by what its shards say of their parts.
fn device_health(reports: &[ShardReport]) -> DeviceHealth {
    let mut all = DeviceHealth::default();
    for r in reports {
        let ogive_shard::Health { repair, scrub, replace, refuses_writes } = r.health;
        all.damaged_blocks += repair.damaged;
        all.read_errors += repair.io_errors;
        all.repaired_blocks += repair.repaired;
        all.open_repairs += repair.open;
        all.unrepairable_blocks += repair.unrepairable;
        all.retired_bytes += r.store.blocks_retired * r.store.block_bytes;
        all.replace |= replace;
        all.scrub_bytes += scrub.lap_bytes;
        all.scrub_bytes_expected += scrub.lap_bytes_expected;
        all.last_lap_ms = all.last_lap_ms.max(scrub.last_lap.as_millis() as u64);
        all.last_lap_bytes += scrub.last_lap_bytes;
        all.near_full |= r.store.is_near_full();
        all.full |= refuses_writes;
    }
    // A lap of the device is over when all shards have done theirs.
    all.scrub_laps = reports.iter().map(|r| r.health.scrub.laps).min().unwrap_or(0);
    all
}

/// What went over the paths of all shards together.
fn path_uses(reports: &[ShardReport]) -> Vec<ogive_api::types::PathUse> {
    let mut total = Vec::new();
    reports.iter().for_each(|report| add_up(&mut total, &report.paths));
    paths::told(&total)
}

fn replicas(report: &ShardReport) -> impl Iterator<Item = ReplicaReport> + '_ {
    report.replicas.iter().map(|r| ReplicaReport {
        copyset: r.copyset,
        shard: report.addr.shard,
        role: match r.role {
            ReplicaRole::Leader => Role::Leader,
            ReplicaRole::Follower => Role::Follower,
            ReplicaRole::Candidate => Role::Candidate,
        },
        term: r.term,
        applied: r.applied,
        last: r.last,
        followers: r
            .followers
            .iter()
            .map(|&(replica, matched, active)| follower(r.last, replica, matched, active))
            .collect(),
        healthy: r.role != ReplicaRole::Leader || r.serving,
    })
}

fn follower(
    last: ogive_types::Index,
    replica: ShardAddr,
    matched: ogive_types::Index,
    active: bool,
) -> FollowerReport {
    FollowerReport { replica, lag: last.0.saturating_sub(matched.0), active }
}

/// Drops that are applied in the copysets led from here.
fn drops_done(report: &ShardReport) -> impl Iterator<Item = Drop> + '_ {
    let led = report.replicas.iter().filter(|r| r.role == ReplicaRole::Leader);
    led.flat_map(|r| r.dropped.iter().map(|&volume| Drop { copyset: r.copyset, volume }))
}
