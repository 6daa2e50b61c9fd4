//! What a driver of the operating system's sockets has besides the contract.

use std::io;
use std::sync::Arc;

use super::{Budget, Driver};
use crate::socket::{DatagramSocket, Listener, Stream};

/// A driver of the operating system's sockets. It may be made in one thread and belong to another
/// one.
pub trait SystemDriver: Driver<Socket = Stream> + Send + Sized {
    /// Makes one.
    ///
    /// # Errors
    /// The operating system lacks something that it needs.
    fn open(budget: Budget) -> io::Result<Self>;

    /// What has sockets watched for it.
    fn watcher(&self) -> Arc<dyn Watch<Self>>;
}

/// Watches sockets that a driver will take in, on any thread. The caller that asks for one learns
/// what the operating system refuses. It keeps nothing of the driver open once that is dropped, and
/// watches nothing then.
pub trait Watch<D: Driver>: Send + Sync {
    /// Watches a listener, to be given to [`Listening::listen`](super::Listening::listen), or
    /// dropped.
    ///
    /// # Errors
    /// The operating system refused to watch it, or the driver is gone; it is closed.
    fn listener(&self, socket: Listener) -> io::Result<D::Listener>;

    /// Watches a socket for datagrams, to be given to
    /// [`Datagrams::open_datagrams`](super::Datagrams::open_datagrams), or dropped.
    ///
    /// # Errors
    /// The operating system refused to watch it or an option, or the driver is gone; it is closed.
    fn datagrams(&self, socket: DatagramSocket) -> io::Result<D::DatagramSocket>;
}
