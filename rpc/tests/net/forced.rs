//! `--transport PATH`: this path or none.

use super::*;

fn refused(end: &End) -> String {
    match &end.closed()[..] {
        [(_, CloseReason::Refused(text))] => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_path_that_cannot_be_had_at_all_stops_the_start() {
    let hub = Hub::default();
    let error = Plan::only(Path::Rdma, &[Path::Shm]).start(&hub).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("--transport rdma cannot be had: no rdma here"), "{text}");
}

#[test]
fn a_forced_path_is_taken_and_the_others_are_not_offered() {
    let both = [Path::Rdma, Path::Shm];
    let mut stage = Stage::new(Plan::with(&both), Plan::only(Path::Shm, &both));
    assert!(stage.server.endpoint().0.starts_with("shm:127.0.0.1:"));
    let (ours, theirs) = stage.works_over(Path::Shm);
    assert_eq!(stage.client.why_not(ours, Path::Rdma), "peer does not offer it");
    assert_eq!(stage.server.why_not(theirs, Path::Rdma), "excluded by --transport shm");
    let mut stage = Stage::new(Plan::only(Path::Shm, &both), Plan::with(&both));
    stage.works_over(Path::Shm);
    let mut stage = Stage::new(Plan::only(Path::Tcp, &both), Plan::with(&both));
    let (ours, _) = stage.works_over(Path::Tcp);
    assert_eq!(stage.client.why_not(ours, Path::Shm), "excluded by --transport tcp");
    assert!(stage.client.handles.is_empty() || stage.client.in_lanes() == 0);
}

#[test]
fn a_peer_that_cannot_have_the_path_is_refused_before_anybody_is_connected() {
    let both = [Path::Rdma, Path::Shm];
    let demanded = "path shm was demanded with --transport shm: ";
    let elsewhere = || Plan { host: ELSEWHERE, ..Plan::with(&both) };
    for (client, server, why, by_peer) in [
        (Plan::only(Path::Shm, &both), Plan::with(&[]), "peer does not offer it", false),
        (Plan::with(&[]), Plan::only(Path::Shm, &both), "peer does not offer it", true),
        (Plan::only(Path::Shm, &both), elsewhere(), "peer is on another host", false),
        (elsewhere(), Plan::only(Path::Shm, &both), "peer is on another host", true),
    ] {
        let mut stage = Stage::new(client, server);
        stage.connect();
        stage.settle("closed", |client, _| !client.closed().is_empty());
        let text = refused(&stage.client);
        assert!(text.contains(&format!("{demanded}{why}")), "{text}");
        assert_eq!(text.starts_with("by the peer: "), by_peer, "{text}");
        assert!(stage.client.connected().is_empty());
        if by_peer {
            assert!(stage.server.connected().is_empty());
        }
        stage.is_empty_after_all();
    }
}

#[test]
fn a_forced_path_that_fails_closes_the_connection_at_both_ends() {
    let both = [Path::Rdma, Path::Shm];
    let broken = Faults { attach: Some("memlock limit".into()), ..Faults::default() };
    for client_forces in [true, false] {
        let (client, server) = if client_forces {
            (Plan::only(Path::Shm, &both), Plan::with(&both))
        } else {
            (Plan::with(&both), Plan::only(Path::Shm, &both))
        };
        let mut stage = Stage::new(client, server);
        stage.client.faults(Path::Shm, broken.clone());
        stage.connect();
        stage.settle("closed", |client, _| !client.closed().is_empty());
        let text = refused(&stage.client);
        assert!(text.contains("path shm was demanded with --transport shm: "), "{text}");
        assert!(text.contains("memlock limit"), "{text}");
        assert!(stage.server.connected().is_empty() && stage.server.closed().is_empty());
        // The end that is not forced stays on TCP for the moment until it is refused.
        assert_eq!(stage.client.connected().is_empty(), client_forces);
        stage.is_empty_after_all();
        // And again at the next attempt: what is forced is never avoided.
        stage.client.events.clear();
        stage.client.faults(Path::Shm, Faults::default());
        if client_forces {
            stage.works_over(Path::Shm);
        }
    }
}
