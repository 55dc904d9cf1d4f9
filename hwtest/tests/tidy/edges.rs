//! Which crate may depend on which. A new edge is a decision: it is written down here.

use crate::Finding;
use crate::tree::File;

/// Crate, the crates of Ogive that it may use, and whether it is pure: without sockets, clocks,
/// executors and rings.
const CRATES: [(&str, &[&str], bool); 19] = [
    ("ogive-types", &[], true),
    ("ogive-buf", &[], true),
    ("ogive-ucx", &["buf"], false),
    ("ogive-rpc", &["buf", "types", "ucx"], false),
    ("ogive-store", &["buf", "types"], true),
    ("ogive-crash", &["buf", "store", "types"], true),
    ("ogive-copyset", &["buf", "types"], true),
    ("ogive-shard", &["buf", "copyset", "rpc", "store", "types"], true),
    ("ogive-reactor", &["buf", "rpc", "shard", "store", "types"], false),
    ("ogive-chunkserver", &["buf", "copyset", "reactor", "rpc", "shard", "store", "types"], false),
    ("ogive-client", &["buf", "rpc", "types"], true),
    ("ogive-gateway", &["buf", "client", "reactor", "rpc", "types"], false),
    (
        "ogive-sim",
        &["buf", "client", "copyset", "meta", "reactor", "rpc", "shard", "store", "types"],
        false,
    ),
    ("ogive-api", &["types"], false),
    ("ogive-meta", &["types"], true),
    // `rpc` for its tokens, which it signs and the data plane checks.
    ("ogive-mds", &["api", "meta", "rpc", "types"], false),
    ("ogive-hwtest", &[], false),
    // `copyset`, `reactor` and `store`: it drives a core, and a store, without a network.
    ("ogive-bench", &["buf", "copyset", "reactor", "rpc", "store", "types"], false),
    (
        "ogive",
        &[
            "api",
            "bench",
            "buf",
            "chunkserver",
            "client",
            "copyset",
            "gateway",
            "hwtest",
            "mds",
            "meta",
            "reactor",
            "rpc",
            "shard",
            "store",
            "types",
        ],
        false,
    ),
];

/// What a pure crate does not use.
const IMPURE: [&str; 9] =
    ["glommio", "io-uring", "mio", "openraft", "polling", "smol", "socket2", "tokio", "tonic"];

/// Dependencies that the table does not allow.
pub(crate) fn unlisted(file: &File) -> Vec<Finding> {
    let Some(name) = package_name(&file.text) else { return Vec::new() };
    if file.path.contains("/fuzz/") || file.path.contains("/references/") {
        return Vec::new();
    }
    let Some((_, allowed, pure)) = CRATES.iter().find(|(known, ..)| *known == name) else {
        let what = format!("`{name}` is new; add it to CRATES in hwtest/tests/tidy/edges.rs");
        return vec![Finding::new(file, 0, what)];
    };
    let mut findings = Vec::new();
    for (line, dependency) in dependencies(&file.text) {
        let ours = dependency.strip_prefix("ogive-");
        if ours.is_some_and(|ours| !allowed.contains(&ours)) {
            let what = format!(
                "`{name}` must not depend on `{dependency}`: arrows go one way; move the code, or \
                 write the edge down in hwtest/tests/tidy/edges.rs"
            );
            findings.push(Finding::new(file, line, what));
        }
        if *pure && IMPURE.contains(&dependency) {
            let what = format!(
                "`{name}` is pure and must not use `{dependency}`: take events, return effects"
            );
            findings.push(Finding::new(file, line, what));
        }
    }
    findings
}

fn package_name(text: &str) -> Option<&str> {
    let package = text.split("[package]").nth(1)?;
    let line = package.lines().find_map(|line| line.strip_prefix("name = "))?;
    Some(line.trim().trim_matches('"'))
}

/// Line and name of the dependencies that are built into the crate; those of tests are free.
fn dependencies(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut within = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            within = section == "dependencies" || section.ends_with(".dependencies");
            let single = section
                .split_once("dependencies.")
                .filter(|(before, _)| !before.ends_with("dev-") && !before.ends_with("build-"));
            found.extend(single.map(|(_, name)| (number + 1, name)));
        } else if within && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            found.push((number + 1, &line[..end]));
        }
    }
    found
}

#[test]
fn edges_against_the_arrows_are_found() {
    let manifest = "\
[package]
name = \"ogive-copyset\"
[dependencies]
# a comment
ogive-types.workspace = true
ogive-rpc = { workspace = true }
socket2 = \"1\"
[dev-dependencies]
ogive-sim.workspace = true
[target.'cfg(unix)'.dependencies]
tokio.workspace = true
[dependencies.ogive-store]
workspace = true
";
    let found = unlisted(&File::sample("x/Cargo.toml", manifest));
    let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [6, 7, 11, 12], "{found:?}");
    let new = unlisted(&File::sample("x/Cargo.toml", "[package]\nname = \"ogive-new\"\n"));
    assert!(new[0].what.contains("is new"));
    assert_eq!(unlisted(&File::sample("Cargo.toml", "[workspace]\n")), []);
}

#[test]
fn the_table_has_no_circle() {
    let edges = |name: &str| {
        let full = if name == "ogive" { name.to_owned() } else { format!("ogive-{name}") };
        CRATES.iter().find(|(known, ..)| *known == full).map(|(_, allowed, _)| *allowed)
    };
    fn visit<'a>(
        name: &'a str,
        path: &mut Vec<&'a str>,
        edges: &dyn Fn(&str) -> Option<&'static [&'static str]>,
    ) {
        assert!(!path.contains(&name), "a circle: {path:?} and {name}");
        path.push(name);
        for next in edges(name).unwrap_or_else(|| panic!("{name} is not listed")) {
            visit(next, path, edges);
        }
        path.pop();
    }
    visit("ogive", &mut Vec::new(), &edges);
    visit("sim", &mut Vec::new(), &edges);
}
