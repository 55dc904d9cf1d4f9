//! Opening a device and starting its shards.
#![allow(clippy::disallowed_methods)] // a shell: seeds the shards from the clock, knows the date

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crossbeam::channel::bounded;
use ogive_buf::Pool;
use ogive_copyset::Timing;
use ogive_reactor::{Disk, PollMode, ReactorConfig, ReactorHandle, queue};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::token::{Credential, Keyring, UnixSeconds};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::{Accept, TcpConfig};
use ogive_rpc::transport::{Endpoint, PathChoice};
use ogive_shard::{Admin, ScrubOptions, Shard, ShardOptions, limits};
use ogive_store::file::DeviceFile;
use ogive_store::{Label, Store, StoreOptions, read_label, write_identity};
use ogive_types::{ChunkserverId, ClusterId, ShardAddr};

use crate::card::CardKeeper;
use crate::limits::{COMMANDS_MAX, DISK_DEPTH};
use crate::shard_loop::{Command, Net, ShardLoop, ShardReport};

/// How to run a chunkserver.
#[derive(Clone, Debug)]
pub struct ChunkserverConfig {
    /// Address of shard 0; shard n listens on the port plus n, or all on free ports when it is 0.
    pub listen: SocketAddr,
    /// Cores to pin the shards to; empty leaves them to the scheduler.
    pub cores: Vec<usize>,
    /// How shards wait.
    pub poll: PollMode,
    /// Bytes of buffers for each shard.
    pub buffer_bytes: usize,
    /// Bytes of memory for the maps of each shard; what is beyond is read from the device when it
    /// is needed.
    pub map_bytes_max: usize,
    /// Timing of the copysets.
    pub timing: Timing,
    /// How to look for damage in the background; the rate is that of the device, which its shards
    /// share.
    pub scrub: ScrubOptions,
    /// Which paths connections may take.
    pub transport: PathChoice,
    /// What the shards show and check from the first connection on; without one they talk to nobody
    /// until [`Chunkserver::set_credential`].
    pub credential: Option<Credential>,
}

/// Why a chunkserver does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device cannot be opened or is in use.
    #[error("cannot open {path}: {why}")]
    Open {
        /// The device.
        path: PathBuf,
        /// What the store says.
        why: String,
    },
    /// A shard cannot start.
    #[error("shard {shard} of {path} does not start: {why}")]
    Shard {
        /// The device.
        path: PathBuf,
        /// Which shard.
        shard: u16,
        /// What it says.
        why: String,
    },
}

/// An opened, locked device.
pub struct Device {
    path: PathBuf,
    file: DeviceFile,
    label: Label,
}

impl Device {
    /// Opens and locks a formatted device.
    pub fn open(path: &Path) -> Result<Device, StartError> {
        let fail = |why: String| StartError::Open { path: path.to_owned(), why };
        let file = DeviceFile::open(path).map_err(|e| fail(e.to_string()))?;
        let label = read_label(&file).map_err(|e| fail(e.to_string()))?;
        if file.sector() > label.sector {
            return Err(fail(format!(
                "it was formatted for sectors of {} bytes and lies on a device with {}; \
                 format it again, and let its replicas be rebuilt from their peers",
                label.sector,
                file.sector()
            )));
        }
        Ok(Device { path: path.to_owned(), file, label })
    }

    /// The label: who the device is.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Writes the identity that the metadata servers gave to the device.
    pub fn assign(&mut self, cluster: ClusterId, server: ChunkserverId) -> Result<(), StartError> {
        let written = write_identity(&mut self.file, cluster, server);
        self.label = written
            .map_err(|e| StartError::Open { path: self.path.clone(), why: e.to_string() })?;
        Ok(())
    }

    /// What the device remembers of its cluster, and the means to renew it.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn card(&self) -> Result<CardKeeper<DeviceFile>, StartError> {
        let fail =
            |e: std::io::Error| StartError::Open { path: self.path.clone(), why: e.to_string() };
        Ok(CardKeeper::open(self.file.try_clone().map_err(fail)?, &self.label))
    }

    /// Recovers every shard and starts its reactor.
    pub fn start(self, config: &ChunkserverConfig) -> Result<Chunkserver, StartError> {
        let mut shards = Vec::new();
        for shard in 0..self.label.shards {
            let started = self.start_shard(shard, config);
            shards.push(started.map_err(|why| StartError::Shard {
                path: self.path.clone(),
                shard,
                why,
            })?);
        }
        Ok(Chunkserver { shards, _file: self.file })
    }

    fn start_shard(&self, shard: u16, config: &ChunkserverConfig) -> Result<Handle, String> {
        let (commands, receiver) = queue::channel(COMMANDS_MAX).map_err(|e| e.to_string())?;
        let (ready, started) = bounded(1);
        let file = self.file.try_clone().map_err(|e| e.to_string())?;
        let label = self.label.clone();
        let config = config.clone();
        let reactor = ReactorConfig {
            name: format!("shard-{shard}"),
            core: config.cores.get(usize::from(shard)).copied(),
            mode: config.poll,
        };
        let make = move || {
            let (work, endpoint) = build(shard, file, &label, &config, receiver)?;
            let _ = ready.send(endpoint);
            Ok::<_, String>(work)
        };
        let reactor = ogive_reactor::spawn(reactor, make).map_err(|e| e.to_string())?;
        match started.recv() {
            Ok(endpoint) => Ok(Handle { commands, endpoint, reactor }),
            Err(_) => {
                let why = reactor.join().err().map(|e| e.to_string());
                Err(why.unwrap_or_else(|| "it ended at once".to_owned()))
            }
        }
    }
}

fn build(
    shard: u16,
    file: DeviceFile,
    label: &Label,
    config: &ChunkserverConfig,
    commands: queue::Receiver<Command>,
) -> Result<(ShardLoop, Endpoint), String> {
    let pool = Pool::new(config.buffer_bytes);
    let options = StoreOptions {
        volatile_cache: file.volatile_cache(),
        map_bytes_max: config.map_bytes_max,
        ..StoreOptions::default()
    };
    let mut file = file;
    let store = Store::open(&mut file, label, shard, pool.clone(), options);
    let store = store.map_err(|e| e.to_string())?;
    let unknown = "the device has no identity; register it first";
    let (server, cluster) = label.chunkserver().zip(label.cluster()).ok_or(unknown)?;
    let addr = ShardAddr { server, shard };
    let net = net(addr, cluster, config, &pool)?;
    let endpoint =
        net.transport.local_endpoints().into_iter().next().ok_or("no listening address")?;
    let disk = Disk::new(file.as_fd(), pool, DISK_DEPTH).map_err(|e| e.to_string())?;
    let seed = ogive_reactor::now().0 ^ (u64::from(addr.server.0) << 40) ^ u64::from(shard);
    let rate = config.scrub.bytes_per_second.div_ceil(u64::from(label.shards.max(1)));
    let scrub = ScrubOptions { bytes_per_second: rate, ..config.scrub };
    let options = ShardOptions { addr, timing: config.timing, seed, scrub };
    let shard = Shard::new(options, store, ogive_reactor::now());
    Ok((ShardLoop::new(shard, net, disk, commands), endpoint))
}

fn net(
    addr: ShardAddr,
    cluster: ClusterId,
    config: &ChunkserverConfig,
    pool: &Pool,
) -> Result<Net, String> {
    let port = match config.listen.port() {
        0 => 0,
        base => base.checked_add(addr.shard).ok_or("the ports of the shards pass 65535")?,
    };
    let listen = SocketAddr::new(config.listen.ip(), port);
    let keyring = Keyring::default();
    if let Some(credential) = &config.credential {
        keyring.set(credential.key);
    }
    let hello = Hello {
        cluster,
        identity: Identity::Shard { server: addr.server, shard: addr.shard },
        features: 0,
        token: config.credential.as_ref().map(|c| c.token.clone()).unwrap_or_default(),
        credit_requests: limits::CREDIT_REQUESTS,
        credit_bytes: limits::CREDIT_BYTES,
    };
    let tcp = TcpConfig {
        listen: vec![Endpoint::tcp(listen)],
        accept: Accept { token: keyring.check(today), ..Accept::default() },
        ..TcpConfig::new(hello.clone(), pool.clone())
    };
    let transport = NetTransport::new(NetConfig { tcp, choice: config.transport });
    Ok(Net { transport: transport.map_err(|e| e.to_string())?, hello, keyring })
}

/// The date by this machine's clock. A clock that is unset counts as the beginning of time, when
/// every token is good.
fn today() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since.map_or(0, |d| d.as_secs()))
}

struct Handle {
    commands: queue::Sender<Command>,
    endpoint: Endpoint,
    reactor: ReactorHandle,
}

/// A running chunkserver.
pub struct Chunkserver {
    shards: Vec<Handle>,
    /// Keeps the lock on the device.
    _file: DeviceFile,
}

impl Chunkserver {
    /// Where the shards listen, in order.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.shards.iter().map(|s| s.endpoint.clone()).collect()
    }

    /// Tells a shard what the control plane wants; wishes for shards that do not exist are dropped.
    pub fn tell(&self, shard: u16, admin: Admin) {
        if let Some(handle) = self.shards.get(usize::from(shard)) {
            // A full queue means that the shard is far behind; the wish comes again with the next
            // heartbeat.
            let _ = handle.commands.try_send(Command::Admin(admin));
        }
    }

    /// What the shards show and check from now on. False when one is too far behind to take it, and
    /// must be told again.
    pub fn set_credential(&self, credential: &Credential) -> bool {
        let tell = |s: &Handle| s.commands.try_send(Command::Credential(credential.clone()));
        self.shards.iter().all(|shard| tell(shard).is_ok())
    }

    /// Tells all shards.
    pub fn tell_all(&self, admin: &Admin) {
        for shard in 0..self.shards.len() as u16 {
            self.tell(shard, admin.clone());
        }
    }

    /// Asks every shard for its state; those that do not answer within `wait` are missing from the
    /// result.
    pub fn report(&self, wait: Duration) -> Vec<ShardReport> {
        let asked = self.shards.iter().map(|handle| {
            let (to, from) = bounded(1);
            let _ = handle.commands.try_send(Command::Report(to));
            from
        });
        let asked: Vec<_> = asked.collect();
        asked.iter().filter_map(|from| from.recv_timeout(wait).ok()).collect()
    }

    /// Whether all reactors run.
    pub fn is_alive(&self) -> bool {
        self.shards.iter().all(|s| !s.reactor.is_finished())
    }

    /// Stops the shards. What was acknowledged is on stable storage already.
    pub fn stop(self) {
        for handle in &self.shards {
            let _ = handle.commands.try_send(Command::Stop);
        }
        for handle in self.shards {
            if let Err(error) = handle.reactor.join() {
                tracing::error!(%error, "a shard ended badly");
            }
        }
    }
}
