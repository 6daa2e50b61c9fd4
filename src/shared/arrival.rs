//! How connections, listeners and sockets for datagrams come to the thread that serves them.

use std::sync::Arc;

use millstream_platform::address::PeerAddress;
use millstream_platform::driver::Driver;

use super::admission::Admission;
use super::counters::Counters;
use super::inbox::Inbox;
use super::listeners::{ListenerState, OpenSocket};
use crate::base::ListenerId;

/// What comes to a thread to be taken in.
pub(crate) enum Arrival<D: Driver> {
    /// A connection that the acceptor accepted.
    Connection {
        socket: D::Socket,
        peer: PeerAddress,
        listener: Arc<ListenerState>,
        admission: Admission,
    },
    /// A listener to accept on.
    Listener { socket: D::Listener, open: OpenSocket },
    /// A socket for datagrams.
    Datagrams { socket: D::DatagramSocket, open: OpenSocket },
    /// A listener is to be closed.
    Close(ListenerId),
}

/// Where a reactor takes new connections in, and its own listeners.
pub(crate) struct AcceptQueue<D: Driver> {
    pub(crate) arrivals: Arc<Inbox<Arrival<D>>>,
    pub(crate) counters: Arc<Counters>,
}

impl<D: Driver> Clone for AcceptQueue<D> {
    fn clone(&self) -> Self {
        AcceptQueue { arrivals: Arc::clone(&self.arrivals), counters: Arc::clone(&self.counters) }
    }
}
