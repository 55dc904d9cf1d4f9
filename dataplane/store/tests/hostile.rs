//! Recovery on random changes of a medium; `dataplane/store/fuzz` looks for better ones.

use ogive_crash::hostile::{CHANGE_BYTES, open};
use ogive_crash::rng::Rng;

/// Random changes; how many media opened.
fn opened(cases: u64, sealed: bool) -> u64 {
    let mut opened = 0;
    for seed in 0..cases {
        let mut rng = Rng(seed);
        let len = CHANGE_BYTES * (1 + rng.below(4) as usize);
        let mut changes: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        for change in changes.chunks_exact_mut(CHANGE_BYTES) {
            change[5] = u8::from(sealed);
        }
        println!("{changes:?}");
        opened += u64::from(open(&changes));
    }
    opened
}

#[test]
fn any_medium_is_refused_or_opens() {
    let opened = opened(400, false);
    assert!((20..380).contains(&opened), "{opened}");
}

/// Right checksums over wrong content: what a bug, or somebody, would write.
#[test]
fn any_medium_with_right_checksums_is_refused_or_opens() {
    let opened = opened(400, true);
    assert!((20..390).contains(&opened), "{opened}");
}
