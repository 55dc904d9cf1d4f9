//! Servers that are killed, stopped and restarted: what was acknowledged stays, and there is one
//! leader.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods)] // Tests own clocks.

mod common;

use std::time::{Duration, Instant};

use common::{FakeServer, Group, eventually, volume};
use ogive_api::{ApiError, MdsClient, pb};
use ogive_rpc::token::PublicKey;

#[test]
fn child_entry() {
    common::run_as_child();
}

#[tokio::test]
async fn a_single_server_works_and_keeps_its_data() {
    let mut group = Group::start(1);
    let id = group.client().create_volume(volume("a")).await.unwrap().id;
    group.kill(1);
    group.run(1);
    assert_eq!(group.client().get_volume("a").await.unwrap().id, id);
}

#[tokio::test]
async fn acknowledged_changes_survive_kill_of_every_server() {
    let mut group = Group::start(3);
    let client = group.client();
    for n in 0..20 {
        client.create_volume(volume(&format!("v{n}"))).await.unwrap();
    }
    let cluster = client.status().await.unwrap().cluster;
    for _ in 0..2 {
        group.kill_all();
        group.run_all();
        let status = group.client().status().await.unwrap();
        assert_eq!(status.cluster, cluster, "the cluster keeps its id");
        assert_eq!(status.volumes.len(), 20);
    }
}

#[tokio::test]
async fn changes_go_on_after_each_leader_is_killed() {
    let mut group = Group::start(3);
    let client = group.client();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let name = format!("v{round}.{n}");
            client.create_volume(volume(&name)).await.unwrap();
            acknowledged.push(name);
        }
        let leader = group.leader().await;
        group.kill(leader);
        let begin = Instant::now();
        let name = format!("after{round}");
        client.create_volume(volume(&name)).await.unwrap();
        println!("round {round}: changes again {} ms after the kill", begin.elapsed().as_millis());
        acknowledged.push(name);
        group.run(leader);
    }
    let mut names: Vec<String> =
        client.list_volumes("").await.unwrap().into_iter().map(|v| v.name).collect();
    names.sort();
    acknowledged.sort();
    assert_eq!(names, acknowledged, "every acknowledged volume, and each once");
}

#[tokio::test]
async fn a_server_that_was_away_catches_up() {
    let mut group = Group::start(3);
    let leader = group.leader().await;
    let away = leader % 3 + 1;
    group.kill(away);
    let client = group.client();
    for n in 0..10 {
        client.create_volume(volume(&format!("v{n}"))).await.unwrap();
    }
    let seen = |s: &ogive_api::types::ClusterStatus| {
        let mds = s.mds.iter().find(|m| m.node_id == away).unwrap();
        (mds.presence, mds.lag)
    };
    eventually("the status shows that it is away", async || {
        seen(&client.status().await.unwrap()).0 == ogive_api::types::Presence::Offline
    })
    .await;
    group.run(away);
    eventually("the status shows that it is back and has everything", async || {
        seen(&client.status().await.unwrap()) == (ogive_api::types::Presence::Online, 0)
    })
    .await;
}

#[tokio::test]
async fn a_follower_sends_callers_to_the_leader() {
    let group = Group::start(3);
    let leader = group.leader().await;
    let follower = leader % 3 + 1;
    let client = group.client_of(follower).with_deadline(Duration::from_secs(20));
    client.create_volume(volume("through-a-follower")).await.unwrap();
    assert_eq!(client.leader().as_deref(), Some(group.address(leader)));
    // And a client without that logic is told in so many words.
    let mut raw = raw_client(&group, follower).await;
    let status = raw.get_volume(pb::GetVolumeRequest { name: "x".into() }).await.unwrap_err();
    assert_eq!(ogive_api::refusal::leader_of(&status).as_deref(), Some(group.address(leader)));
}

async fn raw_client(
    group: &Group,
    id: u64,
) -> pb::mds_client::MdsClient<tonic::transport::Channel> {
    pb::mds_client::MdsClient::connect(format!("http://{}", group.address(id))).await.unwrap()
}

#[tokio::test]
async fn a_deposed_leader_changes_nothing_and_reads_nothing_old() {
    let group = Group::start(3);
    let old = group.leader().await;
    let mut at_old = raw_client(&group, old).await;
    group.client().create_volume(volume("before")).await.unwrap();
    group.signal(old, rustix::process::Signal::STOP);
    let others: Vec<String> =
        group.peers.iter().filter(|(id, _)| *id != old).map(|(_, a)| a.clone()).collect();
    let others = MdsClient::new(&others).unwrap().with_deadline(Duration::from_secs(30));
    // This finds the new leader, and changes what the old one believes to know.
    others.delete_volume("before", false).await.unwrap();
    others.create_volume(volume("during")).await.unwrap();
    // Requests wait in the old leader's socket; it sees them first of all when it wakes up.
    let read = pb::GetVolumeRequest { name: "before".into() };
    let write = pb::ResizeVolumeRequest { name: "before".into(), size_bytes: 8 << 30 };
    let mut second = at_old.clone();
    let read = tokio::spawn(async move { at_old.get_volume(read).await });
    let write = tokio::spawn(async move { second.resize_volume(write).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    group.signal(old, rustix::process::Signal::CONT);
    assert!(read.await.unwrap().is_err(), "it served a volume that was deleted");
    assert!(write.await.unwrap().is_err(), "it changed a volume that was deleted");
    let names: Vec<_> =
        others.list_volumes("").await.unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["during"]);
}

#[tokio::test]
async fn without_a_majority_it_says_so() {
    let mut group = Group::start(3);
    let leader = group.leader().await;
    group.client().create_volume(volume("v")).await.unwrap();
    (1..=3).filter(|id| *id != leader).for_each(|id| group.kill(id));
    let client = group.client().with_deadline(Duration::from_secs(3));
    for error in [
        client.create_volume(volume("w")).await.unwrap_err(),
        client.get_volume("v").await.unwrap_err(),
    ] {
        assert!(matches!(error, ApiError::NoLeader { .. }), "{error}");
        assert!(error.to_string().contains("is a majority of the MDS running?"), "{error}");
    }
}

#[tokio::test]
async fn many_changes_at_once_are_all_made() {
    let group = Group::start(3);
    let client = group.client();
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.create_volume(volume(&format!("v{n}"))).await })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for task in tasks {
        ids.insert(task.await.unwrap().unwrap().id);
    }
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn a_new_leader_knows_registered_chunkservers_and_declares_none_dead() {
    let mut group = Group::start(3);
    let client = group.client();
    let servers = common::three_zones(&client).await;
    let leader = group.leader().await;
    group.kill(leader);
    let status = client.status().await.unwrap();
    assert_eq!(status.chunkservers.len(), 3);
    assert!(!status.copysets.is_empty());
    // Heartbeats go on with the new leader, with the same ids and the same copysets.
    for server in &servers {
        assert!(!server.beat(&client).await.replicas.is_empty());
        let again = FakeServer::register(&client, server.registration.device.as_u128()).await;
        let (now, then) = (&again.registered, &server.registered);
        assert_eq!((now.id, now.cluster), (then.id, then.cluster));
        // The key is in the log: tokens of the old leader stay good.
        let key = PublicKey(now.credential.public_key);
        assert!(key.verify(&then.credential.token).is_ok());
    }
}
