//! Which copysets to create.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ogive_types::ShardAddr;

/// A shard that may hold replicas, and what it holds so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardUse {
    /// The shard.
    pub addr: ShardAddr,
    /// Its failure domain.
    pub zone: String,
    /// Replicas that it holds.
    pub holds: u32,
    /// Copysets that it is the preferred leader of.
    pub leads: u32,
}

/// Plans copysets until every shard is the preferred leader of `leads` of them, at most `limit` at
/// once.
///
/// | situation | decision |
/// |---|---|
/// | fewer zones than `replicas` | no copysets |
/// | every shard leads enough | no copysets |
/// | otherwise, as leader | the shard that leads fewest; of those the one that holds most, which leaves the others for the other places |
/// | as each further member | of the zones not yet used, the shard that holds fewest, counting those that it has yet to |
/// | | lead; of those the one that shares fewest of the copysets planned here with the members so far; then by address |
///
/// A shard thus leads exactly `leads` copysets and, with zones of equal size, holds `leads *
/// replicas` replicas. Sharing few copysets spreads the recovery of a lost shard over many others.
/// Shards that join later get copysets of their own; the old ones stay where they are.
pub fn plan_copysets(
    shards: &[ShardUse],
    replicas: usize,
    leads: u32,
    limit: usize,
) -> Vec<Vec<ShardAddr>> {
    let zones: BTreeSet<&str> = shards.iter().map(|s| s.zone.as_str()).collect();
    if replicas == 0 || zones.len() < replicas {
        return Vec::new();
    }
    let mut planner = Planner { shards: shards.to_vec(), leads, shared: BTreeMap::new() };
    let mut plan = Vec::new();
    while plan.len() < limit {
        match planner.next(replicas) {
            Some(copyset) => plan.push(copyset),
            None => break,
        }
    }
    plan
}

struct Planner {
    shards: Vec<ShardUse>,
    /// Copysets that each shard is to lead.
    leads: u32,
    /// Copysets of this plan that two shards are both in; the smaller address first.
    shared: BTreeMap<(ShardAddr, ShardAddr), u32>,
}

impl Planner {
    fn next(&mut self, replicas: usize) -> Option<Vec<ShardAddr>> {
        let leader = (0..self.shards.len())
            .filter(|&i| self.shards[i].leads < self.leads)
            .min_by_key(|&i| (self.shards[i].leads, Reverse(self.load(i)), self.shards[i].addr))?;
        let mut chosen = vec![leader];
        while chosen.len() < replicas {
            chosen.push(self.further_member(&chosen));
        }
        self.shards[leader].leads += 1;
        for &i in &chosen {
            self.shards[i].holds += 1;
        }
        let members: Vec<ShardAddr> = chosen.iter().map(|&i| self.shards[i].addr).collect();
        for (n, &a) in members.iter().enumerate() {
            for &b in &members[n + 1..] {
                *self.shared.entry((a.min(b), a.max(b))).or_default() += 1;
            }
        }
        Some(members)
    }

    fn further_member(&self, chosen: &[usize]) -> usize {
        let free = |i: &usize| chosen.iter().all(|&c| self.shards[c].zone != self.shards[*i].zone);
        let sharing = |i: usize| -> u32 {
            chosen.iter().map(|&c| self.shared_by(self.shards[c].addr, self.shards[i].addr)).sum()
        };
        (0..self.shards.len())
            .filter(free)
            .min_by_key(|&i| (self.load(i), sharing(i), self.shards[i].addr))
            .expect("there are at least as many zones as replicas")
    }

    /// Replicas that a shard holds or will hold because it has yet to lead them.
    fn load(&self, i: usize) -> u32 {
        let shard = &self.shards[i];
        shard.holds + self.leads.saturating_sub(shard.leads)
    }

    fn shared_by(&self, a: ShardAddr, b: ShardAddr) -> u32 {
        self.shared.get(&(a.min(b), a.max(b))).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use ogive_types::ChunkserverId;
    use proptest::prelude::*;

    use super::*;

    /// `zones[z]` chunkservers in zone `z`, each with `shards` shards.
    fn cluster(zones: &[u32], shards: u16) -> Vec<ShardUse> {
        let mut all = Vec::new();
        let mut server = 0;
        for (z, &count) in zones.iter().enumerate() {
            for _ in 0..count {
                server += 1;
                all.extend((0..shards).map(|shard| ShardUse {
                    addr: ShardAddr { server: ChunkserverId(server), shard },
                    zone: format!("z{z}"),
                    holds: 0,
                    leads: 0,
                }));
            }
        }
        all
    }

    fn zone_of(shards: &[ShardUse], addr: ShardAddr) -> String {
        shards.iter().find(|s| s.addr == addr).unwrap().zone.clone()
    }

    fn count(
        plan: &[Vec<ShardAddr>],
        of: impl Fn(&[ShardAddr]) -> Vec<ShardAddr>,
    ) -> BTreeMap<ShardAddr, u32> {
        let mut counts = BTreeMap::new();
        plan.iter().flat_map(|c| of(c)).for_each(|a| *counts.entry(a).or_default() += 1);
        counts
    }

    #[test]
    fn too_few_zones_make_no_copysets() {
        assert!(plan_copysets(&cluster(&[5, 5], 2), 3, 2, 100).is_empty());
        assert!(plan_copysets(&[], 3, 2, 100).is_empty());
        assert!(plan_copysets(&cluster(&[1], 1), 0, 2, 100).is_empty());
    }

    #[test]
    fn three_chunkservers_share_evenly() {
        let plan = plan_copysets(&cluster(&[1, 1, 1], 1), 3, 2, 100);
        assert_eq!(plan.len(), 6);
        assert!(count(&plan, |c| vec![c[0]]).values().all(|&n| n == 2));
        assert!(count(&plan, |c| c.to_vec()).values().all(|&n| n == 6));
    }

    #[test]
    fn a_newcomer_gets_copysets_of_its_own() {
        let mut shards = cluster(&[1, 1, 1], 1);
        for shard in &mut shards {
            (shard.holds, shard.leads) = (6, 2);
        }
        assert!(plan_copysets(&shards, 3, 2, 100).is_empty(), "enough is enough");
        let new = ShardAddr { server: ChunkserverId(9), shard: 0 };
        shards.push(ShardUse { addr: new, zone: "z0".into(), holds: 0, leads: 0 });
        let plan = plan_copysets(&shards, 3, 2, 100);
        assert_eq!(plan.len(), 2);
        assert!(plan.iter().all(|c| c[0] == new));
    }

    #[test]
    fn recovery_of_a_shard_is_spread() {
        let plan = plan_copysets(&cluster(&[4, 4, 4], 1), 3, 4, 1000);
        let lost = plan[0][0];
        let partners: BTreeSet<_> =
            plan.iter().filter(|c| c.contains(&lost)).flatten().filter(|a| **a != lost).collect();
        assert!(partners.len() >= 6, "{} of 8 possible partners", partners.len());
    }

    proptest! {
        #[test]
        fn members_are_in_distinct_zones_and_leaders_are_even(
            zones in prop::collection::vec(1u32..4, 1..6),
            shards in 1u16..4,
            replicas in 1usize..5,
            leads in 1u32..4,
        ) {
            let uses = cluster(&zones, shards);
            let plan = plan_copysets(&uses, replicas, leads, usize::MAX);
            if zones.len() < replicas {
                prop_assert!(plan.is_empty());
                return Ok(());
            }
            prop_assert_eq!(plan.len(), uses.len() * leads as usize);
            for copyset in &plan {
                let in_zones: BTreeSet<_> = copyset.iter().map(|&a| zone_of(&uses, a)).collect();
                prop_assert_eq!(in_zones.len(), replicas);
            }
            let led = count(&plan, |c| vec![c[0]]);
            prop_assert!(uses.iter().all(|u| led.get(&u.addr) == Some(&leads)));
        }

        #[test]
        fn zones_of_equal_size_hold_evenly(
            per_zone in 1u32..5, zones in 3usize..6, shards in 1u16..3, leads in 1u32..4,
        ) {
            let uses = cluster(&vec![per_zone; zones], shards);
            let plan = plan_copysets(&uses, 3, leads, usize::MAX);
            let held = count(&plan, |c| c.to_vec());
            let (least, most) = (held.values().min().unwrap(), held.values().max().unwrap());
            prop_assert!(most - least <= 2, "{} to {}", least, most);
        }
    }
}
