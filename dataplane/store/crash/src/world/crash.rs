//! Cuts a world's power, and checks what is recovered against what was promised.

use ogive_store::{Store, audit};

use crate::recovered::recovered;

use super::{Replica, World};

impl World {
    /// Cuts the power, opens the device again, and checks what was recovered against what was
    /// promised.
    pub fn crash(&mut self) {
        let rng = &mut self.rng;
        self.disk.power_cut(&mut |n| rng.below(n));
        self.come_back();
    }

    /// Ends the store in the middle of what it does, and not the power; then as after a power cut.
    pub fn kill(&mut self) {
        let rng = &mut self.rng;
        self.disk.abandon(&mut |n| rng.below(n));
        self.come_back();
    }

    /// What the disk does wrong from now on, or no more, may fail reads and the store.
    pub fn expect_faults(&mut self, expected: bool) {
        self.faulty = expected;
    }

    fn come_back(&mut self) {
        let before = std::mem::take(&mut self.replicas);
        let lives = self.logs.clone();
        self.reads.clear();
        self.failed = false;
        self.crashes += 1;
        self.checkpoints += self.store.stats().checkpoints;
        self.reopen();
        let logs = recovered(&self.store, self.promises.sure_logs(), self.promises.rest());
        self.logs = logs.unwrap_or_else(|what| panic!("{what}"));
        self.promises = crate::promise::Promises::of(self.logs.clone());
        audit(&self.store).expect("consistent after recovery");
        for (&id, log) in &self.logs {
            let state = self.store.replica(id).expect("listed");
            let applied = state.applied.index.0 as usize;
            assert_eq!(state.persisted, state.last.index);
            let former = before.get(&id).filter(|_| lives[&id].life == log.life);
            let clear_at = former.map_or(0, |r| r.clear_at);
            assert!(former.is_none_or(|r| applied <= r.applied), "{id}: applied by itself");
            let persisted = log.entries.len();
            let state = log.state_at(applied);
            self.replicas.insert(id, Replica { persisted, applied, state, clear_at });
        }
        self.compare_states();
        self.compare_content();
        for (id, former) in before {
            let Some(log) = self.logs.get(&id).filter(|log| log.life == lives[&id].life) else {
                continue;
            };
            if former.applied <= log.entries.len() {
                self.apply(id, former.applied);
            }
        }
        self.compare_content();
        audit(&self.store).expect("consistent after re-applying");
    }

    /// Opens the device again as it is.
    pub fn reopen(&mut self) {
        let options = self.setup.options.clone();
        let store = Store::open(&mut self.disk, &self.label, 0, self.pool.clone(), options);
        self.store = store.expect("recovers from a power cut");
    }
}
