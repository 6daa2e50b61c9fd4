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
use crate::base::ConnId;
use crate::config::{Connect, ConnectError, Layer, OpenDatagram};
use crate::engine::{Builder, start_one_in_this_thread};
use crate::handler::{Action, Conn, DatagramSocket, Reactor, ReactorAction, Reactors, Remote};
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
    /// Rule 13 of the contract: `next` is to be called.
    owes_next: bool,
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
        fn is_ready(&self) -> bool;
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        assert!(!self.owes_next, "`next` was to be called");
        self.inner.wait(timeout)
    }

    fn abandon(&mut self) -> Option<Event<Stream>> {
        self.owes_next = false;
        self.inner.abandon()
    }

    fn is_empty(&self) -> bool {
        self.inner.is_empty() && !self.holds.get()
    }

    fn receive(&mut self) -> Option<(Token, Received)> {
        assert!(!self.owes_next, "`next` was to be called");
        self.owes_next = true;
        let received = self.inner.receive()?;
        self.owes_next = false;
        self.panic_at(|place| matches!(place, Place::Receive));
        Some(received)
    }

    fn next(&mut self, host: &mut impl Host) -> Option<Event<Stream>> {
        self.owes_next = false;
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
    /// The first connection that opened.
    first: Option<Remote<Handler>>,
    /// All that opened.
    members: Vec<ConnId>,
    /// The connection that is heard next is relayed to that one.
    relay_next: Rc<Cell<bool>>,
}

impl EventHandler for Handler {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.first.get_or_insert_with(|| conn.remote());
        self.members.push(conn.id());
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if self.relay_next.take() {
            conn.input.take_all();
            conn.relay_to(self.first.as_ref().unwrap()).unwrap();
            return Action::Continue;
        }
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
    relay_next: Rc<Cell<bool>>,
}

impl Rig {
    fn new() -> Self {
        Rig::with(Builder::default())
    }

    fn with(builder: Builder) -> Self {
        let budget = Budget { receive_buffer: 65536, read: 65536, write: 65536, accept: 16 };
        let (trap, holds) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
        let inner = Readiness::new(budget).unwrap();
        let (own_trap, own_holds) = (Rc::clone(&trap), Rc::clone(&holds));
        let driver = Faulty { inner, trap: own_trap, holds: own_holds, owes_next: false };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handler = Handler::default();
        let (closed, errors) = (Rc::clone(&handler.closed), Rc::clone(&handler.datagram_errors));
        let relay_next = Rc::clone(&handler.relay_next);
        let listening = (address.into(), Listener::Tcp(listener).into());
        let started = start_one_in_this_thread(builder, driver, listening, handler);
        let (engine, event_loop) = started.unwrap();
        let datagram_errors = errors;
        Rig { engine, event_loop, trap, holds, address, closed, datagram_errors, relay_next }
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
        self.hear(client, b"ping");
    }

    fn hear(&mut self, mut client: &TcpStream, what: &[u8; 4]) {
        let mut got = [0; 4];
        self.run_until("what is heard", |_| match client.read(&mut got) {
            Ok(length) => {
                assert_eq!(&got[..length], what);
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

    /// Writes this to all connections, this many times.
    fn tell_all(&self, what: &'static str, times: usize) {
        let reactors: Reactors<Handler> = self.engine.reactors().unwrap();
        let telling = move |handler: &mut Handler, reactor: &mut Reactor<'_, Handler>| {
            let members = std::iter::repeat_n(&handler.members, times).flatten().copied();
            reactor.neighbours().write_to_all(members, what);
            ReactorAction::Continue
        };
        reactors.run(0, telling).unwrap();
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

/// It is one of a list, and the others are served.
#[test]
fn a_fault_in_serving_a_neighbour_costs_that_one() {
    let mut rig = Rig::new();
    let clients: [TcpStream; 4] = std::array::from_fn(|_| rig.connect());
    clients.iter().for_each(|client| rig.echo(client));
    rig.spring(Place::Link);
    rig.tell_all("told", 1);
    assert_cut(&mut rig, &clients[0]);
    clients[1..].iter().for_each(|client| rig.hear(client, b"told"));
    rig.assert_one_fault(&clients[1]);
    drop(clients);
    rig.assert_empty(5);
}

#[test]
fn a_turn_in_which_neighbours_take_all_time_lowers_no_share() {
    let mut rig = Rig::with(Builder::default().turn_time(Duration::from_nanos(1)));
    let client = rig.connect();
    rig.echo(&client);
    rig.tell_all("told", 10_000);
    let turns = rig.engine.stats().reactors[0].turns;
    rig.run_until("it is asked", |rig| rig.event_loop.neighbours.waiting() > 0);
    rig.run_until("all is done", |rig| rig.event_loop.neighbours.waiting() == 0);
    assert!(rig.engine.stats().reactors[0].turns > turns + 2);
    assert_eq!(rig.event_loop.common.share.halves, 0);
}

/// Leaves bytes as they are, but panics at a piece that begins with `!`, and makes so much of one
/// that begins with `x` that it is sent before the next is sealed.
struct Fragile;

const TIMES: usize = 4;

impl Layer for Fragile {
    fn receive(
        &mut self,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
        _queue: &mut OutputQueue,
        _pool: &mut OutputPool,
    ) -> (std::ops::Range<usize>, io::Result<()>) {
        plain.extend_from_slice(sealed);
        (0..plain.len(), Ok(()))
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn receive_end(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn seal(
        &mut self,
        plain: &[u8],
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<()> {
        if plain.starts_with(b"!") {
            std::panic::panic_any("expected: of this test");
        }
        for _ in 0..if plain.starts_with(b"x") { TIMES } else { 1 } {
            queue.append(plain, pool);
        }
        Ok(())
    }

    fn seal_end(&mut self, _queue: &mut OutputQueue, _pool: &mut OutputPool) {}
}

/// Of what is relayed one piece was sent when the next one's layer panics.
#[test]
fn what_was_sent_before_a_fault_is_booked_for_nobody_else() {
    const PIECE: usize = 16 * 1024;
    let mut builder = Builder::default();
    builder.config.layers.0 = Some(Arc::new(|| Box::new(Fragile)));
    let mut rig = Rig::with(builder);
    let target = rig.connect();
    rig.echo(&target);
    let (witness, mut source) = (rig.connect(), rig.connect());
    rig.echo(&witness);
    rig.relay_next.set(true);
    source.write_all(b"relay").unwrap();
    rig.run_until("it relays", |rig| !rig.relay_next.get());
    let before = rig.engine.stats().reactors[0].clone();
    source.write_all(&[[b'x'; PIECE], [b'!'; PIECE]].concat()).unwrap();
    rig.run_until("the fault", |rig| rig.engine.stats().faults == 1);
    rig.assert_one_fault(&witness);
    let after = &rig.engine.stats().reactors[0];
    let echoes = 2;
    assert_eq!(after.messages_out - before.messages_out, echoes);
    assert_eq!(after.bytes_out - before.bytes_out, (TIMES * PIECE) as u64 + 4 * echoes);
    drop((witness, source, target));
    rig.assert_empty(4);
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
    let begun = reactors.connect(0, to, move |_, _, conn| {
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
    reactors.open_datagram(0, how, |_, _, _| Action::Continue).unwrap();
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
    let begun = reactors.open_datagram(0, how, move |_, _, socket| {
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
