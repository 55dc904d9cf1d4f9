use ogive_buf::{ARENA_BYTES, Pool};
use proptest::prelude::*;

use super::*;
use crate::frame::KIND_PING;

fn outgoing(pool: &Pool, id: u64, body: usize, payload: &[usize]) -> Outgoing {
    let bufs = payload.iter().map(|&len| {
        let mut buf = pool.alloc(len).expect("space");
        buf.fill(id as u8);
        buf.freeze()
    });
    Outgoing {
        kind: 16,
        response: false,
        id,
        deadline_ms: 0,
        body: vec![!id as u8; body],
        payload: bufs.collect(),
    }
}

fn bytes_of(queue: &SendQueue) -> Vec<u8> {
    let mut all = Vec::new();
    for frame in &queue.frames {
        frame.parts().for_each(|part| all.extend_from_slice(part));
    }
    all
}

#[test]
fn only_whole_frames_are_dropped() {
    let pool = Pool::new(ARENA_BYTES);
    let mut queue = SendQueue::default();
    queue.push(outgoing(&pool, 1, 10, &[]));
    queue.push(outgoing(&pool, 2, 20, &[100]));
    queue.clear_unsent();
    assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    queue.push(outgoing(&pool, 1, 10, &[]));
    queue.push(outgoing(&pool, 2, 20, &[100]));
    assert_eq!(queue.advance(1), 0);
    queue.clear_unsent();
    assert_eq!(queue.bytes(), HEADER_BYTES + 10 - 1);
    queue.push_control(KIND_PING, Vec::new());
    assert_eq!(queue.advance(queue.bytes()), 2);
}

proptest! {
    #[test]
    fn the_stream_is_whole_wherever_the_kernel_stops(
        frames in prop::collection::vec(
            (0..2 * JOINED_BODY_BYTES, prop::collection::vec(0..3000usize, 0..4)), 1..8),
        takes in prop::collection::vec(0..4000usize, 1..30),
        width in 1..8usize,
    ) {
        let pool = Pool::new(ARENA_BYTES);
        let mut queue = SendQueue::default();
        for (id, (body, payload)) in frames.iter().enumerate() {
            queue.push(outgoing(&pool, id as u64, *body, payload));
        }
        let expected = bytes_of(&queue);
        prop_assert_eq!(queue.bytes(), expected.len());
        let (mut sent, mut done, mut takes) = (Vec::new(), 0, takes.iter().cycle());
        while !queue.is_empty() {
            let mut slices = vec![IoSlice::new(&[]); width];
            let (count, total) = queue.gather(&mut slices);
            let offered: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            prop_assert_eq!(offered.len(), total);
            let mut joined = vec![0; queue.bytes()];
            let (bytes, payload) = queue.join(&mut joined);
            prop_assert_eq!(bytes, queue.bytes());
            prop_assert!(payload <= bytes && joined.starts_with(&offered));
            prop_assert!(queue.whole().is_none_or(|whole| whole == joined));
            prop_assert!(total > 0, "a queue that is not empty has something to offer");
            let n = (*takes.next().expect("cycle") + 1).min(total);
            sent.extend_from_slice(&offered[..n]);
            done += queue.advance(n);
        }
        prop_assert_eq!(sent, expected);
        prop_assert_eq!(done, frames.len() as u64);
        prop_assert_eq!(queue.bytes(), 0);
    }
}
