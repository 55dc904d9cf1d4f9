//! `Cargo.lock`, as far as the checks need it.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// `None` for a crate of the workspace, or any other path.
    pub(crate) source: Option<String>,
    pub(crate) has_checksum: bool,
}

pub(crate) fn packages(text: &str) -> Vec<Package> {
    let package = |section: &str| {
        let value = |key: &str| {
            let line = section.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.strip_prefix(" = ")).map(|v| v.trim_matches('"').to_owned())
        };
        Some(Package {
            name: value("name")?,
            version: value("version")?,
            source: value("source"),
            has_checksum: value("checksum").is_some(),
        })
    };
    text.split("[[package]]").skip(1).filter_map(package).collect()
}

/// Crates with more than one incompatible version, and those versions.
pub(crate) fn several_majors(packages: &[Package]) -> BTreeMap<String, Vec<String>> {
    let mut majors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| wanted(&package.name)) {
        let major = major(&package.version).to_owned();
        majors.entry(package.name.clone()).or_default().insert(major);
    }
    majors.retain(|_, versions| versions.len() > 1);
    majors.into_iter().map(|(name, set)| (name, set.into_iter().collect())).collect()
}

/// Crates for other systems are in the lock file and never built here.
fn wanted(name: &str) -> bool {
    !name.starts_with("windows") && !name.starts_with("winapi") && !name.starts_with("wasi")
}

/// The part of a version that tells incompatible ones apart: `1`, `0.9`, `0.0.3`.
fn major(version: &str) -> &str {
    let end =
        |dots: usize| version.match_indices('.').nth(dots).map_or(version.len(), |(at, _)| at);
    match version {
        v if v.starts_with("0.0.") => &v[..end(2)],
        v if v.starts_with("0.") => &v[..end(1)],
        v => &v[..end(0)],
    }
}

#[test]
fn several_versions_are_found() {
    let text = "\
version = 4

[[package]]
name = \"a\"
version = \"1.2.3\"
source = \"registry+x\"
checksum = \"00\"
dependencies = [
 \"b\",
]

[[package]]
name = \"a\"
version = \"1.9.0\"

[[package]]
name = \"b\"
version = \"0.9.1\"

[[package]]
name = \"b\"
version = \"0.10.0\"
";
    let found = packages(text);
    assert_eq!(found.len(), 4);
    assert_eq!((found[0].source.as_deref(), found[0].has_checksum), (Some("registry+x"), true));
    assert_eq!((found[1].source.as_deref(), found[1].has_checksum), (None, false));
    let several = several_majors(&found);
    assert_eq!(several.len(), 1);
    assert_eq!(several["b"], ["0.10", "0.9"]);
    assert_eq!((major("0.0.3+x"), major("12.1"), major("0.7.0-alpha.1")), ("0.0.3+x", "12", "0.7"));
}
