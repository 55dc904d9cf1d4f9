use ogive_buf::{ARENA_BYTES, Pool};
use proptest::prelude::*;

use super::*;
use crate::frame::{HEADER_BYTES, Header};

fn frame(kind: u8, id: u64, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = Header { id, ..Header::new(kind, body, payload.len()) };
    [header.encode().as_slice(), body, payload].concat()
}

fn established() -> Assembler {
    let mut assembler = Assembler::new();
    assembler.establish();
    assembler
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(31) ^ seed ^ i >> 8) as u8).collect()
}

#[test]
fn a_payload_that_comes_later_is_not_copied() {
    let pool = Pool::new(ARENA_BYTES);
    let bytes = frame(16, 7, b"body", &pattern(8192, 1));
    let mut assembler = established();
    let (mut head, payload) = bytes.split_at(HEADER_BYTES + 4 + 100);
    let step = assembler.next(&mut head, |n| pool.alloc(n)).expect("good");
    assert!(matches!(step, Step::More));
    assert_eq!(assembler.payload_space().len(), 8092);
    assembler.payload_space().copy_from_slice(payload);
    let done = assembler.payload_filled(8092).expect("whole");
    assert_eq!(&done.payload.expect("payload")[..], pattern(8192, 1));
    assert_eq!(assembler.take_copied(), 100);
    assert!(!assembler.is_partial());
}

#[test]
fn without_a_buffer_nothing_is_lost() {
    let pool = Pool::new(ARENA_BYTES);
    let hog = pool.alloc(ARENA_BYTES).expect("all of it");
    let bytes = [frame(16, 1, b"a", b"payload"), frame(16, 2, b"b", b"")].concat();
    let mut assembler = established();
    let mut rest = &bytes[..];
    for _ in 0..3 {
        let step = assembler.next(&mut rest, |n| pool.alloc(n)).expect("good");
        assert!(matches!(step, Step::NoBuffer));
        assert!(assembler.is_partial());
    }
    drop(hog);
    for id in 1..=2 {
        let step = assembler.next(&mut rest, |n| pool.alloc(n)).expect("good");
        assert!(matches!(step, Step::Frame(frame) if frame.id == id));
    }
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        shapes in prop::collection::vec((0..200usize, 0..9000usize), 1..6),
        cuts in prop::collection::vec(1..5000usize, 1..12),
        direct in any::<bool>(),
    ) {
        let pool = Pool::new(ARENA_BYTES);
        let mut stream = Vec::new();
        for (id, &(body, payload)) in shapes.iter().enumerate() {
            let id = id as u64;
            stream.extend(frame(17, id, &pattern(body, id), &pattern(payload, id)));
        }
        let (mut assembler, mut found) = (established(), Vec::new());
        let (mut rest, mut cuts) = (&stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (mut piece, tail) = rest.split_at(rest.len().min(*cuts.next().expect("cycle")));
            rest = tail;
            if direct {
                let space = assembler.payload_space();
                let n = space.len().min(piece.len());
                space[..n].copy_from_slice(&piece[..n]);
                piece = &piece[n..];
                found.extend(assembler.payload_filled(n));
            }
            while let Step::Frame(frame) =
                assembler.next(&mut piece, |n| pool.alloc(n)).expect("good")
            {
                found.push(frame);
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(found.len(), shapes.len());
        for (frame, &(body, payload)) in found.iter().zip(&shapes) {
            prop_assert_eq!(&frame.body, &pattern(body, frame.id));
            let got = frame.payload.as_ref().map_or(&[][..], |buf| &buf[..]);
            prop_assert_eq!(got, &pattern(payload, frame.id)[..]);
        }
    }
}
