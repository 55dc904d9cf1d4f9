//! Counts of what is alive, so that tests and metrics find leaks. Objects of this crate never leave
//! their thread, so the counts are of the thread too.

use std::cell::Cell;
use std::marker::PhantomData;

/// What is alive in this thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alive {
    /// Contexts that are initialised.
    pub contexts: usize,
    /// Workers that UCX has not destroyed.
    pub workers: usize,
    /// Endpoints that UCX has not closed, also those being closed in the background.
    pub endpoints: usize,
    /// Listeners.
    pub listeners: usize,
    /// Connection requests that were neither accepted nor rejected.
    pub requests: usize,
    /// Registered arenas.
    pub regions: usize,
    /// Unpacked keys of remote memory.
    pub keys: usize,
    /// Messages that hold a descriptor of UCX: kept, and announced but not received.
    pub messages: usize,
    /// Operations in flight, each with its buffers, closes included.
    pub operations: usize,
}

thread_local! {
    static ALIVE: Cell<Alive> = const {
        Cell::new(Alive {
            contexts: 0,
            workers: 0,
            endpoints: 0,
            listeners: 0,
            requests: 0,
            regions: 0,
            keys: 0,
            messages: 0,
            operations: 0,
        })
    };
}

/// What is alive in this thread now. All zero once everything was dropped.
pub fn alive() -> Alive {
    ALIVE.with(Cell::get)
}

/// One kind of things that are counted.
pub(crate) trait Kind {
    fn count(alive: &mut Alive) -> &mut usize;
}

/// A member of a counted thing: counts it from its making to its drop.
pub(crate) struct Counted<K: Kind>(PhantomData<(K, *mut ())>);

impl<K: Kind> Counted<K> {
    pub(crate) fn new() -> Counted<K> {
        change(|alive| *K::count(alive) += 1);
        Counted(PhantomData)
    }
}

impl<K: Kind> Drop for Counted<K> {
    fn drop(&mut self) {
        change(|alive| *K::count(alive) -= 1);
    }
}

fn change(f: impl FnOnce(&mut Alive)) {
    // Not reachable while the thread's own storage is torn down; nobody counts then.
    let _ = ALIVE.try_with(|cell| {
        let mut alive = cell.get();
        f(&mut alive);
        cell.set(alive);
    });
}

macro_rules! kinds {
    ($($name:ident => $field:ident),* $(,)?) => {
        $(
            pub(crate) struct $name;
            impl Kind for $name {
                fn count(alive: &mut Alive) -> &mut usize {
                    &mut alive.$field
                }
            }
        )*
    };
}

kinds! {
    OfContext => contexts,
    OfWorker => workers,
    OfEndpoint => endpoints,
    OfListener => listeners,
    OfRequest => requests,
    OfRegion => regions,
    OfKey => keys,
    OfMessage => messages,
    OfOperation => operations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_birth_to_drop() {
        let before = alive();
        let (a, b) = (Counted::<OfKey>::new(), Counted::<OfKey>::new());
        assert_eq!(alive().keys, before.keys + 2);
        drop(a);
        drop(b);
        assert_eq!(alive(), before);
    }
}
