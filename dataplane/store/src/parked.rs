//! Questions to the map that wait for pages of it, and sees them answered as the map was when they
//! were asked.
//!
//! What memory knew then is kept with the question; of each block the page adds what is newer. A
//! question counts as a read that has begun, so that no block that its answer names is used again
//! before it ends.

use std::collections::BTreeMap;

use ogive_types::CopysetId;
use ogive_types::message::Mapped;

use crate::io::DiskError;
use crate::limits::READS_WAITING_MAX;
use crate::map::{PAGE_BLOCKS, Page, PageKey};
use crate::reads::{ReadError, Use, Wanted, Wish};
use crate::store::{Store, StoreEvent};

/// What is to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The newest data of each block.
    Newest,
    /// The data of these very versions, wherever a repair has put them.
    These,
    /// Which blocks hold data.
    Mapped,
}

/// A question, with what is known so far.
pub(crate) struct Question {
    pub(crate) token: u64,
    pub(crate) copyset: CopysetId,
    pub(crate) ask: Ask,
    /// Of each block what memory has; without gaps for [`Ask::Mapped`].
    pub(crate) wanted: Vec<Wanted>,
}

struct Parked {
    question: Question,
    guard: u64,
    /// Pages that are still to be read.
    left: usize,
}

#[derive(Default)]
pub(crate) struct ParkedReads {
    parked: BTreeMap<u64, Parked>,
    next: u64,
}

impl Store {
    /// Answers a question, at once or when the pages of the map are there that it needs.
    pub(crate) fn ask(&mut self, question: Question) {
        let out = self.pages_out(&question);
        if out.is_empty() {
            let guard = self.space.read_begins();
            return self.answer(question, guard);
        }
        if let Some(error) = self.failed {
            return self.refuse(&question, ReadError::Device(error));
        }
        if self.paging.parked.parked.len() >= READS_WAITING_MAX {
            return self.refuse(&question, ReadError::Busy);
        }
        let (guard, left, copyset) = (self.space.read_begins(), out.len(), question.copyset);
        let parked = &mut self.paging.parked;
        let reader = parked.next;
        parked.next += 1;
        parked.parked.insert(reader, Parked { question, guard, left });
        for key in out {
            let fetch = self.fetch_page(copyset, key).expect("it is out");
            self.paging.await_page(fetch, reader);
        }
    }

    /// The pages of a question's blocks that are not in memory, each once: its blocks are in order.
    fn pages_out(&self, question: &Question) -> Vec<PageKey> {
        let Some(replica) = self.replicas.get(&question.copyset) else { return Vec::new() };
        let key = |w: &Wanted| (w.block.chunk, (w.block.number / PAGE_BLOCKS) as u8);
        let pages = question.wanted.chunk_by(|a, b| key(a) == key(b)).map(|run| key(&run[0]));
        pages.filter(|&key| replica.map.page(key).is_some_and(|page| page.out)).collect()
    }

    /// A page that a question waits for was read, and is not joined yet with what came since.
    pub(crate) fn unpark(&mut self, reader: u64, key: PageKey, page: &Page) {
        let parked = self.paging.parked.parked.get_mut(&reader).expect("it waits for this page");
        let exact = parked.question.ask == Ask::These;
        for wanted in &mut parked.question.wanted {
            let block = &mut wanted.block;
            if (block.chunk, (block.number / PAGE_BLOCKS) as u8) != key {
                continue;
            }
            let read = page.get(block.number);
            let same = (read.index, read.sum) == (block.index, block.sum);
            let found = if exact { same } else { read.index > block.index };
            if found {
                (wanted.place, block.index, block.sum) = (read.block(), read.index, read.sum);
            }
        }
        parked.left -= 1;
        if parked.left == 0 {
            let parked = self.paging.parked.parked.remove(&reader).expect("looked up above");
            self.answer(parked.question, parked.guard);
        }
    }

    fn answer(&mut self, question: Question, guard: u64) {
        let Question { token, copyset, ask, wanted } = question;
        if ask == Ask::Mapped {
            self.space.read_ended(guard);
            let result = Ok(runs(&wanted));
            return self.events.push_back(StoreEvent::Mapped { token, result });
        }
        self.begin_guarded(Wish { token, copyset, wanted, for_what: Use::Result, guard });
    }

    fn refuse(&mut self, question: &Question, error: ReadError) {
        let token = question.token;
        self.events.push_back(match question.ask {
            Ask::Mapped => StoreEvent::Mapped { token, result: Err(error) },
            Ask::Newest | Ask::These => StoreEvent::ReadDone { token, result: Err(error) },
        });
    }

    /// The device failed: no page will be read any more.
    pub(crate) fn fail_parked(&mut self, error: DiskError) {
        for parked in std::mem::take(&mut self.paging.parked.parked).into_values() {
            self.space.read_ended(parked.guard);
            self.refuse(&parked.question, ReadError::Device(error));
        }
    }
}

/// Runs of blocks that hold data or do not.
fn runs(wanted: &[Wanted]) -> Vec<Mapped> {
    let runs = wanted.chunk_by(|a, b| a.place.is_some() == b.place.is_some());
    let run = |run: &[Wanted]| {
        let range = crate::reads::range(run[0].block.number, run.len());
        Mapped { range, mapped: run[0].place.is_some() }
    };
    runs.map(run).collect()
}
