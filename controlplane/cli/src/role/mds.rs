//! `ogive mds`: a metadata server.

use anyhow::Context;
use ogive_mds::MdsConfig;

use super::{asked_to_stop, checks, runtime};
use crate::args::MdsArgs;

/// Runs a metadata server until it is asked to stop.
pub fn run(args: &MdsArgs) -> anyhow::Result<()> {
    let mine = args.peers.iter().find(|(id, _)| *id == args.id).map(|(_, addr)| addr.clone());
    let mine = mine.with_context(|| format!("--id {} is not in --peers", args.id))?;
    checks::mds()?;
    let mut config = MdsConfig::new(args.id, args.peers.clone(), &args.dir);
    config.listen = args.listen.clone().unwrap_or(mine);
    config.copysets_per_shard = args.copysets_per_shard;
    let stop = async {
        let signal = asked_to_stop().await;
        tracing::info!("{signal}: stopping");
    };
    runtime()?.block_on(ogive_mds::serve(config, stop))?;
    Ok(())
}
