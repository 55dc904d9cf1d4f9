//! Tokens survive the wire and nothing else passes for one.

use proptest::prelude::*;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const CLUSTER: ClusterId = ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const SERVER: Holder = Holder::Chunkserver(ChunkserverId(7));

fn signer() -> Signer {
    Signer::from_seed(&[0x42; SEED_BYTES])
}

fn token(holder: Holder) -> Token {
    Token { cluster: CLUSTER, holder, not_after: NOW + Duration::from_secs(60) }
}

fn hello(identity: Identity, token: Vec<u8>) -> Hello {
    let (credit_requests, credit_bytes) = (1, 1);
    Hello { cluster: CLUSTER, identity, features: 0, token, credit_requests, credit_bytes }
}

fn shard(server: u32) -> Identity {
    Identity::Shard { server: ChunkserverId(server), shard: 3 }
}

fn refusal(hello: &Hello, now: UnixSeconds) -> String {
    let refused = signer().public_key().check(hello, now);
    refused.expect_err("it must be refused").to_string()
}

#[test]
fn bytes_of_a_token_are_fixed() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        hex(&signer().public_key().0),
        "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12"
    );
    let golden = "01 01 000000000000 100f0e0d0c0b0a090807060504030201 0700000000000000 \
                  3cd2496b00000000";
    let bytes = signer().sign(&token(SERVER));
    assert_eq!(hex(&bytes[..SIGNED_BYTES]), golden.replace(' ', ""));
    assert_eq!(
        hex(&bytes[SIGNED_BYTES..]),
        "db1e5f0d9a5b92ec5e3eac9eb1a40cfdcaa89b895b29fc2ac0298add6c35fc09\
         e37fe118e2a4f71ef492438d43a862140eb857fa4e9016c6922b9b01a368e70a"
    );
    let session = signer().sign(&token(Holder::Session(SessionId(u64::MAX))));
    assert_eq!((session[1], &session[24..32]), (2, &[0xff; 8][..]));
}

/// The first test vector of RFC 8032, section 7.1: our keys are those of every other program.
#[test]
fn keys_are_those_of_the_standard() {
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    assert_eq!(
        format!("{:?}", Signer::from_seed(&seed).public_key()),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
}

#[test]
fn the_holder_is_let_in_and_others_are_told_why_not() {
    let key = signer();
    let good = key.sign(&token(SERVER)).to_vec();
    assert_eq!(key.public_key().check(&hello(shard(7), good.clone()), NOW), Ok(()));
    let session = Identity::Client { session: SessionId(9) };
    let client = key.sign(&token(Holder::Session(SessionId(9)))).to_vec();
    assert_eq!(key.public_key().check(&hello(session, client), NOW), Ok(()));

    assert!(refusal(&hello(shard(7), Vec::new()), NOW).contains("no token"));
    let other = refusal(&hello(shard(4), good.clone()), NOW);
    assert_eq!(other, "token is for chunkserver 7, you say chunkserver 4");
    let other = refusal(&hello(Identity::Client { session: SessionId(7) }, good.clone()), NOW);
    assert_eq!(other, "token is for chunkserver 7, you say session 7");
    let foreign = Hello { cluster: ClusterId(1), ..hello(shard(7), good.clone()) };
    assert!(refusal(&foreign, NOW).contains("another cluster"));
    let forged = Signer::from_seed(&[1; SEED_BYTES]).sign(&token(SERVER)).to_vec();
    assert!(refusal(&hello(shard(7), forged), NOW).contains("not signed by"));
    let newer = [&[2], &good[1..]].concat();
    assert!(refusal(&hello(shard(7), newer), NOW).contains("format 2"));
}

#[test]
fn a_token_ends_and_a_clock_may_be_a_little_wrong() {
    let hello = hello(shard(7), signer().sign(&token(SERVER)).to_vec());
    let end = token(SERVER).not_after + TOKEN_CLOCK_TOLERANCE;
    assert_eq!(signer().public_key().check(&hello, end), Ok(()));
    let late = refusal(&hello, end + Duration::from_secs(1));
    assert!(late.starts_with("token expired at 2027-01-15 08:01:00 UTC"), "{late}");
    // Times that no clock shows do not overflow.
    let eternal = Token { not_after: UnixSeconds(u64::MAX), ..token(SERVER) };
    let hello = Hello { token: signer().sign(&eternal).to_vec(), ..hello };
    assert_eq!(signer().public_key().check(&hello, UnixSeconds(u64::MAX)), Ok(()));
}

#[test]
fn without_a_key_nobody_is_let_in() {
    let ring = Keyring::default();
    let check = ring.check(|| NOW);
    let hello = hello(shard(7), signer().sign(&token(SERVER)).to_vec());
    assert!(check(&hello).expect_err("no key").contains("no key"));
    ring.set(signer().public_key());
    assert_eq!(check(&hello), Ok(()));
    ring.set(Signer::from_seed(&[1; SEED_BYTES]).public_key());
    assert!(check(&hello).expect_err("another key").contains("not signed"));
}

#[test]
fn dates() {
    for (seconds, text) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_399, "2000-02-28 23:59:59 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (951_868_800, "2000-03-01 00:00:00 UTC"),
        (1_735_689_599, "2024-12-31 23:59:59 UTC"),
        (4_107_542_400, "2100-03-01 00:00:00 UTC"),
    ] {
        assert_eq!(UnixSeconds(seconds).to_string(), text);
    }
    assert!(!UnixSeconds(u64::MAX).to_string().is_empty());
}

#[test]
fn a_key_is_not_shown() {
    let token = signer().sign(&token(SERVER)).to_vec();
    let credential = Credential { token, key: signer().public_key() };
    let shown = format!("{:?} {credential:?}", signer());
    assert!(
        !shown.contains("4242") && !shown.contains("66") && shown.contains("2152f8"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn tokens_survive_the_wire(
        cluster in any::<u128>(), chunkserver in any::<bool>(), id in any::<u64>(),
        until in any::<u64>(),
    ) {
        let holder = match chunkserver {
            true => Holder::Chunkserver(ChunkserverId(id as u32)),
            false => Holder::Session(SessionId(id)),
        };
        let token = Token { cluster: ClusterId(cluster), holder, not_after: UnixSeconds(until) };
        let bytes = signer().sign(&token);
        prop_assert_eq!(Token::decode(&bytes), Ok(token));
        prop_assert_eq!(signer().public_key().verify(&bytes), Ok(token));
    }

    #[test]
    fn no_bit_can_be_changed(bit in 0..TOKEN_BYTES * 8) {
        let mut bytes = signer().sign(&token(SERVER));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(signer().public_key().verify(&bytes).is_err());
    }

    #[test]
    fn strangers_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(signer().public_key().verify(&bytes).is_err());
        if let Ok(token) = Token::decode(&bytes) {
            let part = token.signed_part();
            prop_assert_eq!(&bytes[..SIGNED_BYTES], &part[..], "every token has one form");
        }
    }

    #[test]
    fn half_a_token_is_none(len in 0..TOKEN_BYTES) {
        let bytes = signer().sign(&token(SERVER));
        prop_assert!(signer().public_key().verify(&bytes[..len]).is_err());
    }
}
