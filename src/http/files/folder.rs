//! A folder out of which no path leads.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::{beneath, walk};

/// To read, at once: a FIFO would wait for who writes to it.
pub(super) const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// How often a path is tried while something on its way is moved.
const TRIES: usize = 8;

#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    /// The system stays in the folder by itself.
    has_beneath: bool,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        // Asked here, since a sandbox refuses it with an error that a path may have, too.
        let has_beneath = beneath::open(root.as_fd(), ".").is_ok();
        Ok(Folder { root, has_beneath })
    }

    /// Opens what this path leads to, without leaving the folder.
    pub(super) fn find(&self, path: &str) -> io::Result<File> {
        if !self.has_beneath {
            return Ok(walk::open(self.root.as_fd(), path)?.into());
        }
        for _ in 1..TRIES {
            match beneath::open(self.root.as_fd(), path) {
                Err(Errno::AGAIN) => {}
                opened => return Ok(opened?.into()),
            }
        }
        Ok(beneath::open(self.root.as_fd(), path)?.into())
    }

    /// Opens what this path leads to, wherever that is.
    pub(super) fn follow(&self, path: &str) -> io::Result<File> {
        Ok(openat(&self.root, path, READ, Mode::empty())?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::{env, fs, process};

    use super::*;

    /// A folder with links, which is removed at the test's end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let tree = Tree(env::temp_dir().join(format!("millstream-{}-{name}", process::id())));
            let path = |name: &str| tree.0.join(name);
            fs::create_dir_all(path("root/sub/deep")).expect("it is new");
            for name in ["outside", "root/file", "root/sub/file", "root/sub/deep/file"] {
                fs::write(path(name), name).expect("it is new");
            }
            symlink("sub/file", path("root/in")).expect("it is new");
            symlink("../file", path("root/sub/up")).expect("it is new");
            symlink("sub", path("root/folder")).expect("it is new");
            symlink("../outside", path("root/out")).expect("it is new");
            symlink("..", path("root/parent")).expect("it is new");
            symlink(path("root/file"), path("root/absolute")).expect("it is new");
            symlink("circle", path("root/circle")).expect("it is new");
            tree
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn read(file: io::Result<File>) -> Option<String> {
        io::read_to_string(file.ok()?).ok()
    }

    const WITHIN: [&str; 3] = ["in", "sub/up", "folder/deep/file"];
    const OUT: [&str; 5] = ["out", "parent/outside", "absolute", "circle", "parent/root/file"];

    fn check(folder: &Folder, follows_within: bool) {
        for path in ["file", "sub/file", "sub/deep/file"] {
            assert_eq!(read(folder.find(path)), Some(format!("root/{path}")));
        }
        for path in ["none", "file/none", "sub/none"] {
            assert_eq!(read(folder.find(path)), None, "{path}");
        }
        for path in WITHIN {
            assert_eq!(folder.find(path).is_ok(), follows_within, "{path}");
        }
        for path in OUT {
            assert_eq!(read(folder.find(path)), None, "{path}");
        }
        assert_eq!(read(folder.follow("parent/outside")), Some("outside".into()));
    }

    #[test]
    fn the_system_stays_in_the_folder() {
        let tree = Tree::new("beneath");
        let folder = Folder::open(&tree.0.join("root")).expect("it is one");
        check(&folder, folder.has_beneath);
        assert!(Folder::open(&tree.0.join("outside")).is_err(), "it is a file");
    }

    #[test]
    fn a_walk_stays_in_the_folder() {
        let tree = Tree::new("walk");
        let folder = Folder::open(&tree.0.join("root")).expect("it is one");
        check(&Folder { has_beneath: false, ..folder }, false);
    }
}
