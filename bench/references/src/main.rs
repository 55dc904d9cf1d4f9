//! `ogive-references [--json]`: Ogive's replication core beside raft-rs and openraft, in one thread
//! and in turns. See `ogive_bench::copyset` for what is measured.

mod open;
mod raft_rs;

use ogive_bench::copyset::CopysetBench;
use open::OpenRaft;
use raft_rs::RaftRs;

/// openraft is measured with so many times fewer operations.
const OPENRAFT_FEWER: u64 = 50;
/// Idle groups of openraft cost much memory and start slowly; more than these are left out.
const OPENRAFT_GROUPS_MAX: usize = 1000;

fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    let mut bench = CopysetBench::new();
    bench.operations = 60_000;
    bench.add("raft-rs", 1, usize::MAX, |groups| Box::new(RaftRs::new(groups)));
    bench.add("openraft", OPENRAFT_FEWER, OPENRAFT_GROUPS_MAX, |groups| {
        Box::new(OpenRaft::new(groups))
    });
    let report = bench.run(&mut |next| eprintln!("{next}"));
    match json {
        true => println!("{}", report.to_json()),
        false => print!("{report}"),
    }
}
