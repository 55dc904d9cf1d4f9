use proptest::prelude::*;

use super::*;

fn sample() -> Header {
    Header {
        kind: 16,
        response: true,
        id: 0x1122_3344_5566_7788,
        deadline_ms: 5000,
        ..Header::new(16, b"body", 4096)
    }
}

fn established() -> Decoder {
    let mut decoder = Decoder::new();
    decoder.establish();
    decoder
}

/// Changes one byte of a good header and makes its checksum good again.
fn with_byte(header: Header, at: usize, value: u8) -> [u8; HEADER_BYTES] {
    let mut bytes = header.encode();
    bytes[at] = value;
    let sum = crc32c::crc32c(&bytes[..SUM_AT]);
    bytes[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn bytes_on_the_wire_are_fixed() {
    let golden = "4f475631 0100 10 01 8877665544332211 88130000 04000000 00100000 \
                  50c93f26 000000000000000000000000 382ad843";
    let hex: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden.replace(' ', ""));
}

#[test]
fn checksum_is_castagnolis() {
    // The check value of RFC 3720, appendix B.4.
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn another_version_is_named_before_anything_else_is_read() {
    let mut input: &[u8] = b"OGV1\x07\x00\x00\x00";
    let error = Decoder::new().feed(&mut input).expect_err("version 7");
    assert_eq!(error, FrameError::Version { theirs: 7, ours: VERSION });
    let text = error.to_string();
    assert!(text.contains("version 7") && text.contains("version 1"), "{text}");
}

#[test]
fn goodbye_is_understood_in_any_version() {
    let mut bytes = with_byte(Header::new(KIND_GOODBYE, b"\x01old", 0), 4, 9).to_vec();
    bytes.extend_from_slice(b"\x01old");
    let head = Decoder::new().feed(&mut &bytes[..]).expect("readable").expect("whole");
    assert_eq!(head.body, b"\x01old");
}

#[test]
fn strangers_are_recognised_by_their_first_bytes() {
    let error = Decoder::new().feed(&mut &b"GET / HT"[..]).expect_err("not us");
    assert_eq!(error, FrameError::Magic(*b"GET "));
}

#[test]
fn each_field_is_checked() {
    let decode = |bytes: [u8; HEADER_BYTES]| Header::decode(&bytes);
    let mut torn = sample().encode();
    torn[20] ^= 1;
    assert_eq!(decode(torn), Err(FrameError::HeaderSum));
    assert_eq!(decode(with_byte(sample(), 7, 3)), Err(FrameError::Flags(3)));
    for at in RESERVED {
        assert_eq!(decode(with_byte(sample(), at, 1)), Err(FrameError::Reserved));
    }
    let mut body = sample().encode().to_vec();
    body.extend_from_slice(b"bodY");
    assert_eq!(established().feed(&mut &body[..]), Err(FrameError::BodySum));
}

#[test]
fn kinds_have_their_time() {
    let check = |kind, phase| Header::new(kind, b"", 0).check(phase);
    let (early, late) = (Phase::Greeting, Phase::Established);
    assert_eq!(check(KIND_HELLO, early), Ok(()));
    assert_eq!(check(KIND_HELLO, late), Err(FrameError::OutOfTurn(KIND_HELLO)));
    assert_eq!(check(KIND_PING, early), Err(FrameError::OutOfTurn(KIND_PING)));
    assert_eq!(check(KIND_PING, late), Ok(()));
    assert_eq!(check(KIND_GOODBYE, early), Ok(()));
    assert_eq!(check(KIND_GOODBYE, late), Ok(()));
    assert_eq!(check(KIND_PATH, early), Err(FrameError::OutOfTurn(KIND_PATH)));
    assert_eq!(check(KIND_PATH, late), Ok(()));
    for kind in KIND_PATH + 1..KIND_UPPER_MIN {
        assert_eq!(check(kind, early), Err(FrameError::Kind(kind)));
        assert_eq!(check(kind, late), Err(FrameError::Kind(kind)));
    }
    for kind in KIND_UPPER_MIN..=255 {
        assert_eq!(check(kind, early), Err(FrameError::OutOfTurn(kind)));
        assert_eq!(check(kind, late), Ok(()));
    }
}

#[test]
fn lengths_are_checked_at_the_limit() {
    let check = |kind, body_bytes: usize, payload_bytes: usize, phase| {
        let (body_bytes, payload_bytes) = (body_bytes as u32, payload_bytes as u32);
        Header { body_bytes, payload_bytes, ..Header::new(kind, b"", 0) }.check(phase).is_ok()
    };
    let late = Phase::Established;
    assert!(check(16, BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, late));
    assert!(check(KIND_PATH, PATH_BODY_BYTES_MAX, 0, late));
    assert!(!check(KIND_PATH, PATH_BODY_BYTES_MAX + 1, 0, late));
    assert!(!check(KIND_PATH, 1, 1, late));
    assert!(!check(16, BODY_BYTES_MAX + 1, 0, late));
    assert!(!check(16, 0, PAYLOAD_BYTES_MAX + 1, late));
    assert!(!check(16, u32::MAX as usize, u32::MAX as usize, late));
    assert!(check(KIND_HELLO, HELLO_BODY_BYTES_MAX, 0, Phase::Greeting));
    assert!(!check(KIND_HELLO, HELLO_BODY_BYTES_MAX + 1, 0, Phase::Greeting));
    assert!(!check(KIND_HELLO, 0, 1, Phase::Greeting));
    assert!(check(KIND_GOODBYE, GOODBYE_BODY_BYTES_MAX, 0, late));
    assert!(!check(KIND_GOODBYE, GOODBYE_BODY_BYTES_MAX + 1, 0, late));
    assert!(!check(KIND_PING, 1, 0, late));
    let numbered = Header { id: 1, ..Header::new(KIND_PING, b"", 0) };
    assert_eq!(numbered.check(late), Err(FrameError::Control(KIND_PING)));
}

#[test]
fn a_length_reserves_no_more_than_its_limit() {
    let huge = Header { body_bytes: BODY_BYTES_MAX as u32, ..Header::new(16, b"", 0) };
    let mut stranger = Decoder::new();
    assert!(stranger.feed(&mut &huge.encode()[..]).is_err());
    assert_eq!(stranger.body.capacity(), 0);
}

proptest! {
    #[test]
    fn headers_survive_the_wire(
        kind in any::<u8>(), response in any::<bool>(), id in any::<u64>(),
        deadline_ms in any::<u32>(), body_bytes in any::<u32>(), payload_bytes in any::<u32>(),
        body_sum in any::<u32>(),
    ) {
        let header =
            Header { kind, response, id, deadline_ms, body_bytes, payload_bytes, body_sum };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn any_changed_bit_is_noticed(bit in 0..HEADER_BYTES * 8) {
        let mut bytes = sample().encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn pieces_of_any_size_give_the_same_heads(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        cuts in prop::collection::vec(1..120usize, 1..20),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend_from_slice(&Header::new(17, body, 0).encode());
            stream.extend_from_slice(body);
        }
        let mut decoder = established();
        let (mut found, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (mut piece, tail) = rest.split_at(rest.len().min(*cuts.next().expect("cycle")));
            rest = tail;
            while let Some(head) = decoder.feed(&mut piece).expect("good frames") {
                found.push(head.body);
            }
            prop_assert!(piece.is_empty(), "all is consumed");
        }
        prop_assert_eq!(found, bodies);
        prop_assert!(!decoder.is_partial());
    }
}
