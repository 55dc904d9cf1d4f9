//! What Ogive is built from: licences, sources, versions, and how much of it.
//!
//! It does offline what `cargo deny check licenses bans sources` does (see `.deny.toml` for that):
//! sources and versions from `Cargo.lock`, licences from `cargo metadata` for this machine's
//! target, since cargo has no manifests of crates for other systems.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // It reads files and runs cargo.

mod licence;
mod lock;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lock::Package;

/// Crates in `Cargo.lock` that are not Ogive's. Each is code to trust, to build and to keep up to
/// date. A new dependency may raise this, in the same commit, with its reason in the message.
const CRATES_MAX: usize = 307;

/// Crates of which several major versions are in the tree at once, because a dependency has not
/// moved yet. Others would be bought by accident: each brings its own copy of the code.
const SEVERAL_MAJORS: [&str; 15] = [
    "cpufeatures",
    "embedded-io",
    "fastrand",
    "getrandom",
    "hashbrown",
    "itertools",
    "r-efi",
    "rand",
    "rand_chacha",
    "rand_core",
    "shlex",
    "socket2",
    "syn",
    "thiserror",
    "thiserror-impl",
];

/// Crates that must exist once: two of them would not understand each other's types, or would
/// split what is to be one (rings, runtimes, logs).
const ONCE: [&str; 12] = [
    "bytes", "crc32c", "glommio", "io-uring", "openraft", "prost", "redb", "rustls", "serde",
    "tokio", "tonic", "tracing",
];

/// The registry of crates.io, by both of its names.
const REGISTRIES: [&str; 2] =
    ["registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/"];

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
    let root = own.ancestors().find(|dir| dir.join("Cargo.lock").exists());
    root.expect("the workspace's root has a Cargo.lock").to_owned()
}

fn packages() -> Vec<Package> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    lock::packages(&text)
}

fn none(what: &str, list: &[String]) {
    assert!(list.is_empty(), "{what}:\n  {}", list.join("\n  "));
}

#[test]
fn all_code_comes_from_the_registry_or_this_repository() {
    let strangers: Vec<String> = packages()
        .iter()
        .filter(|package| match &package.source {
            Some(source) => !REGISTRIES.contains(&source.as_str()) || !package.has_checksum,
            None => !package.name.starts_with("ogive"),
        })
        .map(|package| format!("{} {} from {:?}", package.name, package.version, package.source))
        .collect();
    none("take these from crates.io, with a checksum, or into the workspace", &strangers);
}

#[test]
fn crates_with_several_majors_are_known() {
    let packages = packages();
    let several = lock::several_majors(&packages);
    let unknown = several.iter().filter(|(name, _)| !SEVERAL_MAJORS.contains(&name.as_str()));
    let unknown: Vec<String> =
        unknown.map(|(name, majors)| format!("{name}: {}", majors.join(", "))).collect();
    none("use the version that is there, or list them in SEVERAL_MAJORS", &unknown);
    let past = SEVERAL_MAJORS.iter().filter(|name| !several.contains_key(**name));
    none(
        "these exist once now; strike them from SEVERAL_MAJORS",
        &past.map(|n| (*n).to_owned()).collect::<Vec<_>>(),
    );
    let twice = ONCE.iter().filter(|name| several.contains_key(**name));
    none("these must exist once", &twice.map(|name| (*name).to_owned()).collect::<Vec<_>>());
}

#[test]
fn the_number_of_crates_does_not_creep_up() {
    let count = packages().iter().filter(|package| package.source.is_some()).count();
    assert!(
        count <= CRATES_MAX,
        "{count} crates, {CRATES_MAX} allowed; drop a feature or a crate (see `cargo tree -d`), \
         or raise CRATES_MAX and say in the commit why it is worth it"
    );
}

#[test]
fn licences_are_allowed() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &target])
        .current_dir(root())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata failed; run `cargo fetch` first: {error}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut refused = BTreeSet::new();
    let all = metadata["packages"].as_array().unwrap();
    assert!(all.len() > 20, "cargo metadata names the dependencies");
    for package in all {
        let licence = package["license"].as_str().unwrap_or("none stated");
        if !licence::allowed(licence) {
            let (name, version) = (&package["name"], &package["version"]);
            refused.insert(format!("{name} {version}: {licence}"));
        }
    }
    let refused: Vec<String> = refused.into_iter().collect();
    none("replace these, or have the licence accepted in licence.rs and .deny.toml", &refused);
}
