//! Whether the devices of a cluster that has stopped hold the same.

use std::collections::BTreeMap;
use std::path::Path;

use ogive_buf::Pool;
use ogive_store::file::DeviceFile;
use ogive_store::{DeltaCursor, Store, StoreOptions, read_label};
use ogive_types::{BlockSum, ChunkId, CopysetId, Index};

/// Memory for a store that is only looked at.
const POOL_BYTES: usize = 64 << 20;

/// Which entry wrote each block that a replica shows, and its checksum.
type Picture = BTreeMap<(CopysetId, ChunkId, u16), (Index, BlockSum)>;

/// Blocks of each replica; panics with the first difference between devices.
pub fn identical(devices: &[std::path::PathBuf]) -> usize {
    let mut pictures = devices.iter().map(|device| (device, picture(device)));
    let (first, expected) = pictures.next().expect("a cluster has devices");
    for (device, found) in pictures {
        let mut keys = expected.keys().chain(found.keys());
        if let Some(key) = keys.find(|key| expected.get(key) != found.get(key)) {
            let (one, other) = (expected.get(key), found.get(key));
            let (first, device) = (first.display(), device.display());
            panic!("{key:?}: {one:?} on {first}, {other:?} on {device}");
        }
    }
    expected.len()
}

/// All of a device. Entries that a majority has are committed, and clients have gone: what the log
/// still keeps for later is as good as applied.
fn picture(device: &Path) -> Picture {
    let mut file = DeviceFile::open(device).expect("nobody else has it");
    let label = read_label(&file).expect("a label");
    let mut all = Picture::new();
    for shard in 0..label.shards {
        let pool = Pool::new(POOL_BYTES);
        let options = StoreOptions::default();
        let mut store = Store::open(&mut file, &label, shard, pool, options).expect("it opens");
        let here: Vec<CopysetId> = store.replicas().collect();
        for id in here {
            let last = store.replica(id).expect("it is there").last.index;
            store.apply(id, last);
            let mut cursor = Some(DeltaCursor::start());
            while let Some(at) = cursor {
                let scan = store.delta_scan(id, Index(0), at, 256);
                for chunk in &scan.chunks {
                    for extent in &chunk.extents {
                        for (block, &sum) in extent.range.iter().zip(&extent.sums) {
                            all.insert((id, chunk.chunk, block), (extent.index, sum));
                        }
                    }
                }
                cursor = scan.next;
            }
        }
    }
    all
}
