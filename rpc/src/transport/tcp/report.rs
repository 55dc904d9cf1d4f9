//! Lines about connections that end, at a bounded rate: a flood of bad connections must not become
//! a flood of lines.

use std::net::SocketAddr;
use std::time::Duration;

use ogive_types::Time;

use crate::limits::LOG_LINES_PER_SECOND;
use crate::transport::CloseReason;

#[derive(Debug, Default)]
pub(super) struct Report {
    since: Time,
    lines: u32,
    suppressed: u64,
}

impl Report {
    /// Logs the end of a connection: as a warning when somebody should look at it.
    pub(super) fn closed(
        &mut self,
        peer: SocketAddr,
        inbound: bool,
        reason: &CloseReason,
        now: Time,
    ) {
        match reason {
            CloseReason::Local | CloseReason::Peer | CloseReason::Connect(_) => {
                tracing::debug!(%peer, inbound, %reason, "connection closed");
            }
            _ if self.may_log(now) => {
                tracing::warn!(%peer, inbound, %reason, "connection closed");
            }
            _ => {}
        }
    }

    /// Logs that a listener cannot take connections.
    pub(super) fn exhausted(&mut self, error: &std::io::Error, now: Time) {
        if self.may_log(now) {
            tracing::warn!(%error, "cannot accept connections; raise the limit of open files");
        }
    }

    fn may_log(&mut self, now: Time) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            if self.suppressed > 0 {
                tracing::warn!(lines = self.suppressed, "more connections were closed like these");
            }
            *self = Report { since: now, ..Report::default() };
        }
        let may = self.lines < LOG_LINES_PER_SECOND;
        if may {
            self.lines += 1;
        } else {
            self.suppressed += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_per_second_are_bounded() {
        let mut report = Report::default();
        let start = Time(5_000_000);
        let logged = (0..1000).filter(|_| report.may_log(start)).count();
        assert_eq!(logged, LOG_LINES_PER_SECOND as usize);
        assert!(report.may_log(start + Duration::from_secs(1)));
    }
}
