//! The file tree on its way to the volume and back.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::tools::{Tools, text};
use super::tree::{self, Manifest};
use crate::output::bytes;
use crate::progress::Progress;

/// Room in the image beside the files: the journal and the file system's tables.
const OVERHEAD_BYTES: u64 = 32 << 20;

/// A file tree as an ext4 image, and what it holds.
pub struct Files {
    /// Where it came from.
    pub tree: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// The image.
    pub image: PathBuf,
    /// Its size, a multiple of 1 MiB.
    pub image_bytes: u64,
    /// Its SHA-256.
    pub image_sum: [u8; 32],
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The image has the SHA-256 that it had.
    pub same_image: bool,
    /// Files, directories and links that differ; the first ones in words.
    pub differences: Vec<String>,
    /// What e2fsck complains about.
    pub fsck: Option<String>,
}

impl Files {
    /// Makes the image in `dir`, of the tree asked for or of another one.
    pub fn make(tools: &Tools, asked: Option<&Path>, dir: &Path) -> anyhow::Result<Files> {
        let tree = tree::choose(asked, dir)?;
        let mut progress = Progress::spinner("file tree      ");
        let seen = |n| progress.say(format!("{} read of {}", bytes(n), tree.display()));
        let manifest = tree::manifest(&tree, seen)?;
        let (count, total) = tree::totals(&manifest);
        progress.done(&format!("{count} files, {} of {}", bytes(total), tree.display()));

        let mut progress = Progress::spinner("ext4 image     ");
        progress.say("mke2fs");
        let blocks = manifest.values().map(blocks).sum::<u64>();
        let image_bytes = (blocks * 4096 * 9 / 8 + OVERHEAD_BYTES).next_multiple_of(1 << 20);
        let image = dir.join("files.ext4");
        let size = format!("{}k", image_bytes / 1024);
        let args = ["-q", "-F", "-t", "ext4", "-b", "4096", "-i", "4096", "-d"];
        let args = [&args[..], &[text(&tree)?, text(&image)?, &size]].concat();
        tools.run("mke2fs", &args)?;
        // On the disk now, so that the kernel does not write it back while the volume is measured.
        tree::sync(&image).context("cannot sync the image")?;
        let image_sum = tree::sha256(&image, |n| progress.say(format!("{} hashed", bytes(n))))?;
        progress.done(&format!("{}, SHA-256 {}…", bytes(image_bytes), &hex(&image_sum)[..16]));
        Ok(Files { tree, manifest, image, image_bytes, image_sum })
    }

    /// Copies the image onto the volume.
    pub fn put(&self, tools: &Tools, uri: &str) -> anyhow::Result<()> {
        let mut progress = Progress::bytes("nbdcopy in     ", self.image_bytes);
        let part = self.image_bytes / 100;
        tools.nbdcopy(text(&self.image)?, uri, |done| progress.at(done * part))?;
        progress.done(&format!("image written to {uri}"));
        Ok(())
    }

    /// Reads the volume back and compares everything.
    pub fn compare(&self, tools: &Tools, uri: &str, dir: &Path) -> anyhow::Result<Comparison> {
        let back = dir.join("back.ext4");
        let mut progress = Progress::bytes("nbdcopy out    ", self.image_bytes);
        let part = self.image_bytes / 100;
        tools.nbdcopy(uri, text(&back)?, |done| progress.at(done * part))?;
        let sum = tree::sha256(&back, |_| {}).context("cannot read the image that came back")?;
        let same_image = sum == self.image_sum;
        progress.done(if same_image {
            "same SHA-256 as before"
        } else {
            "OTHER SHA-256 THAN BEFORE"
        });

        let mut progress = Progress::spinner("files          ");
        progress.say("debugfs rdump");
        let out = dir.join("back");
        make_dir(&out)?;
        let dump = format!("rdump / \"{}\"", text(&out)?);
        // Owners cannot be restored by everybody, about which debugfs complains without failing.
        tools.run("debugfs", &["-R", &dump, text(&back)?])?;
        let found = tree::manifest(&out, |n| progress.say(format!("{} compared", bytes(n))))?;
        let differences = tree::differences(&self.manifest, &found);
        progress.done(&match differences.first() {
            None => format!("{} files are the same", tree::totals(&found).0),
            Some(first) => format!("{} DIFFERENCES, such as: {first}", differences.len()),
        });

        let fsck = tools.run("e2fsck", &["-f", "-n", text(&back)?]).err().map(|e| e.to_string());
        let verdict = if fsck.is_none() { "clean" } else { "ERRORS" };
        Progress::at_once("e2fsck -fn     ", verdict);
        Ok(Comparison { same_image, differences, fsck })
    }
}

/// 4 KiB blocks that an entry takes, with room for its inode and its name.
fn blocks(entry: &tree::Entry) -> u64 {
    match entry {
        tree::Entry::File(_, len) => len.div_ceil(4096) + 1,
        tree::Entry::Directory => 3,
        tree::Entry::Link(_) => 1,
    }
}

/// A hash in hexadecimal digits.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}
