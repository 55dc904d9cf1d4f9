//! What lies in the data directory, and whose it is.
//!
//! | file | content |
//! |---|---|
//! | `VERSION` | lines `format = 2`, `node = ID`, `cluster = NAME`; written last of all |
//! | `raft.redb` | log, vote and snapshot; see `raft/store.rs` |
//!
//! | `VERSION` | `raft.redb` | meaning |
//! |---|---|---|
//! | absent | absent | first start: both are made |
//! | absent | there, without a vote or log | a first start that did not end: goes on |
//! | absent | there, with a vote or log | `VERSION` was lost: refused |
//! | there | absent | the data was lost: refused |
//! | there | there | opened, when node, cluster and format are ours; format 1 becomes 2 |
//!
//! The directory and the file are for their owner alone: the cluster's secret key is in there.
//! Format 2 has that key. All else is as in format 1, so that a directory of format 1 is taken over
//! by giving it the new number, after which an older version refuses it.
#![allow(clippy::disallowed_methods)] // A shell: it works with files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::MdsConfig;
use crate::error::MdsError;
use crate::raft::store::{self, Saved, Store};

/// Version of everything in the directory.
pub const FORMAT: u32 = 2;
/// The oldest version that is taken over.
const FORMAT_OLDEST: u32 = 1;

#[derive(Debug, PartialEq, Eq)]
struct Label {
    /// A number, unless the directory is of a future that counts otherwise.
    format: String,
    node: u64,
    cluster: String,
}

/// Opens the data directory of this server, or makes it.
pub(crate) fn open(config: &MdsConfig) -> Result<(Store, Saved), MdsError> {
    let dir = &config.data_dir;
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(dir, private).map_err(failed("set the permissions of", dir))?;
    let label = read_label(&dir.join("VERSION"))?;
    if let Some(label) = &label {
        check_label(label, config)?;
    }
    let path = dir.join("raft.redb");
    let there = path.try_exists().map_err(failed("look for", &path))?;
    if label.is_some() && !there {
        return Err(MdsError::Incomplete { path: dir.clone(), missing: "raft.redb" });
    }
    let (store, saved) = store::open(&path)?;
    let used = saved.vote.is_some() || !saved.entries.is_empty() || saved.snapshot.is_some();
    if label.is_none() && used {
        return Err(MdsError::Incomplete { path: dir.clone(), missing: "VERSION" });
    }
    if label.is_none_or(|label| label.format != FORMAT.to_string()) {
        write_label(dir, config)?;
    }
    Ok((store, saved))
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> MdsError + use<'a> {
    move |source| MdsError::DataDir { what, path: path.to_owned(), source }
}

fn read_label(path: &PathBuf) -> Result<Option<Label>, MdsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", path)(e)),
    };
    let field = |name: &str| {
        let pair = |line: &str| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        };
        text.lines().find_map(pair)
    };
    // A format of the future may have other fields, but it has a format.
    let format = field("format").ok_or_else(|| damaged(path, "it has no line `format = ...`"))?;
    if !is_known(&format) {
        return Ok(Some(Label { format, node: 0, cluster: String::new() }));
    }
    let node = field("node").and_then(|n| n.parse().ok());
    let node = node.ok_or_else(|| damaged(path, "it has no line `node = ...`"))?;
    let cluster =
        field("cluster").ok_or_else(|| damaged(path, "it has no line `cluster = ...`"))?;
    Ok(Some(Label { format, node, cluster }))
}

fn is_known(format: &str) -> bool {
    format.parse().is_ok_and(|n| (FORMAT_OLDEST..=FORMAT).contains(&n))
}

fn damaged(path: &Path, detail: &str) -> MdsError {
    MdsError::Corrupt { path: path.to_owned(), detail: detail.to_owned() }
}

fn check_label(label: &Label, config: &MdsConfig) -> Result<(), MdsError> {
    let path = config.data_dir.clone();
    if !is_known(&label.format) {
        return Err(MdsError::Version { path, found: label.format.clone(), known: FORMAT });
    }
    if label.cluster != config.cluster_name {
        let (theirs, ours) = (label.cluster.clone(), config.cluster_name.clone());
        return Err(MdsError::OtherCluster { path, theirs, ours });
    }
    if label.node != config.node_id {
        return Err(MdsError::OtherNode { path, theirs: label.node, ours: config.node_id });
    }
    Ok(())
}

/// Writes the label so that it is there in full or not at all.
fn write_label(dir: &Path, config: &MdsConfig) -> Result<(), MdsError> {
    let (path, new) = (dir.join("VERSION"), dir.join("VERSION.new"));
    let text = format!(
        "format = {FORMAT}\nnode = {}\ncluster = {}\n",
        config.node_id, config.cluster_name
    );
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(failed("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> MdsConfig {
        MdsConfig::new(2, vec![(2, "127.0.0.1:7000".into())], dir.join("mds"))
    }

    fn refusal(config: &MdsConfig) -> MdsError {
        open(config).err().expect("it must be refused")
    }

    #[test]
    fn a_directory_stays_with_its_node_and_cluster() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        drop(open(&mine).unwrap());
        drop(open(&mine).unwrap());
        let other = MdsConfig { node_id: 3, ..mine.clone() };
        assert!(matches!(refusal(&other), MdsError::OtherNode { theirs: 2, ours: 3, .. }));
        let other = MdsConfig { cluster_name: "b".into(), ..mine.clone() };
        assert!(matches!(refusal(&other), MdsError::OtherCluster { .. }));
        fs::write(mine.data_dir.join("VERSION"), "format = 3\nshape = new\n").unwrap();
        assert!(matches!(refusal(&mine), MdsError::Version { .. }));
        fs::write(mine.data_dir.join("VERSION"), "\0\0\0").unwrap();
        assert!(matches!(refusal(&mine), MdsError::Corrupt { .. }));
    }

    #[test]
    fn a_directory_of_the_older_format_is_taken_over() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        drop(open(&mine).unwrap());
        let version = mine.data_dir.join("VERSION");
        fs::write(&version, "format = 1\nnode = 2\ncluster = ogive\n").unwrap();
        let other = MdsConfig { node_id: 3, ..mine.clone() };
        assert!(matches!(refusal(&other), MdsError::OtherNode { theirs: 2, .. }));
        drop(open(&mine).unwrap());
        assert!(fs::read_to_string(&version).unwrap().starts_with("format = 2\n"));
    }

    #[test]
    fn others_on_the_host_read_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        drop(open(&mine).unwrap());
        let file = mine.data_dir.join("raft.redb");
        // What an older version left open is closed.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        drop(open(&mine).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&mine.data_dir), mode(&file)), (0o700, 0o600));
    }

    #[test]
    fn one_process_at_a_time() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        let _held = open(&mine).unwrap();
        assert!(matches!(refusal(&mine), MdsError::InUse { .. }));
    }

    #[test]
    fn lost_data_is_not_started_over() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        drop(open(&mine).unwrap());
        fs::remove_file(mine.data_dir.join("raft.redb")).unwrap();
        assert!(matches!(refusal(&mine), MdsError::Incomplete { missing: "raft.redb", .. }));
    }

    #[test]
    fn an_interrupted_first_start_goes_on() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        drop(open(&mine).unwrap());
        fs::remove_file(mine.data_dir.join("VERSION")).unwrap();
        drop(open(&mine).unwrap());
        assert!(mine.data_dir.join("VERSION").exists());
    }

    #[test]
    fn damage_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let mine = config(tmp.path());
        drop(open(&mine).unwrap());
        fs::write(mine.data_dir.join("raft.redb"), vec![0x5a; 65536]).unwrap();
        let error = refusal(&mine);
        assert!(matches!(error, MdsError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("raft.redb"), "{error}");
    }

    #[test]
    fn a_path_that_is_no_directory_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("mds"), "a file").unwrap();
        let error = refusal(&config(tmp.path()));
        assert!(matches!(error, MdsError::DataDir { .. }), "{error}");
    }
}
