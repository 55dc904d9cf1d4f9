//! Runs one metadata server: `mds_node ID DATA_DIR ID=HOST:PORT ...`, one pair per peer. Ends on
//! SIGTERM or Ctrl-C.

use std::process::ExitCode;

use ogive_mds::{MdsConfig, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let peer = |text: &String| {
        let (id, address) = text.split_once('=')?;
        Some((id.parse().ok()?, address.to_owned()))
    };
    let parsed = args.split_at_checked(2).and_then(|(own, peers)| {
        let peers: Option<Vec<(u64, String)>> = peers.iter().map(peer).collect();
        Some(MdsConfig::new(own[0].parse().ok()?, peers?, own[1].clone().into()))
    });
    let Some(config) = parsed else {
        eprintln!("usage: mds_node ID DATA_DIR ID=HOST:PORT ...");
        return ExitCode::from(2);
    };
    match serve(config, stopped()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mds_node: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
