//! The files of the repository: those that git tracks, and new ones that it does not ignore.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders that are skipped where git is missing.
const SKIPPED: [&str; 3] = [".git", "target", "artifacts"];
/// Endings of files that hold text for people.
const TEXT: [&str; 7] = ["rs", "md", "toml", "sh", "proto", "yml", "yaml"];

/// A file of text.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    #[cfg(test)]
    pub(crate) fn sample(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    /// The ending of the name, without the dot.
    pub(crate) fn ending(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, ending)| ending)
    }
}

pub(crate) struct Tree {
    root: PathBuf,
    paths: BTreeSet<String>,
}

impl Tree {
    /// The repository that holds this crate.
    pub(crate) fn open() -> Tree {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
        let root = own.ancestors().find(|dir| dir.join("Cargo.lock").exists());
        let root = root.expect("the workspace's root has a Cargo.lock").to_owned();
        let paths = from_git(&root).unwrap_or_else(|| walk(&root));
        // A file that was removed but not committed is listed and not there.
        let paths = paths.into_iter().filter(|path| root.join(path).is_file()).collect();
        Tree { root, paths }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// True for a file, and for a folder that holds one.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        let below = |p: &String| p.starts_with(&folder);
        path.is_empty() || self.paths.contains(path) || self.paths.iter().any(below)
    }

    pub(crate) fn files(&self, ending: &str) -> Vec<File> {
        self.read(|path| path.ends_with(&format!(".{ending}")))
    }

    pub(crate) fn named(&self, name: &str) -> Vec<File> {
        self.read(|path| path == name || path.ends_with(&format!("/{name}")))
    }

    /// All that people read: sources, documents, settings, scripts.
    pub(crate) fn text_files(&self) -> Vec<File> {
        self.read(|path| {
            let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
            TEXT.contains(&ending) || path.starts_with(".ci/") || path == "Makefile"
        })
    }

    fn read(&self, wanted: impl Fn(&str) -> bool) -> Vec<File> {
        let wanted = self.paths.iter().filter(|path| wanted(path));
        let read = |path: &String| {
            let text = std::fs::read(self.root.join(path)).ok()?;
            Some(File { path: path.clone(), text: String::from_utf8_lossy(&text).into_owned() })
        };
        wanted.filter_map(read).collect()
    }
}

fn from_git(root: &Path) -> Option<BTreeSet<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let paths: BTreeSet<String> =
        text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    (listed.status.success() && !paths.is_empty()).then_some(paths)
}

fn walk(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                folders.push(path);
            } else if let Ok(below) = path.strip_prefix(root)
                && path.is_file()
            {
                found.insert(below.to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[test]
fn this_file_is_found_with_and_without_git() {
    let tree = Tree::open();
    assert!(tree.has("hwtest/tests/tidy/tree.rs") && tree.has("hwtest/tests"));
    assert!(!tree.has("hwtest/tests/tidy/none.rs") && !tree.has("hwtest/test"));
    assert!(walk(&tree.root).contains("hwtest/tests/tidy/tree.rs"));
}
