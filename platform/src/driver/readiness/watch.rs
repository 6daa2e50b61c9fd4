//! Watching a socket before its driver takes it in.
//!
//! The operating system may refuse to watch one more socket. The code that asks for one should
//! learn that at once, not the driver's thread later. So any thread may have it watched, under no
//! name; when the driver takes it in it only gets its name, for which the system needs nothing that
//! it could lack.

use std::io;
use std::sync::Weak;

use mio::net::TcpStream;
use mio::{Interest, Registry};

use super::name::Name;

/// What can be watched before it is taken in: a [`Listener`](crate::socket::Listener) and a
/// [`DatagramSocket`](crate::socket::DatagramSocket).
pub trait Prepare: Sized {
    /// The socket as it can be watched.
    type Prepared: Prepared;

    /// Makes it one that can be watched.
    ///
    /// # Errors
    /// The operating system refused an option.
    fn prepare(self) -> io::Result<Self::Prepared>;
}

/// A socket that can be watched.
pub trait Prepared {
    /// The socket as mio watches it.
    fn source(&mut self) -> &mut TcpStream;
}

/// Has a [`Readiness`](super::Readiness) watch sockets, as long as there is one: its descriptors
/// close with it, although others still have this.
pub(super) struct Watcher(pub(super) Weak<Registry>);

impl Watcher {
    /// Watches a socket.
    pub(super) fn watch<S: Prepare>(&self, socket: S) -> io::Result<Arriving<S>> {
        let mut socket = socket.prepare()?;
        let gone = || io::Error::other("the driver is gone");
        let registry = self.0.upgrade().ok_or_else(gone)?;
        registry.register(socket.source(), Name::NOBODY, Interest::READABLE)?;
        Ok(Arriving(Way::Watched(Watched { socket: Some(socket), registry: Weak::clone(&self.0) })))
    }
}

/// A socket on its way to a [`Readiness`](super::Readiness). One that its
/// [`Watch`](crate::driver::Watch) made is watched already; one that is made of the bare socket is
/// watched as it is taken in.
pub struct Arriving<S: Prepare>(Way<S>);

enum Way<S: Prepare> {
    Bare(S),
    Watched(Watched<S::Prepared>),
}

struct Watched<P: Prepared> {
    /// None once it was taken in.
    socket: Option<P>,
    registry: Weak<Registry>,
}

impl<S: Prepare> From<S> for Arriving<S> {
    fn from(socket: S) -> Self {
        Arriving(Way::Bare(socket))
    }
}

impl<S: Prepare> Arriving<S> {
    /// Gives it its name.
    pub(super) fn take_in(self, name: Name, registry: &Registry) -> io::Result<S::Prepared> {
        let name = name.pack();
        match self.0 {
            Way::Bare(socket) => {
                let mut socket = socket.prepare()?;
                registry.register(socket.source(), name, Interest::READABLE)?;
                Ok(socket)
            }
            Way::Watched(mut watched) => {
                let socket = watched.socket.as_mut().expect("it was not taken in");
                registry.reregister(socket.source(), name, Interest::READABLE)?;
                Ok(watched.socket.take().expect("it is there"))
            }
        }
    }
}

impl<P: Prepared> Drop for Watched<P> {
    fn drop(&mut self) {
        if let (Some(socket), Some(registry)) = (&mut self.socket, self.registry.upgrade()) {
            // Another process may have the socket, too, so that closing it here would not take it
            // off the system's list. Should this fail, it is announced to nobody.
            let _ = registry.deregister(socket.source());
        }
    }
}
