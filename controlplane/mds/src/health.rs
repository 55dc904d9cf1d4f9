//! Verdicts about copysets and the cluster. Pure, and truthful: what is not known is not called
//! healthy.

use ogive_api::pb;
use ogive_api::types::{Health, Presence, ReplicaReport, Role, names};
use ogive_meta::Copyset;
use ogive_types::{ShardAddr, Term, Time};

use crate::config::Timing;
use crate::limits::{CAUGHT_UP_LAG_MAX, REASONS_MAX};
use crate::volatile::Volatile;

/// What is known of a copyset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) health: Health,
    /// Why it is not healthy.
    pub(crate) reason: String,
    /// The replica that leads, by its own report.
    pub(crate) leader: Option<ShardAddr>,
    /// The newest term reported.
    pub(crate) term: Term,
}

/// Judges a copyset by the reports of its members whose chunkservers are online:
///
/// | leader reported | members | health |
/// |---|---|---|
/// | in the newest term | all online, reporting, well and caught up | healthy |
/// | in the newest term | some of them are not | degraded |
/// | no | a majority is offline | unavailable |
/// | no | all that are not offline have reported, none leads | unavailable |
/// | no | otherwise: some have not been heard of yet | unknown |
pub(crate) fn copyset(c: &Copyset, v: &Volatile, now: Time, timing: &Timing) -> Verdict {
    let presence = |a: ShardAddr| v.presence(a.server, now, timing);
    let report = |a: ShardAddr| v.report(a, c.id, now, timing);
    let reports: Vec<(ShardAddr, &ReplicaReport)> =
        c.members.iter().filter_map(|&a| Some((a, report(a)?))).collect();
    let term = reports.iter().map(|(_, r)| r.term).max().unwrap_or_default();
    let leads = |r: &ReplicaReport| r.role == Role::Leader && r.term == term;
    if let Some(&(leader, led)) = reports.iter().find(|(_, r)| leads(r)) {
        let mut faults = c.members.iter().filter_map(|&a| {
            let text = match (presence(a), report(a)) {
                (Presence::Online, Some(r)) => fault(a, r, led, leader)?,
                (Presence::Online, None) => "does not report".into(),
                (other, _) => names::of_presence(other).to_owned(),
            };
            Some(format!("replica on {a}: {text}"))
        });
        let (health, reason) = match faults.next() {
            None => (Health::Healthy, String::new()),
            Some(first) => {
                let rest: Vec<String> = std::iter::once(first).chain(faults).collect();
                (Health::Degraded, rest.join("; "))
            }
        };
        return Verdict { health, reason, leader: Some(leader), term };
    }
    let offline = c.members.iter().filter(|&&a| presence(a) == Presence::Offline).count();
    let (health, reason) = if offline * 2 >= c.members.len() {
        (Health::Unavailable, format!("{offline} of {} replicas are offline", c.members.len()))
    } else if reports.len() + offline == c.members.len() {
        (Health::Unavailable, "no replica leads".to_owned())
    } else {
        (Health::Unknown, "not all replicas have reported yet".to_owned())
    };
    Verdict { health, reason, leader: None, term }
}

/// What is wrong with a chunkserver's device, for people:
///
/// | reported | said |
/// |---|---|
/// | many damaged blocks | replace the device |
/// | blocks without a good copy | their reads fail |
/// | damaged blocks that wait | being repaired |
/// | no space | writes are refused |
///
/// A device that is nearly full works as it should, and is shown as such with its chunkserver.
pub(crate) fn device_faults(h: &pb::DeviceHealth) -> Vec<String> {
    let mut faults = Vec::new();
    if h.replace {
        faults.push(format!(
            "{} damaged blocks since it was started, {} of them unreadable: replace its device",
            h.damaged_blocks, h.read_errors
        ));
    }
    if h.unrepairable_blocks > 0 {
        let blocks = h.unrepairable_blocks;
        faults
            .push(format!("{blocks} blocks have no good copy on any replica; reads of them fail"));
    }
    let waiting = h.open_repairs.saturating_sub(h.unrepairable_blocks);
    if waiting > 0 {
        faults.push(format!("{waiting} damaged blocks are being repaired"));
    }
    if h.full {
        faults.push("full: writes are refused until space is freed or added".to_owned());
    }
    faults
}

/// What is wrong with a replica that reports.
fn fault(
    a: ShardAddr,
    r: &ReplicaReport,
    led: &ReplicaReport,
    leader: ShardAddr,
) -> Option<String> {
    if !r.healthy {
        return Some("reports a fault".into());
    }
    if a == leader {
        return None;
    }
    match led.followers.iter().find(|f| f.replica == a) {
        None => Some("unknown to the leader".into()),
        Some(f) if !f.active => Some("does not answer the leader".into()),
        Some(f) if f.lag > CAUGHT_UP_LAG_MAX => Some(format!("{} entries behind", f.lag)),
        Some(_) => None,
    }
}

/// Joins verdicts into the cluster's: unavailable is worse than degraded, degraded worse than
/// unknown.
pub(crate) struct Overall {
    health: Health,
    reasons: Vec<String>,
    more: usize,
}

impl Overall {
    pub(crate) fn new() -> Overall {
        Overall { health: Health::Healthy, reasons: Vec::new(), more: 0 }
    }

    /// Takes one part's verdict into account.
    pub(crate) fn add(&mut self, health: Health, reason: impl FnOnce() -> String) {
        let rank = |h| match h {
            Health::Healthy => 0,
            Health::Unknown => 1,
            Health::Degraded => 2,
            Health::Unavailable => 3,
        };
        if health == Health::Healthy {
            return;
        }
        if rank(health) > rank(self.health) {
            self.health = health;
        }
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason());
        } else {
            self.more += 1;
        }
    }

    /// The verdict and its reasons.
    pub(crate) fn finish(mut self) -> (Health, Vec<String>) {
        if self.more > 0 {
            self.reasons.push(format!("and {} more", self.more));
        }
        (self.health, self.reasons)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ogive_api::types::FollowerReport;
    use ogive_types::{ChunkserverId, CopysetId, Index};

    use super::*;
    use crate::volatile::Seen;

    fn addr(server: u32) -> ShardAddr {
        ShardAddr { server: ChunkserverId(server), shard: 0 }
    }

    fn three() -> Copyset {
        Copyset { id: CopysetId(7), members: vec![addr(1), addr(2), addr(3)], segments: 0 }
    }

    fn report(role: Role, term: u64, followers: &[(u32, u64, bool)]) -> ReplicaReport {
        let follower = |&(s, lag, active)| FollowerReport { replica: addr(s), lag, active };
        ReplicaReport {
            copyset: CopysetId(7),
            shard: 0,
            role,
            term: Term(term),
            applied: Index(5),
            last: Index(5),
            followers: followers.iter().map(follower).collect(),
            healthy: true,
        }
    }

    const ALL_WELL: &[(u32, u64, bool)] = &[(2, 0, true), (3, 9, true)];

    /// The verdict at 4 s of leadership, with heartbeats at the given milliseconds.
    fn verdict(beats: &[(u32, u64, Option<ReplicaReport>)], now_ms: u64) -> Verdict {
        let mut v = Volatile::default();
        v.lead(1, Time(0));
        for (server, at_ms, report) in beats {
            let reports: BTreeMap<_, _> =
                report.iter().map(|r| ((CopysetId(7), 0), r.clone())).collect();
            let seen = Seen { at: Time(at_ms * 1000), reports, ..Seen::default() };
            v.heard(ChunkserverId(*server), seen);
        }
        copyset(&three(), &v, Time(now_ms * 1000), &Timing::default())
    }

    fn follower(server: u32, at: u64) -> (u32, u64, Option<ReplicaReport>) {
        (server, at, Some(report(Role::Follower, 2, &[])))
    }

    #[test]
    fn a_device_is_well_until_something_must_be_done() {
        let mended = pb::DeviceHealth {
            damaged_blocks: 9,
            repaired_blocks: 9,
            near_full: true,
            ..pb::DeviceHealth::default()
        };
        assert_eq!(device_faults(&mended), Vec::<String>::new());
        let bad = pb::DeviceHealth {
            open_repairs: 3,
            unrepairable_blocks: 1,
            replace: true,
            full: true,
            ..mended
        };
        let said = device_faults(&bad).join("\n");
        for what in ["replace its device", "1 blocks have no good copy", "2 damaged", "refused"] {
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn the_table_holds() {
        let leader = |f| (1, 4000, Some(report(Role::Leader, 2, f)));
        let (two, three) = (follower(2, 4000), follower(3, 4000));
        let cases = [
            (vec![leader(ALL_WELL), two.clone(), three.clone()], Health::Healthy),
            (vec![leader(ALL_WELL), two.clone(), follower(3, 0)], Health::Degraded),
            (vec![leader(ALL_WELL), two.clone(), (3, 4000, None)], Health::Degraded),
            (vec![leader(&[(2, 0, true)]), two.clone(), three.clone()], Health::Degraded),
            (
                vec![leader(&[(2, 0, true), (3, 0, false)]), two.clone(), three.clone()],
                Health::Degraded,
            ),
            (
                vec![leader(&[(2, 0, true), (3, 9999, true)]), two.clone(), three.clone()],
                Health::Degraded,
            ),
            (vec![follower(1, 4000), two.clone(), three.clone()], Health::Unavailable),
            (vec![follower(1, 0), follower(2, 0), three.clone()], Health::Unavailable),
            (vec![(1, 4000, None), two.clone(), three.clone()], Health::Unknown),
            (vec![], Health::Unavailable),
        ];
        for (beats, health) in cases {
            let found = verdict(&beats, 4000);
            assert_eq!(found.health, health, "{beats:?}");
            assert_eq!(found.reason.is_empty(), health == Health::Healthy, "{found:?}");
        }
    }

    #[test]
    fn a_new_mds_leader_says_unknown_before_it_says_unavailable() {
        assert_eq!(verdict(&[], 100).health, Health::Unknown);
        assert_eq!(verdict(&[follower(2, 50)], 100).health, Health::Unknown);
        assert_eq!(verdict(&[], 3_000).health, Health::Unavailable);
    }

    #[test]
    fn a_deposed_leader_does_not_count() {
        let old = (1, 4000, Some(report(Role::Leader, 1, ALL_WELL)));
        let found = verdict(&[old, follower(2, 4000), follower(3, 4000)], 4000);
        assert_eq!((found.health, found.leader, found.term), (Health::Unavailable, None, Term(2)));
    }

    #[test]
    fn a_replica_that_reports_a_fault_degrades() {
        let mut bad = report(Role::Follower, 2, &[]);
        bad.healthy = false;
        let leader = (1, 4000, Some(report(Role::Leader, 2, ALL_WELL)));
        let found = verdict(&[leader, follower(2, 4000), (3, 4000, Some(bad))], 4000);
        assert_eq!(found.health, Health::Degraded);
        assert!(found.reason.contains("s3/0"), "{}", found.reason);
    }

    #[test]
    fn the_worst_part_gives_the_verdict() {
        let mut all = Overall::new();
        all.add(Health::Degraded, || "a".into());
        all.add(Health::Unknown, || "b".into());
        all.add(Health::Healthy, || unreachable!());
        assert_eq!(all.finish(), (Health::Degraded, vec!["a".into(), "b".into()]));
        let mut many = Overall::new();
        (0..REASONS_MAX + 3).for_each(|i| many.add(Health::Unavailable, || i.to_string()));
        assert_eq!(many.finish().1.last().map(String::as_str), Some("and 3 more"));
    }
}
