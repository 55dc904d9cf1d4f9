//! What will happen, ordered by simulated time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events by time in microseconds; those of one moment in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Item<E>>,
    added: u64,
}

#[derive(Debug)]
struct Item<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Agenda<E> {
        Agenda { heap: BinaryHeap::new(), added: 0 }
    }

    pub(crate) fn add(&mut self, at: u64, event: E) {
        self.added += 1;
        self.heap.push(Item { at, number: self.added, event });
    }

    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|item| (item.at, item.event))
    }
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Item<E>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Item<E> {}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Item<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Item<E>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_age() {
        let mut agenda = Agenda::new();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            agenda.add(at, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!(order, [(1, "a"), (2, "b"), (5, "c"), (5, "d")]);
    }
}
