//! The calls of clients and chunkservers, against one real server.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic
#![allow(clippy::disallowed_methods)] // Tests own clocks.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{FakeServer, Group, eventually, refusal, three_zones, volume};
use ogive_api::Refusal;
use ogive_api::types::*;
use ogive_rpc::token::{Holder, PublicKey, UnixSeconds};
use ogive_types::{ClusterId, Epoch, SessionId, VolumeId};
use uuid::Uuid;

#[test]
fn child_entry() {
    common::run_as_child();
}

#[tokio::test]
async fn chunkservers_register_once_and_get_copysets_over_three_zones() {
    let group = Group::start(1);
    let client = group.client();
    let first = FakeServer::register(&client, 1).await;
    let again = FakeServer::register(&client, 1).await;
    assert_eq!(again.registered.id, first.registered.id);
    let status = client.status().await.unwrap();
    assert_eq!(status.health, Health::Unavailable);
    assert!(status.reasons.iter().any(|r| r.contains("1 zones; 3")), "{:?}", status.reasons);

    let servers = three_zones(&client).await;
    let topology = client.get_topology(0).await.unwrap().unwrap();
    assert_eq!(client.get_topology(topology.version).await.unwrap(), None);
    assert_eq!(topology.endpoints.len(), 3);
    assert_eq!(topology.copysets.len(), 6, "each of 3 shards leads 2");
    for members in topology.copysets.values() {
        let hosts: BTreeSet<_> = members.iter().map(|m| m.server).collect();
        assert_eq!(hosts.len(), 3);
    }
    let reply = servers[0].beat(&client).await;
    assert_eq!(reply.topology.as_ref(), Some(&topology));
    assert_eq!(reply.replicas, topology.copysets, "with three servers each holds all");
}

#[tokio::test]
async fn a_chunkserver_that_moved_tells_everyone_its_new_endpoint() {
    let group = Group::start(1);
    let client = group.client();
    let mut servers = three_zones(&client).await;
    let before = client.get_topology(0).await.unwrap().unwrap();
    servers[1].registration.endpoints = vec!["tcp:127.0.0.1:1".into()];
    let reply = servers[1].beat(&client).await;
    assert!(reply.topology_version > before.version);
    let after = client.get_topology(before.version).await.unwrap().unwrap();
    assert_eq!(after.endpoints[&servers[1].addr()], "tcp:127.0.0.1:1");
    assert_eq!(after.copysets, before.copysets);
}

#[tokio::test]
async fn strangers_are_refused() {
    let group = Group::start(1);
    let client = group.client();
    let server = FakeServer::register(&client, 1).await;
    let mut other = server.heartbeat(Vec::new(), Vec::new());
    other.device = Uuid::from_u128(99);
    assert_eq!(refusal(client.heartbeat(other.clone()).await), Refusal::WrongDevice);
    other.id = ogive_types::ChunkserverId(77);
    assert_eq!(refusal(client.heartbeat(other).await), Refusal::NotRegistered);
    let mut foreign = server.registration.clone();
    foreign.cluster = Some(ClusterId(1));
    assert_eq!(refusal(client.register_chunkserver(foreign).await), Refusal::WrongCluster);
    let mut known = server.registration.clone();
    known.cluster = Some(server.registered.cluster);
    assert_eq!(client.register_chunkserver(known).await.unwrap().id, server.registered.id);
}

#[tokio::test]
async fn volumes_are_created_listed_grown_and_deleted() {
    let group = Group::start(1);
    let client = group.client();
    for name in ["b", "a/x", "a/y", "a"] {
        client.create_volume(volume(name)).await.unwrap();
    }
    assert_eq!(refusal(client.create_volume(volume("b")).await), Refusal::VolumeExists);
    let names = async |prefix| -> Vec<String> {
        client.list_volumes(prefix).await.unwrap().into_iter().map(|v| v.name).collect()
    };
    assert_eq!(names("").await, ["a", "a/x", "a/y", "b"]);
    assert_eq!(names("a").await, ["a", "a/x", "a/y"]);
    assert_eq!(names("a/").await, ["a/x", "a/y"]);
    let page = client.list_volumes_page("a", "a", 1).await.unwrap();
    assert_eq!((page.volumes[0].name.as_str(), page.more), ("a/x", true));

    assert_eq!(client.resize_volume("b", 8 << 30).await.unwrap().size_bytes, 8 << 30);
    assert_eq!(refusal(client.resize_volume("b", 4 << 30).await), Refusal::Shrink);
    assert_eq!(refusal(client.resize_volume("b", 4097).await), Refusal::Invalid);
    client.delete_volume("b", false).await.unwrap();
    assert_eq!(refusal(client.get_volume("b").await), Refusal::VolumeNotFound);
    assert_eq!(refusal(client.delete_volume("b", false).await), Refusal::VolumeNotFound);
    assert_eq!(refusal(client.create_volume(volume("b c")).await), Refusal::Invalid);
}

#[tokio::test]
async fn a_volume_has_one_holder() {
    let group = Group::start(1);
    let client = group.client();
    client.create_volume(volume("v")).await.unwrap();
    let first = client.attach_volume("v", "one@host", false).await.unwrap();
    assert_eq!(first.epoch, Epoch(1));
    let error = client.attach_volume("v", "two@host", false).await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::VolumeAttached));
    assert!(error.to_string().contains("one@host"), "{error}");
    assert_eq!(refusal(client.delete_volume("v", false).await), Refusal::VolumeAttached);

    let second = client.attach_volume("v", "two@host", true).await.unwrap();
    assert_eq!(second.epoch, Epoch(2));
    let id = first.volume.id;
    assert_eq!(refusal(client.keep_alive(KeepAlive::of(&first)).await), Refusal::SessionGone);
    client.resize_volume("v", 8 << 30).await.unwrap();
    let kept = client.keep_alive(KeepAlive::of(&second)).await.unwrap();
    assert_eq!(kept.size_bytes, 8 << 30, "the holder learns of a resize");
    // The displaced holder's detach must not end the new one's session.
    client.detach_volume(id, first.session).await.unwrap();
    assert!(client.get_volume("v").await.unwrap().session.is_some());
    client.detach_volume(id, second.session).await.unwrap();
    assert_eq!(client.get_volume("v").await.unwrap().session, None);
    assert_eq!(client.attach_volume("v", "", false).await.unwrap().epoch, Epoch(3));
}

#[tokio::test]
async fn a_silent_holder_is_displaced_after_its_lease_but_not_one_that_is_kept_alive() {
    let group = Group::start(1);
    let client = group.client();
    for name in ["silent", "kept"] {
        client.create_volume(volume(name)).await.unwrap();
    }
    client.attach_volume("silent", "one", false).await.unwrap();
    let kept = client.attach_volume("kept", "one", false).await.unwrap();
    let beat = client.clone();
    let beats = tokio::spawn(async move {
        loop {
            beat.keep_alive(KeepAlive::of(&kept)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    eventually("the silent one loses its volume", async || {
        client.attach_volume("silent", "two", false).await.is_ok()
    })
    .await;
    assert_eq!(refusal(client.attach_volume("kept", "two", false).await), Refusal::VolumeAttached);
    beats.abort();
}

#[tokio::test]
async fn everybody_gets_a_token_for_itself_and_keeps_it_until_it_is_to_be_renewed() {
    let group = Group::start(1);
    let client = group.client();
    let server = FakeServer::register(&client, 1).await;
    let given = server.registered.credential.clone();
    let key = PublicKey(given.public_key);
    let token = key.verify(&given.token).unwrap();
    let holder = Holder::Chunkserver(server.registered.id);
    assert_eq!((token.cluster, token.holder), (server.registered.cluster, holder));
    assert_eq!(token.not_after, UnixSeconds(given.not_after_s));
    assert_eq!(server.beat(&client).await.credential, None, "it is good for long");
    let old = Heartbeat { token_not_after_s: 1, ..server.heartbeat(Vec::new(), Vec::new()) };
    let renewed = client.heartbeat(old).await.unwrap().credential.unwrap();
    assert_eq!(key.verify(&renewed.token).unwrap().holder, holder);

    client.create_volume(volume("v")).await.unwrap();
    let attached = client.attach_volume("v", "one", false).await.unwrap();
    let given = &attached.credential;
    assert_eq!(given.public_key, key.0, "one key for all");
    assert_eq!(key.verify(&given.token).unwrap().holder, Holder::Session(attached.session));
    let alive = KeepAlive::of(&attached);
    assert_eq!(client.keep_alive(alive.clone()).await.unwrap().credential, None);
    let old = KeepAlive { token_not_after_s: 1, ..alive };
    let renewed = client.keep_alive(old).await.unwrap().credential.unwrap();
    assert_eq!(key.verify(&renewed.token).unwrap().holder, Holder::Session(attached.session));
    let shown = format!("{attached:?} {:?}", server.registered);
    assert!(shown.contains("Credential(secret"), "{shown}");
}

#[tokio::test]
async fn what_goes_over_which_path_is_shown_as_it_was_last_told() {
    let group = Group::start(1);
    let client = group.client();
    let mut server = FakeServer::register(&client, 1).await;
    // Also of a release that knows more paths than this one.
    let endpoint = "cxl,rdma,shm,tcp:127.0.0.1:9001".to_owned();
    server.registration.endpoints = vec![endpoint.clone()];
    let used = |path: &str, bytes_sent| PathUse {
        path: path.into(),
        bytes_sent,
        chunkservers: 2,
        ..PathUse::default()
    };
    let paths = vec![used("shm", 5), used("cxl", 6)];
    let beat = server.heartbeat(Vec::new(), Vec::new());
    let strange = [used("not a path", 1), used("", 1), used(&"x".repeat(99), 1)];
    let told = paths.iter().cloned().chain(strange).collect();
    client.heartbeat(Heartbeat { paths: told, ..beat }).await.unwrap();
    client.create_volume(volume("v")).await.unwrap();
    let attached = client.attach_volume("v", "one", false).await.unwrap();
    let alive = KeepAlive { paths: vec![used("tcp", 7)], ..KeepAlive::of(&attached) };
    client.keep_alive(alive).await.unwrap();

    let status = client.status().await.unwrap();
    assert_eq!(status.chunkservers[0].paths, paths);
    assert_eq!(status.chunkservers[0].endpoints, [endpoint.as_str()]);
    let session = status.volumes[0].session.as_ref().unwrap();
    assert_eq!(session.paths, [used("tcp", 7)]);
    let topology = client.get_topology(0).await.unwrap().unwrap();
    assert_eq!(topology.endpoints[&server.addr()], endpoint);
    let gone = "tcp:127.0.0.1:9001".to_owned();
    server.registration.endpoints = vec![gone.clone()];
    server.beat(&client).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.chunkservers[0].endpoints, [gone], "it came back with fewer paths");
}

#[tokio::test]
async fn segments_are_allocated_once_by_the_newest_holder_only() {
    let group = Group::start(1);
    let client = group.client();
    client.create_volume(volume("v")).await.unwrap();
    let a = client.attach_volume("v", "one", false).await.unwrap();
    let v = a.volume.id;
    let none = client.allocate_segment(v, 0, a.session, a.epoch).await;
    assert_eq!(refusal(none), Refusal::NoCopysets);
    let servers = three_zones(&client).await;
    let copysets = client.allocate_segment(v, 2, a.session, a.epoch).await.unwrap();
    assert_eq!(copysets.len(), 6);
    assert_eq!(client.allocate_segment(v, 2, a.session, a.epoch).await.unwrap(), copysets);
    let found = client.get_segments(v, 0, 0, Some(a.epoch)).await.unwrap();
    assert_eq!(found.segments.into_iter().collect::<Vec<_>>(), [(2, copysets.clone())]);
    let beyond = client.allocate_segment(v, 4, a.session, a.epoch).await;
    assert_eq!(refusal(beyond), Refusal::Invalid);
    let b = client.attach_volume("v", "two", true).await.unwrap();
    let stale = client.allocate_segment(v, 3, a.session, a.epoch).await;
    assert_eq!(refusal(stale), Refusal::StaleEpoch);
    client.allocate_segment(v, 3, b.session, b.epoch).await.unwrap();
    let look = client.get_segments(v, 3, 1, Some(a.epoch)).await;
    assert_eq!(refusal(look), Refusal::StaleEpoch, "it would write where nobody refuses it");
    let thief = client.allocate_segment(v, 3, SessionId(999), b.epoch).await;
    assert_eq!(refusal(thief), Refusal::SessionGone);
    let gone = client.allocate_segment(VolumeId(99), 0, b.session, b.epoch).await;
    assert_eq!(refusal(gone), Refusal::VolumeNotFound);

    // A deleted volume is dropped by the leaders of its copysets, and asked for until they say so.
    client.delete_volume("v", true).await.unwrap();
    for _ in 0..2 {
        let drops = servers[0].beat(&client).await.drops;
        assert_eq!(drops.len(), 6);
        assert_eq!(client.status().await.unwrap().drops_pending, 6);
    }
    let drops = servers[0].beat(&client).await.drops;
    let reply = client.heartbeat(servers[0].heartbeat(Vec::new(), drops)).await.unwrap();
    assert!(reply.drops.is_empty());
    assert_eq!(client.status().await.unwrap().drops_pending, 0);
}

#[tokio::test]
async fn the_status_is_truthful() {
    let group = Group::start(1);
    let client = group.client();
    let servers = three_zones(&client).await;
    let beat = async |who: &[FakeServer]| {
        for server in who {
            let reply = server.beat(&client).await;
            let reports = server.healthy_reports(&reply);
            client.heartbeat(server.heartbeat(reports, Vec::new())).await.unwrap();
        }
    };
    beat(&servers).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.health, Health::Healthy, "{:?}", status.reasons);
    assert!(status.reasons.is_empty());
    assert!(status.chunkservers.iter().all(|c| (c.replicas, c.leaders) == (6, 2)));
    eventually("the silent chunkserver is offline, and its copysets degraded", async || {
        beat(&servers[..2]).await;
        let status = client.status().await.unwrap();
        let last = status.chunkservers.iter().find(|c| c.id == servers[2].registered.id).unwrap();
        let led_by = |n: usize| {
            let addr = servers[n].addr();
            let led = status.copysets.iter().filter(|c| c.members[0].replica == addr);
            led.map(|c| c.health).collect::<BTreeSet<_>>()
        };
        last.presence == Presence::Offline
            && status.health != Health::Healthy
            && led_by(0) == BTreeSet::from([Health::Degraded])
            && led_by(2) == BTreeSet::from([Health::Unavailable])
    })
    .await;
}

#[tokio::test]
async fn reflection_names_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response};
    let group = Group::start(1);
    group.client().status().await.unwrap();
    let address = format!("http://{}", group.address(1));
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy();
    let mut client = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tonic::codegen::tokio_stream::once(request);
    let mut replies = client.server_reflection_info(requests).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let server_reflection_response::MessageResponse::ListServicesResponse(list) = reply else {
        panic!("not a list: {reply:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(names.contains(&"ogive.v1.Mds".to_owned()), "{names:?}");
}
