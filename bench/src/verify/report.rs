//! Findings of a verifying run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_LISTED_FAULTS;

/// How a block was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FaultKind {
    /// An acknowledged write is not there.
    LostWrite {
        /// Number of the write that must be there at least.
        acknowledged: u64,
        /// Number of the write that was found; 0 for what was there before the run.
        found: u64,
    },
    /// An older value was read after a newer one.
    WentBack {
        /// Number of the write that had been read.
        seen: u64,
        /// Number of the write that was found; 0 for what was there before the run.
        found: u64,
    },
    /// A mixture of two writes within 4 KiB.
    Torn,
    /// Content that was written to another block.
    Misplaced {
        /// The block that it was written to.
        belongs_to: u64,
    },
    /// Altered bytes.
    Corrupt {
        /// Place of the first in the block; none when nothing of the block is recognised.
        at: Option<u64>,
    },
    /// A block that was not written has changed, or holds a write that was never sent to it.
    Changed,
}

/// A wrong block.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Number of the 4 KiB block in the volume.
    pub block: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Seconds after the start of the run.
    pub at_s: f64,
}

/// Result of a verifying run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// 4 KiB blocks compared while the load ran.
    pub checked: u64,
    /// 4 KiB blocks compared in the final read-back.
    pub read_back: u64,
    /// Written blocks that the final read-back could not read: their content is not proved.
    pub unread: u64,
    /// Writes whose outcome was never learned (connection lost, or an error); the blocks may hold
    /// the old value or the new one.
    pub unknown_writes: u64,
    /// Wrong blocks found, all of them counted.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
}

impl VerifyReport {
    /// True when every written block was read back and none was wrong.
    pub fn is_ok(&self) -> bool {
        self.fault_count == 0 && self.unread == 0
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < MAX_LISTED_FAULTS {
            self.faults.push(fault);
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} at {:.3} s: ", self.block, self.at_s)?;
        match self.kind {
            FaultKind::LostWrite { acknowledged, found } => {
                write!(f, "acknowledged write {acknowledged} is lost, write {found} is there")
            }
            FaultKind::WentBack { seen, found } => {
                write!(f, "went back to write {found} after write {seen} had been read")
            }
            FaultKind::Torn => write!(f, "torn: sectors of different writes"),
            FaultKind::Misplaced { belongs_to } => {
                write!(f, "holds what was written to block {belongs_to}")
            }
            FaultKind::Corrupt { at: Some(at) } => write!(f, "corrupt from byte {at}"),
            FaultKind::Corrupt { at: None } => write!(f, "holds what nobody wrote"),
            FaultKind::Changed => write!(f, "changed without a write"),
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_ok() { "verified" } else { "NOT VERIFIED" };
        writeln!(
            f,
            "  {verdict}: {} blocks checked under load, {} read back, {} unread, {} writes of \
             unknown outcome, {} wrong blocks",
            self.checked, self.read_back, self.unread, self.unknown_writes, self.fault_count
        )?;
        for fault in &self.faults {
            writeln!(f, "    {fault}")?;
        }
        Ok(())
    }
}
