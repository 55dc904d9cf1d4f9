//! Buffers of ours that peers were told to read, until they have.

use std::collections::HashMap;

use ogive_buf::Buf;
use ogive_types::Time;

use super::pull::Offer;

/// What is offered, by token.
#[derive(Default)]
pub(super) struct Offers {
    all: HashMap<u64, Offered>,
    made: u64,
}

struct Offered {
    key: u64,
    buf: Buf,
    /// Set once the connection is closed: how long the buffer is kept all the same.
    until: Option<Time>,
}

impl Offers {
    /// Keeps a buffer for the peer of a connection to read.
    pub(super) fn make(&mut self, key: u64, buf: Buf) -> Offer {
        self.made += 1;
        let offer = Offer { at: buf.as_ptr() as u64, len: buf.len(), token: self.made };
        self.all.insert(self.made, Offered { key, buf, until: None });
        offer
    }

    /// The peer of a connection has read what was offered to it under a token; its length. `None`
    /// when it never was.
    pub(super) fn taken(&mut self, key: u64, token: u64) -> Option<usize> {
        self.all.get(&token).filter(|offered| offered.key == key)?;
        self.all.remove(&token).map(|offered| offered.buf.len())
    }

    /// A connection is closed. Its peer, who may not know that yet, may still be reading: the
    /// buffers are kept until then. What it reads later is refused by the sums of the layers above.
    pub(super) fn closed(&mut self, key: u64, until: Time) {
        for offered in self.all.values_mut().filter(|offered| offered.key == key) {
            offered.until = Some(until);
        }
    }

    /// Lets go of the buffers of closed connections whose time has come; when to look again.
    pub(super) fn tick(&mut self, now: Time) -> Time {
        self.all.retain(|_, offered| offered.until.is_none_or(|until| until > now));
        self.all.values().filter_map(|offered| offered.until).min().unwrap_or(Time::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ogive_buf::{ARENA_BYTES, Pool};

    use super::*;

    #[test]
    fn buffers_are_kept_until_they_are_taken_or_their_time_has_come() {
        let pool = Pool::new(ARENA_BYTES);
        let mut offers = Offers::default();
        let make =
            |offers: &mut Offers, key| offers.make(key, pool.alloc(4096).expect("room").freeze());
        let (one, two) = (make(&mut offers, 1), make(&mut offers, 2));
        assert_eq!(offers.taken(2, one.token), None, "it was offered to another");
        assert_eq!(offers.taken(1, one.token), Some(4096));
        assert_eq!(offers.taken(1, one.token), None);
        assert_eq!(offers.tick(Time(0)), Time::NEVER);
        let until = Time(0) + Duration::from_secs(8);
        offers.closed(2, until);
        assert_eq!(offers.tick(Time(0)), until);
        assert_eq!(pool.stats().used_bytes, 4096);
        assert_eq!(offers.tick(until), Time::NEVER);
        assert_eq!(pool.stats().used_bytes, 0);
        assert_eq!(offers.taken(2, two.token), None);
    }
}
