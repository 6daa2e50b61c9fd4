//! A folder for one test, which is removed with all that is in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("millstream-{}-{number}", process::id()));
        fs::create_dir(&path).expect("the folder is new");
        Folder(path)
    }

    /// A path in it, as text.
    pub fn path(&self, name: &str) -> String {
        self.join(name).to_str().expect("it is text").to_owned()
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // What is left there harms nobody.
    }
}
