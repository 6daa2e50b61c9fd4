//! Who is at the other end of a Unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The process at the other end of a Unix stream, as it was when the connection was made; one that
/// listens, when it began to.
#[doc(alias = "SO_PEERCRED")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    /// The process; `None` where the system doesn't tell, or it is not visible from here.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// The user that this process acts as.
pub fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Asks the system who made or accepted the connection at the other end: SO_PEERCRED of unix(7).
///
/// # Errors
/// The operating system doesn't know.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` is a ucred, has the length that `len` says, and lives beyond the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let pid = u32::try_from(found.pid).ok().filter(|pid| *pid != 0);
    Ok(PeerCredentials { pid, uid: found.uid, gid: found.gid })
}

/// Asks the system who made or accepted the connection at the other end: getpeereid(3).
///
/// # Errors
/// The operating system doesn't know.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: both are numbers of the right types that live beyond the call.
    if unsafe { libc::getpeereid(socket.as_fd().as_raw_fd(), &raw mut uid, &raw mut gid) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials { pid: None, uid, gid })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_ends_user_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(peer_credentials(&ours).unwrap().uid, own_user());
    }
}
