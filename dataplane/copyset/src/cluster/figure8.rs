//! The history of figure 3.7 of Ongaro's thesis, too rare for chance: an older term's entry reaches
//! a majority and is then replaced.

use ogive_types::LogPos;

use super::world::World;
use crate::Role;
use crate::mutant::Mutant;

impl World {
    fn leader_among(&self, candidates: &[usize]) -> Option<usize> {
        let leads = |&&at: &&usize| {
            self.nodes[at].core.as_ref().is_some_and(|core| core.role() == Role::Leader)
        };
        candidates.iter().find(leads).copied()
    }

    fn run_until_leader(&mut self, candidates: &[usize]) -> usize {
        let end = self.now + 2_000_000;
        loop {
            if let Some(leader) = self.leader_among(candidates) {
                return leader;
            }
            let event = self.next_event(end).expect("a leader is elected");
            self.step(event);
        }
    }

    fn run_for(&mut self, us: u64) {
        self.run_until(self.now + us);
    }

    fn last(&self, at: usize) -> LogPos {
        self.nodes[at].log.last()
    }

    fn figure8(&mut self) {
        let all: Vec<usize> = (0..5).collect();
        let a = self.run_until_leader(&all);
        self.run_for(50_000);
        // A writes an entry that nobody else gets.
        self.net.drop_entries_of = Some(self.nodes[a].core.as_ref().expect("up").term());
        let now = self.local(a);
        let pos = self.nodes[a].core.as_mut().expect("up").propose(now).expect("leads");
        self.append_own(a, pos);
        self.run_for(5_000);
        self.crash(a);
        // B leads in a later term and writes another entry there that nobody else gets.
        let rest: Vec<usize> = all.into_iter().filter(|&at| at != a).collect();
        self.net.drop_all_entries = true;
        let b = self.run_until_leader(&rest);
        self.run_for(5_000);
        assert_eq!(self.last(b).index, pos.index);
        let others: Vec<usize> = rest.into_iter().filter(|&at| at != b).collect();
        self.crash(b);
        self.crash(others[0]);
        // A leads again, by the votes of two; its old entry reaches them, its new one does not.
        self.restart(a);
        let again = self.run_until_leader(&[a, others[1], others[2]]);
        assert_eq!(again, a, "the others have shorter logs");
        self.net.drop_entries_of = Some(self.nodes[a].core.as_ref().expect("up").term());
        self.net.drop_all_entries = false;
        self.run_for(40_000);
        assert_eq!(self.last(others[1]), pos, "a majority has the old entry");
        assert_eq!(self.last(others[2]), pos, "a majority has the old entry");
        // B is back, and its log is newer than that of the majority.
        self.crash(a);
        self.net.drop_entries_of = None;
        self.restart(b);
        let winner = self.run_until_leader(&[b, others[1], others[2]]);
        assert_eq!(winner, b, "the log of B is the newest");
        self.run_for(100_000);
        assert_ne!(self.last(others[1]).index, pos.index, "the old entry was replaced");
    }
}

fn history(mutant: Option<Mutant>) -> Result<(), String> {
    let mut world = World::new(8, 5, mutant);
    (world.timing.inflight_max, world.timing.batch_entries_max) = (1, 1);
    for at in 0..5 {
        world.crash(at);
        world.restart(at);
    }
    super::caught(|| world.figure8())
}

#[test]
fn an_old_entry_on_a_majority_may_still_be_replaced() {
    assert_eq!(history(None), Ok(()));
    let text = history(Some(Mutant::CommitOldTerm)).expect_err("found");
    assert!(text.contains("leader completeness"), "{text}");
}
