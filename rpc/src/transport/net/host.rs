//! A name for the set of processes that can share memory with this one.
//!
//! Two processes have the same name when all of these are the same: the running kernel (its boot
//! id), the namespaces in which process ids, System V segments and user ids have their meaning, the
//! file system under `/dev/shm`, and the user. The name is the 128-bit FNV-1a hash of these; the
//! boot id is random, so equal names by accident do not occur. A peer that lies about its name
//! gains nothing: the path is probed before it is used.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name, or why this process cannot share memory.
pub(super) fn name() -> Result<u128, String> {
    let cannot = |what: &str, e: std::io::Error| format!("{what}: {e}");
    let mut text = String::new();
    let boot_id = "/proc/sys/kernel/random/boot_id";
    text += &std::fs::read_to_string(boot_id).map_err(|e| cannot(boot_id, e))?;
    for namespace in ["pid", "ipc", "user"] {
        let link = format!("/proc/self/ns/{namespace}");
        match std::fs::read_link(&link) {
            Ok(target) => text += &format!("{}\n", target.display()),
            // A kernel without such namespaces has one of them.
            Err(e) if e.kind() == ErrorKind::NotFound => text += "none\n",
            Err(e) => return Err(cannot(&link, e)),
        }
    }
    let shm = Path::new("/dev/shm");
    let shm = shm.metadata().map_err(|e| cannot("/dev/shm", e))?.dev();
    text += &format!("{shm}\n{}", rustix::process::geteuid().as_raw());
    Ok(fnv1a(text.as_bytes()))
}

/// The hash of Fowler, Noll and Vo in its variant 1a for 128 bits (RFC 9923).
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stays_and_the_hash_is_the_published_one() {
        assert_eq!(name().expect("a Linux system"), name().expect("a Linux system"));
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
