//! Numbered places for what is under way.

/// Values by small numbers, which are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Keeps a value; its number.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(value);
        place as u64
    }

    /// Gives a value back. Panics when there is none of that number.
    pub(super) fn remove(&mut self, number: u64) -> T {
        let value = self.places[number as usize].take().expect("a number that was given out");
        self.free.push(number as usize);
        value
    }
}
