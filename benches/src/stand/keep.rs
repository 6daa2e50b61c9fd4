//! What keeping a record takes: a commit that it names, and its own file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde::Serialize;

/// Where records are kept, below the root. What is there is measured by nobody, so it may change.
const RECORDS: &str = "benches/record";

/// Why a record can't be kept: nobody could tell from it what was measured.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// There is no commit, or git can't tell which one it is.
    #[error("a record names its commit, and git knows of none: {0}")]
    NoCommit(String),
    /// Files differ from the commit, or are not in it.
    #[error("a record names its commit, and the tree differs from {commit}: {changes}")]
    Changed {
        /// The commit that is checked out.
        commit: String,
        /// What git says of the files, separated by commas.
        changes: String,
    },
}

/// The folder of records, if one of this tree can be kept.
///
/// # Errors
///
/// If `root` is not a checkout, or a file outside of the folder of records differs from the commit.
pub fn keep(root: &Path) -> Result<PathBuf, KeepError> {
    let Tree { commit, changes } = Tree::at(root)?;
    match changes.is_empty() {
        true => Ok(root.join(RECORDS)),
        false => Err(KeepError::Changed { commit, changes: changes.join(", ") }),
    }
}

/// The commit that is checked out at `root`, and whether files differ from it.
pub(super) fn commit(root: &Path) -> String {
    match Tree::at(root) {
        Ok(Tree { commit, changes }) if changes.is_empty() => commit,
        Ok(Tree { commit, .. }) => format!("{commit}, changed"),
        Err(_) => "unknown".to_owned(),
    }
}

/// What is checked out.
struct Tree {
    commit: String,
    /// A line of git's for each file that differs, those in the folder of records left out.
    changes: Vec<String>,
}

impl Tree {
    fn at(root: &Path) -> Result<Self, KeepError> {
        let commit = git(root, &["rev-parse", "--short", "HEAD"])?;
        let others = format!(":(exclude){RECORDS}");
        let changes = git(root, &["status", "--porcelain", "--", ".", &others])?;
        let changes = changes.lines().map(|line| line.trim().to_owned()).collect();
        Ok(Self { commit, changes })
    }
}

/// The first of `NAME.json`, `NAME-2.json` and so on that is not there: no record is overwritten.
#[must_use]
pub fn unused(folder: &Path, name: &str) -> PathBuf {
    let mut path = folder.join(format!("{name}.json"));
    for number in 2.. {
        if !path.exists() {
            break;
        }
        path = folder.join(format!("{name}-{number}.json"));
    }
    path
}

/// Writes a record as JSON into a file of its own, of this name; returns which one.
///
/// # Errors
///
/// The file can't be written.
pub fn write_record(folder: &Path, name: &str, record: &impl Serialize) -> io::Result<PathBuf> {
    let path = unused(folder, name);
    fs::write(&path, format!("{}\n", serde_json::to_string_pretty(record)?))?;
    Ok(path)
}

/// What git says.
fn git(root: &Path, arguments: &[&str]) -> Result<String, KeepError> {
    let output = Command::new("git").current_dir(root).args(arguments).output();
    let output = output.map_err(|error| KeepError::NoCommit(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(KeepError::NoCommit(text(&output.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder that is removed with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("millstream-keep-{name}-{}", std::process::id());
            let folder = Self(std::env::temp_dir().join(name));
            fs::create_dir(&folder.0).unwrap();
            folder
        }

        fn write(&self, path: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }

        fn git(&self, arguments: &[&str]) -> String {
            let who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"];
            git(&self.0, &[&who, arguments].concat()).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0); // What is left there harms nobody.
        }
    }

    fn git_is_there() -> bool {
        Command::new("git").arg("--version").output().is_ok()
    }

    #[test]
    fn a_record_names_a_commit_that_has_what_was_measured() {
        if !git_is_there() {
            return;
        }
        let folder = Folder::new("changed");
        folder.git(&["init", "--quiet"]);
        folder.write("lib.rs");
        folder.git(&["add", "."]);
        folder.git(&["commit", "--quiet", "--message=first"]);
        let commit = folder.git(&["rev-parse", "--short", "HEAD"]);
        // What was recorded before is not measured.
        folder.write("benches/record/old.json");
        assert_eq!(keep(&folder.0).unwrap(), folder.0.join("benches/record"));
        assert_eq!(super::commit(&folder.0), commit);
        folder.write("new.rs");
        fs::write(folder.0.join("lib.rs"), "other text").unwrap();
        let error = keep(&folder.0).unwrap_err().to_string();
        assert!(error.ends_with(&format!("differs from {commit}: M lib.rs, ?? new.rs")), "{error}");
        assert_eq!(super::commit(&folder.0), format!("{commit}, changed"));
    }

    #[test]
    fn no_record_is_kept_where_there_is_no_commit() {
        let folder = Folder::new("none");
        let error = keep(&folder.0).unwrap_err();
        assert!(matches!(error, KeepError::NoCommit(_)), "{error}");
        assert_eq!(commit(&folder.0), "unknown");
    }

    #[test]
    fn no_record_is_overwritten() {
        let folder = Folder::new("unused");
        let path = |name: &str| folder.0.join(name);
        assert_eq!(unused(&folder.0, "day"), path("day.json"));
        folder.write("day.json");
        folder.write("day-2.json");
        assert_eq!(unused(&folder.0, "day"), path("day-3.json"));
    }
}
