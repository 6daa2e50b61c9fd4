//! Opening files beneath a folder, as Linux sees to it.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, ResolveFlags, openat2};
use rustix::io::Result;

use super::folder::READ;

pub(super) fn open(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    let stays = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, READ, Mode::empty(), stays)
}
