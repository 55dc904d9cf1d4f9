//! Which copysets serve a new segment.

use std::collections::BTreeMap;

use ogive_types::{CopysetId, ShardAddr};

/// A copyset as the segment planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopysetUse {
    /// The copyset.
    pub id: CopysetId,
    /// Segments that use it.
    pub segments: u64,
    /// Its preferred leader.
    pub leader: ShardAddr,
    /// True when it should not get new data, because it has no leader or lacks replicas.
    pub avoid: bool,
}

/// Chooses up to `count` distinct copysets for a segment.
///
/// | situation | decision |
/// |---|---|
/// | no copysets | none |
/// | fewer copysets than `count` | all that are not avoided, or all when all are avoided |
/// | each in turn, of those not avoided | the one whose preferred leader was chosen least for this segment; of those the one |
/// | | with fewest segments; then by id |
/// | all are avoided | as if none were: waiting for a copyset to recover is better than no space |
///
/// The order matters: chunk `n` of the segment lies in the copyset at place `n` modulo their
/// number, so that neighbouring chunks have different leaders.
pub fn plan_segment(copysets: &[CopysetUse], count: usize) -> Vec<CopysetId> {
    let all_avoided = copysets.iter().all(|c| c.avoid);
    let mut left: Vec<&CopysetUse> = copysets.iter().filter(|c| all_avoided || !c.avoid).collect();
    let mut by_leader: BTreeMap<ShardAddr, u32> = BTreeMap::new();
    let mut chosen = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        let used = |c: &CopysetUse| by_leader.get(&c.leader).copied().unwrap_or(0);
        let best = (0..left.len())
            .min_by_key(|&i| (used(left[i]), left[i].segments, left[i].id))
            .expect("there are some left");
        let copyset = left.swap_remove(best);
        *by_leader.entry(copyset.leader).or_default() += 1;
        chosen.push(copyset.id);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ogive_types::ChunkserverId;
    use proptest::prelude::*;

    use super::*;

    fn copyset(id: u32, segments: u64, leader: u32, avoid: bool) -> CopysetUse {
        let leader = ShardAddr { server: ChunkserverId(leader), shard: 0 };
        CopysetUse { id: CopysetId(id), segments, leader, avoid }
    }

    #[test]
    fn least_used_and_different_leaders_first() {
        let all = [
            copyset(1, 5, 1, false),
            copyset(2, 0, 1, false),
            copyset(3, 1, 2, false),
            copyset(4, 9, 3, false),
        ];
        let chosen = plan_segment(&all, 4);
        assert_eq!(chosen, [2, 3, 4, 1].map(CopysetId));
    }

    #[test]
    fn avoided_ones_are_a_last_resort() {
        let one = [copyset(1, 0, 1, true), copyset(2, 100, 2, false)];
        assert_eq!(plan_segment(&one, 2), [CopysetId(2)]);
        let none = [copyset(1, 0, 1, true), copyset(2, 100, 2, true)];
        assert_eq!(plan_segment(&none, 2).len(), 2);
        assert!(plan_segment(&[], 2).is_empty());
    }

    proptest! {
        #[test]
        fn segments_spread_evenly(copysets in 1u32..20, leaders in 1u32..5, count in 1usize..8) {
            let all = (0..copysets).map(|id| copyset(id, 0, id % leaders, false));
            let mut all: Vec<_> = all.collect();
            for _ in 0..100 {
                let chosen = plan_segment(&all, count);
                prop_assert_eq!(chosen.len(), count.min(all.len()));
                prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
                for c in all.iter_mut().filter(|c| chosen.contains(&c.id)) {
                    c.segments += 1;
                }
            }
            for leader in 0..leaders {
                let of: Vec<u64> = all
                    .iter()
                    .filter(|c| c.leader.server.0 == leader)
                    .map(|c| c.segments)
                    .collect();
                if let (Some(least), Some(most)) = (of.iter().min(), of.iter().max()) {
                    prop_assert!(most - least <= 1, "{} to {}", least, most);
                }
            }
        }
    }
}
