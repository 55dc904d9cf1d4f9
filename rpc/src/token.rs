//! Tokens: what a peer shows in HELLO to prove who it is.
//!
//! The metadata servers sign them with the cluster's key (Ed25519, RFC 8032); every peer checks
//! them with the public half, and asks nobody. Why so, and what that does not protect from:
//! `controlplane/mds/design/0003-identity-tokens.md`.
//!
//! A token is 104 bytes. Numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | format, 1 |
//! | 1 | 1 | whose: 1 a chunkserver's, 2 a session's |
//! | 2 | 6 | zero |
//! | 8 | 16 | cluster |
//! | 24 | 8 | id of the chunkserver (its upper half zero) or of the session |
//! | 32 | 8 | not valid after this, in seconds of Unix time |
//! | 40 | 64 | signature of the ASCII text `ogive identity token` and bytes 0 to 39 |
//!
//! The text in front keeps a signature that the key makes for another purpose from being taken for
//! one of a token. No clock in here: the time comes as an argument.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ogive_types::{ChunkserverId, ClusterId, SessionId};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::hello::{Hello, Identity};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_CLOCK_TOLERANCE};
use crate::transport::tcp::TokenCheck;

/// Length of a token.
pub const TOKEN_BYTES: usize = SIGNED_BYTES + SIGNATURE_BYTES;
/// Length of a public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Length of the secret from which a signing key is made.
pub const SEED_BYTES: usize = 32;

const FORMAT: u8 = 1;
const OF_CHUNKSERVER: u8 = 1;
const OF_SESSION: u8 = 2;
const SIGNED_BYTES: usize = 40;
const SIGNATURE_BYTES: usize = 64;
const PURPOSE: &[u8] = b"ogive identity token";

const _: () = assert!(TOKEN_BYTES == 104 && TOKEN_BYTES <= TOKEN_BYTES_MAX);

/// Seconds of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

/// Whose token it is. A chunkserver's holds for all of its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A chunkserver.
    Chunkserver(ChunkserverId),
    /// A client, by its session.
    Session(SessionId),
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose it is.
    pub holder: Holder,
    /// It is not valid after this moment.
    pub not_after: UnixSeconds,
}

/// Why a peer's token is not accepted. The message is told to that peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The peer showed none.
    #[error("no token: show the one that the metadata servers gave")]
    Missing,
    /// Not the bytes of a token.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// A token of another format.
    #[error("token of format {0}, this build reads format {FORMAT}; use one version everywhere")]
    Format(u8),
    /// We have nothing to check it with.
    #[error(
        "this end has no key to check tokens with; it gets one as soon as it reaches the metadata \
         servers"
    )]
    NoKey,
    /// The signature is not one of this cluster's key.
    #[error("the token was not signed by this cluster's metadata servers")]
    Forged,
    /// The token is good for another cluster.
    #[error("token is for another cluster, {token}; check the address")]
    Cluster {
        /// That cluster.
        token: ClusterId,
    },
    /// The token is somebody else's.
    #[error("token is for {token}, you say {said}")]
    Holder {
        /// Whose it is.
        token: Holder,
        /// Who showed it.
        said: Holder,
    },
    /// The token was good once.
    #[error("token expired at {0}; is the clock right, and are the metadata servers up?")]
    Expired(UnixSeconds),
}

impl Token {
    fn signed_part(&self) -> [u8; SIGNED_BYTES] {
        let (kind, id) = match self.holder {
            Holder::Chunkserver(id) => (OF_CHUNKSERVER, u64::from(id.0)),
            Holder::Session(id) => (OF_SESSION, id.0),
        };
        let mut bytes = [0; SIGNED_BYTES];
        bytes[0] = FORMAT;
        bytes[1] = kind;
        bytes[8..24].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.not_after.0.to_le_bytes());
        bytes
    }

    /// Reads a token without checking its signature, for those who only keep it: when must it be
    /// renewed?
    ///
    /// # Errors
    /// When these are not the bytes of a token.
    pub fn decode(bytes: &[u8]) -> Result<Token, TokenError> {
        let Some(&format) = bytes.first() else { return Err(TokenError::Missing) };
        if format != FORMAT {
            return Err(TokenError::Format(format));
        }
        let bytes: &[u8; TOKEN_BYTES] =
            bytes.try_into().map_err(|_| TokenError::Malformed("not 104 bytes long"))?;
        if bytes[2..8] != [0; 6] {
            return Err(TokenError::Malformed("bytes that must be zero are not"));
        }
        let id = u64::from_le_bytes(field(bytes, 24));
        let holder = match bytes[1] {
            OF_CHUNKSERVER => match u32::try_from(id) {
                Ok(id) => Holder::Chunkserver(ChunkserverId(id)),
                Err(_) => return Err(TokenError::Malformed("no chunkserver has that id")),
            },
            OF_SESSION => Holder::Session(SessionId(id)),
            _ => return Err(TokenError::Malformed("unknown kind of holder")),
        };
        let cluster = ClusterId(u128::from_le_bytes(field(bytes, 8)));
        let not_after = UnixSeconds(u64::from_le_bytes(field(bytes, 32)));
        Ok(Token { cluster, holder, not_after })
    }
}

fn field<const N: usize>(bytes: &[u8; TOKEN_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes")
}

fn message(signed_part: &[u8]) -> Vec<u8> {
    [PURPOSE, signed_part].concat()
}

/// The key that signs. Only metadata servers have it; it never shows in logs.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// The key that a secret of random bytes stands for.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Signer {
        let key = Ed25519KeyPair::from_seed_unchecked(seed);
        Signer(key.expect("every 32 bytes are a seed"))
    }

    /// The half that everybody may know.
    pub fn public_key(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref();
        PublicKey(bytes.try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    /// The bytes of a token. The same token gives the same bytes.
    pub fn sign(&self, token: &Token) -> [u8; TOKEN_BYTES] {
        let part = token.signed_part();
        let mut bytes = [0; TOKEN_BYTES];
        bytes[..SIGNED_BYTES].copy_from_slice(&part);
        bytes[SIGNED_BYTES..].copy_from_slice(self.0.sign(&message(&part)).as_ref());
        bytes
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer(of {:?})", self.public_key())
    }
}

/// The public half of a cluster's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; PUBLIC_KEY_BYTES]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PublicKey {
    /// Reads a token and checks that this cluster's metadata servers signed it.
    ///
    /// # Errors
    /// [`TokenError::Missing`], [`TokenError::Malformed`], [`TokenError::Format`],
    /// [`TokenError::Forged`].
    pub fn verify(&self, bytes: &[u8]) -> Result<Token, TokenError> {
        let token = Token::decode(bytes)?;
        let (signed, signature) = bytes.split_at(SIGNED_BYTES);
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(&message(signed), signature).map_err(|_| TokenError::Forged)?;
        Ok(token)
    }

    /// Checks that a peer is who its HELLO says, at the moment `now`. A clock that is wrong by
    /// less than [`TOKEN_CLOCK_TOLERANCE`] does no harm.
    ///
    /// # Errors
    /// Why not; the text is for that peer.
    pub fn check(&self, hello: &Hello, now: UnixSeconds) -> Result<(), TokenError> {
        let token = self.verify(&hello.token)?;
        if token.cluster != hello.cluster {
            return Err(TokenError::Cluster { token: token.cluster });
        }
        let said = Holder::from(hello.identity);
        if token.holder != said {
            return Err(TokenError::Holder { token: token.holder, said });
        }
        match now > token.not_after + TOKEN_CLOCK_TOLERANCE {
            true => Err(TokenError::Expired(token.not_after)),
            false => Ok(()),
        }
    }
}

/// What an end is given by the metadata servers: to show who it is, and to check others.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its token. Whoever has it passes for this end, so `Debug` does not show it.
    pub token: Vec<u8>,
    /// The cluster's key.
    pub key: PublicKey,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential(secret, key {:?})", self.key)
    }
}

/// The cluster's key as an end knows it at the moment, shared with the [`TokenCheck`] of its
/// transport. Without a key nobody is let in.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Rc<Cell<Option<PublicKey>>>);

impl Keyring {
    /// From now on tokens are checked with this key.
    pub fn set(&self, key: PublicKey) {
        self.0.set(Some(key));
    }

    /// The check of a transport, which asks `clock` for the time.
    pub fn check(&self, clock: impl Fn() -> UnixSeconds + 'static) -> TokenCheck {
        let key = self.0.clone();
        Rc::new(move |hello| {
            let key = key.get().ok_or(TokenError::NoKey);
            key.and_then(|key| key.check(hello, clock())).map_err(|e| e.to_string())
        })
    }
}

impl From<Identity> for Holder {
    fn from(identity: Identity) -> Holder {
        match identity {
            Identity::Shard { server, .. } => Holder::Chunkserver(server),
            Identity::Client { session } => Holder::Session(session),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Chunkserver(id) => write!(f, "chunkserver {}", id.0),
            Holder::Session(id) => write!(f, "session {}", id.0),
        }
    }
}

impl std::ops::Add<Duration> for UnixSeconds {
    type Output = UnixSeconds;

    fn add(self, d: Duration) -> UnixSeconds {
        UnixSeconds(self.0.saturating_add(d.as_secs()))
    }
}

/// As people read it, in UTC: `2026-11-22 17:22:08 UTC`.
impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
    }
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01: Howard Hinnant's
/// `civil_from_days`. Years begin in March, so that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
