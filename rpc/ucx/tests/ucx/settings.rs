//! Wrong settings, and settings of the environment.

use ogive_ucx::{Config, Context, UcxError, Worker, alive, version};

use crate::processes::rerun_with;
use crate::support::Via;

fn refused(config: &Config) -> UcxError {
    let error = Context::new(config, 1).err().expect("refused");
    assert_eq!(alive(), Default::default());
    error
}

#[test]
fn wrong_settings_are_named() {
    let config = Via::Shm.config();
    let unknown = refused(&config.clone().set("RNDV_TRESH", "8k"));
    assert_eq!(unknown, UcxError::UnknownKey("RNDV_TRESH".into()));
    let unknown = refused(&config.clone().set("POSIX_ERROR_HANDLNG", "y"));
    assert_eq!(unknown, UcxError::UnknownKey("POSIX_ERROR_HANDLNG".into()));
    let bad = refused(&config.clone().set("RNDV_THRESH", "many"));
    assert_eq!(bad, UcxError::BadValue { key: "RNDV_THRESH".into(), value: "many".into() });
    let bad = refused(&config.clone().set("LOG_LEVEL", "chatty"));
    assert_eq!(bad, UcxError::BadValue { key: "LOG_LEVEL".into(), value: "chatty".into() });
    let bad = refused(&config.clone().set("TLS", "a\0b"));
    assert!(matches!(bad, UcxError::BadValue { .. }));
    assert_eq!(config.get("TLS"), Some("posix,sysv,cma,self"));
}

#[test]
fn transports_that_are_not_there_are_reported() {
    let error = refused(&Config::new().set("TLS", "no_such_transport"));
    assert_eq!(error, UcxError::NoDevice);
    let error = refused(&Via::Tcp.config().set("TLS", "tcp").set("NET_DEVICES", "no_such"));
    assert_eq!(error, UcxError::NoDevice);
}

#[test]
fn the_library_has_the_version_it_was_built_for() {
    assert!(version() >= (1, 13, 0), "{:?}", version());
}

/// In a process of its own, for the environment is the process's.
#[test]
fn the_environment_wins() {
    let name = "settings::the_environment_wins";
    if rerun_with(name, &[("UCX_TLS", "no_such_transport")], |output| {
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(!printed.contains("UCX  "), "UCX printed to the output: {printed}");
    }) {
        return;
    }
    assert_eq!(refused(&Via::Tcp.config()), UcxError::NoDevice);
}

/// Without the setting, shared memory cannot report a dead peer, so there is no endpoint; a setting
/// in code that does not reach the transport would show here.
#[test]
fn settings_of_transports_reach_them() {
    let name = "settings::settings_of_transports_reach_them";
    rerun_with(name, &[("UCX_POSIX_ERROR_HANDLING", "n")], |output| {
        assert!(output.status.success(), "{output:?}");
    });
    for (value, connects) in [("y", true), ("n", false)] {
        let config = Config::new().set("TLS", "posix").set("POSIX_ERROR_HANDLING", value);
        // The environment says n in this process, and is asked only for keys given in code.
        let overridden = std::env::var_os("UCX_POSIX_ERROR_HANDLING").is_some();
        let context = Context::new(&config, 1).unwrap();
        let worker = Worker::new(&context).unwrap();
        let endpoint = worker.connect(&worker.address().unwrap());
        assert_eq!(endpoint.is_ok(), connects && !overridden, "{value}: {endpoint:?}");
    }
}
