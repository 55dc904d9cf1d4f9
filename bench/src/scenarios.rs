//! Whole runs against the RAM server: honest, lying, breaking off.

use std::time::Duration;

use crate::ram_server::{Lie, RamServer};
use crate::{BenchError, ConnectError, FaultKind, Report, StopHandle, VolumeBench};

/// A verifying run of mixed requests over few blocks, so that each is often met.
fn verifying(server: &RamServer) -> VolumeBench {
    VolumeBench {
        depth: 4,
        read_percent: 50,
        ops: Some(2000),
        range: Some(0..64 * 4096),
        verify: true,
        ..VolumeBench::new(server.uri.clone())
    }
}

fn run(bench: &VolumeBench) -> Report {
    bench.run(&StopHandle::new(), |_| ()).unwrap()
}

/// The kinds of faults that a lie causes, and the report. Writes only, so that nothing but the
/// final read-back can find them, and the lie about the last write is not covered by a later one.
fn faults_of(lie: Lie) -> (Vec<FaultKind>, Report) {
    let server = RamServer::start(1 << 20, Some(lie));
    let report = run(&VolumeBench { depth: 1, read_percent: 0, ..verifying(&server) });
    assert!(!report.is_ok(), "{report}");
    let faults = report.verify.as_ref().unwrap().faults.iter().map(|fault| fault.kind).collect();
    (faults, report)
}

#[test]
fn an_honest_server_is_verified() {
    for (depth, connections, block_bytes) in [(1, 1, 4096), (16, 1, 4096), (4, 3, 16384)] {
        let server = RamServer::start(1 << 20, None);
        let bench = VolumeBench { depth, connections, block_bytes, ..verifying(&server) };
        let report = run(&bench);
        let verify = report.verify.clone().unwrap();
        assert!(report.is_ok() && verify.faults.is_empty(), "{report}");
        assert_eq!(report.ops, 2000);
        assert_eq!(report.read.unwrap().ops + report.write.unwrap().ops, 2000);
        assert_eq!(verify.read_back, 64, "all blocks were written: {report}");
        assert!(verify.checked > 800 && verify.unknown_writes == 0);
    }
}

#[test]
fn a_second_run_does_not_take_the_first_for_its_own() {
    let server = RamServer::start(1 << 20, None);
    let bench = verifying(&server);
    assert!(run(&bench).is_ok());
    let again = run(&VolumeBench { read_percent: 90, ..bench });
    assert!(again.is_ok(), "{again}");
}

#[test]
fn lost_writes_are_found_under_load() {
    let server = RamServer::start(1 << 20, Some(Lie::LoseFrom(500)));
    let report = run(&verifying(&server));
    let verify = report.verify.clone().unwrap();
    assert!(!report.is_ok() && verify.fault_count > 64, "more than the read-back finds: {report}");
    let lost = |kind| matches!(kind, FaultKind::LostWrite { .. } | FaultKind::WentBack { .. });
    assert!(verify.faults.iter().all(|fault| lost(fault.kind)), "{report}");
}

#[test]
fn the_last_write_of_all_is_found_lost_by_the_read_back() {
    let (faults, report) = faults_of(Lie::LoseWrite(2000));
    assert!(matches!(faults[..], [FaultKind::LostWrite { acknowledged: 2000, .. }]), "{report}");
    assert_eq!(report.verify.unwrap().checked, 0);
}

#[test]
fn a_stale_read_is_found_though_the_data_is_right_in_the_end() {
    let server = RamServer::start(1 << 20, Some(Lie::StaleRead(600)));
    // At depth 1 no write is in flight with the read: only the new value is right.
    let report = run(&VolumeBench { depth: 1, ..verifying(&server) });
    let faults = report.verify.clone().unwrap().faults;
    assert_eq!(faults.len(), 1, "{report}");
    let kind = faults[0].kind;
    let behind = matches!(kind, FaultKind::LostWrite { .. } | FaultKind::WentBack { .. });
    assert!(behind, "{report}");
}

#[test]
fn a_torn_block_is_found() {
    let (faults, report) = faults_of(Lie::TearWrite(2000));
    assert_eq!(faults, [FaultKind::Torn], "{report}");
}

#[test]
fn a_misplaced_block_is_found_at_both_ends() {
    let (faults, report) = faults_of(Lie::MisplaceWrite(2000));
    let lost = faults.iter().any(|kind| matches!(kind, FaultKind::LostWrite { .. }));
    let misplaced = faults.iter().any(|kind| matches!(kind, FaultKind::Misplaced { .. }));
    assert!(lost && misplaced && faults.len() == 2, "{report}");
}

#[test]
fn a_flipped_bit_is_found() {
    let (faults, report) = faults_of(Lie::FlipBit(2000));
    assert_eq!(faults, [FaultKind::Corrupt { at: Some(1000) }], "{report}");
}

#[test]
fn a_lost_connection_leaves_either_value() {
    for kept in [true, false] {
        let server = RamServer::start(1 << 20, Some(Lie::Drop { nth: 500, kept }));
        let reconnect = Duration::from_secs(20);
        let report = run(&VolumeBench { reconnect, ..verifying(&server) });
        assert!(report.is_ok(), "{report}");
        let verify = report.verify.clone().unwrap();
        assert_eq!(report.disconnects, 1);
        assert!(verify.unknown_writes >= 1 && verify.unknown_writes <= 4, "{report}");
        assert_eq!((verify.fault_count, verify.unread), (0, 0));
    }
}

#[test]
fn an_error_leaves_either_value_and_the_run_goes_on() {
    for kept in [true, false] {
        let server = RamServer::start(1 << 20, Some(Lie::Refuse { nth: 500, kept }));
        let report = run(&verifying(&server));
        assert!(report.is_ok(), "{report}");
        assert_eq!((report.errors, report.ops), (1, 1999));
        assert_eq!(report.verify.unwrap().unknown_writes, 1);
        assert!(report.last_error.unwrap().contains("Input/output error"));
    }
}

#[test]
fn blocks_that_cannot_be_read_back_are_not_called_verified() {
    let server = RamServer::start(1 << 20, Some(Lie::RefuseReads(1)));
    let report = run(&VolumeBench { read_percent: 0, ..verifying(&server) });
    assert!(!report.is_ok(), "{report}");
    assert_eq!(report.verify.unwrap().unread, 64);
}

#[test]
fn a_server_that_is_gone_ends_the_run() {
    for patience in [Duration::ZERO, Duration::from_millis(100)] {
        let server = RamServer::start(1 << 20, Some(Lie::DropForEver(300)));
        let report = run(&VolumeBench { reconnect: patience, ..verifying(&server) });
        assert!(!report.is_ok(), "{report}");
        assert!(report.ended_early.is_some());
        assert!(report.verify.unwrap().unread > 0);
    }
}

#[test]
fn the_gap_is_that_of_the_server() {
    let by = Duration::from_millis(300);
    let server = RamServer::start(1 << 20, Some(Lie::Delay { nth: 50, by }));
    let bench =
        VolumeBench { ops: Some(200), read_percent: 0, ..VolumeBench::new(server.uri.clone()) };
    let report = run(&bench);
    assert!(report.longest_gap_ms >= 299.0, "{report}");
    assert!(report.write.unwrap().latency.max_us >= 299_000.0, "{report}");
    let open = VolumeBench { rate: Some(1000.0), ..bench };
    let server = RamServer::start(1 << 20, Some(Lie::Delay { nth: 50, by }));
    let report = run(&VolumeBench { uri: server.uri.clone(), ..open });
    // What was due during the stall waited too: about half of it in the middle.
    let waited = report.write.unwrap().latency.p90_us;
    assert!(waited > 100_000.0, "{report}");
    assert!(report.longest_gap_ms >= 299.0, "{report}");
}

#[test]
fn stopping_and_aborting_from_another_thread() {
    let server = RamServer::start(1 << 20, None);
    let (sender, progress) = std::sync::mpsc::channel();
    let bench = VolumeBench { ops: None, ..verifying(&server) };
    let running = bench.clone().spawn(move |p| sender.send(p.clone()).unwrap()).unwrap();
    let first = progress.recv().unwrap();
    assert!(first.ops > 0 && first.connected == 1 && first.iops > 0.0, "{first:?}");
    running.stop_handle().stop();
    let report = running.join().unwrap();
    assert!(report.is_ok() && report.verify.as_ref().unwrap().read_back > 0, "{report}");
    let stop = StopHandle::new();
    stop.abort();
    let report = bench.run(&stop, |_| ()).unwrap();
    assert_eq!(report.ended_early.as_deref(), Some("aborted"));
}

#[test]
fn a_bound_on_requests_is_exact_and_a_rate_is_kept() {
    let server = RamServer::start(1 << 20, None);
    let plain = VolumeBench::new(server.uri.clone());
    run(&VolumeBench { depth: 8, ops: Some(777), ..plain.clone() });
    assert_eq!(server.served(), (777, 0));
    let rate = Some(500.0);
    let report = run(&VolumeBench { rate, duration: Some(Duration::from_secs(1)), ..plain });
    let due = report.ops + report.missed;
    assert!((499..=501).contains(&due), "{report}");
}

#[test]
fn what_cannot_begin_says_why() {
    let server = RamServer::start(1 << 20, None);
    let mut other = VolumeBench::new(server.uri.clone());
    other.uri.export = "nope".into();
    let error = other.run(&StopHandle::new(), |_| ()).unwrap_err();
    assert!(matches!(error, BenchError::Connect(ConnectError::Refused { .. })), "{error}");
    assert!(error.to_string().contains("only `ram` is here"), "{error}");
    let gone = VolumeBench::new("nbd+unix:///x?socket=/nonexistent/s".parse().unwrap());
    let error = gone.run(&StopHandle::new(), |_| ()).unwrap_err();
    assert!(matches!(error, BenchError::Connect(ConnectError::Unreachable { .. })), "{error}");
}

#[test]
fn reports_are_json_both_ways() {
    let server = RamServer::start(1 << 20, None);
    let report = run(&verifying(&server));
    let json = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(back.verify, report.verify);
    assert!(report.to_string().contains("verified: "), "{report}");
}
