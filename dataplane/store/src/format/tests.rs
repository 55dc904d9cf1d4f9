use super::*;
use crate::simdisk::SimDisk;
use crate::write_identity;

const DEVICE_BYTES: u64 = 64 << 20;

fn options() -> FormatOptions {
    FormatOptions {
        shards: 2,
        sector: 512,
        log_bytes: None,
        uuid: Uuid::from_u128(42),
        force: false,
        quick: true,
    }
}

fn run(disk: &mut SimDisk, options: &FormatOptions) -> Result<Label, FormatError> {
    format(disk, options, &mut |_, _| ())
}

/// A disk full of what was there before, but for the places where signatures are looked for.
fn used_disk(bytes: u64) -> SimDisk {
    let mut disk = SimDisk::new(bytes, 512);
    let junk = vec![0xa5; 1 << 20];
    for at in (0..bytes).step_by(1 << 20) {
        disk.write_at(at, &junk[..(bytes - at).min(1 << 20) as usize]).unwrap();
    }
    disk.flush().unwrap();
    disk
}

fn is_zero(disk: &SimDisk, range: Range<u64>) -> bool {
    let mut bytes = vec![0xff; (range.end - range.start) as usize];
    disk.read_at(range.start, &mut bytes).unwrap();
    bytes.iter().all(|byte| *byte == 0)
}

#[test]
fn a_formatted_device_reads_as_what_was_asked_for() {
    for shards in [1, 2, 5] {
        let mut disk = SimDisk::new(DEVICE_BYTES, 512);
        let label = run(&mut disk, &FormatOptions { shards, ..options() }).unwrap();
        assert_eq!(read_label(&disk).unwrap(), label);
        assert_eq!((label.uuid, label.sector), (Uuid::from_u128(42), 512));
        assert_eq!((label.cluster(), label.chunkserver()), (None, None));
        assert_eq!(label.regions().len(), usize::from(shards));
        let used: u64 = label.regions().iter().map(|region| region.len).sum();
        assert!(used + u64::from(shards + 1) * REGION_ALIGN > DEVICE_BYTES, "little is left over");
    }
}

#[test]
fn quick_wipes_what_the_engine_reads_first_and_full_wipes_all() {
    for quick in [true, false] {
        let mut disk = used_disk(DEVICE_BYTES);
        let label = run(&mut disk, &FormatOptions { quick, ..options() }).unwrap();
        assert!(is_zero(&disk, 2 * LABEL_BYTES as u64..REGIONS_START));
        assert!(is_zero(&disk, DEVICE_BYTES - TAIL_BYTES..DEVICE_BYTES));
        for region in label.regions() {
            let layout = region.layout().unwrap();
            assert!(is_zero(&disk, region.start..layout.slots_start));
            assert!(layout.directory.iter().all(|start| is_zero(&disk, *start..start + 4096)));
            assert_eq!(is_zero(&disk, layout.data_start..layout.data_start + 4096), !quick);
        }
        assert!(quick || is_zero(&disk, 8192..DEVICE_BYTES));
    }
}

#[test]
fn progress_goes_from_nothing_to_everything() {
    for quick in [true, false] {
        let mut disk = SimDisk::new(DEVICE_BYTES, 4096);
        let mut seen = Vec::new();
        let options = FormatOptions { quick, ..options() };
        format(&mut disk, &options, &mut |done, total| seen.push((done, total))).unwrap();
        assert_eq!(seen[0].0, 0);
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 == pair[1].1));
        assert!(seen.last().is_some_and(|(done, total)| done == total));
        assert!(quick || seen[0].1 == DEVICE_BYTES);
    }
}

#[test]
fn devices_in_use_are_refused_unless_forced() {
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    let first = run(&mut disk, &options()).unwrap();
    let error = run(&mut disk, &options()).unwrap_err();
    assert!(matches!(error, FormatError::AlreadyFormatted { .. }), "{error}");
    assert!(error.to_string().contains(&first.uuid.to_string()), "{error}");

    write_identity(&mut disk, ClusterId(7), ChunkserverId(3)).unwrap();
    let error = run(&mut disk, &options()).unwrap_err();
    assert!(matches!(error, FormatError::InCluster { .. }), "{error}");
    assert!(error.to_string().contains("s3") && error.to_string().contains("k7"), "{error}");

    disk.flip_bit(100, 0);
    disk.flip_bit(4196, 0);
    let error = run(&mut disk, &options()).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    let forced = FormatOptions { force: true, uuid: Uuid::from_u128(43), ..options() };
    assert_eq!(run(&mut disk, &forced).unwrap().chunkserver(), None);
}

#[test]
fn foreign_data_is_refused_and_left_alone() {
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    disk.write_at(0x438, &[0x53, 0xef]).unwrap();
    let writes = disk.counters().writes;
    let error = run(&mut disk, &options()).unwrap_err();
    assert!(error.to_string().contains("ext4"), "{error}");
    assert_eq!(disk.counters().writes, writes);
    run(&mut disk, &FormatOptions { force: true, ..options() }).unwrap();
}

#[test]
fn bad_options_are_named() {
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    let mut with = |options: FormatOptions| run(&mut disk, &options).unwrap_err();
    assert!(matches!(with(FormatOptions { shards: 0, ..options() }), FormatError::BadShards(0)));
    assert!(matches!(with(FormatOptions { shards: 65, ..options() }), FormatError::BadShards(65)));
    let sector = with(FormatOptions { sector: 520, ..options() });
    assert!(matches!(sector, FormatError::BadSector(520)));
    for bytes in [0, 4096, (1 << 20) + 1, 2 << 30] {
        let log = with(FormatOptions { log_bytes: Some(bytes), ..options() });
        assert!(matches!(log, FormatError::BadLog(bad) if bad == bytes));
    }
    assert_eq!(disk.counters().writes, 0);
}

#[test]
fn the_smallest_device_that_is_named_is_the_smallest_that_works() {
    for (shards, log_bytes) in [(1, None), (3, None), (1, Some(4 << 20)), (64, None)] {
        let options = FormatOptions { shards, log_bytes, ..options() };
        let error = run(&mut SimDisk::new(4096, 512), &options).unwrap_err();
        let FormatError::TooSmall { needs_bytes, .. } = error else { panic!("{error}") };
        let below = run(&mut SimDisk::new(needs_bytes - 4096, 512), &options).unwrap_err();
        assert!(matches!(below, FormatError::TooSmall { .. }), "{below}");
        run(&mut SimDisk::new(needs_bytes, 512), &options).unwrap();
    }
}

#[test]
fn a_format_cut_short_leaves_no_label() {
    let mut disk = SimDisk::new(DEVICE_BYTES, 512);
    run(&mut disk, &options()).unwrap();
    let mut steps = 0;
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let force = FormatOptions { force: true, ..options() };
        format(&mut disk, &force, &mut |_, _| {
            steps += 1;
            assert!(steps < 3, "the power goes here");
        })
    }));
    assert!(unwound.is_err());
    disk.power_cut(&mut |_| 1);
    assert!(matches!(read_label(&disk), Err(LabelError::NotOgive)));
    disk.fail_writes(1);
    let error = run(&mut disk, &options()).unwrap_err();
    assert!(matches!(error, FormatError::Io(_)), "{error}");
}
