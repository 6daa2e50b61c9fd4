//! An engine with TLS that its peers meet on loopback or on the simulated network.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use millstream::internals::with_tls;
use millstream::sim::{Faults, SimListener, SimPeer, Simulation};
use millstream::tls::TlsServer;
use millstream::{Engine, Listen};

use super::authority::refused;
use super::server::{Echo, Told};
use crate::common::{DEADLINE, TestEngine, connect, eventually, receive};

/// Runs each of these functions on loopback, and on the simulated network, where what is sent is
/// cut and late as a seed says.
macro_rules! on_each_network {
    ($($name:ident)*) => {
        mod on_loopback {
            use super::super::site::Network;
            $(#[test] fn $name() { super::$name(Network::Loopback); })*
        }

        mod simulated {
            use super::super::site::Network;
            use crate::common::seeds::for_each_seed;
            $(#[test] fn $name() {
                for_each_seed(1, |seed| super::$name(Network::Simulated(seed)));
            })*
        }
    };
}
pub(crate) use on_each_network;

/// What is between engine and peers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Network {
    Loopback,
    /// With the harmless faults of this seed.
    Simulated(u64),
}

/// An engine that echoes, on one reactor, and tells what happens.
pub(crate) struct Site {
    engine: Engine,
    told: Receiver<Told>,
    place: Place,
}

enum Place {
    Loopback(TestEngine),
    Simulated(Shared),
}

type Shared = Rc<RefCell<Simulation<Echo>>>;

impl Deref for Site {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Site {
    pub(crate) fn new(network: Network, tls: &TlsServer) -> Self {
        let (tell, told) = channel();
        let builder = Engine::builder().reactors(1);
        let (engine, place) = match network {
            Network::Loopback => {
                let builder = builder.listen(Listen::from("127.0.0.1:0").tls(tls));
                let engine = TestEngine::start_exactly(builder, move |_| Echo(tell.clone()));
                (engine.clone(), Place::Loopback(engine))
            }
            Network::Simulated(seed) => {
                // A record comes in pieces, and a flood of them in no time.
                let faults = Faults { window: 8 * 1024, ..Faults::harmless() };
                let simulation = Simulation::new(seed, faults, with_tls(builder, tls), Echo(tell));
                let simulation = simulation.expect("it starts");
                let engine = simulation.engine().clone();
                (engine, Place::Simulated(Rc::new(RefCell::new(simulation))))
            }
        };
        Site { engine, told, place }
    }

    /// Connects a peer.
    pub(crate) fn connect(&self) -> Stream {
        match &self.place {
            Place::Loopback(engine) => Stream::Loopback(connect(engine.address())),
            Place::Simulated(simulation) => {
                let peer = simulation.borrow().connect().expect("it listens");
                Stream::Simulated(peer, Rc::clone(simulation))
            }
        }
    }

    /// Listens, for the engine to connect to.
    pub(crate) fn listen(&self) -> Listener {
        match &self.place {
            Place::Loopback(_) => {
                Listener::Loopback(TcpListener::bind("127.0.0.1:0").expect("there is a port"))
            }
            Place::Simulated(simulation) => {
                let listener = simulation.borrow().listen(([10, 0, 0, 2], 0).into());
                Listener::Simulated(listener.expect("there is a port"), Rc::clone(simulation))
            }
        }
    }

    /// Waits until something has come about.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, condition: impl FnMut() -> bool) {
        match &self.place {
            Place::Loopback(_) => eventually(what, condition),
            Place::Simulated(simulation) => {
                let met = simulation.borrow_mut().run_until(DEADLINE, condition);
                assert!(met, "not within {DEADLINE:?}: {what}");
            }
        }
    }

    /// Waits for a message from a callback.
    #[track_caller]
    pub(crate) fn receive<T>(&self, from: &Receiver<T>) -> T {
        if let Place::Loopback(_) = self.place {
            return receive(from);
        }
        let mut message = None;
        self.eventually("there is a message", || {
            message = from.try_recv().ok();
            message.is_some()
        });
        message.expect("it was waited for")
    }

    /// Waits for what the handler tells.
    #[track_caller]
    pub(crate) fn told(&self) -> Told {
        self.receive(&self.told)
    }

    pub(crate) fn has_told_nothing_more(&self) -> bool {
        self.told.try_recv().is_err()
    }

    /// Waits until this many handshakes were refused in all.
    #[track_caller]
    pub(crate) fn has_refused(&self, count: u64, what: &str) {
        self.eventually(what, || refused(&self.engine) == count);
    }

    /// Waits until the reactor makes no more turns. One that spins never comes there.
    #[track_caller]
    pub(crate) fn comes_to_rest(&self) {
        match &self.place {
            Place::Loopback(engine) => comes_to_rest(engine),
            Place::Simulated(simulation) => {
                let rests = |_| {
                    let before = turns(self);
                    simulation.borrow_mut().run(Duration::from_millis(20)); // Nothing is as late.
                    turns(self) == before
                };
                assert!((0..1000).any(rests), "the reactor spins");
            }
        }
    }
}

/// The same of an engine on loopback.
#[track_caller]
pub(crate) fn comes_to_rest(engine: &Engine) {
    let (mut last, mut quiet) = (0, 0);
    eventually("the reactor rests", || {
        let now = turns(engine);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        quiet == 50
    });
}

fn turns(engine: &Engine) -> u64 {
    engine.stats().reactors[0].turns
}

/// Where the engine connects to.
pub(crate) enum Listener {
    Loopback(TcpListener),
    Simulated(SimListener, Shared),
}

impl Listener {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Listener::Loopback(listener) => listener.local_addr().expect("it listens"),
            Listener::Simulated(listener, _) => listener.address(),
        }
    }

    pub(crate) fn accept(&self) -> Stream {
        match self {
            Listener::Loopback(listener) => {
                let (stream, _) = listener.accept().expect("it connects");
                stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
                stream.set_nodelay(true).expect("a socket has the option");
                Stream::Loopback(stream)
            }
            Listener::Simulated(listener, simulation) => {
                let mut peer = None;
                simulation.borrow_mut().run_until(DEADLINE, || {
                    peer = listener.accept();
                    peer.is_some()
                });
                Stream::Simulated(peer.expect("it connects"), Rc::clone(simulation))
            }
        }
    }
}

/// A peer's end of a connection. What it waits for has a deadline, by the simulation's clock if it
/// is on one, which goes on meanwhile.
pub(crate) enum Stream {
    Loopback(TcpStream),
    Simulated(SimPeer, Shared),
}

impl Stream {
    /// Ends its side, if the connection still stands.
    pub(crate) fn end(&mut self) {
        match self {
            Stream::Loopback(stream) => {
                let _ = stream.shutdown(Shutdown::Write);
            }
            Stream::Simulated(peer, _) => peer.shutdown(),
        }
    }

    /// Sends bytes that may come too late, and waits for the end that the engine makes; returns
    /// what came before.
    pub(crate) fn send_and_drain(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        let _ = self.write_all(bytes);
        let _ = self.read_to_end(&mut received); // By an end or by a reset.
        received
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (peer, simulation) = match self {
            Stream::Loopback(stream) => return stream.read(buffer),
            Stream::Simulated(peer, simulation) => (peer, simulation),
        };
        let mut received = Vec::new();
        let met = simulation.borrow_mut().run_until(DEADLINE, || {
            received = peer.receive_up_to(buffer.len());
            !received.is_empty() || peer.ended() || peer.was_reset()
        });
        buffer[..received.len()].copy_from_slice(&received);
        match () {
            () if !met => Err(ErrorKind::TimedOut.into()),
            () if received.is_empty() && peer.was_reset() => Err(ErrorKind::ConnectionReset.into()),
            () => Ok(received.len()),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Loopback(stream) => stream.write(bytes),
            Stream::Simulated(peer, simulation) => {
                simulation.borrow_mut().send_all(peer, bytes).map(|()| bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Nothing is held back.
    }
}
