//! The device label on disk, byte for byte: devices that were formatted once must be readable for
//! ever.

use ogive_store::simdisk::SimDisk;
use ogive_store::{FormatOptions, RegionIo, format, read_label, write_identity};
use ogive_types::{ChunkserverId, ClusterId};
use uuid::Uuid;

const GOLDEN: &[u8] = include_bytes!("golden/label_v1.bin");
const DEVICE_BYTES: u64 = 256 << 20;

fn uuid() -> Uuid {
    Uuid::from_bytes(*b"\x10\x32\x54\x76\x98\xba\x4c\xde\x8f\x01\x23\x45\x67\x89\xab\xcd")
}

const CLUSTER: ClusterId = ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
const CHUNKSERVER: ChunkserverId = ChunkserverId(0x1234_5678);

#[test]
fn a_label_is_written_as_it_always_was() {
    let mut disk = SimDisk::new(DEVICE_BYTES, 4096);
    let options = FormatOptions {
        shards: 3,
        sector: 4096,
        log_bytes: Some(2 << 20),
        uuid: uuid(),
        force: false,
        quick: true,
    };
    format(&mut disk, &options, &mut |_, _| ()).unwrap();
    write_identity(&mut disk, CLUSTER, CHUNKSERVER).unwrap();
    for copy in [0, 4096] {
        let mut bytes = vec![0; 4096];
        disk.read_at(copy, &mut bytes).unwrap();
        if let Some(path) = std::env::var_os("OGIVE_WRITE_GOLDEN") {
            #[allow(clippy::disallowed_methods)] // makes the golden file of a new format version
            std::fs::write(path, &bytes).unwrap();
        }
        let differs = bytes.iter().zip(GOLDEN).position(|(new, old)| new != old);
        assert_eq!(
            (differs, bytes.len()),
            (None, GOLDEN.len()),
            "copy at {copy}: first difference"
        );
    }
}

#[test]
fn a_label_of_version_1_is_read() {
    let mut disk = SimDisk::new(DEVICE_BYTES, 4096);
    disk.write_at(4096, GOLDEN).unwrap();
    let label = read_label(&disk).unwrap();
    assert_eq!((label.uuid, label.shards, label.sector), (uuid(), 3, 4096));
    assert_eq!((label.cluster(), label.chunkserver()), (Some(CLUSTER), Some(CHUNKSERVER)));
    assert_eq!((label.generation, label.device_bytes()), (2, DEVICE_BYTES));
    let regions: Vec<_> = label.regions().iter().map(|r| (r.start, r.len, r.log_bytes)).collect();
    let expected = [1u64 << 20, 86 << 20, 171 << 20].map(|start| (start, 85 << 20, 2 << 20));
    assert_eq!(regions, expected);
}
