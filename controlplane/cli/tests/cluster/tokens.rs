//! Who is let in by a real chunkserver, and who is not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{Meter, SOON, TestCluster};
use ogive_api::types::{Attachment, Credential};
use ogive_buf::Pool;
use ogive_cli::local::Part;
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::token::{Holder, PublicKey, Signer, Token, UnixSeconds};
use ogive_rpc::transport::tcp::{Accept, TcpConfig, TcpTransport};
use ogive_rpc::transport::{CloseReason, Endpoint, Event, Transport};
use ogive_types::{ChunkserverId, ClusterId, SessionId, Time};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn today() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

/// Connects to a chunkserver as `identity` with `token`: what became of it.
fn meet(
    at: &Endpoint,
    cluster: ClusterId,
    identity: Identity,
    token: Vec<u8>,
) -> Result<(), String> {
    let (credit_requests, credit_bytes) = (16, 1 << 20);
    let hello = Hello { cluster, identity, features: 0, token, credit_requests, credit_bytes };
    let accept = Accept::default();
    let config = TcpConfig { accept, ..TcpConfig::new(hello, Pool::new(4 << 20)) };
    let mut tcp = TcpTransport::new(config).unwrap();
    let start = Instant::now();
    let now = || Time(start.elapsed().as_micros() as u64);
    tcp.connect(at, now());
    let mut events = Vec::new();
    loop {
        tcp.poll(now(), &mut events);
        tcp.flush(now());
        match events.pop() {
            Some(Event::Connected { peer, .. }) => {
                assert!(matches!(peer.identity, Identity::Shard { .. }) && !peer.token.is_empty());
                return Ok(());
            }
            Some(Event::Closed { reason: CloseReason::Refused(why), .. }) => return Err(why),
            Some(other) => panic!("neither let in nor refused: {other:?}"),
            None => assert!(start.elapsed() < SOON, "no answer"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The cluster's secret, out of the files of a metadata server that does not run: the number of the
/// command that sets it is followed by its 32 bytes.
fn stolen_key(dir: &Path, public: PublicKey) -> Signer {
    let file = dir.join("raft.redb");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(dir), mode(&file)), (0o700, 0o600), "others cannot steal it");
    const SET_SIGNING_KEY: [u8; 1] = [11];
    let bytes = std::fs::read(&file).unwrap();
    let found = bytes.windows(SET_SIGNING_KEY.len() + 32).find_map(|window| {
        let seed = window.strip_prefix(&SET_SIGNING_KEY)?;
        let signer = Signer::from_seed(seed.try_into().unwrap());
        (signer.public_key() == public).then_some(signer)
    });
    found.expect("the key is in the log")
}

fn attach(cluster: &TestCluster, volume: &str) -> Attachment {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mds = cluster.mds().unwrap();
    runtime.block_on(mds.attach_volume(volume, "test", false)).unwrap()
}

#[test]
fn only_holders_of_their_own_token_are_let_in_and_the_cluster_works_on() {
    let mut cluster = TestCluster::with_volume("v", 128 * MIB);
    cluster.create_volume("w", 128 * MIB).unwrap();
    let load = Meter::start(cluster.load("v"));
    load.wait(500);
    let Attachment { session, credential, cluster: id, .. } = attach(&cluster, "w");
    let Credential { token, public_key, .. } = credential;
    let at = Endpoint(cluster.status().unwrap().chunkservers[0].endpoints[0].clone());
    let me = Identity::Client { session };
    assert_eq!(meet(&at, id, me, token.clone()), Ok(()), "the holder");

    let refused = |identity: Identity, token: &[u8], words: &str| {
        let why = meet(&at, id, identity, token.to_vec()).expect_err(words);
        assert!(why.contains(words), "{why}");
    };
    refused(me, &[], "no token");
    refused(me, &[7; 104], "token of format 7");
    let other = Identity::Client { session: SessionId(session.0 + 1) };
    refused(other, &token, &format!("token is for session {}, you say session", session.0));
    let server = Identity::Shard { server: ChunkserverId(2), shard: 0 };
    refused(server, &token, "you say chunkserver 2");
    let holder = Holder::Chunkserver(ChunkserverId(2));
    let good = Token { cluster: id, holder, not_after: today() + DAY };
    refused(server, &Signer::from_seed(&[1; 32]).sign(&good), "not signed by");

    let Part::Mds(leader) = cluster.mds_leader() else { panic!("a metadata server leads") };
    let other = Part::Mds(leader % 3 + 1);
    cluster.kill(other).unwrap();
    let dir = cluster.dir().join("mds").join((leader % 3 + 1).to_string());
    let key = stolen_key(&dir, PublicKey(public_key));
    cluster.launch(other).unwrap();
    let old = Token { not_after: UnixSeconds(today().0 - DAY.as_secs()), ..good };
    refused(server, &key.sign(&old), "token expired at");
    let foreign = Token { cluster: ClusterId(7), ..good };
    refused(server, &key.sign(&foreign), "another cluster");
    assert_eq!(
        meet(&at, id, server, key.sign(&good).to_vec()),
        Ok(()),
        "the key was the right one"
    );

    load.wait(500);
    load.verified();
    cluster.healthy();
    let secret = key.sign(&good)[40..].to_vec();
    let shown = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let logs = cluster.logs();
    assert!(!logs.contains(&shown(&secret)) && !logs.contains(&shown(&token)), "{logs}");
}

/// Power comes back to all machines but those of the metadata servers.
#[test]
fn chunkservers_that_all_restart_without_metadata_servers_serve() {
    let mut cluster = TestCluster::with_volume("v", 128 * MIB);
    let load = Meter::start(cluster.load("v"));
    load.wait(1000);
    (1..=3).for_each(|n| cluster.kill(Part::Mds(n)).unwrap());
    (1..=3).for_each(|n| cluster.kill(Part::Chunkserver(n)).unwrap());
    (1..=3).for_each(|n| cluster.launch(Part::Chunkserver(n)).unwrap());
    load.wait(1000);
    // One more, as it happens in such nights.
    cluster.kill(Part::Chunkserver(2)).unwrap();
    load.wait(500);
    cluster.launch(Part::Chunkserver(2)).unwrap();
    load.wait(500);
    (1..=3).for_each(|n| cluster.launch(Part::Mds(n)).unwrap());
    cluster.healthy();
    load.verified();
}
