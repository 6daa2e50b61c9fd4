//! Passing descriptors to another process over a Unix socket, and who that is.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How many descriptors go with one byte; Linux takes 253 at most.
const BATCH: usize = 64;
const SPACE: usize = rustix::cmsg_space!(ScmRights(BATCH));

/// Sends descriptors, each batch with one byte. The other process gets duplicates.
///
/// # Errors
/// The connection is broken, or the socket does not block and has no room.
pub fn send_descriptors(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(batch));
        debug_assert!(fits, "there is space for a batch");
        sendmsg(&socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    }
    Ok(())
}

/// Receives what [`send_descriptors`] sent: so many descriptors. They are closed when another program is
/// executed.
///
/// # Errors
/// The connection ended, its timeout passed, or descriptors got lost because the process has too many.
pub fn receive_descriptors(socket: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let before = received.len();
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut control, FLAGS)?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
        if received.len() - before != BATCH.min(count - before) {
            return Err(io::Error::other("descriptors are missing: are there too many open?"));
        }
    }
    for descriptor in &received {
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok(received)
}

#[cfg(not(target_vendor = "apple"))]
const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const FLAGS: RecvFlags = RecvFlags::empty();

/// The user that this process acts as.
pub fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user that the process at the other end of a Unix connection acted as when it was made; for one that
/// listens, when it began to.
///
/// # Errors
/// It is no Unix connection.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub fn peer_user(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// The user that the process at the other end of a Unix connection acted as when it was made; for one that
/// listens, when it began to.
///
/// # Errors
/// It is no Unix connection.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub fn peer_user(socket: impl AsFd) -> io::Result<u32> {
    use std::os::fd::AsRawFd;

    let (mut user, mut group) = (0, 0);
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed and so open, and both pointers are to places of their types.
    let answer = unsafe { libc::getpeereid(descriptor, &mut user, &mut group) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(user) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_in_order_in_any_number() {
        for count in [0, 1, BATCH, BATCH + 1, 3 * BATCH] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (null, zero) = (File::open("/dev/null").unwrap(), File::open("/dev/zero").unwrap());
            let is_zero = |index: usize| index % 3 == 1;
            let file = |index| if is_zero(index) { zero.as_fd() } else { null.as_fd() };
            let descriptors: Vec<_> = (0..count).map(file).collect();
            send_descriptors(&ours, &descriptors).unwrap();
            let received = receive_descriptors(&theirs, count).unwrap();
            let device = |file: &File| file.metadata().unwrap().rdev();
            let received: Vec<_> =
                received.into_iter().map(|descriptor| device(&descriptor.into())).collect();
            let expected: Vec<_> = (0..count)
                .map(|index| device(if is_zero(index) { &zero } else { &null }))
                .collect();
            assert_eq!(received, expected);
        }
    }

    #[test]
    fn a_connection_that_ends_before_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        let error = receive_descriptors(&theirs, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_other_ends_user_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(peer_user(&ours).unwrap(), own_user());
    }
}
