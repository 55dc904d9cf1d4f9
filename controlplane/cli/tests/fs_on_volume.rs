//! A real file system on a volume.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // real processes, real failures

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Meter, SOON, TestCluster, make_image, text, tool, try_tool};
use ogive_cli::local::Part;

const MIB: u64 = 1 << 20;

/// Some hundred files of all sizes.
fn make_tree(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    for n in 0..300_usize {
        let folder = tree.join(format!("d{}", n % 17)).join(format!("e{}", n % 3));
        std::fs::create_dir_all(&folder).unwrap();
        make_image(folder.join(format!("f{n}")), (n * n * 37) % 200_000);
    }
    std::os::unix::fs::symlink("d1/e1", tree.join("link")).unwrap();
    tree
}

/// Without root: the image is made and checked by e2fsprogs, and only copied to the volume.
#[test]
fn ext4_image_survives_a_kill_in_the_middle_of_the_copy() {
    let mut cluster = TestCluster::start();
    cluster.create_volume("fs", 64 * MIB).unwrap();
    cluster.create_volume("busy", 64 * MIB).unwrap();
    cluster.start_gateway(1, &["fs", "busy"]).unwrap();
    let dir = cluster.dir().to_owned();
    let (tree, image, back) = (make_tree(&dir), dir.join("image"), dir.join("back"));
    let mke2fs = ["-q", "-t", "ext4", "-b", "4096", "-d", text(&tree), text(&image), "64m"];
    tool("mke2fs", &mke2fs);
    let busy = Meter::start(cluster.load("busy"));
    busy.wait(1000);
    let (leader, _) = cluster.leader_and_follower();
    let uri = cluster.uri(1, "fs");
    let copy = {
        let (image, uri) = (text(&image).to_owned(), uri.clone());
        std::thread::spawn(move || tool("nbdcopy", &["--flush", &image, &uri]))
    };
    cluster.kill(leader).unwrap();
    copy.join().expect("the copy goes on");
    cluster.launch(leader).unwrap();
    cluster.healthy();
    busy.verified();
    tool("nbdcopy", &[&uri, text(&back)]);
    tool("e2fsck", &["-f", "-n", text(&back)]);
    assert!(std::fs::read(image).unwrap() == std::fs::read(&back).unwrap());
    let out = dir.join("out");
    std::fs::create_dir(&out).unwrap();
    tool("debugfs", &["-R", &format!("rdump / {}", text(&out)), text(&back)]);
    tool("diff", &["-r", "--no-dereference", "--exclude=lost+found", text(&tree), text(&out)]);
}

/// nbdfuse, a loop device and a mount, taken down in order whatever happens.
struct Mount {
    fuse_dir: PathBuf,
    fuse: Child,
    device: Option<String>,
    dir: PathBuf,
    mounted: bool,
}

impl Mount {
    /// Shows the export as a file and binds a loop device to it.
    fn attach(base: &Path, uri: &str) -> Mount {
        let (fuse_dir, dir) = (base.join("fuse"), base.join("mnt"));
        std::fs::create_dir_all(&fuse_dir).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let fuse =
            Command::new("nbdfuse").args([text(&fuse_dir), uri]).stdin(Stdio::null()).spawn();
        let fuse = fuse.expect("nbdfuse; `make test` installs it");
        let file = fuse_dir.join("nbd");
        let mut mount = Mount { fuse_dir, fuse, device: None, dir, mounted: false };
        let deadline = Instant::now() + SOON;
        while !file.exists() {
            assert!(Instant::now() < deadline, "nbdfuse shows no file");
            std::thread::sleep(Duration::from_millis(50));
        }
        let device = tool("losetup", &["--find", "--show", text(&file)]);
        mount.device = Some(device.trim().to_owned());
        mount
    }

    fn device(&self) -> &str {
        self.device.as_deref().expect("attached")
    }

    fn mount(&mut self) -> &Path {
        tool("mount", &[self.device.as_deref().expect("attached"), text(&self.dir)]);
        self.mounted = true;
        &self.dir
    }

    fn unmount(&mut self) {
        tool("umount", &[text(&self.dir)]);
        self.mounted = false;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            try_tool("umount", &["-l", text(&self.dir)]);
        }
        if let Some(device) = &self.device {
            try_tool("losetup", &["-d", device]);
        }
        try_tool("fusermount3", &["-u", text(&self.fuse_dir)]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.fuse.try_wait().ok().flatten().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
    }
}

fn is_root() -> bool {
    tool("id", &["-u"]).trim() == "0"
}

/// The kernel's ext4 on the volume, with a chunkserver killed under it. Needs root for the mount;
/// others have the test above.
#[test]
fn mounted_ext4_survives_a_kill() {
    if !is_root() {
        eprintln!("not root: mounting is left out");
        return;
    }
    let mut cluster = TestCluster::with_volume("fs", 160 * MIB);
    let dir = cluster.dir().to_owned();
    let tree = make_tree(&dir);
    let mut mount = Mount::attach(&dir, &cluster.uri(1, "fs"));
    tool("mke2fs", &["-q", "-t", "ext4", mount.device()]);
    let there = mount.mount().to_owned();
    tool("cp", &["-a", text(&tree), text(&there.join("first"))]);
    tool("sync", &["-f", text(&there)]);
    let (leader, _) = cluster.leader_and_follower();
    cluster.kill(leader).unwrap();
    tool("cp", &["-a", text(&tree), text(&there.join("second"))]);
    tool("sync", &["-f", text(&there)]);
    cluster.launch(leader).unwrap();
    tool("rm", &["-r", text(&there.join("first/d3"))]);
    mount.unmount();
    tool("e2fsck", &["-f", "-n", mount.device()]);

    // Everything is started anew: what counts is what is on the devices.
    drop(mount);
    let parts: Vec<Part> = cluster.processes().map(|p| p.part()).collect();
    parts.iter().for_each(|&part| cluster.kill(part).unwrap());
    parts.iter().for_each(|&part| cluster.launch(part).unwrap());
    cluster.wait_gateway(1).unwrap();
    cluster.healthy();
    let mut mount = Mount::attach(&dir, &cluster.uri(1, "fs"));
    tool("e2fsck", &["-f", "-n", mount.device()]);
    let there = mount.mount().to_owned();
    tool("diff", &["-r", "--no-dereference", text(&tree), text(&there.join("second"))]);
    assert!(!there.join("first/d3").exists() && there.join("first/d4").exists());
    mount.unmount();
}
