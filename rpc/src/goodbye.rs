//! GOODBYE: the last frame, which says why a connection is closed. Same form in every version.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | code: 0 done, 1 refused, 2 protocol violation; others count as 0 |
//! | 1 | rest | text for a person, UTF-8 |

use crate::limits::GOODBYE_BODY_BYTES_MAX;
use crate::text;
use crate::transport::CloseReason;

const DONE: u8 = 0;
const REFUSED: u8 = 1;
const PROTOCOL: u8 = 2;

/// The body that tells the peer of `reason`; `None` when there is nobody left to tell.
pub fn encode(reason: &CloseReason) -> Option<Vec<u8>> {
    let (code, text) = match reason {
        CloseReason::Local => (DONE, ""),
        CloseReason::Refused(text) => (REFUSED, text.as_str()),
        CloseReason::Protocol(text) => (PROTOCOL, text.as_str()),
        CloseReason::Peer
        | CloseReason::Connect(_)
        | CloseReason::System(_)
        | CloseReason::Silent(_)
        | CloseReason::Stalled(_) => return None,
    };
    let text = text::cut(text, GOODBYE_BODY_BYTES_MAX - 1);
    let mut body = Vec::with_capacity(1 + text.len());
    body.push(code);
    body.extend_from_slice(text.as_bytes());
    Some(body)
}

/// What the receiver of `body` reports. Never fails: the connection is over in any case. Control
/// characters are replaced, for the text goes to logs.
pub fn decode(body: &[u8]) -> CloseReason {
    let Some((&code, text)) = body.split_first() else { return CloseReason::Peer };
    let text = text::clean(&String::from_utf8_lossy(text));
    match code {
        REFUSED => CloseReason::Refused(format!("by the peer: {text}")),
        PROTOCOL => CloseReason::Protocol(format!("says the peer: {text}")),
        _ => CloseReason::Peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_reach_the_peer() {
        let told = |reason: CloseReason| encode(&reason).map(|body| decode(&body));
        assert_eq!(told(CloseReason::Local), Some(CloseReason::Peer));
        let refused = CloseReason::Refused("by the peer: old".into());
        assert_eq!(told(CloseReason::Refused("old".into())), Some(refused));
        let protocol = CloseReason::Protocol("says the peer: bad".into());
        assert_eq!(told(CloseReason::Protocol("bad".into())), Some(protocol));
        assert_eq!(told(CloseReason::Silent(4000)), None);
    }

    #[test]
    fn text_is_cut_at_a_character_and_cleaned() {
        let long = CloseReason::Protocol("é".repeat(GOODBYE_BODY_BYTES_MAX));
        let body = encode(&long).expect("told");
        assert!(body.len() <= GOODBYE_BODY_BYTES_MAX);
        assert!(std::str::from_utf8(&body[1..]).is_ok());
        let nasty = decode(b"\x01a\n\x1b[31m\xff");
        assert_eq!(nasty, CloseReason::Refused("by the peer: a??[31m\u{fffd}".into()));
        assert_eq!(decode(b""), CloseReason::Peer);
    }
}
