//! Direct I/O, space and write cache of a storage path.

use crate::facts::{Attempt, Storage, StorageKind, WriteCache};
use crate::limits::LOGICAL_BLOCK_MAX_BYTES;
use crate::report::{Check, Verdict};
use crate::requirements::{StorageNeed, StorageUse};
use crate::verdict::kernel::describe;
use crate::verdict::{bytes, ok};

pub(super) fn all(storage: &Storage, need: &StorageNeed) -> Vec<Check> {
    let mut checks = match need.used_for {
        StorageUse::Blocks => vec![direct(storage)],
        StorageUse::Files => vec![writable(storage)],
    };
    // Where nothing could be learned, the check above says why.
    let known = storage.direct.works() || storage.total_bytes > 0;
    if need.free_bytes > 0 && known {
        checks.push(space(storage, need));
    }
    checks.push(write_cache(storage));
    checks
}

fn name(what: &str, storage: &Storage) -> String {
    format!("{what} {}", storage.path.display())
}

fn direct(storage: &Storage) -> Check {
    let check = ok(&name("direct I/O", storage), "works", "works");
    if let Attempt::Refused { step, errno } = &storage.direct {
        let found =
            format!("cannot {step} at {}: {}", storage.tried_at.display(), describe(*errno));
        return Check { found, ..check }.but(Verdict::Fail, refused(*errno, storage));
    }
    let block = storage.devices.iter().filter_map(|device| device.logical_block).max();
    let align = storage.direct_align.max(block).unwrap_or(0);
    if align > LOGICAL_BLOCK_MAX_BYTES {
        let found = format!("works in blocks of {align} bytes");
        let needed = format!("blocks of at most {LOGICAL_BLOCK_MAX_BYTES} bytes");
        let advice = "use another device, or reformat it: nvme format --lbaf=N (destroys data)";
        return Check { found, needed, ..check }.but(Verdict::Fail, advice);
    }
    let found = match storage.direct_align.or(block) {
        Some(align) => format!("works, aligned to {align} bytes"),
        None => "works".into(),
    };
    let check = Check { found, ..check };
    match in_ram(storage) {
        true => check.but(Verdict::Warn, "this is RAM: nothing survives a reboot"),
        false => check,
    }
}

fn in_ram(storage: &Storage) -> bool {
    matches!(storage.file_system.as_deref(), Some("tmpfs" | "ramfs"))
}

fn refused(errno: i32, storage: &Storage) -> String {
    let at = storage.tried_at.display();
    match errno {
        libc::EINVAL | libc::EOPNOTSUPP if storage.kind == StorageKind::Other => {
            "give a directory, a regular file or a block device".into()
        }
        libc::EINVAL | libc::EOPNOTSUPP => format!(
            "the file system{} has no direct I/O; choose a directory on ext4 or xfs, or a block \
             device",
            storage.file_system.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
        ),
        libc::EPERM => format!(
            "a sandbox, an attribute or the device cgroup forbids it: in Docker add --device {at}; \
             else see lsattr -d {at}, or choose another path"
        ),
        libc::EACCES => {
            format!("give this user access: chown $(id -un) {at} (as root), or choose another path")
        }
        libc::EROFS => format!("mount it writable: mount -o remount,rw {at}"),
        libc::ENOSPC | libc::EDQUOT => format!("free space there: du -xh {at} | sort -h | tail"),
        libc::EBUSY => format!("it is in use; see: lsblk {at}; fuser -v {at}"),
        libc::EIO => "the device fails; look at: dmesg | tail; smartctl -a DEVICE".into(),
        libc::ENOENT => format!("create it: mkdir -p {at}"),
        _ => "choose another path; dmesg | tail may say more".into(),
    }
}

fn writable(storage: &Storage) -> Check {
    let check = ok(&name("files", storage), "writable", "writable");
    match &storage.direct {
        // Ordinary files do without direct I/O, so its absence is no fault here.
        Attempt::Refused { step, errno }
            if !matches!(*errno, libc::EINVAL | libc::EOPNOTSUPP)
                || storage.kind != StorageKind::Directory =>
        {
            let at = storage.tried_at.display();
            let found = format!("cannot {step} at {at}: {}", describe(*errno));
            Check { found, ..check }.but(Verdict::Fail, refused(*errno, storage))
        }
        _ if in_ram(storage) => check.but(Verdict::Warn, "this is RAM: nothing survives a reboot"),
        _ => check,
    }
}

fn space(storage: &Storage, need: &StorageNeed) -> Check {
    let found = format!("{} of {}", bytes(storage.free_bytes), bytes(storage.total_bytes));
    let check = ok(&name("free space", storage), found, bytes(need.free_bytes));
    if storage.free_bytes >= need.free_bytes {
        return check;
    }
    let short = bytes(need.free_bytes - storage.free_bytes);
    let at = storage.tried_at.display();
    check.but(
        Verdict::Fail,
        format!("free {short} more (du -xh {at} | sort -h | tail), or choose another directory"),
    )
}

fn write_cache(storage: &Storage) -> Check {
    let names: Vec<&str> = storage.devices.iter().map(|device| device.name.as_str()).collect();
    let on = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let caches = || storage.devices.iter().map(|device| device.write_cache);
    let check = ok(&name("write cache", storage), "", "any; known");
    if in_ram(storage) {
        return Check { found: "none: RAM".into(), ..check };
    }
    if caches().any(|cache| cache == Some(WriteCache::Volatile)) {
        return Check { found: format!("volatile{on}: each commit is flushed"), ..check };
    }
    if !storage.devices.is_empty() && caches().all(|c| c == Some(WriteCache::WriteThrough)) {
        return Check { found: format!("none, or power-safe{on}: no flush needed"), ..check };
    }
    Check { found: format!("unknown{on}"), ..check }.but(
        Verdict::Warn,
        "it is taken for volatile and flushed; /sys/block/DEVICE/queue/write_cache would tell",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Device;

    fn storage() -> Storage {
        Storage {
            path: "/data".into(),
            tried_at: "/data".into(),
            kind: StorageKind::Directory,
            direct: Attempt::Works,
            direct_align: Some(512),
            free_bytes: 10 << 30,
            total_bytes: 20 << 30,
            file_system: Some("ext4".into()),
            devices: vec![disk(Some(WriteCache::Volatile), 512)],
        }
    }

    fn disk(write_cache: Option<WriteCache>, block: u32) -> Device {
        let name = "sda".into();
        Device { name, write_cache, logical_block: Some(block), rotational: Some(false) }
    }

    fn need(used_for: StorageUse, free_bytes: u64) -> StorageNeed {
        StorageNeed { path: "/data".into(), used_for, free_bytes }
    }

    fn with_errno(errno: i32) -> Storage {
        Storage { direct: Attempt::Refused { step: "write".into(), errno }, ..storage() }
    }

    #[test]
    fn a_good_directory() {
        let checks = all(&storage(), &need(StorageUse::Blocks, 1 << 30));
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["direct I/O /data", "free space /data", "write cache /data"]);
        assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:?}");
    }

    #[test]
    fn refusals_have_remedies() {
        for (errno, remedy) in [
            (libc::EINVAL, "ext4"),
            (libc::EACCES, "chown"),
            (libc::EPERM, "--device"),
            (libc::EROFS, "remount"),
            (libc::ENOSPC, "du -xh"),
            (libc::EBUSY, "fuser"),
            (libc::EIO, "dmesg"),
            (libc::ENOENT, "mkdir"),
            (libc::ELOOP, "another path"),
        ] {
            let check = direct(&with_errno(errno));
            assert_eq!(check.verdict, Verdict::Fail);
            assert!(check.advice.contains(remedy), "{errno}: {}", check.advice);
        }
        let other = Storage { kind: StorageKind::Other, ..with_errno(libc::EINVAL) };
        assert!(direct(&other).advice.contains("block device"));
    }

    #[test]
    fn files_do_without_direct_io_but_not_without_access() {
        assert_eq!(writable(&with_errno(libc::EINVAL)).verdict, Verdict::Ok);
        assert_eq!(writable(&with_errno(libc::EACCES)).verdict, Verdict::Fail);
    }

    #[test]
    fn blocks_above_4_kib_and_ram() {
        let big = Storage { devices: vec![disk(None, 8192)], ..storage() };
        assert_eq!(direct(&big).verdict, Verdict::Fail);
        let ram = Storage { file_system: Some("tmpfs".into()), devices: vec![], ..storage() };
        assert_eq!(direct(&ram).verdict, Verdict::Warn);
        assert_eq!(write_cache(&ram).verdict, Verdict::Ok);
    }

    #[test]
    fn one_volatile_disk_makes_all_volatile_and_none_is_unknown() {
        let of = |devices| write_cache(&Storage { devices, ..storage() });
        let through = disk(Some(WriteCache::WriteThrough), 512);
        let volatile = disk(Some(WriteCache::Volatile), 512);
        assert!(of(vec![through.clone(), volatile]).found.starts_with("volatile"));
        assert!(of(vec![through.clone()]).found.starts_with("none"));
        assert_eq!(of(vec![through, disk(None, 512)]).verdict, Verdict::Warn);
        assert_eq!(of(vec![]).verdict, Verdict::Warn);
    }

    #[test]
    fn space_to_the_byte() {
        let exact = space(&storage(), &need(StorageUse::Blocks, 10 << 30));
        assert_eq!(exact.verdict, Verdict::Ok);
        let more = space(&storage(), &need(StorageUse::Blocks, (10 << 30) + (1 << 20)));
        assert!(more.verdict == Verdict::Fail && more.advice.contains("free 1 MiB more"));
    }
}
