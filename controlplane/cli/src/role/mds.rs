//! `ogive mds`: a metadata server.

use ogive_mds::MdsConfig;

use super::{asked_to_stop, checks, runtime};
use crate::args::MdsArgs;

/// Runs a metadata server until it is asked to stop.
pub fn run(args: &MdsArgs) -> anyhow::Result<()> {
    checks::mds(&args.dir)?;
    let mut config = MdsConfig::new(args.id, args.peers.clone(), args.dir.clone());
    config.listen = args.listen.clone();
    config.copysets_per_shard = args.copysets_per_shard;
    let stop = async {
        let signal = asked_to_stop().await;
        tracing::info!("{signal}: stopping");
    };
    runtime()?.block_on(ogive_mds::serve(config, stop))?;
    Ok(())
}
