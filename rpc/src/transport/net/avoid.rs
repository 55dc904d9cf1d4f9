//! Paths that failed, by peer: they are left out for a while, so that a path that does not work
//! costs its time-out once and not at every connection.
//!
//! The first failure counts for [`PATH_RETRY_AFTER`], each further one for twice the time of the
//! last, up to [`PATH_RETRY_AFTER_MAX`]. A success changes nothing, for a path that comes up and
//! breaks again and again is to be left out too; a failure is forgotten when it is as old as
//! the longest wait after the path was to be tried again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use ogive_types::Time;

use crate::limits::{AVOIDED_PATHS_MAX, PATH_RETRY_AFTER, PATH_RETRY_AFTER_MAX};
use crate::transport::Path;

#[derive(Debug, Default)]
pub(super) struct Avoided {
    failures: HashMap<(SocketAddr, Path), Failure>,
}

#[derive(Debug)]
struct Failure {
    why: String,
    wait: Duration,
    until: Time,
}

impl Avoided {
    /// A path to a peer failed or broke.
    pub(super) fn failed(&mut self, peer: SocketAddr, path: Path, why: &str, now: Time) {
        self.failures.retain(|_, f| now < f.until + PATH_RETRY_AFTER_MAX);
        let last = self.failures.get(&(peer, path));
        let wait = last.map_or(PATH_RETRY_AFTER, |f| (f.wait * 2).min(PATH_RETRY_AFTER_MAX));
        if last.is_none() && self.failures.len() >= AVOIDED_PATHS_MAX {
            let oldest = self.failures.iter().min_by_key(|(_, f)| f.until).map(|(&key, _)| key);
            self.failures.remove(&oldest.expect("the table is full"));
        }
        let failure = Failure { why: why.into(), wait, until: now + wait };
        self.failures.insert((peer, path), failure);
    }

    /// Why a path to a peer is not to be tried now; `Ok` when it is.
    pub(super) fn check(&self, peer: SocketAddr, path: Path, now: Time) -> Result<(), String> {
        match self.failures.get(&(peer, path)) {
            Some(f) if now < f.until => {
                let seconds = f.until.since(now).as_secs_f32().ceil();
                Err(format!("not tried for another {seconds} s after: {}", f.why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn waits_double_up_to_the_longest_and_failures_are_forgotten() {
        let mut avoided = Avoided::default();
        let mut now = Time(7_000_000);
        let mut waits = Vec::new();
        for _ in 0..7 {
            avoided.failed(peer(1), Path::Shm, "lost", now);
            let start = now;
            while avoided.check(peer(1), Path::Shm, now).is_err() {
                now = now + Duration::from_secs(1);
            }
            waits.push(now.since(start).as_secs());
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        now = now + PATH_RETRY_AFTER_MAX;
        avoided.failed(peer(1), Path::Shm, "lost", now);
        let verdict = avoided.check(peer(1), Path::Shm, now);
        assert_eq!(verdict, Err("not tried for another 30 s after: lost".into()));
        assert_eq!(avoided.check(peer(1), Path::Rdma, now), Ok(()), "the other path");
        assert_eq!(avoided.check(peer(2), Path::Shm, now), Ok(()), "another peer");
    }

    #[test]
    fn memory_is_bounded() {
        let mut avoided = Avoided::default();
        for port in 0..=AVOIDED_PATHS_MAX as u16 {
            avoided.failed(peer(port), Path::Rdma, "lost", Time(u64::from(port)));
        }
        assert_eq!(avoided.failures.len(), AVOIDED_PATHS_MAX);
        assert!(avoided.check(peer(0), Path::Rdma, Time(0)).is_ok(), "the oldest went");
        assert!(avoided.check(peer(1), Path::Rdma, Time(1)).is_err());
    }
}
