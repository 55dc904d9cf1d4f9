//! `ogive bench store` without the rest of `ogive`, for work on the store: it is linked in a
//! fraction of the time.
//!
//! ```text
//! cargo run --release -p ogive-bench --example store -- PATH [SIZE_MIB [SECONDS [ROUNDS [CASES]]]]
//! ```

use std::time::Duration;

use ogive_bench::store::{StoreBench, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, default: f64| args.get(n).map_or(Ok(default), |text| text.parse());
    let bench = StoreBench {
        path: args.first().ok_or("name a file to make, or a device")?.into(),
        size: number(1, 2048.0)? as u64 * (1 << 20),
        force: false,
        duration: Duration::try_from_secs_f64(number(2, 0.5)?)?,
        rounds: number(3, 3.0)? as usize,
        fio: std::env::var_os("NO_FIO").is_none(),
        wait: if std::env::var_os("SLEEP").is_some() { Wait::Sleep } else { Wait::Spin },
        only: args.get(4).map(|c| c.split(';').map(str::to_owned).collect()).unwrap_or_default(),
        mapped: args.get(5).map_or(Ok(Vec::new()), |sizes| {
            sizes
                .split(',')
                .map(|gib| Ok(gib.parse::<u64>()? << 30))
                .collect::<Result<_, std::num::ParseIntError>>()
        })?,
    };
    let report = bench.run(&mut |line| eprint!("\r\x1b[K{line}"))?;
    eprint!("\r\x1b[K");
    print!("{report}");
    Ok(())
}
