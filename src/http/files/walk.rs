//! Opening files beneath a folder, segment by segment, where the system does not see to it. Links
//! are not followed.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Result;

use super::folder::READ;

/// No segment of the path is `..`.
pub(super) fn open(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    let Some((folder, rest)) = path.split_once('/') else {
        return openat(root, path, READ | OFlags::NOFOLLOW, Mode::empty());
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let folder = openat(root, folder, flags, Mode::empty())?;
    open(std::os::fd::AsFd::as_fd(&folder), rest)
}
