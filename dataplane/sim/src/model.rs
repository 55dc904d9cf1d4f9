//! What a volume may show: each cell of it as a register that must be linearizable.
//!
//! A cell is a quarter of a block, so that writes of parts of blocks are checked too. Every write
//! has a value of its own, so the theorem of Gibbons and Korach ("Testing shared memories", 1997)
//! decides in pairs. With `f` the earliest end, and `s` the latest start, of the operations on a
//! value (its write and the reads that saw it):
//!
//! ```text
//! f < s   the value was there all the time from f to s: a forward zone
//! s <= f  it was there at some moment between s and f: a backward zone
//! wrong:  two forward zones overlap, or a backward zone lies inside a forward one
//! ```
//!
//! A write whose outcome is unknown has no end, until a newer attachment, or a newer write of its
//! own session, bounds it. Zeroes are no value of their own (trims, and what was never written), so
//! they are checked one by one.

use std::collections::BTreeMap;

use ogive_types::{Epoch, SessionId};

/// Bytes of a cell.
pub(crate) const CELL_BYTES: u64 = 1024;
const NEVER: u64 = u64::MAX;

/// Names a write; 0 stands for zeroes.
pub(crate) type WriteId = u64;

#[derive(Clone, Copy, Debug)]
struct Write {
    id: WriteId,
    session: SessionId,
    epoch: Epoch,
    zeroes: bool,
    start: u64,
    /// Its effect, if it has one, comes before this.
    end: u64,
    /// Reported as failed at this moment.
    failed: u64,
    acknowledged: bool,
    /// Starts of the zone: latest start of an operation on the value.
    s: u64,
    /// Earliest end of an operation on the value; for an unknown write only once it was seen.
    f: u64,
    /// A read that starts later must not see it.
    dead_after: u64,
}

#[derive(Default)]
struct Cell {
    writes: Vec<Write>,
}

/// The cells of one volume.
#[derive(Default)]
pub(crate) struct Model {
    cells: BTreeMap<u64, Cell>,
    open: BTreeMap<WriteId, (u64, u64)>,
    /// Values compared.
    pub(crate) checked: u64,
}

impl Model {
    /// A write of `count` cells from `first` on was submitted.
    pub(crate) fn begin(&mut self, write: Begin, now: u64) {
        let Begin { id, first, count, session, epoch, zeroes } = write;
        self.open.insert(id, (first, count));
        for cell in first..first + count {
            self.cells.entry(cell).or_default().writes.push(Write {
                id,
                session,
                epoch,
                zeroes,
                start: now,
                end: NEVER,
                failed: NEVER,
                acknowledged: false,
                s: now,
                f: NEVER,
                dead_after: NEVER,
            });
        }
    }

    /// It is over.
    pub(crate) fn end(&mut self, id: WriteId, done: bool, now: u64) -> Result<(), String> {
        let Some((first, count)) = self.open.remove(&id) else { return Ok(()) };
        for number in first..first + count {
            let cell = self.cells.get_mut(&number).expect("begun");
            let at = cell.position(id).expect("begun");
            if !done {
                cell.writes[at].failed = now;
                continue;
            }
            let write = &mut cell.writes[at];
            write.acknowledged = true;
            write.end = write.end.min(now);
            write.f = write.f.min(write.end);
            let (session, start) = (write.session, write.start);
            for older in cell.writes.iter_mut().filter(|w| w.session == session) {
                if older.failed <= start {
                    older.dead_after = older.dead_after.min(now);
                }
            }
            cell.check(at).map_err(|why| format!("cell {number}: {why}"))?;
            self.checked += 1;
        }
        Ok(())
    }

    /// An operation of `epoch` was answered by the copyset of these cells: what older attachments
    /// wrote to them took effect before, or never does.
    pub(crate) fn fence(&mut self, is_fenced: impl Fn(u64) -> bool, epoch: Epoch, now: u64) {
        for (_, cell) in self.cells.iter_mut().filter(|(number, _)| is_fenced(**number)) {
            for write in cell.writes.iter_mut().filter(|w| w.epoch < epoch) {
                write.end = write.end.min(now);
                if write.f != NEVER {
                    write.f = write.f.min(now);
                }
            }
        }
    }

    /// A read that lasted from `start` to `end` saw this write, or zeroes.
    pub(crate) fn saw(
        &mut self,
        number: u64,
        id: WriteId,
        start: u64,
        end: u64,
    ) -> Result<(), String> {
        self.checked += 1;
        let cell = self.cells.entry(number).or_default();
        let wrong = |why: String| format!("cell {number}, read {start}..{end}: {why}");
        if id == 0 {
            return cell.check_zeroes(start, end).map_err(wrong);
        }
        let Some(at) = cell.position(id) else {
            return Err(wrong(format!("shows w{id}, which was never written there")));
        };
        let write = &mut cell.writes[at];
        if write.start >= end {
            return Err(wrong(format!("shows w{id} before it was written")));
        }
        if start > write.dead_after {
            let dead = write.dead_after;
            return Err(wrong(format!("w{id} failed, was overwritten at {dead}, and came back")));
        }
        write.s = write.s.max(start);
        write.f = write.f.min(end).min(write.end);
        cell.check(at).map_err(wrong)
    }

    /// Cells that were written to.
    pub(crate) fn touched(&self) -> Vec<u64> {
        self.cells.keys().copied().collect()
    }

    /// The history of a cell, for a failure.
    pub(crate) fn history(&self, number: u64) -> String {
        let Some(cell) = self.cells.get(&number) else { return String::new() };
        let line = |w: &Write| {
            let what = if w.zeroes { "zeroes" } else { "data" };
            let end = |t: u64| if t == NEVER { "-".to_owned() } else { t.to_string() };
            format!(
                "  w{} {what} {} {} start {} end {} f {} s {} acknowledged {}\n",
                w.id,
                w.session,
                w.epoch,
                w.start,
                end(w.end),
                end(w.f),
                w.s,
                w.acknowledged
            )
        };
        cell.writes.iter().rev().take(12).rev().map(line).collect()
    }
}

/// A write to begin.
pub(crate) struct Begin {
    pub(crate) id: WriteId,
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) zeroes: bool,
}

impl Cell {
    fn position(&self, id: WriteId) -> Option<usize> {
        self.writes.iter().rposition(|w| w.id == id)
    }

    /// Compares the zone of one value with all others.
    fn check(&self, at: usize) -> Result<(), String> {
        let v = &self.writes[at];
        if v.zeroes {
            let mut others = self.writes.iter().filter(|w| !w.zeroes && w.f != NEVER);
            let wrong = others.find(|w| v.start > w.f && v.end < w.s);
            return wrong.map_or(Ok(()), |w| Err(format!("w{} outlived zeroes w{}", w.id, v.id)));
        }
        for w in self.writes.iter().filter(|w| w.id != v.id && w.f != NEVER) {
            if w.zeroes {
                if w.acknowledged && w.start > v.f && w.end < v.s {
                    return Err(format!("w{} outlived zeroes w{}", v.id, w.id));
                }
                continue;
            }
            let wrong = match (v.f < v.s, w.f < w.s) {
                (true, true) => v.f < w.s && w.f < v.s,
                (true, false) => v.f < w.s && w.f < v.s,
                (false, true) => w.f < v.s && v.f < w.s,
                (false, false) => false,
            };
            if wrong {
                let zone = |x: &Write| format!("w{} (f {}, s {})", x.id, x.f, x.s);
                return Err(format!("{} and {} contradict each other", zone(v), zone(w)));
            }
        }
        Ok(())
    }

    /// Some zeroing, or the beginning of all, must still have been in force.
    fn check_zeroes(&self, start: u64, end: u64) -> Result<(), String> {
        let between = |zeroed: u64| {
            let mut data = self.writes.iter().filter(|w| !w.zeroes && w.f != NEVER);
            data.find(|v| v.s > zeroed && v.f < start)
        };
        let Some(newer) = between(0) else { return Ok(()) };
        let zeroings = self.writes.iter().filter(|w| w.zeroes && w.start < end);
        let mut alive = zeroings.filter(|z| z.dead_after >= start);
        match alive.any(|z| between(z.end).is_none()) {
            true => Ok(()),
            false => Err(format!("shows zeroes, but w{} was there", newer.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(model: &mut Model, id: u64, epoch: u64, now: u64) {
        let session = SessionId(epoch);
        let epoch = Epoch(epoch);
        let zeroes = id >= 100;
        model.begin(Begin { id, first: 0, count: 1, session, epoch, zeroes }, now);
    }

    fn history() -> Model {
        let mut model = Model::default();
        begin(&mut model, 1, 1, 10);
        model.end(1, true, 20).unwrap();
        begin(&mut model, 2, 1, 30);
        model
    }

    #[test]
    fn a_read_next_to_a_write_sees_either() {
        let mut model = history();
        model.saw(0, 1, 32, 34).unwrap();
        model.saw(0, 2, 33, 36).unwrap();
        model.end(2, true, 40).unwrap();
    }

    #[test]
    fn a_value_never_goes_back() {
        let mut model = history();
        model.saw(0, 2, 32, 34).unwrap();
        assert!(model.saw(0, 1, 35, 36).is_err());
    }

    #[test]
    fn an_acknowledged_write_is_not_lost() {
        let mut model = history();
        model.end(2, true, 40).unwrap();
        assert!(model.saw(0, 1, 50, 60).is_err());
        assert!(history().saw(0, 0, 21, 22).is_err(), "nor replaced by zeroes");
        assert!(history().saw(0, 9, 21, 22).is_err(), "nor invented");
        assert!(history().saw(0, 2, 21, 29).is_err(), "nor seen before it was written");
    }

    #[test]
    fn an_unknown_write_may_land_late_but_not_behind_a_newer_one() {
        let mut model = history();
        model.end(2, false, 40).unwrap();
        model.saw(0, 1, 50, 51).unwrap();
        model.saw(0, 2, 60, 61).unwrap();
        let mut model = history();
        model.end(2, false, 40).unwrap();
        begin(&mut model, 3, 1, 50);
        model.end(3, true, 60).unwrap();
        assert!(model.saw(0, 2, 70, 80).is_err());
    }

    #[test]
    fn a_newer_attachment_bounds_what_older_ones_wrote() {
        let mut model = history();
        model.fence(|_| true, Epoch(2), 50);
        model.saw(0, 1, 60, 61).unwrap();
        assert!(model.saw(0, 2, 70, 71).is_err(), "it landed after the fence");
        let mut model = history();
        model.fence(|_| true, Epoch(2), 50);
        model.saw(0, 2, 60, 61).unwrap();
    }

    #[test]
    fn zeroes_follow_time_too() {
        let mut model = history();
        model.end(2, true, 40).unwrap();
        begin(&mut model, 100, 1, 50);
        model.saw(0, 0, 52, 53).unwrap();
        model.end(100, true, 60).unwrap();
        assert!(model.saw(0, 2, 70, 71).is_err());
        begin(&mut model, 3, 1, 80);
        model.end(3, true, 90).unwrap();
        assert!(model.saw(0, 0, 95, 96).is_err());
    }
}
