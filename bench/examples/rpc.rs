//! `ogive bench rpc` without the rest of `ogive`, for work on the transports: it is linked in a
//! fraction of the time.
//!
//! ```text
//! cargo run --release -p ogive-bench --example rpc -- [PATHS [SIZES [DEPTHS [SECONDS [ROUNDS]]]]]
//! cargo run --release -p ogive-bench --example rpc -- tcp 4096 1,32 0.2 9
//! cargo run --release -p ogive-bench --features ucx --example rpc -- shm 64,4096
//! ```

use std::time::Duration;

use ogive_bench::rpc::{Contender, RpcBench, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, kind, rest @ ..] = args.as_slice()
        && word == "peer"
    {
        let core = rest.get(1).map(|core| core.parse()).transpose()?;
        return Ok(serve(kind.parse()?, core)?);
    }
    let mut bench = RpcBench::new(std::env::current_exe()?, vec!["peer".into()]);
    let numbers = |text: &str| text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
    if let Some(names) = args.first() {
        let known = |name: &&Contender| names.split(',').any(|word| word == name.name());
        bench.paths = Contender::PATHS.iter().filter(known).copied().collect();
    }
    if let Some(sizes) = args.get(1) {
        bench.sizes = numbers(sizes)?;
    }
    if let Some(depths) = args.get(2) {
        bench.depths = numbers(depths)?;
    }
    if let Some(seconds) = args.get(3) {
        bench.duration = Duration::try_from_secs_f64(seconds.parse()?)?;
    }
    if let Some(rounds) = args.get(4) {
        bench.rounds = rounds.parse()?;
    }
    let report = bench.run(&mut |line| eprint!("\r\x1b[K{line}"))?;
    eprint!("\r\x1b[K");
    print!("{report}");
    Ok(())
}
