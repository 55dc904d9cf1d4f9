//! Term and vote reach stable storage before any answer that depends on them leaves.
//!
//! ```text
//! state set ──► SaveHardState ──► (store) ──► persisted ──► parked answers leave
//! ```
//!
//! | event | saved state reaches the answer's | else |
//! |---|---|---|
//! | answer | leaves at once | is parked |
//! | persisted | parked answers that it covers leave, in order | stay |
//!
//! Within a term the vote goes from nobody to somebody once, so states are ordered by (term,
//! voted).

use ogive_types::Term;

use crate::effect::{Effect, HardState};
use crate::limits::PARKED_ANSWERS_MAX;

#[derive(Debug)]
pub(crate) struct Hard {
    current: HardState,
    saved: HardState,
    parked: Vec<(HardState, Effect)>,
    /// The current state was raised at the start and `SaveHardState` was not emitted yet.
    unannounced: bool,
}

fn rank(state: &HardState) -> (Term, bool) {
    (state.term, state.voted_for.is_some())
}

impl Hard {
    /// A log can hold entries of a newer term than the state: both were being saved when the
    /// replica stopped. It accepted them from that term's leader, so it takes over the term, with
    /// no vote in it.
    pub(crate) fn restore(saved: HardState, log_term: Term) -> Hard {
        let newer = HardState { term: log_term, voted_for: None };
        let current = if log_term > saved.term { newer } else { saved };
        Hard { current, saved, parked: Vec::new(), unannounced: current != saved }
    }

    pub(crate) fn term(&self) -> Term {
        self.current.term
    }

    pub(crate) fn current(&self) -> HardState {
        self.current
    }

    /// The term that may stand in a message.
    pub(crate) fn saved_term(&self) -> Term {
        self.saved.term
    }

    pub(crate) fn is_saved(&self) -> bool {
        rank(&self.saved) >= rank(&self.current)
    }

    pub(crate) fn is_unannounced(&self) -> bool {
        self.unannounced
    }

    /// Asks for the save that `restore` could not ask for.
    pub(crate) fn announce(&mut self, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.unannounced) {
            out.push(Effect::SaveHardState(self.current));
        }
    }

    /// Moves to `next`, which is newer.
    pub(crate) fn set(&mut self, next: HardState, out: &mut Vec<Effect>) {
        assert!(rank(&next) > rank(&self.current), "term and vote only move on");
        self.current = next;
        self.unannounced = false;
        out.push(Effect::SaveHardState(next));
    }

    /// Lets an answer leave, now or once the current state is saved.
    pub(crate) fn answer(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        if self.is_saved() {
            out.push(effect);
        } else {
            assert!(
                self.parked.len() < PARKED_ANSWERS_MAX,
                "peers have bounded requests in flight"
            );
            self.parked.push((self.current, effect));
        }
    }

    /// `state` is on stable storage.
    pub(crate) fn persisted(&mut self, state: HardState, out: &mut Vec<Effect>) {
        assert!(rank(&state) <= rank(&self.current), "only what was asked for is saved");
        if rank(&state) > rank(&self.saved) {
            self.saved = state;
        }
        let covered = |(need, _): &(HardState, Effect)| rank(need) <= rank(&self.saved);
        let leaving = self.parked.iter().take_while(|answer| covered(answer)).count();
        out.extend(self.parked.drain(..leaving).map(|(_, effect)| effect));
    }
}
