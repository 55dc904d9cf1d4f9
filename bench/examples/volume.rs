//! Loads an export for some seconds: `cargo run --release --example volume -- URI [DEPTH [READ%]]`.

use std::time::Duration;

use ogive_bench::{StopHandle, VolumeBench};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments.next().ok_or("which export? nbd://HOST:PORT/NAME")?.parse()?;
    let depth = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let read_percent = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let duration = Some(Duration::from_secs(3));
    let bench = VolumeBench { depth, read_percent, duration, ..VolumeBench::new(uri) };
    let report = bench.run(&StopHandle::new(), |progress| {
        eprint!("\r{:6.1} s  {:9.0} IOPS ", progress.elapsed_s, progress.iops);
    })?;
    eprintln!();
    print!("{report}");
    Ok(())
}
