//! What TCP does for the paths beside it: it carries their offers and PATH frames, and knows
//! nothing of their meaning (that is `transport/net`).

use crate::hello::{Greeting, Hello};
use crate::offer::Offer;

/// Decides about what a peer offers; the text of an `Err` is told to the peer and logged.
pub(in crate::transport) type OfferCheck = Box<dyn Fn(&[Offer]) -> Result<(), String>>;

/// What this end offers. Nothing, for an owner that has TCP alone.
pub(in crate::transport) struct Paths {
    pub(in crate::transport) offers: Vec<Offer>,
    pub(in crate::transport) check: OfferCheck,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { offers: Vec::new(), check: Box::new(|_| Ok(())) }
    }
}

impl Paths {
    /// The body of our HELLO.
    pub(super) fn greet(&self, hello: &Hello) -> Vec<u8> {
        Greeting { hello: hello.clone(), offers: self.offers.clone() }.encode()
    }

    /// True when PATH frames may come from a peer that offers `theirs`. Both ends decide by the
    /// same two lists, so they agree.
    pub(super) fn talk(&self, theirs: &[Offer]) -> bool {
        !self.offers.is_empty() && !theirs.is_empty()
    }
}
