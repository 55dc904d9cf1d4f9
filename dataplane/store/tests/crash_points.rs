//! A few lives of each kind, with every power cut of theirs and damaged media. `make crash` runs
//! fresh ones.

use ogive_crash::area::Area;
use ogive_crash::cover::Cover;
use ogive_crash::points::Effort;
use ogive_crash::run_with;
use ogive_crash::scenario::Scenario;

/// Little enough for a test.
const EFFORT: Effort =
    Effort { exhaust_sectors_max: 4, drawn: 3, resume_once_in: 60, damaged_places: 1 };

fn lives(scenarios: &[Scenario]) -> Cover {
    let mut cover = Cover::default();
    for &scenario in scenarios {
        cover.add(&run_with(1, scenario, &EFFORT).unwrap_or_else(|what| panic!("{what}")));
    }
    println!("{cover}");
    cover
}

#[test]
fn power_cuts_lose_nothing_that_was_promised() {
    let cover = lives(&[Scenario::Plain, Scenario::Copysets, Scenario::Truncation]);
    assert!(cover.points_all() > 100 && cover.points_exhausted > 10, "{cover}");
}

#[test]
fn power_cuts_in_checkpoints_leave_one_that_is_whole() {
    let cover = lives(&[Scenario::Checkpoints, Scenario::Lap]);
    for area in Area::ALL {
        assert!(cover.points.keys().any(|areas| areas.has(area)), "{area:?} in the air: {cover}");
    }
}

#[test]
fn power_cuts_keep_space_right() {
    let cover = lives(&[Scenario::Full, Scenario::Trims, Scenario::Drops]);
    assert!(cover.points_all() > 60, "{cover}");
}

#[test]
fn power_cuts_in_deltas_leave_what_was_there_or_the_delta() {
    let cover = lives(&[Scenario::Delta]);
    assert!(cover.outcomes().len() > 2, "damage is found: {cover}");
}

#[test]
fn equal_seeds_cover_the_same() {
    let cover = || run_with(5, Scenario::Trims, &EFFORT).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!(cover(), cover());
}
