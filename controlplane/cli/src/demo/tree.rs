//! The files that are put on the volume, and what proves that they came back.
#![allow(clippy::disallowed_methods)] // a shell: reads and writes files

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// A tree that every machine with a compiler has, and that is real: many small files.
const USUAL: &str = "/usr/include";
/// The most bytes that the demo copies without being asked: more would take too long.
const USUAL_MAX: u64 = 200 << 20;
/// Files of a tree made for the purpose: of all sizes, so that they take 64 MiB together.
const MADE_FILES: u64 = 2000;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// SHA-256 and length of a regular file.
    File([u8; 32], u64),
    /// Target of a symbolic link.
    Link(PathBuf),
}

/// Everything in a tree by its path in it.
pub type Manifest = BTreeMap<PathBuf, Entry>;

/// Chooses the tree: the one asked for, else one that is there, else one that is made in `dir`.
pub fn choose(asked: Option<&Path>, dir: &Path) -> anyhow::Result<PathBuf> {
    if let Some(tree) = asked {
        if !tree.is_dir() {
            bail!("--tree {}: not a directory", tree.display());
        }
        return Ok(tree.to_owned());
    }
    let usual = Path::new(USUAL);
    let bytes = usual.is_dir().then(|| size(usual, USUAL_MAX)).and_then(Result::ok);
    if bytes.is_some_and(|b| (1 << 20..USUAL_MAX).contains(&b)) {
        return Ok(usual.to_owned());
    }
    let made = dir.join("tree");
    make(&made).with_context(|| format!("cannot make files in {}", made.display()))?;
    Ok(made)
}

/// Bytes of all files below; gives up counting above `most`.
fn size(dir: &Path, most: u64) -> io::Result<u64> {
    let mut total = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                total += entry.metadata()?.len();
            }
        }
        if total > most {
            break;
        }
    }
    Ok(total)
}

/// Makes files of many sizes whose bytes do not compress or repeat.
fn make(dir: &Path) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for n in 0..MADE_FILES {
        let folder = dir.join(format!("{:02}", n % 40));
        fs::create_dir_all(&folder)?;
        // Mostly small, some large, as file systems are: 64 B to 512 KiB.
        let bytes = (64u64 << (next() % 14)) + next() % 64;
        let words = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes());
        let data: Vec<u8> = words.take(bytes as usize).collect();
        fs::write(folder.join(format!("file-{n}")), data)?;
    }
    Ok(())
}

/// Reads a whole tree.
///
/// # Errors
/// When anything of it cannot be read.
pub fn manifest(root: &Path, mut seen: impl FnMut(u64)) -> anyhow::Result<Manifest> {
    let mut all = Manifest::new();
    let mut left = vec![PathBuf::new()];
    let mut bytes = 0;
    while let Some(inner) = left.pop() {
        let dir = root.join(&inner);
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let name = inner.join(entry?.file_name());
            let path = root.join(&name);
            let found = read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            match &found {
                Some(Entry::Directory) => left.push(name.clone()),
                Some(Entry::File(_, len)) => {
                    bytes += len;
                    seen(bytes);
                }
                _ => {}
            }
            all.extend(found.map(|found| (name, found)));
        }
    }
    Ok(all)
}

/// What is at a path; `None` for devices, sockets and pipes, which hold nothing to compare.
fn read(path: &Path) -> io::Result<Option<Entry>> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    Ok(if kind.is_dir() {
        Some(Entry::Directory)
    } else if kind.is_symlink() {
        Some(Entry::Link(fs::read_link(path)?))
    } else if kind.is_file() {
        Some(Entry::File(sha256(path, |_| {})?, meta.len()))
    } else {
        None
    })
}

/// Waits until a file is on its disk.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// SHA-256 of a file; `seen` is told how many bytes were read.
pub fn sha256(path: &Path, mut seen: impl FnMut(u64)) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        seen(bytes);
    }
}

/// Number and bytes of the regular files.
pub fn totals(manifest: &Manifest) -> (u64, u64) {
    manifest.values().fold((0, 0), |(files, bytes), entry| match entry {
        Entry::File(_, len) => (files + 1, bytes + len),
        _ => (files, bytes),
    })
}

/// What differs, in words; empty when the trees are the same.
pub fn differences(before: &Manifest, after: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    for (path, entry) in before {
        match after.get(path) {
            None => found.push(format!("{} is gone", path.display())),
            Some(other) if other != entry => found.push(format!("{} differs", path.display())),
            Some(_) => {}
        }
    }
    let new = after.keys().filter(|path| !before.contains_key(*path));
    // The file system's own directory.
    let new = new.filter(|path| *path != Path::new("lost+found"));
    found.extend(new.map(|path| format!("{} was not there before", path.display())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_tree_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let before = manifest(dir.path(), |_| {}).unwrap();
        let (files, bytes) = totals(&before);
        assert_eq!(files, MADE_FILES);
        assert!(bytes > 32 << 20, "{bytes}");
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let same = manifest(dir.path(), |_| {}).unwrap();
        assert_eq!(differences(&before, &same), Vec::<String>::new());

        let victim = dir.path().join("07/file-7");
        let mut data = fs::read(&victim).unwrap();
        data[0] ^= 1;
        fs::write(&victim, data).unwrap();
        fs::remove_file(dir.path().join("08/file-8")).unwrap();
        fs::write(dir.path().join("new"), "x").unwrap();
        let after = manifest(dir.path(), |_| {}).unwrap();
        let found = differences(&before, &after);
        let expected = ["07/file-7 differs", "08/file-8 is gone", "new was not there before"];
        assert_eq!(found, expected);
    }
}
