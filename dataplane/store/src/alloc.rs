//! Which of many equal places are free: a bitmap with a summary, searched onwards from the last
//! find (next fit).

/// A set of places `0 .. len`, each free or taken.
pub(crate) struct Allocator {
    /// Bit set: free.
    words: Vec<u64>,
    /// Bit set: the word has a free place.
    summary: Vec<u64>,
    len: u32,
    free: u32,
    cursor: u32,
}

impl Allocator {
    /// All free.
    pub(crate) fn new(len: u32) -> Allocator {
        let words = (len as usize).div_ceil(64);
        let mut a = Allocator {
            words: vec![0; words],
            summary: vec![0; words.div_ceil(64)],
            len,
            free: 0,
            cursor: 0,
        };
        for (i, word) in a.words.iter_mut().enumerate() {
            let left = len as usize - i * 64;
            *word = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            a.summary[i / 64] |= 1 << (i % 64);
        }
        a.free = len;
        a
    }

    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_free(&self, place: u32) -> bool {
        self.words[place as usize / 64] >> (place % 64) & 1 == 1
    }

    /// Takes a place that must be free.
    pub(crate) fn take(&mut self, place: u32) {
        assert!(place < self.len && self.is_free(place), "place {place} is taken twice");
        let word = place as usize / 64;
        self.words[word] &= !(1 << (place % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
        self.free -= 1;
    }

    /// Gives back a place that must be taken.
    pub(crate) fn give(&mut self, place: u32) {
        assert!(place < self.len && !self.is_free(place), "place {place} is freed twice");
        let word = place as usize / 64;
        self.words[word] |= 1 << (place % 64);
        self.summary[word / 64] |= 1 << (word % 64);
        self.free += 1;
    }

    /// Takes up to `want` neighbouring places, the first free ones from the cursor on; `(first,
    /// count)`, or `None` when nothing is free.
    pub(crate) fn take_run(&mut self, want: u32) -> Option<(u32, u32)> {
        if self.free == 0 || want == 0 {
            return None;
        }
        let first = self.next_free(self.cursor).or_else(|| self.next_free(0))?;
        let mut count = 0;
        while count < want && first + count < self.len && self.is_free(first + count) {
            self.take(first + count);
            count += 1;
        }
        self.cursor = if first + count < self.len { first + count } else { 0 };
        Some((first, count))
    }

    /// The first free place at or after `from`.
    fn next_free(&self, from: u32) -> Option<u32> {
        let start = from as usize / 64;
        let word = self.words.get(start)? & (u64::MAX << (from % 64));
        if word != 0 {
            return Some((start * 64) as u32 + word.trailing_zeros());
        }
        let next = start + 1;
        let mut at = next / 64;
        let mut bits = *self.summary.get(at)? & (u64::MAX << (next % 64));
        while bits == 0 {
            at += 1;
            bits = *self.summary.get(at)?;
        }
        let word = at * 64 + bits.trailing_zeros() as usize;
        Some((word * 64) as u32 + self.words[word].trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_are_contiguous_until_space_is_scattered() {
        let mut a = Allocator::new(200);
        assert_eq!(a.take_run(150), Some((0, 150)));
        assert_eq!(a.take_run(100), Some((150, 50)));
        assert_eq!(a.take_run(1), None);
        a.give(7);
        a.give(9);
        assert_eq!(a.take_run(5), Some((7, 1)));
        assert_eq!(a.take_run(5), Some((9, 1)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(
            len in 1u32..9000,
            steps in prop::collection::vec((any::<bool>(), 1u32..300), 1..120),
        ) {
            let mut a = Allocator::new(len);
            let mut taken = BTreeSet::new();
            for (take, n) in steps {
                if take {
                    match a.take_run(n) {
                        Some((first, count)) => {
                            prop_assert!(count >= 1 && count <= n);
                            for p in first..first + count {
                                prop_assert!(p < len && taken.insert(p));
                            }
                        }
                        None => prop_assert_eq!(taken.len() as u32, len),
                    }
                } else if let Some(&p) = taken.iter().nth(n as usize % taken.len().max(1)) {
                    taken.remove(&p);
                    a.give(p);
                }
                prop_assert_eq!(a.free(), len - taken.len() as u32);
            }
        }
    }
}
