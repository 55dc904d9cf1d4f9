//! Kernel, io_uring and the limits of the process.

use crate::facts::{Attempt, Facts, Limit, Uring};
use crate::limits::KERNEL_MIN;
use crate::report::{Check, Verdict};
use crate::requirements::Requirements;
use crate::verdict::{bytes, ok};

pub(super) fn kernel(facts: &Facts) -> Check {
    let (major, minor) = KERNEL_MIN;
    let check = ok("kernel", &facts.kernel, format!("{major}.{minor} or newer"));
    match version(&facts.kernel) {
        Some(found) if found < KERNEL_MIN => check.but(
            Verdict::Warn,
            "the ring works without DEFER_TASKRUN, at more CPU; upgrade the kernel",
        ),
        _ => check,
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn uring(uring: &Uring) -> Check {
    let check = ok("io_uring", "works", "works");
    if let Attempt::Refused { step, errno } = &uring.setup {
        let found = format!("{step}: {}", describe(*errno));
        return Check { found, ..check }.but(Verdict::Fail, refused(*errno, uring.disabled));
    }
    if !uring.missing.is_empty() {
        let found = format!("lacks {}", uring.missing.join(", "));
        let advice = "install a kernel of 6.1 or newer (Debian 12, Ubuntu 22.04 HWE), and reboot";
        return Check { found, ..check }.but(Verdict::Fail, advice);
    }
    match &uring.data_plane_setup {
        Attempt::Works => check,
        Attempt::Refused { errno, .. } => {
            let found = format!("works, but not with DEFER_TASKRUN: {}", describe(*errno));
            let advice = "Ogive runs at more CPU; install a kernel of 6.1 or newer";
            Check { found, ..check }.but(Verdict::Warn, advice)
        }
    }
}

/// Why io_uring_setup is refused, in the order of likelihood.
fn refused(errno: i32, disabled: Option<u32>) -> String {
    match (errno, disabled) {
        (libc::EPERM, Some(2)) => "run: sysctl -w kernel.io_uring_disabled=0 (as root)".into(),
        (libc::EPERM, Some(1)) => "run: sysctl -w kernel.io_uring_disabled=0 (as root), or set \
             kernel.io_uring_group to a group of this user"
            .into(),
        (libc::EPERM | libc::EACCES, _) => "a sandbox forbids it; in Docker add --security-opt \
             seccomp=unconfined, in Kubernetes set seccompProfile.type: Unconfined"
            .into(),
        (libc::ENOSYS, _) => "the kernel or the sandbox (gVisor, old seccomp) lacks it; run on a \
             Linux kernel of 6.1 or newer, in Docker with --security-opt seccomp=unconfined"
            .into(),
        (libc::ENOMEM, _) => "raise the limit of lockable memory: ulimit -l unlimited, or \
             LimitMEMLOCK=infinity in the systemd unit"
            .into(),
        (libc::EMFILE | libc::ENFILE, _) => "raise the limit of open files: ulimit -n 65536".into(),
        _ => "look for the reason in the kernel's log: dmesg | tail".into(),
    }
}

pub(super) fn memlock(facts: &Facts, requirements: &Requirements) -> Check {
    let needed = requirements.memlock_bytes(facts.may_lock_all);
    let limit = facts.memlock;
    let check = ok("memlock", show(limit, bytes), bytes(needed));
    if reaches(limit.soft, needed) {
        return check;
    }
    let kib = needed.div_ceil(1024);
    check.but(
        Verdict::Fail,
        if reaches(limit.hard, needed) {
            format!("run: ulimit -l {kib}")
        } else {
            format!(
                "under systemd set LimitMEMLOCK=infinity; in Docker add --ulimit memlock=-1; else \
                 add `* - memlock {kib}` to /etc/security/limits.conf and log in again"
            )
        },
    )
}

pub(super) fn nofile(facts: &Facts, requirements: &Requirements) -> Check {
    let needed = requirements.open_files;
    let limit = facts.nofile;
    let check = ok("open files", show(limit, |n| n.to_string()), needed.to_string());
    if reaches(limit.soft, needed) {
        return check;
    }
    check.but(
        Verdict::Fail,
        if reaches(limit.hard, needed) {
            format!("run: ulimit -n {needed}")
        } else {
            format!(
                "under systemd set LimitNOFILE={needed}; in Docker add --ulimit nofile={needed}; \
                 else add `* - nofile {needed}` to /etc/security/limits.conf and log in again"
            )
        },
    )
}

fn reaches(limit: Option<u64>, needed: u64) -> bool {
    limit.is_none_or(|limit| limit >= needed)
}

fn show(limit: Limit, format: impl Fn(u64) -> String) -> String {
    limit.soft.map_or_else(|| "unlimited".into(), format)
}

/// The system's words for an error number.
pub(super) fn describe(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::good;

    fn refused_with(errno: i32, disabled: Option<u32>) -> Check {
        let step = "io_uring_setup".to_owned();
        uring(&Uring { setup: Attempt::Refused { step, errno }, disabled, ..good().uring })
    }

    #[test]
    fn each_refusal_of_io_uring_has_its_remedy() {
        let cases = [
            (libc::EPERM, Some(2), "sysctl -w"),
            (libc::EPERM, Some(1), "io_uring_group"),
            (libc::EPERM, Some(0), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::ENOSYS, None, "kernel"),
            (libc::ENOMEM, None, "ulimit -l"),
            (libc::EMFILE, None, "ulimit -n"),
            (libc::EIO, None, "dmesg"),
        ];
        for (errno, disabled, remedy) in cases {
            let check = refused_with(errno, disabled);
            assert_eq!(check.verdict, Verdict::Fail);
            assert!(check.advice.contains(remedy), "{errno} {disabled:?}: {}", check.advice);
            assert!(check.found.contains("io_uring_setup"), "{}", check.found);
        }
    }

    #[test]
    fn lesser_rings() {
        let lacking = Uring { missing: vec!["operation FSYNC".into()], ..good().uring };
        assert_eq!(uring(&lacking).verdict, Verdict::Fail);
        let refused = Attempt::Refused { step: "x".into(), errno: libc::EINVAL };
        let old = Uring { data_plane_setup: refused, ..good().uring };
        assert_eq!(uring(&old).verdict, Verdict::Warn);
        let mut facts = good();
        assert_eq!(kernel(&facts).verdict, Verdict::Ok);
        for (release, verdict) in [
            ("5.15.0-100-generic", Verdict::Warn),
            ("6.0.19", Verdict::Warn),
            ("6.1.0-18-amd64", Verdict::Ok),
            ("10.0-rc1", Verdict::Ok),
            ("odd", Verdict::Ok),
        ] {
            facts.kernel = release.into();
            assert_eq!(kernel(&facts).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn memlock_by_executors() {
        let needs = Requirements { registered_bytes: 1 << 20, ..Requirements::gateway(2) };
        let mut facts = good();
        let mut at = |soft, hard, all| {
            facts.memlock = Limit { soft, hard };
            facts.may_lock_all = all;
            memlock(&facts, &needs)
        };
        assert_eq!(at(Some(2 << 20), Some(2 << 20), false).verdict, Verdict::Ok);
        assert_eq!(at(None, None, false).verdict, Verdict::Ok);
        assert_eq!(at(Some(1 << 20), None, true).verdict, Verdict::Ok);
        let soft = at(Some((2 << 20) - 1), None, false);
        assert_eq!((soft.verdict, soft.advice.as_str()), (Verdict::Fail, "run: ulimit -l 2048"));
        let hard = at(Some(0), Some(0), true);
        assert!(hard.verdict == Verdict::Fail && hard.advice.contains("LimitMEMLOCK"));
    }

    #[test]
    fn open_files() {
        let needs = Requirements { open_files: 4096, ..Requirements::gateway(1) };
        let mut facts = good();
        facts.nofile = Limit { soft: Some(1024), hard: Some(4096) };
        assert_eq!(nofile(&facts, &needs).advice, "run: ulimit -n 4096");
        facts.nofile.hard = Some(1024);
        assert!(nofile(&facts, &needs).advice.contains("LimitNOFILE=4096"));
        facts.nofile.soft = Some(4096);
        assert_eq!(nofile(&facts, &needs).verdict, Verdict::Ok);
    }
}
