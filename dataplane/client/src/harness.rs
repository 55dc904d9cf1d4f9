//! Test harness.

/// A known bug, put in to prove that the tests find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Overlapping writes run at the same time.
    NoLock,
    /// All connections have the same incarnation.
    OneIncarnation,
    /// A late write is sent again without closing its connection.
    KeepLateConn,
}

impl crate::Client {
    pub(crate) fn ignores_lock(&self) -> bool {
        self.mutant == Some(Mutant::NoLock)
    }

    pub(crate) fn keeps_late_conn(&self) -> bool {
        self.mutant == Some(Mutant::KeepLateConn)
    }

    pub(crate) fn incarnation_for(
        &mut self,
        to: ogive_types::ShardAddr,
    ) -> ogive_types::Incarnation {
        match self.mutant {
            Some(Mutant::OneIncarnation) => ogive_types::Incarnation(1),
            _ => self.peer_incarnation(to),
        }
    }
}
