//! A reactor on real sockets whose driver panics once, in a place that a test chooses.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_platform::address::Address;
use millstream_platform::driver::{
    self, Budget, Datagram, DatagramLink, Host, Link, Listening, Polling, Readiness, Received,
    Streams, Wake,
};
use millstream_platform::memory::{OutputPool, OutputQueue};
use millstream_platform::socket::{
    DatagramOptions, DatagramSocket as SystemSocket, Listener, SocketOptions, Stream,
};

use super::*;
use crate::config::{Connect, ConnectError, OpenDatagram};
use crate::engine::{Builder, start_in_this_thread};
use crate::handler::{Action, Conn, DatagramSocket, Reactors};
use crate::shared::Engine;

const DEADLINE: Duration = Duration::from_secs(20);

/// Where the driver panics.
#[derive(Clone, Copy)]
enum Place {
    /// As it hands out received bytes.
    Receive,
    /// As it hands out the first other event that is meant.
    Next(fn(&Event<Stream>) -> bool),
    Adopt,
    /// As it shows bytes.
    Parts,
    /// As it gives out what may be asked for a connection, without bytes.
    Link,
    Flush,
    Close,
    Bind,
}

struct Faulty {
    inner: Readiness,
    /// Until it has sprung.
    trap: Rc<Cell<Option<Place>>>,
    /// The operating system does not let go of what was closed.
    holds: Rc<Cell<bool>>,
}

impl Faulty {
    fn panic_at(&self, is_here: impl FnOnce(Place) -> bool) {
        if self.trap.get().is_some_and(is_here) {
            self.trap.set(None);
            std::panic::panic_any("expected: of this test");
        }
    }
}

/// Methods that only pass the call on to the driver inside.
macro_rules! forward {
    () => {};
    (fn $name:ident(&self) -> $result:ty; $($rest:tt)*) => {
        fn $name(&self) -> $result { self.inner.$name() }
        forward! { $($rest)* }
    };
    (fn $name:ident(&mut self $(, $argument:ident: $kind:ty)*) $(-> $result:ty)?; $($rest:tt)*) => {
        fn $name(&mut self $(, $argument: $kind)*) $(-> $result)? { self.inner.$name($($argument),*) }
        forward! { $($rest)* }
    };
}

impl Polling for Faulty {
    type Socket = Stream;

    const NAME: &'static str = "faulty";

    forward! {
        fn waker(&self) -> Arc<dyn Wake>;
        fn now(&self) -> Instant;
        fn sockets(&self) -> usize;
        fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
        fn is_ready(&self) -> bool;
        fn abandon(&mut self) -> Option<Event<Stream>>;
    }

    fn is_empty(&self) -> bool {
        self.inner.is_empty() && !self.holds.get()
    }

    fn receive(&mut self) -> Option<(Token, Received)> {
        let received = self.inner.receive()?;
        self.panic_at(|place| matches!(place, Place::Receive));
        Some(received)
    }

    fn next(&mut self, host: &mut impl Host) -> Option<Event<Stream>> {
        let event = self.inner.next(host)?;
        self.panic_at(|place| matches!(place, Place::Next(is_meant) if is_meant(&event)));
        Some(event)
    }
}

impl Listening for Faulty {
    type Listener = <Readiness as Listening>::Listener;

    forward! {
        fn listen(&mut self, token: Token, listener: Self::Listener) -> io::Result<()>;
        fn resume_accepting(&mut self, token: Token);
        fn unlisten(&mut self, token: Token);
    }
}

impl Streams for Faulty {
    forward! {
        fn connect(
            &mut self,
            attempt: Token,
            to: &Address,
            from: Option<&Address>,
            options: &SocketOptions
        ) -> io::Result<()>;
        fn give_up(&mut self, attempt: Token);
        fn pause(&mut self, token: Token, paused: bool);
        fn note_space(&mut self, token: Token, may: bool);
        fn shutdown(&mut self, token: Token);
        fn detach(&mut self, token: Token) -> Option<Stream>;
    }

    fn adopt(&mut self, token: Token, socket: Stream) -> io::Result<()> {
        let adopted = self.inner.adopt(token, socket);
        self.panic_at(|place| matches!(place, Place::Adopt));
        adopted
    }

    fn flush(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<usize> {
        self.panic_at(|place| matches!(place, Place::Flush));
        self.inner.flush(token, queue, pool)
    }

    fn close(&mut self, token: Token, reset: bool) {
        self.panic_at(|place| matches!(place, Place::Close));
        self.inner.close(token, reset);
    }

    fn lent(&mut self, lent: Received) -> &mut [u8] {
        self.inner.lent(lent)
    }

    fn parts(&mut self, lent: Option<Received>) -> (&[u8], &mut dyn Link) {
        self.panic_at(|place| {
            matches!((place, lent), (Place::Parts, Some(_)) | (Place::Link, None))
        });
        self.inner.parts(lent)
    }
}

impl driver::Datagrams for Faulty {
    type DatagramSocket = <Readiness as driver::Datagrams>::DatagramSocket;

    forward! {
        fn adopt_datagrams(&mut self, socket: SystemSocket) -> io::Result<Self::DatagramSocket>;
        fn open_datagrams(&mut self, token: Token, socket: Self::DatagramSocket) -> io::Result<()>;
        fn resume_datagrams(&mut self, token: Token);
        fn close_datagrams(&mut self, token: Token);
        fn datagram(&mut self) -> (Option<Datagram<'_>>, &mut dyn DatagramLink);
    }

    fn bind_datagrams(
        &mut self,
        how: &DatagramOptions,
        options: &SocketOptions,
    ) -> io::Result<Self::DatagramSocket> {
        self.panic_at(|place| matches!(place, Place::Bind));
        self.inner.bind_datagrams(how, options)
    }
}

/// Echoes, and counts what it is told.
#[derive(Default)]
struct Handler {
    closed: Rc<Cell<usize>>,
    datagram_errors: Rc<Cell<usize>>,
}

impl EventHandler for Handler {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.closed.set(self.closed.get() + 1);
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        socket.reply(&datagram, datagram.bytes).expect("the queue is empty");
        Action::Continue
    }

    fn on_datagram_error(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        _error: &io::Error,
    ) -> Action {
        self.datagram_errors.set(self.datagram_errors.get() + 1);
        Action::Continue
    }
}

struct Rig {
    engine: Engine,
    event_loop: EventLoop<Faulty, Handler>,
    trap: Rc<Cell<Option<Place>>>,
    holds: Rc<Cell<bool>>,
    address: SocketAddr,
    closed: Rc<Cell<usize>>,
    datagram_errors: Rc<Cell<usize>>,
}

impl Rig {
    fn new() -> Self {
        Rig::with(Builder::default())
    }

    fn with(builder: Builder) -> Self {
        let budget = Budget { receive_buffer: 4096, read: 65536, write: 65536, accept: 16 };
        let (trap, holds) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
        let inner = Readiness::new(budget).unwrap();
        let driver = Faulty { inner, trap: Rc::clone(&trap), holds: Rc::clone(&holds) };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handler = Handler::default();
        let (closed, errors) = (Rc::clone(&handler.closed), Rc::clone(&handler.datagram_errors));
        let (config, listener) = (Arc::new(builder.config), Listener::Tcp(listener).into());
        let started = start_in_this_thread(
            config,
            builder.resolve,
            driver,
            address.into(),
            listener,
            handler,
        );
        let (engine, event_loop) = started.unwrap();
        Rig { engine, event_loop, trap, holds, address, closed, datagram_errors: errors }
    }

    fn run_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            assert!(self.event_loop.turn(Some(Duration::from_millis(10))), "the engine ended");
        }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    fn echo(&mut self, mut client: &TcpStream) {
        client.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        self.run_until("an echo", |_| match client.read(&mut got) {
            Ok(length) => {
                assert_eq!(&got[..length], b"ping");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        });
    }

    fn spring(&mut self, place: Place) {
        self.trap.set(Some(place));
    }

    /// One fault was told, and nobody else noticed.
    fn assert_one_fault(&mut self, witness: &TcpStream) {
        self.run_until("the trap springs", |rig| rig.trap.get().is_none());
        self.echo(witness);
        assert_eq!(self.engine.stats().faults, 1);
        let newcomer = self.connect();
        self.echo(&newcomer);
    }

    /// Everything is given back once the clients are gone.
    fn assert_empty(mut self, opened: usize) {
        self.run_until("all are gone", |rig| rig.engine.connections() == 0);
        assert_eq!(self.closed.get(), opened);
        let reactor = &self.engine.stats().reactors[0];
        assert_eq!(reactor.sockets, 1, "the listener");
        assert_eq!((reactor.attempts, reactor.rings_leased), (0, 0));
        assert_eq!(reactor.output_queues_leased, 0);
        let closed: u64 = reactor.closed.iter().sum();
        assert_eq!(reactor.accepted, closed);
    }
}

/// What the other end finds: nothing orderly.
fn assert_cut(rig: &mut Rig, mut client: &TcpStream) {
    let mut rest = Vec::new();
    rig.run_until("the victim's end", |_| match client.read_to_end(&mut rest) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(_) => panic!("an orderly end"),
    });
}

#[test]
fn a_fault_in_serving_a_connection_resets_that_one() {
    for place in [Place::Receive, Place::Parts, Place::Flush] {
        let mut rig = Rig::new();
        let (witness, mut victim) = (rig.connect(), rig.connect());
        rig.echo(&witness);
        rig.echo(&victim);
        rig.spring(place);
        victim.write_all(b"ping").unwrap();
        assert_cut(&mut rig, &victim);
        rig.assert_one_fault(&witness);
        assert_eq!(rig.closed.get(), 1);
        drop((witness, victim));
        rig.assert_empty(3);
    }
}

#[test]
fn a_fault_in_closing_a_connection_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let (witness, victim) = (rig.connect(), rig.connect());
    rig.echo(&witness);
    rig.echo(&victim);
    rig.spring(Place::Close);
    drop(victim);
    rig.assert_one_fault(&witness);
    drop(witness);
    rig.assert_empty(3);
}

#[test]
fn a_fault_in_accepting_costs_one_client_and_a_moment() {
    let accepted = |event: &Event<Stream>| matches!(event, Event::Accepted { .. });
    for (place, errors) in [(Place::Next(accepted), 1), (Place::Adopt, 0)] {
        let mut rig = Rig::new();
        let witness = rig.connect();
        rig.echo(&witness);
        rig.spring(place);
        let victim = rig.connect();
        rig.assert_one_fault(&witness);
        assert_eq!(rig.engine.stats().accept_errors, errors);
        drop((witness, victim));
        rig.assert_empty(2);
    }
}

/// A connection that was taken in and is not open yet has nobody else who would close it.
#[test]
fn a_fault_in_opening_a_connection_resets_it() {
    let mut rig = Rig::new();
    let witness = rig.connect();
    rig.echo(&witness);
    rig.spring(Place::Link);
    let victim = rig.connect();
    assert_cut(&mut rig, &victim);
    rig.assert_one_fault(&witness);
    assert_eq!(rig.closed.get(), 0, "it never opened");
    drop((witness, victim));
    rig.assert_empty(2);
}

#[test]
fn a_fault_in_connecting_is_told_once() {
    let outcome = |event: &Event<Stream>| matches!(event, Event::Connected { .. });
    let mut rig = Rig::new();
    let witness = rig.connect();
    rig.echo(&witness);
    rig.spring(Place::Next(outcome));
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let reactors: Reactors<Handler> = rig.engine.reactors().unwrap();
    let (to, telling) = (Connect::to(rig.address), Arc::clone(&told));
    let begun = reactors.connect(0, to, move |_, conn| {
        telling.lock().unwrap().push(matches!(conn, Err(ConnectError::Failed { .. })));
        Action::Continue
    });
    begun.unwrap();
    rig.assert_one_fault(&witness);
    assert_eq!(*told.lock().unwrap(), [true]);
    drop(witness);
    // Whom the engine had connected to was itself.
    rig.assert_empty(3);
}

/// Where a turn has handed out a part of what is ready only, the last one of that is not to blame
/// for what comes then.
#[test]
fn a_fault_in_what_another_thread_asks_costs_nobody_else() {
    let mut rig = Rig::with(Builder::default().turn_time(Duration::from_nanos(1)));
    let mut crowd: Vec<TcpStream> = (0..20).map(|_| rig.connect()).collect();
    crowd.iter().for_each(|client| rig.echo(client));
    crowd.iter_mut().for_each(|client| client.write_all(b"ping").unwrap());
    rig.spring(Place::Bind);
    let reactors: Reactors<Handler> = rig.engine.reactors().unwrap();
    let how = OpenDatagram::on(([127, 0, 0, 1], 0));
    reactors.open_datagram(0, how, |_, _| Action::Continue).unwrap();
    rig.assert_one_fault(&crowd[0]);
    assert_eq!(rig.closed.get(), 0);
    drop(crowd);
    rig.assert_empty(21);
}

#[test]
fn a_fault_in_serving_a_datagram_costs_that_one() {
    let arrived = |event: &Event<Stream>| matches!(event, Event::Datagram { .. });
    let mut rig = Rig::new();
    let witness = rig.connect();
    rig.echo(&witness);
    let (tell, told) = std::sync::mpsc::channel();
    let reactors: Reactors<Handler> = rig.engine.reactors().unwrap();
    let how = OpenDatagram::on(([127, 0, 0, 1], 0));
    let begun = reactors.open_datagram(0, how, move |_, socket| {
        let socket = socket.unwrap();
        tell.send((socket.local_addr(), socket.remote())).unwrap();
        Action::Continue
    });
    begun.unwrap();
    rig.echo(&witness);
    let (to, remote) = told.try_recv().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_nonblocking(true).unwrap();
    client.connect(to.socket_addr().unwrap()).unwrap();
    rig.spring(Place::Next(arrived));
    for text in ["lost", "kept", "too"] {
        client.send(text.as_bytes()).unwrap();
    }
    let mut got = Vec::new();
    rig.run_until("the other datagrams", |_| {
        let mut bytes = [0; 16];
        while let Ok(length) = client.recv(&mut bytes) {
            got.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        got.len() == 2
    });
    assert_eq!(got, ["kept", "too"]);
    assert_eq!(rig.datagram_errors.get(), 1);
    rig.assert_one_fault(&witness);
    remote.close().unwrap();
    drop(witness);
    rig.assert_empty(2);
}

#[test]
fn a_reactor_ends_when_its_driver_is_empty_or_the_deadline_is_over() {
    let moment = Some(Duration::from_millis(10));
    let mut rig = Rig::new();
    let client = rig.connect();
    rig.echo(&client);
    rig.holds.set(true);
    rig.engine.stop(DEADLINE).unwrap();
    rig.run_until("the connection closes", |rig| rig.closed.get() == 1);
    assert!(rig.event_loop.turn(moment), "it ended before its driver was empty");
    rig.holds.set(false);
    assert!(!rig.event_loop.turn(moment), "its driver is empty");

    let mut rig = Rig::new();
    rig.holds.set(true);
    rig.engine.stop(Duration::ZERO).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while rig.event_loop.turn(moment) {
        assert!(Instant::now() < deadline, "it does not end though the stop's deadline is over");
    }
}
