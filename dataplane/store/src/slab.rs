//! Values under small numbers that are used again: operations in flight.

/// Values by the number that [`Slab::insert`] gave.
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts a value in; its number, which no other value has until it is removed.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(value);
            return u64::from(slot);
        }
        self.slots.push(Some(value));
        self.slots.len() as u64 - 1
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.slots.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let value = self.slots.get_mut(usize::try_from(number).ok()?)?.take()?;
        self.free.push(number as u32);
        Some(value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_at_a_time() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_ne!(a, b);
        assert_eq!((slab.remove(a), slab.remove(a)), (Some("a"), None));
        assert_eq!(slab.insert("c"), a, "used again");
        assert_eq!(slab.get_mut(a), Some(&mut "c"));
        assert!(!slab.is_empty());
        assert_eq!((slab.remove(a), slab.remove(b), slab.remove(9)), (Some("c"), Some("b"), None));
        assert!(slab.is_empty());
    }
}
