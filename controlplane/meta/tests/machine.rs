//! The state machine under random commands: its invariants hold, epochs only grow, and it is
//! deterministic.
#![allow(clippy::unwrap_used)] // in a test a failure is a panic

use std::collections::BTreeMap;

use ogive_meta::command::*;
use ogive_meta::*;
use ogive_types::*;
use proptest::prelude::*;
use uuid::Uuid;

fn command() -> impl Strategy<Value = Command> {
    let name = || prop::sample::select(vec!["a", "b", "c/d", "bad name"]).prop_map(String::from);
    let displace = || {
        prop_oneof![
            Just(Displace::Nobody),
            Just(Displace::Anybody),
            (1u64..6).prop_map(|s| Displace::Expired(SessionId(s))),
        ]
    };
    let options = VolumeOptions { layout: Layout::default(), copysets_per_segment: 2 };
    let server = (1u128..7, 0u32..4, 1usize..3);
    let member =
        (1u32..7, 0u16..2).prop_map(|(s, shard)| ShardAddr { server: ChunkserverId(s), shard });
    prop_oneof![
        (1u128..3).prop_map(|id| Command::InitCluster(InitCluster {
            id: ClusterId(id),
            name: "k".into(),
            replicas: 3,
        })),
        server.prop_map(|(device, zone, shards)| Command::RegisterChunkserver(
            RegisterChunkserver {
                cluster: None,
                device: Uuid::from_u128(device),
                zone: format!("z{zone}"),
                server: "h".into(),
                endpoints: vec!["tcp:h:1".into(); shards],
                capacity_bytes: 1 << 40,
            }
        )),
        (0u32..4, prop::collection::vec(prop::collection::vec(member, 3), 1..3)).prop_map(
            |(last, copysets)| Command::CreateCopysets(CreateCopysets {
                last_copyset: CopysetId(last),
                copysets,
            })
        ),
        (name(), 1u128..9, 1u64..4).prop_map(move |(name, request, gib)| Command::CreateVolume(
            CreateVolume {
                name,
                size_bytes: gib << 30,
                options,
                request: Uuid::from_u128(request),
                now_unix_ms: 1,
            }
        )),
        (name(), displace())
            .prop_map(|(name, displace)| Command::DeleteVolume(DeleteVolume { name, displace })),
        (name(), 1u64..6).prop_map(|(name, gib)| Command::ResizeVolume(ResizeVolume {
            name,
            size_bytes: gib << 30,
        })),
        (name(), displace(), 1u128..9).prop_map(|(name, displace, request)| {
            Command::AttachVolume(AttachVolume {
                name,
                client: "c".into(),
                request: Uuid::from_u128(request),
                displace,
            })
        }),
        (1u64..5, 1u64..6).prop_map(|(v, s)| Command::DetachVolume(DetachVolume {
            volume: VolumeId(v),
            session: SessionId(s),
        })),
        (1u64..5, 0u32..4, 1u64..6, 1u64..4).prop_map(|(v, number, s, e)| {
            Command::AllocateSegment(AllocateSegment {
                volume: VolumeId(v),
                number,
                session: SessionId(s),
                epoch: Epoch(e),
                avoid: vec![CopysetId(1)],
            })
        }),
        (1u32..4, 1u64..5).prop_map(|(c, v)| Command::FinishDrops(FinishDrops {
            drops: vec![Drop { copyset: CopysetId(c), volume: VolumeId(v) }],
        })),
        (1u8..4).prop_map(|n| Command::SetSigningKey(SetSigningKey { key: SigningKey([n; 32]) })),
    ]
}

/// A cluster with copysets, so that random commands reach the deep states.
fn ready() -> Meta {
    let mut meta = Meta::default();
    let init = InitCluster { id: ClusterId(1), name: "k".into(), replicas: 3 };
    meta.apply(Command::InitCluster(init)).unwrap();
    for n in 1..=3u128 {
        let server = RegisterChunkserver {
            cluster: None,
            device: Uuid::from_u128(n),
            zone: format!("z{n}"),
            server: "h".into(),
            endpoints: vec!["tcp:h:1".into()],
            capacity_bytes: 1 << 40,
        };
        meta.apply(Command::RegisterChunkserver(server)).unwrap();
    }
    let copysets = plan::plan_copysets(&meta.shard_uses(|_| true), 3, 1, 100);
    assert_eq!(copysets.len(), 3);
    let create = CreateCopysets { last_copyset: CopysetId(0), copysets };
    meta.apply(Command::CreateCopysets(create)).unwrap();
    meta
}

proptest! {
    #[test]
    fn invariants_hold_and_refusals_change_nothing(
        fresh in any::<bool>(),
        commands in prop::collection::vec(command(), 1..80),
    ) {
        let mut meta = if fresh { Meta::default() } else { ready() };
        let mut twin = meta.clone();
        let mut epochs: BTreeMap<VolumeId, Epoch> = BTreeMap::new();
        let mut key: Option<SigningKey> = None;
        for command in commands {
            let before = meta.clone();
            let reply = meta.apply(command.clone());
            prop_assert_eq!(&reply, &twin.apply(command));
            if reply.is_err() {
                prop_assert_eq!(&meta, &before);
            }
            meta.check();
            if let Ok(now) = meta.signing_key() {
                prop_assert_eq!(key.get_or_insert(now.clone()), now, "the first key stays");
            }
            for volume in meta.volumes_after("") {
                let last = epochs.insert(volume.id, volume.epoch).unwrap_or_default();
                prop_assert!(volume.epoch >= last, "an epoch went back");
            }
        }
        let bytes = postcard::to_allocvec(&meta).unwrap();
        prop_assert_eq!(&bytes, &postcard::to_allocvec(&twin).unwrap());
        prop_assert_eq!(postcard::from_bytes::<Meta>(&bytes).unwrap(), meta);
    }
}

fn create(meta: &mut Meta, request: u128) -> Result<Reply, MetaError> {
    meta.apply(Command::CreateVolume(CreateVolume {
        name: "v".into(),
        size_bytes: 4 << 30,
        options: VolumeOptions { layout: Layout::default(), copysets_per_segment: 2 },
        request: Uuid::from_u128(request),
        now_unix_ms: 0,
    }))
}

fn attach(meta: &mut Meta, request: u128, displace: Displace) -> Result<Session, MetaError> {
    let (name, client) = ("v".into(), "c".into());
    let request = Uuid::from_u128(request);
    match meta.apply(Command::AttachVolume(AttachVolume { name, client, request, displace }))? {
        Reply::Attached(session, _) => Ok(session),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_retry_is_known_by_its_request() {
    let mut meta = ready();
    let first = create(&mut meta, 1).unwrap();
    assert_eq!(create(&mut meta, 1).unwrap(), first);
    assert!(matches!(create(&mut meta, 2), Err(MetaError::VolumeExists(_))));
    let held = attach(&mut meta, 7, Displace::Nobody).unwrap();
    assert_eq!(attach(&mut meta, 7, Displace::Nobody).unwrap(), held);
    assert!(matches!(attach(&mut meta, 8, Displace::Nobody), Err(MetaError::Attached { .. })));
}

#[test]
fn the_key_is_given_once_and_never_shown() {
    let set = |n: u8| Command::SetSigningKey(SetSigningKey { key: SigningKey([n; 32]) });
    let mut meta = Meta::default();
    assert_eq!(meta.apply(set(0xa1)), Err(MetaError::NotInitialised));
    let mut meta = ready();
    assert_eq!(meta.signing_key(), Err(MetaError::NotInitialised));
    assert_eq!(meta.apply(set(0xa1)), Ok(Reply::Done));
    assert_eq!(meta.apply(set(0xa2)), Ok(Reply::Done));
    assert_eq!(meta.signing_key(), Ok(&SigningKey([0xa1; 32])));
    let shown = format!("{meta:?} {:?}", set(0xa1));
    assert!(!shown.contains("161") && shown.contains("secret"), "{shown}");
}

#[test]
fn only_the_session_that_was_found_expired_is_displaced() {
    let mut meta = ready();
    create(&mut meta, 1).unwrap();
    let first = attach(&mut meta, 1, Displace::Nobody).unwrap();
    let second = attach(&mut meta, 2, Displace::Expired(first.id)).unwrap();
    assert_eq!(second.epoch, Epoch(2));
    // Another client that saw the first one expired comes too late.
    let late = attach(&mut meta, 3, Displace::Expired(first.id));
    assert!(matches!(late, Err(MetaError::Attached { .. })));
}

#[test]
fn a_device_with_replicas_keeps_its_zone_and_shards() {
    let mut meta = ready();
    let back = |zone: &str, endpoints| {
        Command::RegisterChunkserver(RegisterChunkserver {
            cluster: Some(ClusterId(1)),
            device: Uuid::from_u128(1),
            zone: zone.into(),
            server: "other".into(),
            endpoints,
            capacity_bytes: 1,
        })
    };
    let one = || vec!["tcp:h:2".to_string()];
    assert_eq!(meta.apply(back("z1", one())), Ok(Reply::Chunkserver(ChunkserverId(1))));
    assert!(matches!(meta.apply(back("z9", one())), Err(MetaError::ZoneChanged { .. })));
    assert_eq!(meta.apply(back("z1", Vec::new())), Err(MetaError::BadShards(0)));
}
