//! The networks that the behaviours run on: real sockets on loopback, and the simulation.

use std::any::Any;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use millstream::internals::with_layers;
use millstream::sim::{Faults, SimListener, SimPeer, Simulation};
use millstream::{AlreadyStopping, Builder, Engine, SocketOptions};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::layer::{Flip, flip};
use crate::common::recorder::Recorder;

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

    /// Where the engine opens sockets for datagrams.
    const HERE: SocketAddr;

    fn start(seed: u64, builder: Builder, handler: Recorder) -> Self;

    fn engine(&self) -> &Engine;

    fn connect(&self) -> Self::Far;

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

/// The end of a connection that the engine does not have. Dropping it closes it.
pub(crate) trait Far {
    /// Sends what the connection takes now; nothing if it is broken.
    fn send(&mut self, bytes: &[u8]) -> usize;

    /// Receives what is there.
    fn receive(&mut self) -> Vec<u8>;

    /// Ends its side.
    fn end(&mut self);

    fn reset(self);

    /// Whether `receive` has met the end.
    fn ended(&self) -> bool;

    /// Whether `receive` has met a reset.
    fn was_reset(&self) -> bool;
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
        self.stream.shutdown(Shutdown::Write).expect("the connection stands");
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
pub(crate) struct Simulated<const FAULTS: bool> {
    simulation: Simulation<Recorder>,
    start: Instant,
}

fn faults<const FAULTS: bool>() -> Faults {
    if FAULTS { Faults::harmless() } else { Faults::none() }
}

pub(crate) type Calm = Simulated<false>;
pub(crate) type Harmless = Simulated<true>;

impl<const FAULTS: bool> World for Simulated<FAULTS> {
    type Far = SimPeer;
    type Listener = SimListener;

    const VIRTUAL: bool = true;
    const STUCK: usize = if FAULTS { 16 * 1024 } else { 200 * 1024 };
    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 0);

    fn start(seed: u64, builder: Builder, handler: Recorder) -> Self {
        let simulation =
            Simulation::new(seed, faults::<FAULTS>(), builder, handler).expect("it starts");
        let start = simulation.now();
        Simulated { simulation, start }
    }

    fn engine(&self) -> &Engine {
        self.simulation.engine()
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

impl Far for SimPeer {
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.send(bytes).unwrap_or(0)
    }

    fn receive(&mut self) -> Vec<u8> {
        self.receive()
    }

    fn end(&mut self) {
        self.shutdown();
    }

    fn reset(self) {
        self.reset();
    }

    fn ended(&self) -> bool {
        self.ended()
    }

    fn was_reset(&self) -> bool {
        self.was_reset()
    }
}

// --- a layer between -----------------------------------------------------------------------------

/// A network on which each connection of the engine stands behind a layer that flips every bit.
pub(crate) struct Flipped<W>(W);

impl<W: World> World for Flipped<W> {
    type Far = Flipped<W::Far>;
    type Listener = W::Listener;

    const VIRTUAL: bool = W::VIRTUAL;
    const STUCK: usize = W::STUCK;
    const BYTEWISE: bool = false;
    const HERE: SocketAddr = W::HERE;

    fn start(seed: u64, builder: Builder, handler: Recorder) -> Self {
        Flipped(W::start(seed, with_layers(builder, || Box::new(Flip)), handler))
    }

    fn engine(&self) -> &Engine {
        self.0.engine()
    }

    fn connect(&self) -> Self::Far {
        Flipped(self.0.connect())
    }

    fn listen(&self) -> (W::Listener, SocketAddr) {
        self.0.listen()
    }

    fn accept(listener: &W::Listener) -> Option<Self::Far> {
        W::accept(listener).map(Flipped)
    }

    fn silent(&self) -> (Box<dyn Any>, SocketAddr) {
        self.0.silent()
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn tick_zero(&self) -> Option<Instant> {
        self.0.tick_zero()
    }

    fn step(&mut self, limit: Duration) -> bool {
        self.0.step(limit)
    }

    fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.0.stop(patience)
    }

    fn wait(&mut self) {
        self.0.wait();
    }

    fn leaked(&self) -> usize {
        self.0.leaked()
    }
}

impl<F: Far> Far for Flipped<F> {
    fn send(&mut self, bytes: &[u8]) -> usize {
        let mut flipped = bytes.to_vec();
        flip(&mut flipped);
        self.0.send(&flipped)
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = self.0.receive();
        flip(&mut bytes);
        bytes
    }

    fn end(&mut self) {
        self.0.end();
    }

    fn reset(self) {
        self.0.reset();
    }

    fn ended(&self) -> bool {
        self.0.ended()
    }

    fn was_reset(&self) -> bool {
        self.0.was_reset()
    }
}
