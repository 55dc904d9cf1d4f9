//! Rules for texts that people or other programs choose.

use crate::error::MetaError;
use crate::limits::*;

fn bad(what: &str, text: &str, rule: &str) -> MetaError {
    // The text may be of any length; its start is enough to recognise it.
    let text = text.chars().take(64).collect();
    MetaError::BadText { what: what.into(), text, rule: rule.into() }
}

/// Checks the name of a zone or a server.
pub(super) fn check_label(what: &str, text: &str) -> Result<(), MetaError> {
    let fits = (1..=LABEL_BYTES_MAX).contains(&text.len());
    if !fits || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad(what, text, "use 1 to 253 bytes without spaces"));
    }
    Ok(())
}

/// Checks what a client says of itself.
pub(super) fn check_client(text: &str) -> Result<(), MetaError> {
    if text.len() > CLIENT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(bad("client", text, "use at most 255 bytes without control characters"));
    }
    Ok(())
}

/// Checks the endpoints of a chunkserver's shards. Which paths there are is not looked at: releases
/// differ in that, and a command must be judged alike by all servers, for ever.
pub(super) fn check_endpoints(endpoints: &[String]) -> Result<(), MetaError> {
    if endpoints.is_empty() || endpoints.len() > SHARDS_MAX {
        return Err(MetaError::BadShards(endpoints.len()));
    }
    for endpoint in endpoints {
        let graphic = endpoint.bytes().all(|b| b.is_ascii_graphic());
        let split =
            endpoint.split_once(':').is_some_and(|(s, rest)| !s.is_empty() && !rest.is_empty());
        if !graphic || !split || endpoint.len() > ENDPOINT_BYTES_MAX {
            return Err(bad(
                "endpoint",
                endpoint,
                "use PATHS:HOST:PORT, such as shm,tcp:10.0.0.1:7100",
            ));
        }
    }
    Ok(())
}
