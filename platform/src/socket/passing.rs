//! Descriptors that go along with the bytes of a Unix stream: SCM_RIGHTS of unix(7).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

/// The most descriptors that go along with one byte: SCM_MAX_FD of Linux.
pub const MOST_AT_ONCE: usize = 253;
/// Room for what one byte brings along.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SPACE: usize = rustix::cmsg_space!(ScmRights(MOST_AT_ONCE));
/// A socket that was adopted may have been told to bring credentials, too (SO_PASSCRED), which come
/// first.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SPACE: usize = rustix::cmsg_space!(ScmRights(MOST_AT_ONCE), ScmCredentials(1));

/// Not to be stopped by a signal when the peer is gone. Where the flag is missing, the sockets
/// carry the option instead, from when they are made, accepted or taken over.
#[cfg(not(any(target_os = "macos", target_os = "ios")))]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Whether the system says that something came along and found no room.
const TELLS_CUTS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Where the system has no flag for it, it is set afterwards.
#[cfg(not(target_vendor = "apple"))]
const CLOSE_AT_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const CLOSE_AT_EXEC: RecvFlags = RecvFlags::empty();

/// What goes along with the bytes of one connection, in both directions.
#[derive(Debug, Default)]
pub struct Passing {
    received: VecDeque<OwnedFd>,
    /// How many are kept.
    most: usize,
    dropped: u64,
    /// The place in the output of the byte that each goes with, in order.
    waiting: VecDeque<(u64, Vec<OwnedFd>)>,
    /// How many bytes were sent.
    sent: u64,
}

impl Passing {
    /// Keeps up to this many descriptors that were received, until they are taken. More are closed.
    pub fn keep(&mut self, most: usize) {
        self.most = most;
    }

    /// Whether some are kept.
    pub(crate) fn keeps(&self) -> bool {
        self.most > 0
    }

    /// Takes the first descriptor that was received.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }

    /// How many were received and closed because there was no room for them. Where the system
    /// doesn't say how many it had no descriptors left for, they count as one.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many wait to be sent.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(|(_, descriptors)| descriptors.len()).sum()
    }

    /// Sends descriptors, at most [`MOST_AT_ONCE`], along with the byte that `ahead` others go
    /// before.
    pub fn attach(&mut self, ahead: usize, descriptors: Vec<OwnedFd>) {
        debug_assert!(descriptors.len() <= MOST_AT_ONCE, "{} at once", descriptors.len());
        self.waiting.push_back((self.sent + ahead as u64, descriptors));
    }

    /// What was received and not taken; and what waits, each behind this many bytes that wait.
    pub fn into_parts(self) -> (Vec<OwnedFd>, Vec<(usize, Vec<OwnedFd>)>) {
        let ahead = |at| usize::try_from(at - self.sent).unwrap_or(usize::MAX);
        let waiting = self.waiting.into_iter().map(|(at, descriptors)| (ahead(at), descriptors));
        (self.received.into(), waiting.collect())
    }

    /// How many bytes may be sent at once, and whether descriptors go along with the first one.
    pub(crate) fn next(&self, most: usize) -> (usize, bool) {
        let ahead = |(at, _): &(u64, _)| usize::try_from(*at - self.sent).unwrap_or(usize::MAX);
        let mut ahead = self.waiting.iter().map(ahead);
        match ahead.next() {
            Some(0) => (ahead.next().map_or(most, |second| most.min(second)), true),
            Some(first) => (most.min(first), false),
            None => (most, false),
        }
    }

    /// Sends with the first descriptors that wait.
    pub(crate) fn send(
        &self,
        socket: impl AsFd,
        slices: &[IoSlice<'_>],
        flags: SendFlags,
    ) -> io::Result<usize> {
        let descriptors = self.waiting.front().map_or(&[][..], |(_, descriptors)| descriptors);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        send_with(socket, slices, &descriptors, flags)
    }

    /// Bytes were sent, and the descriptors that went with the first of them.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        while self.waiting.front().is_some_and(|(at, _)| *at < self.sent) {
            self.waiting.pop_front();
        }
    }

    /// Takes what came along.
    fn accept(&mut self, control: &mut RecvAncillaryBuffer<'_>, cut: bool) {
        self.dropped += u64::from(cut);
        for message in control.drain() {
            let RecvAncillaryMessage::ScmRights(descriptors) = message else { continue };
            for descriptor in descriptors {
                if self.received.len() >= self.most || close_at_exec(&descriptor).is_err() {
                    self.dropped += 1;
                } else {
                    self.received.push_back(descriptor);
                }
            }
        }
    }
}

/// Sends bytes with descriptors, at most [`MOST_AT_ONCE`], along with the first one.
fn send_with(
    socket: impl AsFd,
    slices: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
    debug_assert!(fits, "{} at once", descriptors.len());
    Ok(sendmsg(socket, slices, &mut control, flags)?)
}

#[cfg(not(target_vendor = "apple"))]
fn close_at_exec(_descriptor: &OwnedFd) -> io::Result<()> {
    Ok(())
}

#[cfg(target_vendor = "apple")]
fn close_at_exec(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?)
}

/// Receives from a Unix stream; returns the number of bytes, and whether something came along with
/// them, or may have, which ends a read early. Without somebody to take it, the system closes it,
/// and says so. Where there is room for it nothing tells what is of a kind that is not known.
pub(crate) fn receive_unix(
    socket: impl AsFd,
    room: &mut [u8],
    passing: Option<&mut Passing>,
) -> io::Result<(usize, bool)> {
    let mut room = [IoSliceMut::new(room)];
    let Some(passing) = passing.filter(|passing| passing.keeps()) else {
        let mut control = RecvAncillaryBuffer::default();
        let received = recvmsg(socket, &mut room, &mut control, CLOSE_AT_EXEC)?;
        let cut = !TELLS_CUTS || received.flags.contains(ReturnFlags::CTRUNC);
        return Ok((received.bytes, cut));
    };
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut room, &mut control, CLOSE_AT_EXEC)?;
    let cut = received.flags.contains(ReturnFlags::CTRUNC);
    passing.accept(&mut control, cut);
    Ok((received.bytes, true))
}

/// Sends bytes on a stream without a signal where the peer is gone, which
/// [`Write`](io::Write) of a Unix stream may raise.
///
/// # Errors
/// The connection is broken, or the socket does not block and has no room.
pub fn send_bytes(socket: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(&socket, bytes, NO_SIGNAL) {
            Err(Errno::INTR) => {}
            sent => bytes = &bytes[sent?..],
        }
    }
    Ok(())
}

/// Sends descriptors, as many as go together with one byte. The other process gets duplicates.
///
/// # Errors
/// The connection is broken, or the socket does not block and has no room.
pub fn send_descriptors(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in descriptors.chunks(MOST_AT_ONCE) {
        send_with(&socket, &[IoSlice::new(&[0])], batch, NO_SIGNAL)?;
    }
    Ok(())
}

/// Receives the next descriptors that [`send_descriptors`] sent: this many, or as many as go
/// together. They are closed when another program is executed.
///
/// # Errors
/// The connection ended, its timeout passed, a signal came, or descriptors got lost because the
/// process has too many.
pub fn receive_descriptors(socket: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut passing = Passing { most: count, ..Passing::default() };
    let (bytes, _) = receive_unix(socket, &mut [0], Some(&mut passing))?;
    if bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if passing.received.len() < count.min(MOST_AT_ONCE) {
        return Err(io::Error::other("descriptors are missing: are there too many open?"));
    }
    Ok(passing.received.into())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_in_order_in_any_number() {
        for count in [0, 1, MOST_AT_ONCE, MOST_AT_ONCE + 1, 3 * MOST_AT_ONCE] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (null, zero) = (File::open("/dev/null").unwrap(), File::open("/dev/zero").unwrap());
            let is_zero = |index: usize| index % 3 == 1;
            let file = |index| if is_zero(index) { zero.as_fd() } else { null.as_fd() };
            let descriptors: Vec<_> = (0..count).map(file).collect();
            send_descriptors(&ours, &descriptors).unwrap();
            let mut received = Vec::new();
            while received.len() < count {
                received.extend(receive_descriptors(&theirs, count - received.len()).unwrap());
            }
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
    fn a_connection_that_ends_or_brings_too_few_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send_descriptors(&ours, &[file.as_fd()]).unwrap();
        assert_eq!(receive_descriptors(&theirs, 2).unwrap_err().kind(), io::ErrorKind::Other);
        drop(ours);
        let error = receive_descriptors(&theirs, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
