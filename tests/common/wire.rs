//! What is between a test's end of a connection and the handler: nothing but the network, a layer
//! that flips every bit, or TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream::internals::{with_layers, with_tls};
use millstream::sim::{SimPeer, Simulation};
use millstream::{Builder, Connect, EventHandler};

use super::layer::{Flip, flip};
use super::tls::{Endpoint, IDENTITY};
use super::{DEADLINE, TestEngine, connect, reset};

/// Runs each of these functions over plain connections and over TLS.
#[allow(unused_macros, reason = "each suite uses a part of it")]
macro_rules! with_and_without_tls {
    ($($name:ident)*) => {
        mod plain {
            use crate::common::wire::Wire;
            $(#[test] fn $name() { super::$name(Wire::Plain); })*
        }

        mod in_tls {
            use crate::common::wire::Wire;
            $(#[test] fn $name() { super::$name(Wire::Tls); })*
        }
    };
}

/// What each connection of an engine stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Plain,
    Flipped,
    Tls,
}

impl Wire {
    /// All of them.
    pub const EACH: [Wire; 3] = [Wire::Plain, Wire::Flipped, Wire::Tls];

    /// For the connections that the engine accepts.
    pub fn build(self, builder: Builder) -> Builder {
        match self {
            Wire::Plain => builder,
            Wire::Flipped => with_layers(builder, || Box::new(Flip)),
            Wire::Tls => with_tls(builder, &IDENTITY.server),
        }
    }

    /// For one that it makes.
    pub fn dress(self, connect: Connect) -> Connect {
        match self {
            Wire::Plain | Wire::Flipped => connect,
            Wire::Tls => connect.tls_name(&IDENTITY.client, "localhost"),
        }
    }

    /// The end of a test that connects.
    pub fn client(self) -> Seam {
        match self {
            Wire::Plain => Seam::Plain,
            Wire::Flipped => Seam::Flipped,
            Wire::Tls => Seam::Tls(Box::new(Endpoint::client())),
        }
    }

    /// The end of a test that accepts.
    pub fn server(self) -> Seam {
        match self {
            Wire::Tls => Seam::Tls(Box::new(Endpoint::server())),
            plain => plain.client(),
        }
    }

    /// Connects a client.
    pub fn connect(self, engine: &TestEngine) -> Client {
        Client::new(engine.connect(), self.client())
    }

    /// Connects a peer of a simulated engine, and lets the two shake hands.
    pub fn meet<H: EventHandler>(self, simulation: &mut Simulation<H>) -> Link<SimPeer> {
        let peer = simulation.connect().expect("it listens");
        let mut link = Link::new(peer, self.client());
        let met = simulation.run_until(DEADLINE, || {
            link.pump();
            link.seam.is_ready()
        });
        assert!(met, "they do not shake hands");
        link
    }
}

/// Where a program serves, and what its connections stand behind.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub address: SocketAddr,
    pub wire: Wire,
}

impl Place {
    /// Connects a client.
    pub fn connect(self) -> Client {
        Client::new(connect(self.address), self.wire.client())
    }
}

/// A test's side of what is between, without a socket. *Sealed* bytes are the network's.
pub enum Seam {
    Plain,
    Flipped,
    Tls(Box<Endpoint>),
}

impl Seam {
    /// Whether the handshake is over.
    pub fn is_ready(&self) -> bool {
        if let Seam::Tls(end) = self { end.is_ready() } else { true }
    }

    /// What these bytes are on the network, behind what is to be said anyway.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        match self {
            Seam::Plain => plain.to_vec(),
            Seam::Flipped => flipped(plain),
            Seam::Tls(end) => end.seal(plain),
        }
    }

    /// What says the end of this side, before the socket's.
    pub fn seal_end(&mut self) -> Vec<u8> {
        if let Seam::Tls(end) = self { end.seal_end() } else { Vec::new() }
    }

    /// What these bytes of the network are.
    ///
    /// # Errors
    /// They are nothing.
    pub fn open(&mut self, sealed: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Seam::Plain => Ok(sealed.to_vec()),
            Seam::Flipped => Ok(flipped(sealed)),
            Seam::Tls(end) => end.open(sealed),
        }
    }

    /// Whether the other side has said its end; `None`: the socket's end is all that is said.
    pub fn has_ended(&self) -> Option<bool> {
        if let Seam::Tls(end) = self { Some(end.ended) } else { None }
    }
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    flip(&mut bytes);
    bytes
}

// --- ends that never wait ------------------------------------------------------------------------

/// The end of a connection that the engine does not have. Dropping it closes it.
pub trait Far {
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

    /// Whether the end came without that of what is between, which has one.
    fn is_cut(&self) -> bool {
        false
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

/// How much is sealed at a time: a record of TLS.
const PIECE: usize = 16 * 1024;

/// An end with something between.
pub struct Link<F> {
    far: F,
    seam: Seam,
    /// What the network has not taken yet.
    sealed: Vec<u8>,
    /// What came with the end of the handshake.
    opened: Vec<u8>,
    ending: Ending,
}

/// How far our end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Asked,
    /// It waits behind what is sealed.
    Sealed,
    Said,
}

impl<F: Far> Link<F> {
    pub fn new(far: F, seam: Seam) -> Self {
        let (sealed, opened) = (Vec::new(), Vec::new());
        let mut link = Link { far, seam, sealed, opened, ending: Ending::No };
        link.pump();
        link
    }

    /// Shakes hands, and sends what waits.
    pub fn pump(&mut self) {
        if !self.seam.is_ready() {
            let sealed = self.far.receive();
            self.opened.extend(self.seam.open(&sealed).expect("the engine shakes hands"));
            self.sealed.extend(self.seam.seal(b""));
        }
        if self.ending == Ending::Asked && self.seam.is_ready() {
            self.sealed.extend(self.seam.seal_end());
            self.ending = Ending::Sealed;
        }
        let taken = self.far.send(&self.sealed);
        self.sealed.drain(..taken);
        if self.ending == Ending::Sealed && self.sealed.is_empty() {
            self.far.end();
            self.ending = Ending::Said;
        }
    }

    /// Says the end, if something is between that has one. Returns whether the socket can be closed
    /// now; otherwise once `pump` has sent what waits.
    pub fn leave(&mut self) -> bool {
        if self.seam.has_ended().is_some() && self.seam.is_ready() && self.ending == Ending::No {
            self.sealed.extend(self.seam.seal_end());
            self.ending = Ending::Said;
            self.pump();
        }
        self.is_idle()
    }

    /// Whether nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.sealed.is_empty() || !self.seam.is_ready()
    }

    /// The end of the network, as it is.
    pub fn far(&self) -> &F {
        &self.far
    }
}

impl<F: Far> Far for Link<F> {
    fn send(&mut self, bytes: &[u8]) -> usize {
        if self.seam.has_ended().is_none() {
            return self.far.send(&self.seam.seal(bytes)); // Each byte is by itself: none waits.
        }
        self.pump();
        let mut sent = 0;
        while self.seam.is_ready() && self.sealed.is_empty() && sent < bytes.len() {
            let piece = &bytes[sent..][..PIECE.min(bytes.len() - sent)];
            self.sealed = self.seam.seal(piece);
            sent += piece.len();
            self.pump();
        }
        sent
    }

    fn receive(&mut self) -> Vec<u8> {
        self.pump();
        let mut plain = mem::take(&mut self.opened);
        // What comes before is for `pump`, which replies to it.
        if self.seam.is_ready() {
            let sealed = self.far.receive();
            plain.extend(self.seam.open(&sealed).expect("what the engine has sealed is whole"));
        }
        plain
    }

    fn end(&mut self) {
        self.ending = Ending::Asked;
        self.pump();
    }

    fn reset(self) {
        self.far.reset();
    }

    fn ended(&self) -> bool {
        self.seam.has_ended() == Some(true) || self.far.ended()
    }

    fn was_reset(&self) -> bool {
        self.far.was_reset()
    }

    fn is_cut(&self) -> bool {
        self.seam.is_ready() && self.seam.has_ended() == Some(false) && self.far.ended()
    }
}

// --- ends that wait ------------------------------------------------------------------------------

/// A client's socket, to write to and read from, by one thread each.
pub struct Client {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    /// Held while something is sealed and sent, so that it goes in that order.
    sends: Arc<Mutex<()>>,
}

struct State {
    seam: Seam,
    /// Received and not read.
    opened: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Shakes hands.
    pub fn new(stream: TcpStream, seam: Seam) -> Self {
        Client::try_new(stream, seam).expect("the engine shakes hands in time")
    }

    /// The same with an engine that may not.
    pub fn try_new(mut stream: TcpStream, mut seam: Seam) -> io::Result<Self> {
        let mut opened = Vec::new();
        while !seam.is_ready() {
            stream.write_all(&seam.seal(b""))?;
            let mut room = [0; 4096];
            let len = stream.read(&mut room)?;
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            opened.extend(seam.open(&room[..len])?);
        }
        stream.write_all(&seam.seal(b""))?;
        let state = Arc::new(Mutex::new(State { seam, opened }));
        Ok(Client { stream, state, sends: Arc::default() })
    }

    /// The socket, for its addresses and its options.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        let (state, sends) = (Arc::clone(&self.state), Arc::clone(&self.sends));
        Ok(Client { stream: self.stream.try_clone()?, state, sends })
    }

    /// Ends the client's side; the other direction goes on.
    pub fn end(&mut self) {
        self.try_end().expect("the connection stands");
    }

    /// The same on one that may be broken.
    pub fn try_end(&mut self) -> io::Result<()> {
        self.send(Seam::seal_end)?;
        self.stream.shutdown(Shutdown::Write)
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        reset(self.stream);
    }

    fn send(&mut self, seal: impl FnOnce(&mut Seam) -> Vec<u8>) -> io::Result<()> {
        let _sends = lock(&self.sends);
        let sealed = seal(&mut lock(&self.state).seam);
        self.stream.write_all(&sealed)
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut state = lock(&self.state);
            let ended = state.seam.has_ended();
            if !state.opened.is_empty() || ended == Some(true) || buffer.is_empty() {
                let len = buffer.len().min(state.opened.len());
                buffer[..len].copy_from_slice(&state.opened[..len]);
                state.opened.drain(..len);
                return Ok(len);
            }
            if let Seam::Plain = state.seam {
                drop(state);
                return self.stream.read(buffer);
            }
            drop(state);
            let mut room = [0; 16 * 1024];
            let len = self.stream.read(&mut room)?;
            if len == 0 {
                let truncated = || io::Error::from(ErrorKind::UnexpectedEof);
                return ended.map_or(Ok(0), |_| Err(truncated()));
            }
            let mut state = lock(&self.state);
            let opened = state.seam.open(&room[..len])?;
            state.opened.extend(opened);
        }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(|seam| seam.seal(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Nothing is held back.
    }
}
