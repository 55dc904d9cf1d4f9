//! Recognises devices that hold somebody else's data, by the magic numbers that other systems
//! leave.

use std::io;

use crate::io::RegionIo;

/// Bytes at the start of a device where signatures are looked for: ZFS keeps its first label in 256
/// KiB.
const HEAD_BYTES: u64 = 256 << 10;

/// A magic number at a fixed place.
struct Magic {
    what: &'static str,
    at: usize,
    bytes: &'static [u8],
}

const fn magic(what: &'static str, at: usize, bytes: &'static [u8]) -> Magic {
    Magic { what, at, bytes }
}

/// In order of precedence: file systems may carry a boot sector's mark as well, so that comes last.
const MAGICS: &[Magic] = &[
    magic("a GPT partition table", 512, b"EFI PART"),
    magic("a GPT partition table", 4096, b"EFI PART"),
    magic("a Ceph OSD (bluestore)", 0, b"bluestore block device\n"),
    magic("an ext2, ext3 or ext4 file system", 0x438, &[0x53, 0xef]),
    magic("an XFS file system", 0, b"XFSB"),
    magic("a Btrfs file system", 0x1_0040, b"_BHRfS_M"),
    magic("an F2FS file system", 0x400, &[0x10, 0x20, 0xf5, 0xf2]),
    magic("an NTFS file system", 3, b"NTFS    "),
    magic("an ISO 9660 image", 0x8001, b"CD001"),
    magic("a LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    magic("an LVM physical volume", 0, b"LABELONE"),
    magic("an LVM physical volume", 512, b"LABELONE"),
    magic("an LVM physical volume", 1024, b"LABELONE"),
    magic("an LVM physical volume", 1536, b"LABELONE"),
    magic(RAID_WHAT, 0, RAID),
    magic(RAID_WHAT, 4096, RAID),
    magic("a LUKS encrypted volume", 0x4000, b"SKUL\xba\xbe"),
    magic("a bcache device", 4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]),
    magic("swap space", 4086, b"SWAPSPACE2"),
    magic("swap space", 65526, b"SWAPSPACE2"),
    magic("a hibernated system", 4086, b"S1SUSPEND"),
];

/// The same, counted back from the end of the device.
const TAIL_MAGICS: &[Magic] = &[
    magic("a GPT partition table", 512, b"EFI PART"),
    magic("a GPT partition table", 4096, b"EFI PART"),
    magic("a member of an Intel RAID", 1024, b"Intel Raid ISM Cfg Sig."),
    magic("a member of a DDF RAID", 512, &[0xde, 0x11, 0xde, 0x11]),
];

/// Bytes at the end of a device where signatures are looked for: Linux RAID of format 0.90 keeps
/// its superblock up to 128 KiB before the end.
const TAIL_BYTES: u64 = 128 << 10;

const RAID: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
const RAID_WHAT: &str = "a member of a Linux RAID";

const BOOT_MARK: Magic = magic("a partition table or boot sector", 510, &[0x55, 0xaa]);

/// ZFS uberblocks: this number, in either byte order, at every KiB of the second half of the label.
const ZFS_UBERBLOCK: u64 = 0x00ba_b10c;
const ZFS_RING_START: usize = 128 << 10;
const ZFS_RING_STEP: usize = 1 << 10;

/// What the device holds, as words that follow "holds"; `None` when nothing is recognised.
///
/// # Errors
/// When the device cannot be read.
pub(super) fn find(io: &dyn RegionIo) -> io::Result<Option<&'static str>> {
    let mut head = vec![0; HEAD_BYTES.min(io.len()) as usize];
    io.read_at(0, &mut head)?;
    if let Some(what) = recognise(&head) {
        return Ok(Some(what));
    }
    let mut tail = vec![0; TAIL_BYTES.min(io.len()) as usize];
    io.read_at(io.len() - tail.len() as u64, &mut tail)?;
    Ok(recognise_tail(&tail, io.len()))
}

fn recognise(head: &[u8]) -> Option<&'static str> {
    let named = MAGICS.iter().find(|magic| is_there(magic, head)).map(|magic| magic.what);
    let zfs = || is_zfs(head).then_some("a member of a ZFS pool");
    let boot = || is_there(&BOOT_MARK, head).then_some(BOOT_MARK.what);
    named.or_else(zfs).or_else(boot)
}

/// `tail` are the last bytes of a device of `len`.
fn recognise_tail(tail: &[u8], len: u64) -> Option<&'static str> {
    let holds = |back: u64, bytes: &[u8]| {
        let at = (tail.len() as u64).checked_sub(back).and_then(|at| usize::try_from(at).ok());
        at.is_some_and(|at| tail.get(at..at + bytes.len()) == Some(bytes))
    };
    // Linux, `drivers/md/md.c`: format 0.90 lies at the last multiple of 64 KiB that has 64 KiB
    // behind it, format 1.0 at the last multiple of 4 KiB that has 8 KiB behind it.
    let old = len.checked_sub((len / (64 << 10) * (64 << 10)).saturating_sub(64 << 10));
    let new = len.checked_sub(len.saturating_sub(8 << 10) / 4096 * 4096);
    if [old, new].into_iter().flatten().any(|back| holds(back, RAID)) {
        return Some(RAID_WHAT);
    }
    TAIL_MAGICS.iter().find(|m| holds(m.at as u64, m.bytes)).map(|m| m.what)
}

fn is_there(magic: &Magic, head: &[u8]) -> bool {
    head.get(magic.at..magic.at + magic.bytes.len()) == Some(magic.bytes)
}

fn is_zfs(head: &[u8]) -> bool {
    let ring = head.get(ZFS_RING_START..).unwrap_or_default();
    ring.chunks(ZFS_RING_STEP).filter_map(|slot| slot.first_chunk::<8>()).any(|number| {
        [u64::from_le_bytes(*number), u64::from_be_bytes(*number)].contains(&ZFS_UBERBLOCK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magic_is_recognised_at_its_place_only() {
        for magic in MAGICS.iter().chain([&BOOT_MARK]) {
            let mut head = vec![0; HEAD_BYTES as usize];
            assert_eq!(recognise(&head), None);
            head[magic.at..magic.at + magic.bytes.len()].copy_from_slice(magic.bytes);
            assert_eq!(recognise(&head), Some(magic.what));
            head.rotate_right(7);
            assert_eq!(recognise(&head), None, "{}", magic.what);
        }
    }

    #[test]
    fn zfs_is_recognised_in_both_byte_orders() {
        for bytes in [ZFS_UBERBLOCK.to_le_bytes(), ZFS_UBERBLOCK.to_be_bytes()] {
            let mut head = vec![0; HEAD_BYTES as usize];
            head[ZFS_RING_START + 5 * 1024..][..8].copy_from_slice(&bytes);
            assert_eq!(recognise(&head), Some("a member of a ZFS pool"));
        }
    }

    #[test]
    fn a_file_system_is_named_rather_than_its_boot_sector() {
        let mut head = vec![0; HEAD_BYTES as usize];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(recognise(&head), Some("an ext2, ext3 or ext4 file system"));
    }

    #[test]
    fn signatures_at_the_end_are_seen() {
        let tail = vec![0; TAIL_BYTES as usize];
        for len in [1u64 << 30, (1 << 30) + 4096, (1 << 30) + (60 << 10)] {
            assert_eq!(recognise_tail(&tail, len), None);
            // As mdadm places them.
            let old = (len & !0xffff) - 0x1_0000;
            let new = ((len / 512 - 16) & !7) * 512;
            let places = [(old, RAID), (new, RAID), (len - 512, b"EFI PART".as_slice())];
            for (at, bytes) in places {
                let mut tail = tail.clone();
                let at = (at + TAIL_BYTES - len) as usize;
                tail[at..at + bytes.len()].copy_from_slice(bytes);
                assert!(recognise_tail(&tail, len).is_some(), "{at} {len}");
                tail.rotate_right(1);
                assert_eq!(recognise_tail(&tail, len), None);
            }
        }
        for len in [0, 512, 4096] {
            assert_eq!(recognise_tail(&vec![0; len], len as u64), None);
        }
    }

    #[test]
    fn short_devices_do_not_panic() {
        for len in [0, 1, 511, 512, 4096] {
            assert_eq!(recognise(&vec![0; len]), None);
        }
    }
}
