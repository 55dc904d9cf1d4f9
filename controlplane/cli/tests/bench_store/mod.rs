//! `ogive bench store` with the real device path: what it reports is whole and makes sense. How
//! fast anything is depends on the machine and is not looked at.

use ogive_bench::store::{Contender, StoreReport};

use crate::common::{fails, ogive, scratch, stderr, text};

#[test]
fn the_store_and_fio_are_reported_whole() {
    let dir = scratch();
    let path = dir.path().join("bench");
    let line = ["bench", "store", text(&path), "--size", "512MiB", "--seconds", "0.1", "--json"];
    let more = ["--rounds", "2", "--case", "4 KiB, depth 32", "--mapped", "64MiB"];
    let output = ogive(&[&line[..], &more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let report: StoreReport = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report.cases.len(), 3, "writes, reads, both");
    let fio = report.fio_absent.is_none();
    for case in &report.cases {
        assert_eq!(case.rounds_of(Contender::Fio).is_some(), fio);
        for entry in &case.entries {
            assert_eq!(entry.rounds.len(), 2);
            for sample in &entry.rounds {
                assert!(sample.ops > 0 && sample.mean_us > 0.0 && sample.iops > 0.0, "{sample:?}");
            }
        }
        let ours = case.rounds_of(Contender::Ogive).expect("always measured");
        assert!(ours.iter().all(|s| s.engine_us > Some(0.0) && s.cpu_us >= s.engine_us));
    }
    assert!(report.engine.is_some_and(|cost| cost.write_depth_32_us > 0.0));
    assert_eq!(report.sizes.len(), 3, "sequential, random, mixed");
    assert!(report.sizes.iter().all(|size| size.recovery_s > 0.0 && size.log_bytes > 0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays");
}

#[test]
fn what_holds_data_and_what_makes_no_sense_is_refused() {
    let dir = scratch();
    let path = dir.path().join("device");
    let made = ogive(&["format", text(&path), "--size", "64MiB", "--quick"]);
    assert!(made.status.success(), "{}", stderr(&made));
    fails(&ogive(&["bench", "store", text(&path)]), 1, &["Ogive device already", "--force"]);
    assert!(path.exists(), "it was not made by the benchmark");
    fails(&ogive(&["bench", "store", text(&path), "--case", "nonsense"]), 2, &["random write"]);
    fails(&ogive(&["bench", "store", text(&path), "--rounds", "0"]), 2, &["rounds"]);
}
