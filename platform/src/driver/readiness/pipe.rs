//! The pipe that splice(2) moves bytes through, from one socket to another.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::retry::retry_unblocked;
use super::sigpipe;

/// How bytes go from socket to socket.
#[derive(Default)]
pub(super) struct Relaying {
    /// Empty but inside of [`Sockets::relay`](super::socket::Sockets::relay): one serves all
    /// connections.
    pub(super) pipe: Option<Pipe>,
    /// The system refuses splice(2), whatever it is to move.
    pub(super) refused: bool,
}

pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Neither end waits.
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    /// Fills the empty pipe with what arrived on a socket.
    pub(super) fn fill(&self, from: &TcpStream, most: usize) -> io::Result<usize> {
        from.try_io(|| Ok(splice(from, None, &self.write, None, most, FLAGS)?))
    }

    /// Sends on a socket what is in the pipe.
    pub(super) fn drain(&self, to: &TcpStream, len: usize) -> io::Result<usize> {
        let splice = || Ok(splice(&self.read, None, to, None, len, FLAGS)?);
        to.try_io(|| sigpipe::without(splice))
    }

    /// Whether the call is refused as such: then it is where it has nothing to do, too.
    pub(super) fn is_refused(&self) -> bool {
        splice(&self.read, None, &self.write, None, 0, FLAGS).is_err()
    }

    /// Takes out what is in the pipe, which fits.
    pub(super) fn read(&self, room: &mut [u8]) -> io::Result<()> {
        let mut taken = 0;
        while taken < room.len() {
            match retry_unblocked(|| Ok(rustix::io::read(&self.read, &mut room[taken..])?))? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => taken += count,
            }
        }
        Ok(())
    }
}

/// Whether splice(2) fails by this for sockets that are all right.
pub(super) fn is_of_splice(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::INVAL | Errno::NOMEM | Errno::OPNOTSUPP | Errno::PERM))
}
