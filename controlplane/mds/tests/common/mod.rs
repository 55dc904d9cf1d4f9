//! A group of real metadata servers: processes of their own, on loopback, with files on the disk.
//!
//! A server is this very test program, started again with [`CHILD`] set: `child_entry` then runs
//! the server instead of a test.
#![allow(dead_code, clippy::disallowed_methods)] // Not each test uses all helpers.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ogive_api::types::*;
use ogive_api::{ApiError, MdsClient};
use ogive_mds::MdsConfig;
use ogive_types::{CopysetId, Layout, Term};
use tempfile::TempDir;
use uuid::Uuid;

const CHILD: &str = "OGIVE_TEST_MDS";

/// Call from a test named `child_entry`: runs a server when this process was started for that, and
/// then never returns.
pub fn run_as_child() {
    let Ok(spec) = std::env::var(CHILD) else { return };
    let mut words = spec.split_whitespace();
    let own: u64 = words.next().unwrap().parse().unwrap();
    let dir: PathBuf = words.next().unwrap().into();
    let peers = words.map(|w| w.split_once('=').unwrap());
    let peers = peers.map(|(id, a)| (id.parse().unwrap(), a.to_owned())).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result =
        runtime.block_on(ogive_mds::serve(MdsConfig::new(own, peers, dir), std::future::pending()));
    eprintln!("MDS {own}: {result:?}");
    std::process::exit(1);
}

pub struct Group {
    pub dir: TempDir,
    pub peers: Vec<(u64, String)>,
    children: Vec<Option<Child>>,
}

impl std::ops::Drop for Group {
    fn drop(&mut self) {
        (1..=self.peers.len() as u64).for_each(|id| self.kill(id));
    }
}

impl Group {
    /// Starts a group of `count` servers.
    pub fn start(count: usize) -> Group {
        let mut group = Group::prepare(count);
        (1..=count as u64).for_each(|id| group.run(id));
        group
    }

    /// A group whose servers do not run yet.
    pub fn prepare(count: usize) -> Group {
        let dir = tempfile::tempdir().unwrap();
        // All ports are held until all are chosen, so that they differ.
        let held: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let peers = held
            .iter()
            .enumerate()
            .map(|(n, l)| (n as u64 + 1, l.local_addr().unwrap().to_string()))
            .collect();
        Group { dir, peers, children: (0..count).map(|_| None).collect() }
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("mds{id}"))
    }

    /// Starts a server.
    pub fn run(&mut self, id: u64) {
        let peers: Vec<String> = self.peers.iter().map(|(id, a)| format!("{id}={a}")).collect();
        let spec = format!("{id} {} {}", self.data_dir(id).display(), peers.join(" "));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_entry", "--nocapture", "--test-threads=1"])
            .env(CHILD, spec)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.children[id as usize - 1] = Some(child);
    }

    /// Kills a server with SIGKILL.
    pub fn kill(&mut self, id: u64) {
        if let Some(mut child) = self.children[id as usize - 1].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn signal(&self, id: u64, signal: rustix::process::Signal) {
        let child = self.children[id as usize - 1].as_ref().expect("it runs");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn kill_all(&mut self) {
        (1..=self.peers.len() as u64).for_each(|id| self.kill(id));
    }

    pub fn run_all(&mut self) {
        (1..=self.peers.len() as u64).for_each(|id| self.run(id));
    }

    pub fn address(&self, id: u64) -> &str {
        &self.peers[id as usize - 1].1
    }

    /// A client of the whole group, patient enough for a busy machine.
    pub fn client(&self) -> MdsClient {
        let all: Vec<&str> = self.peers.iter().map(|(_, a)| a.as_str()).collect();
        MdsClient::new(&all).unwrap().with_deadline(Duration::from_secs(30))
    }

    /// A client that knows one server.
    pub fn client_of(&self, id: u64) -> MdsClient {
        MdsClient::new(&[self.address(id)]).unwrap()
    }

    /// Waits for a leader and says which server it is.
    pub async fn leader(&self) -> u64 {
        let client = self.client();
        client.status().await.unwrap();
        let address = client.leader().unwrap();
        self.peers.iter().find(|(_, a)| *a == address).expect("the leader is a peer").0
    }
}

pub fn volume(name: &str) -> NewVolume {
    NewVolume {
        name: name.into(),
        size_bytes: 4 << 30,
        layout: Layout::default(),
        copysets_per_segment: None,
    }
}

/// A chunkserver that says the right things and holds nothing.
pub struct FakeServer {
    pub registration: Registration,
    pub registered: Registered,
}

impl FakeServer {
    pub async fn register(client: &MdsClient, n: u128) -> FakeServer {
        let registration = Registration {
            cluster: None,
            device: Uuid::from_u128(n),
            zone: format!("zone{n}"),
            server: format!("host{n}"),
            endpoints: vec![format!("tcp:127.0.0.1:{}", 9000 + n)],
            capacity_bytes: 1 << 40,
        };
        let registered = client.register_chunkserver(registration.clone()).await.unwrap();
        FakeServer { registration, registered }
    }

    pub fn heartbeat(&self, replicas: Vec<ReplicaReport>, drops_done: Vec<Drop>) -> Heartbeat {
        Heartbeat {
            id: self.registered.id,
            device: self.registration.device,
            endpoints: self.registration.endpoints.clone(),
            used_bytes: 1,
            total_bytes: 1 << 40,
            replicas,
            drops_done,
            topology_version: 0,
            token_not_after_s: self.registered.credential.not_after_s,
            paths: Vec::new(),
            device_health: DeviceHealth::default(),
        }
    }

    pub async fn beat(&self, client: &MdsClient) -> HeartbeatReply {
        client.heartbeat(self.heartbeat(Vec::new(), Vec::new())).await.unwrap()
    }

    /// What its replicas would report when the preferred leaders lead and all is well.
    pub fn healthy_reports(&self, reply: &HeartbeatReply) -> Vec<ReplicaReport> {
        let one = |(&copyset, members): (&CopysetId, &Vec<_>)| {
            let leads = members[0] == self.addr();
            let others = members[1..].iter();
            let follower = |&replica| FollowerReport { replica, lag: 0, active: true };
            ReplicaReport {
                copyset,
                shard: 0,
                role: if leads { Role::Leader } else { Role::Follower },
                term: Term(1),
                applied: Default::default(),
                last: Default::default(),
                followers: if leads { others.map(follower).collect() } else { Vec::new() },
                healthy: true,
            }
        };
        reply.replicas.iter().map(one).collect()
    }

    pub fn addr(&self) -> ogive_types::ShardAddr {
        ogive_types::ShardAddr { server: self.registered.id, shard: 0 }
    }
}

/// Registers three chunkservers in three zones and waits for copysets.
pub async fn three_zones(client: &MdsClient) -> Vec<FakeServer> {
    let mut servers = Vec::new();
    for n in 1..=3 {
        servers.push(FakeServer::register(client, n).await);
    }
    eventually("copysets are created", async || {
        let mut replies = Vec::new();
        for server in &servers {
            replies.push(server.beat(client).await);
        }
        replies.iter().all(|r| !r.replicas.is_empty())
    })
    .await;
    servers
}

/// Asks again until it is so; gives up after a time that no working group needs.
pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>) -> ogive_api::Refusal {
    result.unwrap_err().refusal().expect("a refusal")
}
