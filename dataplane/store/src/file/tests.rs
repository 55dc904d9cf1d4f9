use super::*;

const SIZE: u64 = 4 << 20;

fn device(dir: &tempfile::TempDir) -> std::path::PathBuf {
    dir.path().join("device")
}

/// The temporary folder may lie on a file system without direct access, where nothing here can be
/// tested.
fn create(dir: &tempfile::TempDir) -> Option<DeviceFile> {
    match DeviceFile::create(&device(dir), SIZE, false) {
        Err(OpenFileError::NoDirect { .. } | OpenFileError::NoAllocation { .. }) => {
            eprintln!("skipped: the temporary folder has no direct access");
            None
        }
        made => Some(made.unwrap()),
    }
}

#[test]
fn accesses_of_any_alignment_agree_with_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut file) = create(&dir) else { return };
    let mut model = vec![0; SIZE as usize];
    let pattern: Vec<u8> = (0..3 << 20).map(|n: u32| (n * 7 + n / 251) as u8).collect();
    let long = 1 << 20;
    let ranges = [
        (0, 4096),
        (1, 1),
        (4095, 2),
        (0, 0),
        (100, long + 5000),
        (8192, 2 * long),
        (SIZE as usize - 1, 1),
        (long - 1, long + 2),
        (SIZE as usize, 0),
    ];
    for (addr, len) in ranges {
        let data = &pattern[addr % 977..][..len];
        file.write_at(addr as u64, data).unwrap();
        model[addr..addr + len].copy_from_slice(data);
    }
    file.flush().unwrap();
    for (addr, len) in ranges.into_iter().chain([(0, SIZE as usize)]) {
        let mut read = vec![0; len];
        file.read_at(addr as u64, &mut read).unwrap();
        assert!(read == model[addr..addr + len], "{addr} {len}");
    }
    let past_the_end = file.read_at(SIZE - 1, &mut [0; 2]).unwrap_err();
    assert_eq!(past_the_end.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(file.write_at(SIZE, &[0]).unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(file.write_at(u64::MAX, &[0]).unwrap_err().kind(), io::ErrorKind::WriteZero);
}

#[test]
fn one_owner_at_a_time_until_the_last_handle_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(file) = create(&dir) else { return };
    let path = device(&dir);
    let clone = file.try_clone().unwrap();
    assert_eq!((clone.len(), clone.sector()), (file.len(), file.sector()));
    drop(file);
    match DeviceFile::open(&path).unwrap_err() {
        error @ OpenFileError::InUse { .. } => {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        error => panic!("{error}"),
    }
    let forced = DeviceFile::create(&path, SIZE, true).unwrap_err();
    assert!(matches!(forced, OpenFileError::InUse { .. }), "{forced}");
    drop(clone);
    assert_eq!(DeviceFile::open(&path).unwrap().len(), SIZE);
}

#[test]
fn an_existing_file_is_kept_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut file) = create(&dir) else { return };
    file.write_at(0, b"precious").unwrap();
    drop(file);
    let kept = DeviceFile::create(&device(&dir), SIZE, false).unwrap_err();
    assert!(matches!(kept, OpenFileError::Exists { .. }), "{kept}");
    let mut start = [0; 8];
    DeviceFile::open(&device(&dir)).unwrap().read_at(0, &mut start).unwrap();
    assert_eq!(&start, b"precious");
    let fresh = DeviceFile::create(&device(&dir), SIZE + 1, true).unwrap();
    fresh.read_at(0, &mut start).unwrap();
    assert_eq!((start, fresh.len()), ([0; 8], SIZE + 4096));
}

#[test]
fn a_file_without_room_is_refused_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    if create(&dir).is_none() {
        return;
    }
    std::fs::remove_file(device(&dir)).unwrap();
    // More than any file system has, so that nothing is taken from it.
    let error = DeviceFile::create(&device(&dir), 1 << 60, false).unwrap_err();
    assert!(matches!(error, OpenFileError::Full { .. }), "{error}");
    assert!(!device(&dir).exists());
}

#[test]
fn only_its_owner_may_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let Some(_file) = create(&dir) else { return };
    let mode = std::fs::metadata(device(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn what_is_no_device_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = DeviceFile::open(&device(&dir)).unwrap_err();
    assert!(matches!(missing, OpenFileError::NotFound { .. }), "{missing}");
    let folder = DeviceFile::open(dir.path()).unwrap_err();
    assert!(matches!(folder, OpenFileError::WrongKind { .. }), "{folder}");
    let null = DeviceFile::open(Path::new("/dev/null")).unwrap_err();
    assert!(matches!(null, OpenFileError::WrongKind { .. }), "{null}");
    let forced = DeviceFile::create(dir.path(), SIZE, true).unwrap_err();
    assert!(matches!(forced, OpenFileError::WrongKind { .. }), "{forced}");
}

#[test]
fn a_file_is_known_as_written_only_when_all_of_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut file) = create(&dir) else { return };
    assert!(matches!(file.sector(), 512 | 4096));
    assert!(file.volatile_cache(), "nothing was written");
    assert!(!extents::all_written(&file.file));
    for at in 0..SIZE >> 20 {
        file.write_at(at << 20, &vec![1; 1 << 20]).unwrap();
    }
    // File systems that do not tell are in doubt for ever, which is safe.
    if extents::all_written(&file.file) {
        file.file.set_len(SIZE + 4096).unwrap();
        assert!(!extents::all_written(&file.file), "a hole at the end");
    }
}
