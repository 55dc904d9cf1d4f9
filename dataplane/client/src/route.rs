//! The search for a copyset's leader.
//!
//! While the leader is not known, one small probe at a time goes from member to member, and the
//! parts that need the copyset wait; so a search costs no payload, and a dead leader is not asked
//! by everyone at once.
//!
//! | state | event | next |
//! |---|---|---|
//! | idle | a part needs the copyset | searching: probe the preferred member |
//! | known | leader lost, or says that it is not | searching: probe the member after it |
//! | searching | a member answers with its term | known |
//! | searching | refused, with a hint | searching: probe the hint, unless hints go in circles |
//! | searching | refused, no hint; unreachable; late | searching: next member, a pause each round |
//! | searching | pause over, topology changed | searching: next member |
//! | searching | nobody waits any more | idle |
//!
//! A member that claims an older term than one seen before is deposed and does not know it:
//! refused.

use ogive_types::{ChunkId, ShardAddr, Term};

use crate::part::PartKey;

/// What a route does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this member.
    Probe(ShardAddr),
    /// All members were asked this many times; wait.
    Pause(u32),
    /// Nothing: the search goes on, or is not wanted.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// `candidate` is being asked; `None` in a pause.
    Searching {
        candidate: Option<ShardAddr>,
        misses: u32,
        hops: u32,
    },
    Known {
        leader: ShardAddr,
        term: Term,
    },
}

/// What is known of one copyset's leader.
#[derive(Debug)]
pub(crate) struct Route {
    state: State,
    cursor: usize,
    term_seen: Term,
    /// Parts that wait for the leader.
    pub(crate) waiting: Vec<PartKey>,
    /// A chunk of the copyset, for probes.
    pub(crate) chunk: ChunkId,
}

impl Route {
    pub(crate) fn new(chunk: ChunkId) -> Route {
        let (state, term_seen) = (State::Idle, Term(0));
        Route { state, cursor: 0, term_seen, waiting: Vec::new(), chunk }
    }

    /// The leader and its term.
    pub(crate) fn known(&self) -> Option<(ShardAddr, Term)> {
        match self.state {
            State::Known { leader, term } => Some((leader, term)),
            _ => None,
        }
    }

    /// Rounds in which all members were asked in vain.
    pub(crate) fn rounds(&self, members: &[ShardAddr]) -> u32 {
        match self.state {
            State::Searching { misses, .. } => misses / members.len().max(1) as u32,
            _ => 0,
        }
    }

    /// Starts a search, unless one runs or the leader is known.
    pub(crate) fn search(&mut self, members: &[ShardAddr]) -> Step {
        if self.state != State::Idle {
            return Step::Nothing;
        }
        self.probe_cursor(members, 0)
    }

    /// The leader `was` is lost: searches among the others first, with `hint` first of all.
    pub(crate) fn lost(
        &mut self,
        was: ShardAddr,
        hint: Option<ShardAddr>,
        members: &[ShardAddr],
    ) -> Step {
        if self.known().is_none_or(|(leader, _)| leader != was) {
            return Step::Nothing;
        }
        if self.waiting.is_empty() {
            self.state = State::Idle;
            self.cursor =
                hint.and_then(|h| position(members, h)).unwrap_or_else(|| after(members, was));
            return Step::Nothing;
        }
        self.cursor = after(members, was);
        match hint.filter(|h| *h != was && members.contains(h)) {
            Some(hint) => self.probe(hint, 0, 1),
            None => self.probe_cursor(members, 0),
        }
    }

    /// `from` does not lead, or cannot be asked.
    pub(crate) fn refused(
        &mut self,
        from: ShardAddr,
        hint: Option<ShardAddr>,
        members: &[ShardAddr],
    ) -> Step {
        let State::Searching { candidate, misses, hops } = self.state else { return Step::Nothing };
        if candidate != Some(from) {
            return Step::Nothing;
        }
        if self.waiting.is_empty() {
            self.state = State::Idle;
            return Step::Nothing;
        }
        let hint =
            hint.filter(|h| *h != from && members.contains(h) && hops < members.len() as u32);
        if let Some(hint) = hint {
            return self.probe(hint, misses, hops + 1);
        }
        self.cursor = (self.cursor + 1) % members.len().max(1);
        let misses = misses + 1;
        if misses.is_multiple_of(members.len().max(1) as u32) {
            self.state = State::Searching { candidate: None, misses, hops: 0 };
            return Step::Pause(self.rounds(members));
        }
        self.probe_cursor(members, misses)
    }

    /// A pause is over, or the members may have changed.
    pub(crate) fn resume(&mut self, members: &[ShardAddr]) -> Step {
        let State::Searching { candidate: None, misses, .. } = self.state else {
            return Step::Nothing;
        };
        if self.waiting.is_empty() {
            self.state = State::Idle;
            return Step::Nothing;
        }
        self.probe_cursor(members, misses)
    }

    /// `from` leads in `term` (0: it did not say). False when it is a deposed leader that does not
    /// know it.
    pub(crate) fn found(&mut self, from: ShardAddr, term: Term) -> bool {
        if term != Term(0) && term < self.term_seen {
            return false;
        }
        self.term_seen = self.term_seen.max(term);
        self.state = State::Known { leader: from, term };
        true
    }

    fn probe_cursor(&mut self, members: &[ShardAddr], misses: u32) -> Step {
        if members.is_empty() {
            self.state = State::Searching { candidate: None, misses: misses + 1, hops: 0 };
            return Step::Pause(misses + 1);
        }
        self.cursor %= members.len();
        self.probe(members[self.cursor], misses, 0)
    }

    fn probe(&mut self, member: ShardAddr, misses: u32, hops: u32) -> Step {
        self.state = State::Searching { candidate: Some(member), misses, hops };
        Step::Probe(member)
    }
}

fn position(members: &[ShardAddr], member: ShardAddr) -> Option<usize> {
    members.iter().position(|&m| m == member)
}

fn after(members: &[ShardAddr], member: ShardAddr) -> usize {
    position(members, member).map_or(0, |i| (i + 1) % members.len())
}

#[cfg(test)]
mod tests {
    use ogive_types::{ChunkserverId, VolumeId};

    use super::*;
    use crate::part::testing::part_keys;

    fn shard(n: u32) -> ShardAddr {
        ShardAddr { server: ChunkserverId(n), shard: 0 }
    }

    fn route() -> (Route, Vec<ShardAddr>) {
        let mut route = Route::new(ChunkId { volume: VolumeId(1), number: 0 });
        route.waiting = part_keys(1);
        (route, vec![shard(1), shard(2), shard(3)])
    }

    #[test]
    fn asks_each_member_then_pauses() {
        let (mut r, m) = route();
        assert_eq!(r.search(&m), Step::Probe(shard(1)));
        assert_eq!(r.search(&m), Step::Nothing, "one search at a time");
        assert_eq!(r.refused(shard(3), None, &m), Step::Nothing, "not the one asked");
        assert_eq!(r.refused(shard(1), None, &m), Step::Probe(shard(2)));
        assert_eq!(r.refused(shard(2), None, &m), Step::Probe(shard(3)));
        assert_eq!(r.refused(shard(3), None, &m), Step::Pause(1));
        assert_eq!(r.resume(&m), Step::Probe(shard(1)));
    }

    #[test]
    fn follows_hints_but_not_in_circles() {
        let (mut r, m) = route();
        r.search(&m);
        assert_eq!(r.refused(shard(1), Some(shard(3)), &m), Step::Probe(shard(3)));
        let mut at = 3;
        let mut hops = 1;
        while let Step::Probe(next) = r.refused(shard(at), Some(shard(4 - at)), &m) {
            if next != shard(4 - at) {
                break;
            }
            at = 4 - at;
            hops += 1;
        }
        assert_eq!(hops, 3, "as many hints as members, then the next in turn");
        assert_eq!(r.refused(shard(9), Some(shard(1)), &m), Step::Nothing);
    }

    #[test]
    fn a_lost_leader_is_asked_last_and_a_deposed_one_not_believed() {
        let (mut r, m) = route();
        r.search(&m);
        assert!(r.found(shard(1), Term(5)));
        assert_eq!(r.lost(shard(2), None, &m), Step::Nothing, "it does not lead");
        assert_eq!(r.lost(shard(1), None, &m), Step::Probe(shard(2)));
        assert!(!r.found(shard(2), Term(4)));
        assert_eq!(r.known(), None);
        assert!(r.found(shard(3), Term(6)));
        assert_eq!(r.lost(shard(3), Some(shard(1)), &m), Step::Probe(shard(1)));
    }

    #[test]
    fn without_members_or_waiters_it_rests() {
        let (mut r, m) = route();
        assert_eq!(r.search(&[]), Step::Pause(1));
        r.waiting.clear();
        assert_eq!(r.resume(&m), Step::Nothing);
        r.waiting = part_keys(1);
        assert_eq!(r.search(&m), Step::Probe(shard(1)));
    }
}
