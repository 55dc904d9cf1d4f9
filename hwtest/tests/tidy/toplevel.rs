//! The top level holds what a newcomer needs to see, and nothing else.

use crate::Finding;

/// Files and folders; those whose name begins with a dot are free.
const KNOWN: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "controlplane",
    "dataplane",
    "hwtest",
    "rpc",
];

pub(crate) fn unknown<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for path in paths {
        let top = path.split('/').next().unwrap_or(path);
        let seen = findings.iter().any(|finding| finding.path == top);
        if !seen && !top.starts_with('.') && !KNOWN.contains(&top) {
            let what = "not of the top level; move it into the folder that it belongs to".into();
            findings.push(Finding { path: top.into(), line: 0, what });
        }
    }
    findings
}

#[test]
fn strangers_are_named_once() {
    let paths = ["Cargo.toml", ".ci/run", "rpc/src/lib.rs", "tools/a", "tools/b", "x.log"];
    let found = unknown(paths.into_iter());
    let names: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(names, ["tools", "x.log"]);
}
