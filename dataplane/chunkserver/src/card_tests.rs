//! The card survives what a device survives, and a wrong one is none.

use ogive_store::simdisk::SimDisk;
use ogive_store::{FormatOptions, format, write_identity};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const LEN: u64 = 64 << 20;

fn options(uuid: u128) -> FormatOptions {
    let (uuid, log_bytes) = (Uuid::from_u128(uuid), Some(1 << 20));
    FormatOptions { shards: 1, sector: 4096, log_bytes, uuid, force: true, quick: true }
}

fn device() -> (SimDisk, Label) {
    let mut disk = SimDisk::new(LEN, 4096);
    format(&mut disk, &options(5), &mut |_, _| {}).unwrap();
    let label = write_identity(&mut disk, ClusterId(7), ChunkserverId(3)).unwrap();
    (disk, label)
}

fn card(n: u32) -> Card {
    let addr = ShardAddr { server: ChunkserverId(n), shard: 1 };
    let endpoint = Endpoint(format!("shm,tcp:10.0.0.{}:7100", n % 256));
    Card {
        credential: Credential { token: vec![n as u8; 104], key: PublicKey([9; 32]) },
        endpoints: BTreeMap::from([(addr, endpoint)]),
    }
}

#[test]
fn the_newest_card_is_remembered() {
    let (disk, label) = device();
    let mut keeper = CardKeeper::open(disk, &label);
    assert_eq!(keeper.card(), None);
    for n in 1..=5 {
        keeper.keep(card(n)).unwrap();
        keeper = CardKeeper::open(keeper.device, &label);
        assert_eq!(keeper.card(), Some(&card(n)));
    }
    let written = keeper.device.counters().writes;
    keeper.keep(card(5)).unwrap();
    assert_eq!(keeper.device.counters().writes, written, "nothing new, nothing written");
    assert!(ogive_store::read_label(&keeper.device).is_ok());
}

#[test]
fn of_a_damaged_card_the_one_before_is_left() {
    let (disk, label) = device();
    let mut keeper = CardKeeper::open(disk, &label);
    keeper.keep(card(1)).unwrap();
    keeper.keep(card(2)).unwrap();
    let mut disk = keeper.device;
    disk.flip_bit(SLOT_ADDRS[1] + 60, 3);
    let mut keeper = CardKeeper::open(disk, &label);
    assert_eq!(keeper.card(), Some(&card(1)));
    keeper.keep(card(3)).unwrap();
    let keeper = CardKeeper::open(keeper.device, &label);
    assert_eq!(keeper.card(), Some(&card(3)));
    let mut disk = keeper.device;
    disk.fail_reads(SLOT_ADDRS[0]..SLOT_ADDRS[0] + 4096);
    disk.fail_reads(SLOT_ADDRS[1]..SLOT_ADDRS[1] + 4096);
    assert_eq!(CardKeeper::open(disk, &label).card(), None);
}

#[test]
fn a_card_of_somebody_else_is_none() {
    let (disk, label) = device();
    let mut keeper = CardKeeper::open(disk, &label);
    keeper.keep(card(1)).unwrap();
    let mut disk = keeper.device;
    let fresh = format(&mut disk, &options(6), &mut |_, _| {}).unwrap();
    assert_eq!(CardKeeper::open(disk, &fresh).card(), None, "formatted anew");

    let (mut disk, label) = device();
    let theirs = body_of(&card(1), ClusterId(8), ChunkserverId(3));
    disk.write_at(SLOT_ADDRS[0], &encode(&theirs, 1, &label)).unwrap();
    assert_eq!(CardKeeper::open(disk, &label).card(), None, "of another cluster");
}

#[test]
fn the_largest_card_fits_and_more_is_left_out() {
    let (disk, label) = device();
    let mut large = card(1);
    large.credential.token = vec![1; ogive_rpc::limits::TOKEN_BYTES_MAX];
    large.endpoints = (0..2 * CARD_ENDPOINTS_MAX as u32)
        .map(|n| {
            let addr = ShardAddr { server: ChunkserverId(u32::MAX - n), shard: u16::MAX };
            (addr, Endpoint("x".repeat(280)))
        })
        .collect();
    let mut keeper = CardKeeper::open(disk, &label);
    keeper.keep(large).unwrap();
    let keeper = CardKeeper::open(keeper.device, &label);
    assert_eq!(keeper.card().map(|c| c.endpoints.len()), Some(CARD_ENDPOINTS_MAX));
}

#[test]
fn bytes_of_a_card_are_fixed() {
    let (_, label) = device();
    let bytes = encode(&body_of(&card(1), ClusterId(7), ChunkserverId(3)), 2, &label);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let head = "4f47495645435244 01000000 1d235956 0200000000000000 \
                00000000000000000000000000000005 a4000000";
    assert_eq!(hex[..2 * HEAD_BYTES], head.replace(' ', ""));
    let (token, key) = ("01".repeat(104), "09".repeat(32));
    let body = format!("0703 68{token} {key} 01 0101 1573686d2c7463703a31302e302e302e313a37313030");
    assert_eq!(hex[2 * HEAD_BYTES..], body.replace(' ', ""));
}

proptest! {
    /// Whatever a power cut leaves: one of the cards that were being written, or the one before.
    #[test]
    fn a_power_cut_leaves_a_whole_card(seed in any::<u64>(), cards in 1u32..5) {
        let (mut disk, label) = device();
        disk.flush().unwrap();
        let mut keeper = CardKeeper::open(disk, &label);
        for n in 1..=cards {
            keeper.keep(card(n)).unwrap();
        }
        // The next one is written, and the power goes before the flush.
        let next = encode(&body_of(&card(99), ClusterId(7), ChunkserverId(3)), 100, &label);
        keeper.device.write_at(SLOT_ADDRS[keeper.next], &next).unwrap();
        let mut state = seed | 1;
        keeper.device.power_cut(&mut |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        });
        let found = CardKeeper::open(keeper.device, &label).card().cloned();
        prop_assert!(found == Some(card(cards)) || found == Some(card(99)), "{found:?}");
    }

    #[test]
    fn strangers_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 1..4096), len in any::<u32>(),
    ) {
        let (mut disk, label) = device();
        let mut slot = encode(&body_of(&card(1), ClusterId(7), ChunkserverId(3)), 1, &label);
        slot.truncate(HEAD_BYTES);
        slot[40..44].copy_from_slice(&len.to_le_bytes());
        slot.extend(bytes);
        disk.write_at(SLOT_ADDRS[0], &slot).unwrap();
        let keeper = CardKeeper::open(disk, &label);
        prop_assert_eq!(keeper.card(), None);
    }
}
