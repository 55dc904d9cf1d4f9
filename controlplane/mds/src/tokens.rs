//! Issuing tokens; see `design/0003-identity-tokens.md`. Pure: time comes as an argument.
//!
//! | who | is given one | renewed |
//! |---|---|---|
//! | chunkserver | when it registers, at each start | by heartbeats |
//! | session | when it attaches | by its signs of life |

use ogive_api::pb;
use ogive_rpc::token::{Holder, Signer, Token, UnixSeconds};
use ogive_types::ClusterId;

use crate::limits::{TOKEN_LIFE, TOKEN_RENEW_EVERY};

/// A token for `holder`, good from now on, and the key to check those of others.
pub(crate) fn issue(
    signer: &Signer,
    cluster: ClusterId,
    holder: Holder,
    now: UnixSeconds,
) -> pb::Credential {
    let token = Token { cluster, holder, not_after: now + TOKEN_LIFE };
    pb::Credential {
        token: signer.sign(&token).to_vec(),
        public_key: signer.public_key().0.to_vec(),
        not_after_s: token.not_after.0,
    }
}

/// Whether the holder of a token that ends at `not_after` (0: it has none) is to get a new one.
pub(crate) fn is_due(not_after: UnixSeconds, now: UnixSeconds) -> bool {
    not_after + TOKEN_RENEW_EVERY <= now + TOKEN_LIFE
}

#[cfg(test)]
mod tests {
    use ogive_rpc::token::PublicKey;
    use ogive_types::{ChunkserverId, SessionId};

    use super::*;

    #[test]
    fn tokens_are_good_for_their_holder_alone_and_renewed_in_time() {
        let now = UnixSeconds(1_800_000_000);
        let signer = Signer::from_seed(&[3; 32]);
        for holder in [Holder::Chunkserver(ChunkserverId(4)), Holder::Session(SessionId(9))] {
            let given = issue(&signer, ClusterId(8), holder, now);
            let key = PublicKey(given.public_key.try_into().expect("32 bytes"));
            let token = key.verify(&given.token).expect("our own");
            assert_eq!((token.cluster, token.holder), (ClusterId(8), holder));
            assert_eq!(token.not_after, UnixSeconds(given.not_after_s));
            assert!(!is_due(token.not_after, now), "not at once");
            let later = now + TOKEN_RENEW_EVERY;
            assert!(is_due(token.not_after, later), "long before its end");
            assert!(!is_due(token.not_after, UnixSeconds(later.0 - 1)));
        }
        assert!(is_due(UnixSeconds(0), now), "who has none gets one");
        assert!(!is_due(UnixSeconds(u64::MAX), now));
    }
}
