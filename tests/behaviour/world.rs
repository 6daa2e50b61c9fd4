//! The networks that the behaviours run on: real sockets on loopback, and the simulation.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::{Rc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use millstream::sim::{Faults, SimListener, SimPeer, Simulation};
use millstream::{AlreadyStopping, Builder, Connect, Engine, Reactors, SocketOptions};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::beside::{Alone, Beside, Place};
use crate::common::recorder::Recorder;
use crate::common::wire::{Far, Link, Seam, Wire};

/// An engine with one reactor, and the network around it.
pub(crate) trait World: Sized {
    type Far: Far;
    type Listener;

    /// Whether time is virtual, so that what is due comes at its very tick.
    const VIRTUAL: bool;

    /// More bytes than the network holds for a peer that doesn't read. Below the default water
    /// marks.
    const STUCK: usize;

    /// Whether the handler's bytes go to the network one by one, so that a write completes with its
    /// last byte; with a layer it is the last one of a piece.
    const BYTEWISE: bool = true;

    /// How many bytes more than those that were received so far a callback may be shown at once.
    const RECORD: usize = 0;

    /// Whether the network may refuse to take bytes although there is room.
    const REFUSES: bool = false;

    /// Where the engine opens sockets for datagrams.
    const HERE: SocketAddr;

    fn start(seed: u64, builder: Builder, handler: Recorder) -> Self;

    fn engine(&self) -> &Engine;

    /// The engine's reactors, as the handler knows them.
    fn reactors(&self) -> Reactors<Recorder> {
        Alone::reactors(self.engine())
    }

    fn connect(&self) -> Self::Far;

    /// What the engine is to be asked for, to connect to a peer.
    fn dress(connect: Connect) -> Connect {
        connect
    }

    /// Listens for the engine to connect.
    fn listen(&self) -> (Self::Listener, SocketAddr);

    /// Accepts a connection of the engine, if one waits.
    fn accept(listener: &Self::Listener) -> Option<Self::Far>;

    /// An address that answers no attempt to connect, until what comes with it is dropped.
    fn silent(&self) -> (Box<dyn Any>, SocketAddr);

    /// The engine's time.
    fn now(&self) -> Instant;

    /// When the engine's ticks began to be counted, if time is virtual.
    fn tick_zero(&self) -> Option<Instant>;

    /// Lets something happen, for no longer than `limit`. `false`: the engine has ended.
    fn step(&mut self, limit: Duration) -> bool;

    fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping>;

    /// Waits until the engine has ended, which must be stopping.
    fn wait(&mut self);

    /// Connections that the engine has not closed.
    fn leaked(&self) -> usize {
        0
    }
}

// --- real sockets --------------------------------------------------------------------------------

/// Real sockets, whose kernel keeps little of what a peer doesn't read.
pub(crate) struct Loopback {
    engine: Engine,
}

const KERNEL_BUFFER: usize = 64 * 1024;

impl World for Loopback {
    type Far = Stream;
    type Listener = TcpListener;

    const VIRTUAL: bool = false;
    const STUCK: usize = 2 * 1024 * 1024;
    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn start(_seed: u64, builder: Builder, handler: Recorder) -> Self {
        let builder =
            builder.reactors(1).socket_options(SocketOptions::new().send_buffer(KERNEL_BUFFER));
        let started = builder.listen("127.0.0.1:0").start(move |_| handler.clone());
        Loopback { engine: started.expect("the engine starts") }
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn connect(&self) -> Stream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
        socket.set_recv_buffer_size(KERNEL_BUFFER).expect("a socket has the option");
        let address = self.engine.local_addrs()[0].to_sock_addr().expect("it is one");
        socket.connect(&address).expect("it listens");
        socket.set_tcp_nodelay(true).expect("a socket has the option");
        socket.set_nonblocking(true).expect("a socket has the option");
        Stream { stream: socket.into(), ended: false, reset: false }
    }

    fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        listener.set_nonblocking(true).expect("a socket has the option");
        let address = listener.local_addr().expect("it listens");
        (listener, address)
    }

    fn accept(listener: &TcpListener) -> Option<Stream> {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).expect("a socket has the option");
        stream.set_nodelay(true).expect("a socket has the option");
        Some(Stream { stream, ended: false, reset: false })
    }

    /// A listener whose backlog is full.
    fn silent(&self) -> (Box<dyn Any>, SocketAddr) {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
        let listener = socket();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("there is a port");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().expect("it listens");
        let waiting = (0..8).map(|_| {
            let waiting = socket();
            waiting.set_nonblocking(true).expect("a socket has the option");
            let _ = waiting.connect(&address); // It waits for an answer.
            waiting
        });
        let waiting: Vec<Socket> = waiting.collect();
        (Box::new((listener, waiting)), address.as_socket().expect("an address of IPv4"))
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn tick_zero(&self) -> Option<Instant> {
        None
    }

    fn step(&mut self, limit: Duration) -> bool {
        // sleep: paces the polling; the condition that is waited for decides, not the time.
        thread::sleep(limit.min(Duration::from_micros(100)));
        true
    }

    fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.engine.stop(patience)
    }

    fn wait(&mut self) {
        self.engine.wait().expect("the engine ends well");
    }
}

pub(crate) struct Stream {
    stream: TcpStream,
    ended: bool,
    reset: bool,
}

impl Far for Stream {
    fn send(&mut self, bytes: &[u8]) -> usize {
        let sent = self.stream.write(bytes);
        // The first that is told of a reset is the only one.
        self.reset |= sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        sent.unwrap_or(0)
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (&self.stream).take(1024 * 1024).read_to_end(&mut bytes) {
            Ok(len) => self.ended |= len < 1024 * 1024 && !self.reset,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.reset = true,
            Err(error) => panic!("an unexpected failure: {error}"),
        }
        bytes
    }

    fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write); // A reset may have come.
    }

    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an option");
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn was_reset(&self) -> bool {
        self.reset
    }
}

// --- the simulation ------------------------------------------------------------------------------

/// The simulated network, with or without faults.
pub(crate) struct Simulated<const FAULTS: bool, P: Place = Alone> {
    simulation: Simulation<P::Handler<Recorder>>,
    start: Instant,
}

fn faults<const FAULTS: bool>() -> Faults {
    if FAULTS { Faults::harmless() } else { Faults::none() }
}

pub(crate) type Calm = Simulated<false>;
/// The network without faults, for an engine with several handlers.
pub(crate) type Shared = Simulated<false, Beside>;
pub(crate) type Harmless = Simulated<true>;

impl<const FAULTS: bool, P: Place> World for Simulated<FAULTS, P> {
    type Far = SimPeer;
    type Listener = SimListener;

    const VIRTUAL: bool = true;
    const STUCK: usize = if FAULTS { 16 * 1024 } else { 200 * 1024 };
    const REFUSES: bool = FAULTS;
    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 0);

    fn start(seed: u64, builder: Builder, handler: Recorder) -> Self {
        let simulation =
            Simulation::new(seed, faults::<FAULTS>(), builder, P::put(handler)).expect("it starts");
        let start = simulation.now();
        Simulated { simulation, start }
    }

    fn engine(&self) -> &Engine {
        self.simulation.engine()
    }

    fn reactors(&self) -> Reactors<Recorder> {
        P::reactors(self.engine())
    }

    fn connect(&self) -> SimPeer {
        self.simulation.connect().expect("it listens")
    }

    fn listen(&self) -> (SimListener, SocketAddr) {
        let address = SocketAddr::from(([10, 0, 0, 2], 0));
        let listener = self.simulation.listen(address).expect("there is a port");
        let address = listener.address();
        (listener, address)
    }

    fn accept(listener: &SimListener) -> Option<SimPeer> {
        listener.accept()
    }

    fn silent(&self) -> (Box<dyn Any>, SocketAddr) {
        let (listener, address) = self.listen();
        self.simulation.silence(address);
        (Box::new(listener), address)
    }

    fn now(&self) -> Instant {
        self.simulation.now()
    }

    fn tick_zero(&self) -> Option<Instant> {
        Some(self.start)
    }

    fn step(&mut self, limit: Duration) -> bool {
        self.simulation.turn(limit)
    }

    fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.simulation.stop(patience)
    }

    fn wait(&mut self) {
        let limit = Duration::from_secs(60);
        let end = self.now() + limit;
        while self.step(limit) {
            assert!(self.now() < end, "the engine does not end");
        }
    }

    fn leaked(&self) -> usize {
        self.simulation.open_connections()
    }
}

// --- something between ---------------------------------------------------------------------------

/// What each connection of the engine stands behind.
pub(crate) trait Between {
    const WIRE: Wire;
    const RECORD: usize = 0;
}

pub(crate) struct Flipped;
pub(crate) struct Tls;

impl Between for Flipped {
    const WIRE: Wire = Wire::Flipped;
}

impl Between for Tls {
    const WIRE: Wire = Wire::Tls;
    const RECORD: usize = 16 * 1024;
}

/// A network on which all connections have something between.
pub(crate) struct Behind<B, W: World> {
    world: W,
    links: Links<W>,
    between: PhantomData<B>,
}

/// The ends of connections, and where the engine may connect to. They shake hands, and send on what
/// waits, whatever the test does meanwhile.
struct Links<W: World> {
    all: RefCell<Vec<Held<W::Far>>>,
    listening: RefCell<Vec<Weak<Listening<W>>>>,
}

/// None once it is closed.
type Held<F> = Rc<RefCell<Option<Link<F>>>>;

/// A listener, and what it has accepted and the test has not.
pub(crate) struct Listening<W: World> {
    listener: W::Listener,
    accepted: RefCell<VecDeque<Linked<W::Far>>>,
}

impl<W: World> Links<W> {
    fn add(&self, far: W::Far, seam: Seam) -> Linked<W::Far> {
        let link = Rc::new(RefCell::new(Some(Link::new(far, seam))));
        self.all.borrow_mut().push(Rc::clone(&link));
        Linked(link)
    }

    fn pump(&self, wire: Wire) {
        self.listening.borrow_mut().retain(|listening| {
            let Some(listening) = listening.upgrade() else { return false };
            while let Some(far) = W::accept(&listening.listener) {
                listening.accepted.borrow_mut().push_back(self.add(far, wire.server()));
            }
            true
        });
        self.all.borrow_mut().retain(|link| {
            let left = Rc::strong_count(link) == 1;
            let mut link = link.borrow_mut();
            link.as_mut().map(Link::pump);
            link.as_ref().is_some_and(|link| !left || !link.is_idle())
        });
    }
}

/// One of them, in the hand of a test.
pub(crate) struct Linked<F: Far>(Held<F>);

impl<F: Far> Linked<F> {
    fn with<T>(&self, act: impl FnOnce(&mut Link<F>) -> T) -> T {
        act(self.0.borrow_mut().as_mut().expect("it is not closed"))
    }
}

impl<F: Far> Drop for Linked<F> {
    fn drop(&mut self) {
        self.0.borrow_mut().take_if(Link::leave);
    }
}

impl<F: Far> Far for Linked<F> {
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.with(|link| link.send(bytes))
    }

    fn receive(&mut self) -> Vec<u8> {
        self.with(Link::receive)
    }

    fn end(&mut self) {
        self.with(Link::end);
    }

    fn reset(self) {
        self.0.take().expect("it is not closed").reset();
    }

    fn ended(&self) -> bool {
        self.with(|link| link.ended())
    }

    fn was_reset(&self) -> bool {
        self.with(|link| link.was_reset())
    }

    fn is_cut(&self) -> bool {
        self.with(|link| link.is_cut())
    }
}

impl<B: Between, W: World> World for Behind<B, W> {
    type Far = Linked<W::Far>;
    type Listener = Rc<Listening<W>>;

    const VIRTUAL: bool = W::VIRTUAL;
    const STUCK: usize = W::STUCK;
    const BYTEWISE: bool = false;
    const RECORD: usize = B::RECORD;
    const REFUSES: bool = W::REFUSES;
    const HERE: SocketAddr = W::HERE;

    fn start(seed: u64, builder: Builder, handler: Recorder) -> Self {
        let world = W::start(seed, B::WIRE.build(builder), handler);
        let links = Links { all: RefCell::default(), listening: RefCell::default() };
        Behind { world, links, between: PhantomData }
    }

    fn engine(&self) -> &Engine {
        self.world.engine()
    }

    fn connect(&self) -> Self::Far {
        self.links.add(self.world.connect(), B::WIRE.client())
    }

    fn dress(connect: Connect) -> Connect {
        B::WIRE.dress(connect)
    }

    fn listen(&self) -> (Self::Listener, SocketAddr) {
        let (listener, address) = self.world.listen();
        let listening = Rc::new(Listening { listener, accepted: RefCell::default() });
        self.links.listening.borrow_mut().push(Rc::downgrade(&listening));
        (listening, address)
    }

    fn accept(listening: &Self::Listener) -> Option<Self::Far> {
        listening.accepted.borrow_mut().pop_front()
    }

    fn silent(&self) -> (Box<dyn Any>, SocketAddr) {
        self.world.silent()
    }

    fn now(&self) -> Instant {
        self.world.now()
    }

    fn tick_zero(&self) -> Option<Instant> {
        self.world.tick_zero()
    }

    fn step(&mut self, limit: Duration) -> bool {
        let goes_on = self.world.step(limit);
        self.links.pump(B::WIRE);
        goes_on
    }

    fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.world.stop(patience)
    }

    fn wait(&mut self) {
        self.world.wait();
    }

    fn leaked(&self) -> usize {
        self.world.leaked()
    }
}
