use proptest::prelude::*;

use super::*;
use crate::simdisk::SimDisk;

const DEVICE_BYTES: u64 = 64 << 20;

fn sample() -> Label {
    let len = 16 << 20;
    let region = |n| Region { start: REGIONS_START + n * len, len, log_bytes: 1 << 20 };
    Label {
        uuid: Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        shards: 3,
        sector: 512,
        generation: 7,
        cluster: ClusterId(0),
        chunkserver: ChunkserverId(0),
        device_bytes: DEVICE_BYTES,
        regions: (0..3).map(region).collect(),
    }
}

fn labelled() -> SimDisk {
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    write_label(&mut disk, &sample()).unwrap();
    disk
}

fn draw(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed | 1;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

fn whole(bytes: &[u8; LABEL_BYTES]) -> Option<Label> {
    match decode(bytes) {
        Found::Whole(label) => Some(label),
        _ => None,
    }
}

fn seal(bytes: &mut [u8; LABEL_BYTES]) {
    let crc = checksum(bytes);
    put(bytes, CRC_AT, &crc.to_le_bytes());
}

#[test]
fn a_label_reads_as_it_was_written() {
    assert_eq!(whole(&encode(&sample())), Some(sample()));
    assert_eq!(read_label(&labelled()).unwrap(), sample());
    let layout = sample().regions()[1].layout().unwrap();
    assert_eq!(layout.superblock[0], REGIONS_START + (16 << 20));
    assert_eq!(sample().capacity_bytes(), 3 * u64::from(layout.data_blocks) * 4096);
}

#[test]
fn one_good_copy_is_enough_and_the_newer_one_counts() {
    for copy in COPY_ADDRS {
        let mut disk = labelled();
        disk.flip_bit(copy + 2000, 5);
        assert_eq!(read_label(&disk).unwrap(), sample());
        let mut disk = labelled();
        disk.fail_reads(copy..copy + 1);
        assert_eq!(read_label(&disk).unwrap(), sample());
        let mut disk = labelled();
        let newer = Label { generation: 8, sector: 4096, ..sample() };
        disk.write_at(copy, &encode(&newer)).unwrap();
        assert_eq!(read_label(&disk).unwrap(), newer);
    }
}

#[test]
fn what_is_no_label_is_told_apart() {
    let blank = SimDisk::new(DEVICE_BYTES, 512);
    assert!(matches!(read_label(&blank), Err(LabelError::NotOgive)));
    assert!(matches!(read_label(&SimDisk::new(4096, 512)), Err(LabelError::NotOgive)));
    let mut disk = labelled();
    disk.flip_bit(9, 0); // the version of a damaged label is not believed
    disk.flip_bit(4096 + 30, 0);
    assert!(matches!(read_label(&disk), Err(LabelError::Damaged)));
    disk.fail_reads(0..8192);
    assert!(matches!(read_label(&disk), Err(LabelError::Io(_))));
    let mut short = SimDisk::new(DEVICE_BYTES - 4096, 512);
    write_label(&mut short, &sample()).unwrap();
    let error = read_label(&short).unwrap_err();
    let LabelError::DeviceTooSmall { says_bytes, has_bytes } = error else { panic!("{error}") };
    assert_eq!((says_bytes, has_bytes), (DEVICE_BYTES, DEVICE_BYTES - 4096));
}

#[test]
fn other_versions_are_named() {
    let version = |number: u32| {
        let mut bytes = encode(&sample());
        put(&mut bytes, 8, &number.to_le_bytes());
        bytes[3000] = 1; // unknown fields
        seal(&mut bytes);
        bytes
    };
    for copy in COPY_ADDRS {
        let mut disk = labelled();
        disk.write_at(copy, &version(9)).unwrap();
        let error = read_label(&disk).unwrap_err();
        assert!(matches!(error, LabelError::OtherVersion { found: 9, known: 1 }), "{error}");
        let mut disk = labelled();
        disk.write_at(copy, &version(0)).unwrap();
        assert_eq!(read_label(&disk).unwrap(), sample(), "an older copy is a stale one");
    }
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    disk.write_at(4096, &version(0)).unwrap();
    assert!(matches!(read_label(&disk), Err(LabelError::OtherVersion { found: 0, .. })));
}

#[test]
fn an_identity_is_given_once() {
    let (cluster, server) = (ClusterId(1 << 100), ChunkserverId(5));
    let mut disk = labelled();
    assert_eq!((sample().cluster(), sample().chunkserver()), (None, None));
    let zero = write_identity(&mut disk, ClusterId(0), server);
    assert!(matches!(zero, Err(LabelError::IdentityZero)));
    let label = write_identity(&mut disk, cluster, server).unwrap();
    assert_eq!((label.cluster(), label.chunkserver()), (Some(cluster), Some(server)));
    assert_eq!(read_label(&disk).unwrap(), label);
    let writes = disk.counters().writes;
    assert_eq!(write_identity(&mut disk, cluster, server).unwrap(), label);
    assert_eq!(disk.counters().writes, writes, "nothing to change");
    for (cluster, server) in [(ClusterId(2), server), (cluster, ChunkserverId(6))] {
        let refused = write_identity(&mut disk, cluster, server);
        assert!(matches!(refused, Err(LabelError::IdentitySet { .. })));
    }
    assert_eq!(read_label(&disk).unwrap(), label);
}

/// A disk whose power goes at its nth flush.
struct Cut {
    disk: SimDisk,
    flushes_left: u32,
}

impl RegionIo for Cut {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(addr, buf)
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(addr, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flushes_left == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.flushes_left -= 1;
        self.disk.flush()
    }

    fn len(&self) -> u64 {
        self.disk.len()
    }
}

#[test]
fn a_label_survives_power_cuts_while_it_is_replaced() {
    let (cluster, server) = (ClusterId(3), ChunkserverId(4));
    let mut outcomes = [0; 2];
    for seed in 0..600u64 {
        let mut disk = labelled();
        // With both copies whole, or the first or the second damaged before.
        if let Some(copy) = (seed % 3).checked_sub(1) {
            disk.flip_bit(COPY_ADDRS[copy as usize] + 77, 1);
        }
        let mut cut = Cut { disk, flushes_left: (seed / 3 % 2) as u32 };
        assert!(write_identity(&mut cut, cluster, server).is_err());
        let replaced = cut.flushes_left == 0 && seed / 3 % 2 == 1;
        cut.disk.power_cut(&mut draw(seed));
        let label = read_label(&cut.disk).unwrap();
        assert!(!replaced || label.cluster() == Some(cluster), "the first copy was stable");
        outcomes[usize::from(label.cluster().is_some())] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 100), "{outcomes:?}");
}

#[test]
fn unsound_labels_are_refused() {
    let region = sample().regions[0];
    let with = |region| Label { regions: vec![region], shards: 1, ..sample() };
    let unsound = [
        Label { shards: 2, ..sample() },
        Label { shards: 0, regions: Vec::new(), ..sample() },
        Label { sector: 1024, ..sample() },
        Label { device_bytes: DEVICE_BYTES + 1, ..sample() },
        Label { device_bytes: 32 << 20, ..sample() },
        Label { cluster: ClusterId(1), ..sample() },
        Label { chunkserver: ChunkserverId(1), ..sample() },
        Label { regions: vec![region; 3], ..sample() },
        with(Region { start: 0, ..region }),
        with(Region { start: region.start + 1, ..region }),
        with(Region { start: u64::MAX - 4095, ..region }),
        with(Region { log_bytes: 0, ..region }),
        with(Region { len: 1 << 20, ..region }),
    ];
    assert!(is_sound(&with(region)) && is_sound(&sample()));
    for label in unsound {
        assert!(!is_sound(&label), "{label:?}");
    }
}

proptest! {
    #[test]
    fn changed_labels_are_refused_or_equal(
        changes in proptest::collection::vec((0..LABEL_BYTES, any::<u8>()), 1..20),
    ) {
        let good = encode(&sample());
        let mut bytes = good;
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        prop_assert_eq!(whole(&bytes), (bytes == good).then(sample));
    }

    #[test]
    fn changed_labels_with_a_right_checksum_are_refused_or_have_one_form(
        changes in proptest::collection::vec((8usize..260, any::<u8>()), 1..6),
        shards in 0u16..80, noise in any::<u64>(),
    ) {
        let mut bytes = encode(&sample());
        put(&mut bytes, 72, &shards.to_le_bytes());
        for (n, (at, byte)) in changes.into_iter().enumerate() {
            if noise >> n & 1 == 1 {
                bytes[at] = byte;
            }
        }
        seal(&mut bytes);
        if let Some(label) = whole(&bytes) {
            prop_assert_eq!(encode(&label), bytes);
        }
    }
}
