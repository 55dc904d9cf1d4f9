//! What a store promised: everything asked of it, how much of that is sure to survive, and when it
//! became so.

use std::collections::BTreeMap;
use std::rc::Rc;

use ogive_types::CopysetId;

use crate::model::{Asked, Entry, Logs};

/// What is known of a replica besides its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which replica of its copyset.
    pub life: u32,
    /// Entries that were applied.
    pub applied: usize,
    /// Before so many entries are applied its content is not known.
    pub clear_at: usize,
}

/// What is known of all replicas.
pub type KnownAll = Rc<BTreeMap<CopysetId, Known>>;

/// What was promised from a place on a tape on.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Events on the tape before it.
    pub at: usize,
    /// So many of the things asked were sure to survive.
    pub sure: usize,
    /// So many things had been asked.
    pub asked: usize,
    /// What was applied.
    pub known: KnownAll,
}

/// Everything asked of a store since it was opened, or since the recording of its disk began.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    base: Logs,
    history: Vec<Asked>,
    sure: usize,
    sure_logs: Logs,
    moments: Vec<Moment>,
}

impl Promises {
    /// Nothing asked since the store showed these logs.
    pub fn of(logs: Logs) -> Promises {
        Promises { base: logs.clone(), sure_logs: logs, ..Promises::default() }
    }

    /// Something was asked.
    pub fn ask(&mut self, asked: Asked) {
        self.history.push(asked);
    }

    /// Everything asked up to the newest that fits is sure to survive.
    pub fn now_sure(&mut self, fits: impl Fn(&Asked) -> bool) {
        let Some(at) = self.history[self.sure..].iter().rposition(fits) else { return };
        for _ in 0..=at {
            self.history[self.sure].apply(&mut self.sure_logs);
            self.sure += 1;
        }
    }

    /// The logs as they are sure to be recovered.
    pub fn sure_logs(&self) -> &Logs {
        &self.sure_logs
    }

    /// What was asked and is not sure to survive.
    pub fn rest(&self) -> &[Asked] {
        &self.history[self.sure..]
    }

    /// Every entry that was ever there.
    pub fn entries(&self) -> impl Iterator<Item = (CopysetId, &Rc<Entry>)> {
        let base = self.base.iter().flat_map(|(id, log)| {
            log.entries.iter().chain(&log.gone).map(move |entry| (*id, entry))
        });
        let asked = self.history.iter().flat_map(|asked| {
            let entries = match asked {
                Asked::Append(_, entry) => std::slice::from_ref(entry),
                Asked::Reset(_, entries) => entries,
                _ => &[],
            };
            entries.iter().map(move |entry| (asked.copyset(), entry))
        });
        base.chain(asked)
    }

    /// Writes down what is promised with so many events on the tape.
    pub(crate) fn note(&mut self, at: usize, known: KnownAll) {
        let moment = Moment { at, sure: self.sure, asked: self.history.len(), known };
        match self.moments.last_mut() {
            // Of the same place the last counts, but what was promised there stays promised.
            Some(last) if last.at == at => *last = moment,
            _ => self.moments.push(moment),
        }
    }

    /// The promises in the order of the tape.
    pub fn reader(&self) -> Reader<'_> {
        Reader { promises: self, next: 0, sure: 0, logs: self.base.clone() }
    }
}

/// Goes along a tape with the promises made.
#[derive(Debug)]
pub struct Reader<'p> {
    promises: &'p Promises,
    /// First moment behind the place.
    next: usize,
    sure: usize,
    logs: Logs,
}

impl Reader<'_> {
    /// Goes on to where `at` events lie before.
    pub fn go_to(&mut self, at: usize) {
        let moments = &self.promises.moments;
        while moments.get(self.next).is_some_and(|moment| moment.at <= at) {
            let sure = moments[self.next].sure;
            for asked in &self.promises.history[self.sure..sure] {
                asked.apply(&mut self.logs);
            }
            (self.sure, self.next) = (sure, self.next + 1);
        }
    }

    /// Things asked that are sure to be there.
    pub fn sure(&self) -> usize {
        self.sure
    }

    /// The logs with them.
    pub fn sure_logs(&self) -> &Logs {
        &self.logs
    }

    /// What may be there besides. Promises are written down before the operations start that know
    /// of what was asked, so nothing asked later can be on the medium.
    pub fn rest(&self) -> &[Asked] {
        let asked = self.moment().map_or(0, |moment| moment.asked);
        &self.promises.history[self.sure..asked]
    }

    fn moment(&self) -> Option<&Moment> {
        self.promises.moments.get(self.next.checked_sub(1)?)
    }

    /// The logs with the first `count` things asked, and what may be there besides.
    pub fn since(&self, count: usize) -> (Logs, &[Asked]) {
        let mut logs = self.promises.base.clone();
        self.promises.history[..count].iter().for_each(|asked| asked.apply(&mut logs));
        let rest = self.rest();
        let asked = self.sure + rest.len();
        (logs, &self.promises.history[count..asked])
    }

    /// What was applied by then, at the most.
    pub fn known(&self) -> KnownAll {
        self.moment().map_or_else(KnownAll::default, |moment| Rc::clone(&moment.known))
    }
}
