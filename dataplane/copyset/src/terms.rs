//! The shape of the log: which term each index has, as runs of terms.
//!
//! ```text
//! index   4     5   6   7     8   9
//! term    1     1   1   3     3   3        prev = (1, 4)   runs = [5: 1] [7: 3]   last = (3, 9)
//!         prev  ^ run         ^ run
//! ```
//!
//! `prev` is the position before the first entry that is kept; its term is known, so that the first
//! entry can be matched. A run is started by an election, so there are few.

use ogive_types::{Index, LogPos, Term};

/// Entries of one term: from `start` to the start of the next run, or to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// Index of the first entry.
    pub start: Index,
    /// Its term.
    pub term: Term,
}

#[derive(Clone, Debug)]
pub(crate) struct LogShape {
    prev: LogPos,
    runs: Vec<TermRun>,
    last: LogPos,
}

impl LogShape {
    /// The shape that a store reports. Panics when it contradicts itself: the store checked it.
    pub(crate) fn restore(prev: LogPos, runs: Vec<TermRun>, last: LogPos) -> LogShape {
        let mut before = prev;
        for (i, run) in runs.iter().enumerate() {
            assert!(i > 0 || run.start == prev.index.next(), "the first run starts behind {prev}");
            assert!(i == 0 || run.start > before.index && run.term > before.term, "runs ascend");
            assert!(run.term >= before.term && run.start <= last.index, "runs lie inside the log");
            before = LogPos { term: run.term, index: run.start };
        }
        assert_eq!(before.term, last.term, "the last run reaches the end");
        assert!(!runs.is_empty() || last == prev, "entries have runs");
        LogShape { prev, runs, last }
    }

    pub(crate) fn prev(&self) -> LogPos {
        self.prev
    }

    pub(crate) fn last(&self) -> LogPos {
        self.last
    }

    /// Term of the entry at `index`; `None` before `prev` and past the end.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last.index || index < self.prev.index {
            return None;
        }
        let run = self.runs.iter().rev().find(|run| run.start <= index);
        Some(run.map_or(self.prev.term, |run| run.term))
    }

    /// Position of the entry at `index`, as [`LogShape::term_at`].
    pub(crate) fn pos_at(&self, index: Index) -> Option<LogPos> {
        self.term_at(index).map(|term| LogPos { term, index })
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, term: Term) -> LogPos {
        assert!(term >= self.last.term, "terms never decrease along a log");
        let index = self.last.index.next();
        if self.runs.is_empty() || term > self.last.term {
            self.runs.push(TermRun { start: index, term });
        }
        self.last = LogPos { term, index };
        self.last
    }

    /// Drops the entries from `index` to the end.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        assert!(index > self.prev.index && index <= self.last.index, "truncates what it holds");
        while self.runs.last().is_some_and(|run| run.start >= index) {
            self.runs.pop();
        }
        let term = self.runs.last().map_or(self.prev.term, |run| run.term);
        self.last = LogPos { term, index: index.prev() };
    }

    /// Forgets the entries up to `upto`, which the log holds.
    pub(crate) fn release(&mut self, upto: Index) {
        let Some(prev) = self.pos_at(upto) else {
            assert!(upto < self.prev.index, "releases what it holds");
            return;
        };
        let covered = self.runs.iter().take_while(|run| run.start <= upto.next()).count();
        let inside = self.runs.get(covered.wrapping_sub(1)).map(|run| run.term);
        self.runs.drain(..covered);
        if let Some(term) = inside.filter(|_| upto < self.last.index) {
            self.runs.insert(0, TermRun { start: upto.next(), term });
        }
        self.prev = prev;
    }

    /// An empty log behind `pos`.
    pub(crate) fn reset(&mut self, pos: LogPos) {
        self.runs.clear();
        (self.prev, self.last) = (pos, pos);
    }

    /// The last position at or before `index` whose term is at most `term`; `None` when it lies
    /// before `prev`. Two logs that differ at some place agree, if anywhere, at or before what this
    /// returns.
    pub(crate) fn last_of_term(&self, index: Index, term: Term) -> Option<LogPos> {
        let mut index = index.min(self.last.index);
        for run in self.runs.iter().rev() {
            if run.start > index {
                continue;
            }
            if run.term <= term {
                return Some(LogPos { term: run.term, index });
            }
            index = run.start.prev();
        }
        (index == self.prev.index && self.prev.term <= term).then_some(self.prev)
    }

    /// How many of the entries behind `prev`, of these terms, the log holds already.
    pub(crate) fn held(&self, prev: Index, terms: &[Term]) -> usize {
        if prev == self.last.index {
            return 0;
        }
        let same = |(i, &term): (usize, &Term)| {
            let index = Index(prev.0 + 1 + i as u64);
            index <= self.prev.index || self.term_at(index) == Some(term)
        };
        terms.iter().enumerate().take_while(|&entry| same(entry)).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(prev: LogPos, terms: &[u64]) -> LogShape {
        let mut shape = LogShape::restore(prev, Vec::new(), prev);
        for &term in terms {
            shape.push(Term(term));
        }
        shape
    }

    fn pos(term: u64, index: u64) -> LogPos {
        LogPos { term: Term(term), index: Index(index) }
    }

    #[test]
    fn hints_skip_whole_terms() {
        let log = shape(pos(1, 4), &[1, 1, 3, 3, 3]);
        let cases = [
            ((9, 3), Some(pos(3, 9))),
            ((99, 9), Some(pos(3, 9))),
            ((8, 2), Some(pos(1, 6))),
            ((5, 2), Some(pos(1, 5))),
            ((4, 1), Some(pos(1, 4))),
            ((9, 0), None),
            ((3, 9), None),
        ];
        for ((index, term), expected) in cases {
            assert_eq!(log.last_of_term(Index(index), Term(term)), expected, "{index} {term}");
        }
    }

    proptest! {
        /// Against the plainest model: a vector of terms.
        #[test]
        fn behaves_like_a_list_of_terms(
            prev_index in 0u64..5,
            ops in proptest::collection::vec((0u8..4, 0u64..12), 0..60),
        ) {
            let mut prev = pos(u64::from(prev_index > 0), prev_index);
            let mut log = shape(prev, &[]);
            let mut model: Vec<u64> = Vec::new();
            for (op, arg) in ops {
                let last_term = model.last().copied().unwrap_or(prev.term.0);
                let len = model.len() as u64;
                match op {
                    0 | 1 => {
                        model.push(last_term.max(1) + arg / 9);
                        log.push(Term(*model.last().expect("pushed")));
                    }
                    2 if len > 0 => {
                        let keep = arg % len;
                        log.truncate_from(Index(prev.index.0 + keep + 1));
                        model.truncate(keep as usize);
                    }
                    3 if len > 0 => {
                        let drop = arg % (len + 1);
                        log.release(Index(prev.index.0 + drop));
                        if drop > 0 {
                            prev = pos(model[drop as usize - 1], prev.index.0 + drop);
                            model.drain(..drop as usize);
                        }
                    }
                    _ => {}
                }
                let at = |i: u64| match i.checked_sub(prev.index.0) {
                    Some(0) => Some(prev.term.0),
                    Some(n) => model.get(n as usize - 1).copied(),
                    None => None,
                };
                for i in 0..prev.index.0 + model.len() as u64 + 3 {
                    prop_assert_eq!(log.term_at(Index(i)), at(i).map(Term));
                    for term in 0..8 {
                        let best = (0..=i).rev().find(|&j| at(j).is_some_and(|t| t <= term));
                        let best = best.map(|j| pos(at(j).expect("found"), j));
                        prop_assert_eq!(log.last_of_term(Index(i), Term(term)), best);
                    }
                }
                prop_assert_eq!(log.prev(), prev);
                prop_assert_eq!(log.last().index.0, prev.index.0 + model.len() as u64);
                let copy = LogShape::restore(log.prev(), log.runs.clone(), log.last());
                prop_assert_eq!(copy.runs, log.runs.clone());
            }
        }
    }
}
