//! Accepting.
//!
//! An accept that finds nobody costs as much as a good part of one that does, because the system
//! makes the new socket first. So a listener accepts one connection and then asks to be announced
//! again, which says at once if more are waiting, and is cheap. Where it has to ask turn after
//! turn, connections come in numbers, and it accepts more of them before it asks, up to the turn's
//! budget, until it has found nobody.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use socket2::SockRef;

use super::name::Name;
use super::stream;
use super::turn::{Spent, Turn, add, left};
use super::watch::{Arriving, Prepare, Prepared};
use crate::address::{PeerAddress, Transport};
use crate::driver::slots::Slots;
use crate::driver::{Event, Token};
use crate::socket::{self, SocketFile, Stream};

/// Whether registering a listener again is cheap and announces connections that are waiting
/// already, as epoll does. mio's poll back end may lose a wake that comes meanwhile.
const ANNOUNCES_AGAIN: bool = cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
));
/// After this many turns in a row the batch doubles with each further one.
const GROWS_AFTER: u32 = 4;

/// A listening socket.
pub struct Accepting {
    /// As mio watches it.
    socket: TcpStream,
    transport: Transport,
    /// See [`Stream::drains`].
    drains: bool,
    /// The file of a Unix socket goes with it.
    _file: Option<Arc<SocketFile>>,
}

#[derive(Default)]
pub(super) struct Listeners(Slots<Listener>);

struct Listener {
    socket: Accepting,
    /// It could not accept, and waits to be told to go on.
    halted: bool,
    /// It is on one of the turn's lists.
    queued: bool,
    spent: Spent,
    /// How many connections in a row were gone when they were accepted. More than a turn's budget
    /// of them are an error that stays, whatever the system calls it.
    gone: usize,
    /// How many it accepts in a turn before it asks to be announced again.
    batch: u32,
    /// When it did that last.
    asked: u32,
    /// In how many turns in a row it did.
    streak: u32,
}

impl Prepare for socket::Listener {
    type Prepared = Accepting;

    fn prepare(self) -> io::Result<Accepting> {
        let transport = self.transport();
        let (socket, file): (OwnedFd, _) = match self {
            socket::Listener::Tcp(listener) => (listener.into(), None),
            socket::Listener::Unix { listener, file } => (listener.into(), file),
        };
        SockRef::from(&socket).set_nonblocking(true)?;
        let drains = socket::drains(&SockRef::from(&socket));
        Ok(Accepting { socket: stream::watched(socket), transport, drains, _file: file })
    }
}

impl Prepared for Accepting {
    fn source(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}

impl Accepting {
    fn accept(&self) -> io::Result<(Stream, PeerAddress)> {
        // Not by mio, which takes no name of 108 bytes for one and panics.
        let accepted = self.socket.try_io(|| socket::accept(&self.socket, self.transport));
        accepted.map(|(stream, peer)| (Stream { drains: self.drains, ..stream }, peer))
    }
}

impl Listener {
    /// Asks to be announced if more connections wait, now or later.
    fn ask(&mut self, token: Token, registry: &Registry, turn: &Turn) -> io::Result<()> {
        let name = Name::Listener(token).pack();
        registry.reregister(self.socket.source(), name, Interest::READABLE)?;
        // Where a wait can't reap everything, the answer may have been left for a later one.
        let in_a_row = turn.number.wrapping_sub(self.asked) == 1 || turn.crowded;
        self.asked = turn.number;
        self.streak = if in_a_row { self.streak + 1 } else { 0 };
        if self.streak >= GROWS_AFTER {
            self.batch = self.batch.saturating_mul(2);
        }
        Ok(())
    }

    /// Nobody waits.
    fn drained(&mut self) {
        (self.batch, self.streak, self.gone) = (1, 0, 0);
    }

    fn queue(&mut self, token: Token) -> Option<Name> {
        let newly = !self.queued && !self.halted;
        self.queued |= newly;
        newly.then_some(Name::Listener(token))
    }
}

impl Listeners {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a listener in. It comes to the turn's list once by itself: connections may be waiting.
    pub(super) fn add(
        &mut self,
        token: Token,
        listener: Arriving<socket::Listener>,
        registry: &Registry,
    ) -> io::Result<Name> {
        let name = Name::Listener(token);
        let socket = listener.take_in(name, registry)?;
        let listener = Listener {
            socket,
            halted: false,
            queued: true,
            spent: Spent::default(),
            gone: 0,
            batch: 1,
            asked: 0,
            streak: 0,
        };
        self.0.insert(token, listener);
        Ok(name)
    }

    pub(super) fn remove(&mut self, token: Token, registry: &Registry) {
        let Some(mut listener) = self.0.remove(token) else { return };
        // A duplicate of its descriptor may live on. Should this fail, its notifications carry a
        // generation that is over.
        let _ = registry.deregister(listener.socket.source());
    }

    /// A notification came; returns what to put on the turn's list.
    pub(super) fn note(&mut self, unpacked: Token) -> Option<Name> {
        let (token, listener) = Name::find(unpacked, &mut self.0)?;
        listener.queue(token)
    }

    /// Makes a listener wait to be told to go on.
    pub(super) fn halt(&mut self, token: Token) -> Option<()> {
        self.0.get_mut(token)?.halted = true;
        Some(())
    }

    pub(super) fn resume(&mut self, token: Token) -> Option<Name> {
        let listener = self.0.get_mut(token)?;
        listener.halted = false;
        listener.queue(token)
    }

    /// Accepts one connection, within the listener's budget.
    pub(super) fn serve(
        &mut self,
        token: Token,
        registry: &Registry,
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let listener = self.0.get_mut(token)?;
        listener.queued = false;
        loop {
            let accepted = listener.spent.in_turn(turn.number).incoming;
            if left(turn.budget.accept, accepted) == 0 {
                turn.carry(listener.queue(token));
                return None;
            }
            add(&mut listener.spent.incoming, 1);
            match listener.socket.accept() {
                Ok((socket, peer)) => {
                    listener.gone = 0;
                    let batch_is_full = ANNOUNCES_AGAIN && accepted + 1 >= listener.batch;
                    if !batch_is_full || listener.ask(token, registry, turn).is_err() {
                        turn.push(listener.queue(token));
                    }
                    return Some(Event::Accepted { listener: token, socket, peer });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    listener.drained();
                    return None;
                }
                Err(error)
                    if concerns_one_connection(&error) && listener.gone < turn.budget.accept =>
                {
                    listener.gone += 1;
                }
                Err(error) => {
                    listener.gone = 0;
                    listener.halted = true;
                    return Some(Event::AcceptFailed { listener: token, error });
                }
            }
        }
    }
}

/// Whether accepting failed for a connection that is gone already, so that the next one may be
/// fine. These are the network errors that accept(2) of Linux says to treat like "try again"; it
/// names three more, with which the system may refuse every time, and without taking a connection
/// off its queue.
fn concerns_one_connection(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    let gone = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    gone.contains(&code)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Peer;
    use std::time::{Duration, Instant};

    use super::super::Readiness;
    use super::*;
    use crate::driver::{Budget, Host, Listening, Polling, Space};

    struct NoRoom;

    impl Host for NoRoom {
        fn space(&mut self, _token: Token) -> Space<'_> {
            Space::Buffer
        }
    }

    /// How many connections each turn accepts until there are `count`.
    fn accept(driver: &mut Readiness, count: usize) -> Vec<usize> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut turns = Vec::new();
        while turns.iter().sum::<usize>() < count {
            assert!(Instant::now() < deadline, "accepted {turns:?} of {count}");
            driver.wait(Some(Duration::from_secs(1))).unwrap();
            let accepted = std::iter::from_fn(|| driver.next(&mut NoRoom));
            turns.push(accepted.filter(|event| matches!(event, Event::Accepted { .. })).count());
        }
        turns
    }

    #[test]
    fn a_crowd_is_accepted_in_growing_batches_and_whoever_comes_later_too() {
        let budget = Budget { receive_buffer: 1, read: 1, write: 1, accept: 64 };
        let mut driver = Readiness::new(budget).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = socket::Listener::Tcp(listener);
        driver.listen(Token { index: 0, generation: 0 }, listener.into()).unwrap();
        for _ in 0..3 {
            let _crowd: Vec<_> = (0..100).map(|_| Peer::connect(address).unwrap()).collect();
            let turns = accept(&mut driver, 100);
            assert!(turns.len() <= 12, "in batches of {turns:?}");
            assert!(turns.iter().all(|accepted| *accepted <= 64), "{turns:?}");
            for _ in 0..10 {
                let _single = Peer::connect(address).unwrap();
                assert_eq!(accept(&mut driver, 1).last(), Some(&1));
            }
        }
    }

    /// Another process accepts on the same socket: this driver has nothing to do with it any more.
    #[test]
    fn a_listener_that_lives_on_elsewhere_wakes_nobody_here() {
        let budget = Budget { receive_buffer: 1, read: 1, write: 1, accept: 64 };
        let mut driver = Readiness::new(budget).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let elsewhere = listener.try_clone().unwrap();
        let token = Token { index: 0, generation: 0 };
        driver.listen(token, socket::Listener::Tcp(listener).into()).unwrap();
        driver.unlisten(token);
        driver.wait(Some(Duration::ZERO)).unwrap();
        assert!(driver.next(&mut NoRoom).is_none());
        let (begin, limit) = (Instant::now(), Duration::from_millis(100));
        let _peer = Peer::connect(address).unwrap();
        driver.wait(Some(limit)).unwrap();
        assert!(begin.elapsed() >= limit, "it was woken");
        drop(elsewhere);
    }

    #[test]
    fn a_gone_connection_is_not_the_listeners_failure() {
        let error = |code| concerns_one_connection(&io::Error::from_raw_os_error(code));
        assert!(error(libc::ECONNABORTED));
        assert!(error(libc::EPROTO));
        assert!(!error(libc::EPERM));
        assert!(!error(libc::EMFILE));
        assert!(!error(libc::ENFILE));
        assert!(!error(libc::EBADF));
    }
}
