//! The handle of an engine's reactors.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use super::conn::Conn;
use super::datagram::DatagramSocket;
use super::mailbox::{Command, DatagramOrder, Mailbox, Order};
use super::reactor::Reactor;
use super::{Action, EventHandler, ReactorAction};
use crate::base::{ConnId, DatagramId, Stopped};
use crate::config::{AdoptError, Connect, ConnectError, OpenDatagram, OpenError};
use crate::shared::Engine;
use crate::unwind::drop_caught;

/// All reactors of an engine, for any thread: the way to run something where another reactor keeps
/// its state, and to make connections. [`Conn::reactors`](crate::Conn::reactors),
/// [`Reactor::reactors`] and [`Engine::reactors`](crate::Engine::reactors) return it. Cheap to
/// clone, `Send` and `Sync`.
///
/// What one thread asks of a reactor is done in the order it asked, what it asks of the reactor's
/// connections by [`Remote`](crate::Remote) included.
///
/// ```
/// use millstream::{Action, Conn, Engine, EventHandler, ReactorAction};
///
/// /// Each reactor has its own count.
/// struct Counter(u64);
///
/// impl EventHandler for Counter {
///     type State = ();
///
///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         self.0 += conn.input.take_all().len() as u64;
///         Action::Continue
///     }
/// }
///
/// let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Counter(0))?;
/// let reactors = engine.reactors::<Counter>().expect("it is the engine's handler");
/// for reactor in 0..reactors.len() {
///     reactors.run(reactor, |counter, reactor| {
///         println!("reactor {} received {} bytes", reactor.index(), counter.0);
///         ReactorAction::Continue
///     })?;
/// }
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("broadcast", "event loops", "fan-out"))]
pub struct Reactors<H: EventHandler>(Arc<Way<H>>);

/// How reactors are reached.
enum Way<H: EventHandler> {
    /// Their handlers are of this type.
    Direct(Box<[OnceLock<Arc<Mailbox<H>>>]>),
    /// Their handlers have one of this type.
    Through(Box<dyn Post<H>>),
}

/// The way to a handler that is a part of its reactor's.
pub(crate) trait Post<H: EventHandler>: Send + Sync {
    /// How many reactors there are.
    fn len(&self) -> usize;

    /// What is the same for all ways to the same engine.
    fn engine(&self) -> *const ();

    /// Asks a reactor, or drops what is asked.
    fn post(&self, reactor: usize, command: Command<H>) -> Result<(), Stopped>;
}

impl<H: EventHandler> Reactors<H> {
    /// A handle of reactors that are still to be made.
    pub(crate) fn new(count: usize) -> Self {
        Reactors(Arc::new(Way::Direct((0..count).map(|_| OnceLock::new()).collect())))
    }

    /// A handle of reactors by another way.
    pub(crate) fn through(post: impl Post<H> + 'static) -> Self {
        Reactors(Arc::new(Way::Through(Box::new(post))))
    }

    /// Makes a reactor known.
    pub(crate) fn set(&self, reactor: usize, mailbox: Arc<Mailbox<H>>) {
        let Way::Direct(mailboxes) = &*self.0 else { return };
        let set = mailboxes[reactor].set(mailbox);
        debug_assert!(set.is_ok(), "reactor {reactor} is made twice");
    }

    /// Whether these are the same engine's.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.engine() == other.engine()
    }

    /// What is the same for all handles of the same engine.
    pub(crate) fn engine(&self) -> *const () {
        match &*self.0 {
            Way::Direct(mailboxes) => mailboxes.as_ptr().cast(),
            Way::Through(post) => post.engine(),
        }
    }

    /// Asks a connection. What can't be done any more is dropped.
    pub(crate) fn ask(&self, id: ConnId, order: Order<H>) -> Result<(), Stopped> {
        self.post(id.reactor(), Command::Connection { token: id.token, order })
    }

    /// Asks a socket for datagrams. What can't be done any more is dropped.
    pub(crate) fn ask_datagrams(
        &self,
        id: DatagramId,
        order: DatagramOrder<H>,
    ) -> Result<(), Stopped> {
        self.post(id.reactor(), Command::Datagrams { token: id.token, order })
    }

    /// How many reactors the engine has. Each has its own handler.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        match &*self.0 {
            Way::Direct(mailboxes) => mailboxes.len(),
            Way::Through(post) => post.len(),
        }
    }

    /// Runs a closure with a reactor's handler on that reactor's thread, as a callback like all
    /// others. It runs exactly once, also when the engine stops, with one exception: the reactor
    /// has ended already. Then this returns [`Stopped`], or, if that happens in this very moment,
    /// drops the closure without running it.
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped.
    ///
    /// # Panics
    /// If there is no such reactor: `reactor` is an index below [`len`](Self::len).
    #[doc(alias("execute", "post", "queue_in_loop"))]
    pub fn run(
        &self,
        reactor: usize,
        closure: impl FnOnce(&mut H, &mut Reactor<'_, H>) -> ReactorAction + Send + 'static,
    ) -> Result<(), Stopped> {
        self.post(reactor, Command::Reactor(Box::new(closure)))
    }

    /// Makes a connection on a reactor. `done` runs as a callback of that reactor: with the
    /// connection when it is open, right after its [`on_open`](EventHandler::on_open), or with the
    /// reason why there is none, which no other callback reports. By the [`Reactor`] that it is
    /// given it can connect again. From then on it is a connection like those that were accepted:
    /// it has the same callbacks, limits and statistics, but it does not count against the limit
    /// per source. It counts as a connection as soon as the attempt begins.
    ///
    /// Any thread may call it, callbacks included. `done` runs exactly once, also when the engine
    /// stops, with one exception: the reactor has ended already. Then this returns [`Stopped`], or,
    /// if that happens in this very moment, drops `done` without running it.
    ///
    /// What `done` returns counts as for every callback; without a connection there is nothing
    /// that [`Action::Close`] would close. A panic in it closes the connection.
    ///
    /// ```
    /// # use millstream::{Action, Conn, Connect, Engine, EventHandler};
    /// # use std::time::Duration;
    /// struct Client;
    ///
    /// impl EventHandler for Client {
    ///     type State = ();
    ///
    ///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
    ///         assert_eq!(conn.input.take_all(), b"hello");
    ///         Action::Shutdown // The whole engine: it has nothing else to do.
    ///     }
    /// }
    ///
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// let engine = Engine::builder().reactors(1).start(|_reactor| Client)?;
    /// let reactors = engine.reactors::<Client>().expect("it is the engine's handler");
    /// let connect = Connect::to(address).timeout(Duration::from_secs(3));
    /// reactors.connect(0, connect, |_client, _reactor, connected| match connected {
    ///     Ok(conn) => {
    ///         conn.output.write(b"hello");
    ///         Action::Continue
    ///     }
    ///     Err(error) => panic!("{error}"),
    /// })?;
    /// # use std::io::{Read, Write};
    /// # let (mut peer, _) = server.accept()?;
    /// # peer.set_read_timeout(Some(Duration::from_secs(10)))?;
    /// # let mut hello = [0; 5];
    /// # peer.read_exact(&mut hello)?;
    /// # peer.write_all(&hello)?;
    /// # assert_eq!(peer.read(&mut hello)?, 0);
    /// # drop(peer);
    /// engine.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped.
    ///
    /// # Panics
    /// If there is no such reactor: `reactor` is an index below [`len`](Self::len).
    #[doc(alias("client", "dial"))]
    pub fn connect(
        &self,
        reactor: usize,
        connect: Connect,
        done: impl FnOnce(&mut H, &mut Reactor<'_, H>, Result<&mut Conn<'_, H>, ConnectError>) -> Action
        + Send
        + 'static,
    ) -> Result<(), Stopped> {
        self.post(reactor, Command::Connect { connect: Box::new(connect), done: Box::new(done) })
    }

    /// Hands a connected stream socket to a reactor, TCP or Unix, that was made elsewhere: accepted
    /// by a listener that you have, inherited, or received from another process. `done` runs as for
    /// [`connect`](Self::connect): exactly once, with the connection right after its
    /// [`on_open`](EventHandler::on_open), or with the reason why there is none, which in most
    /// cases brings the socket back. From then on it is a connection like any other; it does not
    /// count against the limit per source.
    ///
    /// The socket is made one that doesn't block. Its options stay as they are: those that
    /// [`Builder`](crate::Builder) sets are for sockets that the engine makes.
    ///
    /// Any thread may call it, callbacks included.
    ///
    /// ```
    /// # use millstream::{Action, Conn, Engine, EventHandler};
    /// # use std::io::{Read, Write};
    /// # use std::os::unix::net::UnixStream;
    /// # struct Echo;
    /// # impl EventHandler for Echo {
    /// #     type State = ();
    /// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
    /// #         conn.output.write(conn.input.take_all());
    /// #         Action::Continue
    /// #     }
    /// # }
    /// let (mut ours, theirs) = UnixStream::pair()?;
    /// let engine = Engine::builder().reactors(1).start(|_reactor| Echo)?;
    /// let reactors = engine.reactors::<Echo>().expect("it is the engine's handler");
    /// reactors.adopt(0, theirs, |_echo, _reactor, adopted| match adopted {
    ///     Ok(_conn) => Action::Continue,
    ///     Err(error) => panic!("{error}"),
    /// })?;
    /// # ours.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    /// ours.write_all(b"hello")?;
    /// let mut echoed = [0; 5];
    /// ours.read_exact(&mut echoed)?;
    /// assert_eq!(&echoed, b"hello");
    /// # drop(ours);
    /// # engine.stop(std::time::Duration::from_secs(5))?;
    /// # engine.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped; the socket is closed.
    ///
    /// # Panics
    /// If there is no such reactor: `reactor` is an index below [`len`](Self::len).
    #[doc(alias("from_raw_fd", "from_std"))]
    pub fn adopt(
        &self,
        reactor: usize,
        socket: impl Into<OwnedFd>,
        done: impl FnOnce(&mut H, &mut Reactor<'_, H>, Result<&mut Conn<'_, H>, AdoptError>) -> Action
        + Send
        + 'static,
    ) -> Result<(), Stopped> {
        self.post(reactor, Command::Adopt { socket: socket.into(), done: Box::new(done) })
    }

    /// Opens a socket for datagrams on a reactor: a client's, for example, or one for a group.
    /// `done` runs as a callback of that reactor, with the socket or with the reason why there is
    /// none. From then on the socket has the same callbacks as one that is listened on.
    ///
    /// Any thread may call it, callbacks included. `done` runs exactly once, with the exceptions
    /// that [`connect`](Self::connect) has. What it returns counts as for every callback; without a
    /// socket there is nothing that [`Action::Close`] would close.
    ///
    /// ```
    /// # use millstream::{Action, Conn, Datagram, DatagramSocket, Engine, EventHandler, OpenDatagram};
    /// struct Client;
    ///
    /// impl EventHandler for Client {
    ///     type State = ();
    ///
    ///     fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
    ///         Action::Continue // It has no connections.
    ///     }
    ///
    ///     fn on_datagram(
    ///         &mut self,
    ///         _socket: &mut DatagramSocket<'_, Self>,
    ///         datagram: Datagram<'_>,
    ///     ) -> Action {
    ///         assert_eq!(datagram.bytes, b"hello");
    ///         Action::Shutdown // The whole engine: it has nothing else to do.
    ///     }
    /// }
    ///
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # server.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    /// # let address = server.local_addr()?;
    /// let engine = Engine::builder().reactors(1).start(|_reactor| Client)?;
    /// let reactors = engine.reactors::<Client>().expect("it is the engine's handler");
    /// reactors.open_datagram(0, OpenDatagram::to(address), |_client, _reactor, opened| match opened {
    ///     Ok(socket) => Action::from(socket.send(b"hello")),
    ///     Err(error) => panic!("{error}"),
    /// })?;
    /// # let mut hello = [0; 5];
    /// # let (_, client) = server.recv_from(&mut hello)?;
    /// # server.send_to(&hello, client)?;
    /// engine.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped.
    ///
    /// # Panics
    /// If there is no such reactor: `reactor` is an index below [`len`](Self::len).
    pub fn open_datagram(
        &self,
        reactor: usize,
        how: OpenDatagram,
        done: impl FnOnce(
            &mut H,
            &mut Reactor<'_, H>,
            Result<&mut DatagramSocket<'_, H>, OpenError>,
        ) -> Action
        + Send
        + 'static,
    ) -> Result<(), Stopped> {
        let (how, done) = (Box::new(how), Box::new(done));
        self.post(reactor, Command::OpenDatagram { how, done })
    }

    /// Hands a socket for datagrams that was made elsewhere to a reactor: a std `UdpSocket` or
    /// `UnixDatagram`, or one that another process passed on. `done` runs as for
    /// [`open_datagram`](Self::open_datagram). The socket becomes one that doesn't block; its
    /// options stay as they are. One that can't be used is closed.
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped; the socket is closed.
    ///
    /// # Panics
    /// If there is no such reactor: `reactor` is an index below [`len`](Self::len).
    pub fn adopt_datagram(
        &self,
        reactor: usize,
        socket: impl Into<OwnedFd>,
        done: impl FnOnce(
            &mut H,
            &mut Reactor<'_, H>,
            Result<&mut DatagramSocket<'_, H>, OpenError>,
        ) -> Action
        + Send
        + 'static,
    ) -> Result<(), Stopped> {
        let (socket, done) = (socket.into(), Box::new(done));
        self.post(reactor, Command::AdoptDatagram { socket, done })
    }

    pub(crate) fn post(&self, reactor: usize, command: Command<H>) -> Result<(), Stopped> {
        let mailboxes = match &*self.0 {
            Way::Direct(mailboxes) => mailboxes,
            Way::Through(post) => return post.post(reactor, command),
        };
        let posted = match mailboxes[reactor].get() {
            Some(mailbox) => mailbox.post(command),
            None => Err(command), // Only while the engine starts.
        };
        posted.map_err(|command| {
            // What a closure owns may panic when it is dropped, which is not the caller's concern.
            let _ = drop_caught(command);
            Stopped
        })
    }
}

/// Its reactors, of which the engine itself knows only that they run.
impl Engine {
    /// The engine's reactors, for example to connect on one of them; `None` if `H` is not the type
    /// of the engine's handler. In `on_boot` the own reactor is there, the others perhaps not yet.
    pub fn reactors<H: EventHandler>(&self) -> Option<Reactors<H>> {
        self.handle().get()?.downcast_ref().cloned()
    }

    /// Makes known how the reactors are asked.
    pub(crate) fn set_handle<H: EventHandler>(&self, reactors: Reactors<H>) {
        let _ = self.handle().set(Box::new(reactors));
    }
}

impl<H: EventHandler> Clone for Reactors<H> {
    fn clone(&self) -> Self {
        Reactors(Arc::clone(&self.0))
    }
}

impl<H: EventHandler> fmt::Debug for Reactors<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactors").field("len", &self.len()).finish()
    }
}
