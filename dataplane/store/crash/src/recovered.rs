//! Which moment a recovered store shows.

use ogive_store::Store;
use ogive_types::{CopysetId, Index, LogPos, Term};

use crate::model::{Asked, Log, Logs};

/// The logs as they were at the moment that a recovered store shows: with everything that is sure,
/// and with a first part of what was asked besides.
///
/// # Errors
/// When it shows no such moment; the text says what it shows.
pub fn recovered(store: &Store, sure: &Logs, rest: &[Asked]) -> Result<Logs, String> {
    let mut logs = sure.clone();
    let mut at = 0;
    loop {
        if let Some(logs) = shows(store, &logs, &rest[at..]) {
            return Ok(logs);
        }
        let Some(asked) = rest.get(at) else { break };
        asked.apply(&mut logs);
        at += 1;
    }
    let brief = |logs: &Logs| -> Vec<_> {
        logs.iter().map(|(id, log)| (*id, log.hard.term, log.entries.len())).collect()
    };
    let found: Vec<_> = store.replicas().map(|id| (id, store.replica(id))).collect();
    let (sure, all) = (brief(sure), brief(&logs));
    Err(format!("recovered no moment from {sure:?} to {all:?}: {found:#?}"))
}

/// The logs, if the store shows them. A replica may be gone that was dropped later.
fn shows(store: &Store, logs: &Logs, later: &[Asked]) -> Option<Logs> {
    let mut shown = Logs::new();
    for (&id, log) in logs {
        let Some(state) = store.replica(id) else {
            let dropped = later.iter().any(|a| matches!(a, Asked::Drop(d) if *d == id));
            if dropped { continue } else { return None }
        };
        let back = (state.last.index.0 as usize).checked_sub(log.entries.len())?;
        let log = log.with_back(back)?;
        if !shows_log(store, id, &log) {
            return None;
        }
        shown.insert(id, log);
    }
    store.replicas().eq(shown.keys().copied()).then_some(shown)
}

fn shows_log(store: &Store, id: CopysetId, log: &Log) -> bool {
    let state = store.replica(id).expect("compared before");
    let last = LogPos { term: log.last_term(), index: Index(log.entries.len() as u64) };
    let prev = store.prev(id);
    let prev_term = match prev.index.0 {
        0 => Some(Term(0)),
        n => log.entries.get(n as usize - 1).map(|e| e.term),
    };
    let mut retained = (prev.index.0 + 1..).zip(log.entries.iter().skip(prev.index.0 as usize));
    state.last == last
        && state.hard == log.hard
        && prev_term == Some(prev.term)
        && retained.all(|(index, entry)| {
            let found = store.entry(id, Index(index));
            found.is_some_and(|f| f.term == entry.term && f.op == entry.op)
        })
}
