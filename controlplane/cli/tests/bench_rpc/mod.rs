//! `ogive bench rpc` with its real processes: what it reports is whole and makes sense. How fast
//! anything is depends on the machine and is not looked at.

use ogive_bench::rpc::{Contender, Entry, Pattern, RpcReport, Sample};

use crate::common::{ogive, stderr};

fn report(args: &[&str]) -> RpcReport {
    let output = ogive(&[&["bench", "rpc", "--json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON object of all fields")
}

fn plausible(sample: &Sample) {
    assert!(sample.messages > 0 && sample.seconds > 0.0, "{sample:?}");
    let rate = sample.messages as f64 / sample.seconds;
    assert!((sample.rate / rate - 1.0).abs() < 1e-6, "{sample:?}");
    assert!(sample.bytes_per_s >= sample.rate && sample.mean_us > 0.0, "{sample:?}");
    let mut order = vec![sample.p50_us];
    order.extend([sample.p99_us, sample.p999_us, sample.max_us].into_iter().flatten());
    assert!(order[0] > 0.0 && order.is_sorted(), "{sample:?}");
    let counted = [sample.cpu_us_here, sample.cpu_us_there, sample.copied_bytes];
    assert!(counted.into_iter().flatten().all(|figure| figure >= 0.0), "{sample:?}");
}

fn entries(report: &RpcReport, who: Contender) -> Vec<&Entry> {
    let of = |entry: &&Entry| entry.who == who;
    report.cases.iter().flat_map(|case| case.entries.iter().filter(of)).collect()
}

#[test]
fn a_path_and_its_references_are_reported_whole() {
    let line = ["--path", "tcp", "--size", "64,4KiB", "--depth", "1,32", "--seconds", "0.2"];
    let report = report(&[&line[..], &["--rounds", "1"]].concat());
    assert_eq!(report.cases.len(), 5, "two round trips, two writes, one deep echo");
    for who in [Contender::Tcp, Contender::Bare] {
        let present = report.present.iter().find(|present| present.who == who).unwrap();
        assert_eq!(present.absent, None);
        assert_eq!(entries(&report, who).len(), report.cases.len(), "{who}");
    }
    assert_eq!(entries(&report, Contender::Tonic).len(), 2);
    for entry in report.cases.iter().flat_map(|case| &case.entries) {
        assert_eq!(entry.rounds.len(), report.rounds);
        entry.rounds.iter().for_each(plausible);
        assert_eq!(entry.p50_us.unwrap().median, entry.rounds[0].p50_us);
    }
    for entry in entries(&report, Contender::Tcp) {
        let sample = &entry.rounds[0];
        assert!(sample.cpu_us().is_some_and(|us| us > 0.0), "both ends are seen: {sample:?}");
        assert!(sample.copied_bytes.is_some() && sample.system_calls.is_some_and(|n| n > 0.0));
    }
    let tcp: Vec<_> = report.budgets.iter().filter(|b| b.what.starts_with("tcp")).collect();
    assert!(tcp.len() >= 3 && tcp.iter().all(|b| b.met.is_some() && b.ratio.is_some()), "{tcp:?}");
    let shm = report.budgets.iter().find(|b| b.what.starts_with("shm")).unwrap();
    assert_eq!((shm.ratio, shm.met), (None, None), "it was not asked for");
}

#[test]
fn a_path_that_is_not_there_is_named_and_is_no_error() {
    let line = ["--size", "1MiB", "--depth", "1,2", "--seconds", "0.05", "--rounds", "2"];
    let report = report(&[&line[..], &["--no-references"]].concat());
    assert_eq!(report.present.len(), 3, "rdma, shm, tcp");
    for present in &report.present {
        let measured = entries(&report, present.who).len();
        match &present.absent {
            Some(why) => assert!(!why.is_empty() && measured == 0, "{why}"),
            None => assert_eq!(measured, report.cases.len(), "{}", present.who),
        }
    }
    assert!(report.present.iter().any(|p| p.who == Contender::Tcp && p.absent.is_none()));
    let patterns: Vec<Pattern> = report.cases.iter().map(|case| case.case.pattern).collect();
    assert_eq!(patterns, [Pattern::Echo, Pattern::Write]);
}
