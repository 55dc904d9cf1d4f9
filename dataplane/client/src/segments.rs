//! What is known of the volume's segments, and who waits to know more.
//!
//! | state | event | next |
//! |---|---|---|
//! | unknown | told: not allocated | unallocated |
//! | unknown, unallocated | told: copysets | allocated |
//! | unallocated | told: not allocated | unallocated (an answer to an earlier question) |
//! | allocated | anything | allocated: segments are never taken from an attached volume |
//!
//! An attachment is exclusive, so that nobody else allocates a segment behind this cache. One that
//! was taken over may read zeroes from it until it hears of that, at the latest with its next sign
//! of life; it never gets to know space that a newer one was given.

use std::collections::BTreeMap;

use ogive_types::{CopysetId, Time};

use crate::part::PartKey;

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// Not asked or not answered yet.
    Unknown,
    /// Reads as zeroes.
    Unallocated,
    /// Its chunks lie on these copysets.
    Allocated(Vec<CopysetId>),
}

struct Segment {
    state: SegmentState,
    waiting: Vec<PartKey>,
    /// When it was last asked for, and whether with allocation.
    asked: Option<(Time, bool)>,
}

/// The segments by number.
#[derive(Default)]
pub(crate) struct Segments {
    segments: BTreeMap<u32, Segment>,
}

impl Segments {
    pub(crate) fn state(&self, number: u32) -> &SegmentState {
        self.segments.get(&number).map_or(&SegmentState::Unknown, |s| &s.state)
    }

    /// Lets `part` wait. True when the question must be put now: it is new, or was put without
    /// allocation before.
    pub(crate) fn wait(&mut self, number: u32, part: PartKey, allocate: bool, now: Time) -> bool {
        let segment = self.segments.entry(number).or_insert_with(|| Segment {
            state: SegmentState::Unknown,
            waiting: Vec::new(),
            asked: None,
        });
        segment.waiting.push(part);
        if segment.asked.is_some_and(|(_, before)| before || !allocate) {
            return false;
        }
        segment.asked = Some((now, allocate));
        true
    }

    /// Takes an answer and returns who waited. Those that still lack something will wait again.
    pub(crate) fn told(&mut self, number: u32, copysets: Option<Vec<CopysetId>>) -> Vec<PartKey> {
        let Some(segment) = self.segments.get_mut(&number) else { return Vec::new() };
        match copysets {
            Some(sets) if !sets.is_empty() => {
                if !matches!(segment.state, SegmentState::Allocated(_)) {
                    segment.state = SegmentState::Allocated(sets);
                }
                segment.asked = None;
            }
            _ => {
                if segment.state == SegmentState::Unknown {
                    segment.state = SegmentState::Unallocated;
                }
                // An answer without allocation does not settle a question with it.
                if segment.asked.is_some_and(|(_, allocate)| !allocate) {
                    segment.asked = None;
                }
            }
        }
        std::mem::take(&mut segment.waiting)
    }

    /// Takes the news that the question cannot be answered, and returns who waited.
    pub(crate) fn failed(&mut self, number: u32) -> Vec<PartKey> {
        let Some(segment) = self.segments.get_mut(&number) else { return Vec::new() };
        segment.asked = None;
        std::mem::take(&mut segment.waiting)
    }

    /// Whether to put the question again: somebody still waits. The answer tells whether with
    /// allocation.
    pub(crate) fn ask_again(&mut self, number: u32, now: Time) -> Option<bool> {
        let segment = self.segments.get_mut(&number)?;
        let (at, allocate) = segment.asked.as_mut()?;
        *at = now;
        if segment.waiting.is_empty() {
            segment.asked = None;
            return None;
        }
        Some(*allocate)
    }

    /// Forgets one that waits.
    pub(crate) fn forget(&mut self, number: u32, part: PartKey) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.waiting.retain(|&p| p != part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::testing::part_keys;

    #[test]
    fn a_late_plain_answer_does_not_settle_an_allocation() {
        let keys = part_keys(3);
        let mut segments = Segments::default();
        assert!(segments.wait(7, keys[0], false, Time(1)), "first question");
        assert!(!segments.wait(7, keys[1], false, Time(1)), "asked already");
        assert!(segments.wait(7, keys[2], true, Time(1)), "asked, but not for allocation");
        assert_eq!(segments.told(7, None), keys);
        assert_eq!(segments.state(7), &SegmentState::Unallocated);
        assert!(!segments.wait(7, keys[2], true, Time(2)), "the allocation is still on its way");
        assert_eq!(segments.ask_again(7, Time(3)), Some(true));
        assert_eq!(segments.told(7, Some(vec![CopysetId(4)])), [keys[2]]);
        assert_eq!(segments.state(7), &SegmentState::Allocated(vec![CopysetId(4)]));
        segments.told(7, None);
        assert_eq!(segments.state(7), &SegmentState::Allocated(vec![CopysetId(4)]), "for good");
    }

    #[test]
    fn nobody_waiting_means_no_more_questions() {
        let keys = part_keys(1);
        let mut segments = Segments::default();
        segments.wait(1, keys[0], true, Time(1));
        segments.forget(1, keys[0]);
        assert_eq!(segments.ask_again(1, Time(2)), None);
        assert_eq!(segments.told(2, None), []);
    }
}
