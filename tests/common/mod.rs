//! What all suites need: an engine that is stopped and found empty at the end of each test, clients
//! whose every wait has a deadline, and bytes to compare.

#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

pub mod alone;
pub mod beside;
pub mod certificate;
pub mod corpus;
pub mod crowd;
// The processors whose system calls the filter knows.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
pub mod denied;
pub mod example;
pub mod folder;
pub mod layer;
pub mod log;
pub mod pairs;
pub mod recorder;
pub mod rpc;
pub mod seeds;
pub mod stage;
pub mod tls;
#[macro_use]
pub mod wire;

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::Deref;
use std::panic;
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use millstream::{
    AcceptMode, Action, Address, Builder, Conn, Datagram, DatagramSocket, Engine, EventHandler,
};
use socket2::SockRef;

/// No wait in a test takes longer than this, unless the test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An engine for one test. When it is dropped it stops, and everything it leased must be back.
pub struct TestEngine {
    engine: Engine,
}

impl TestEngine {
    /// Starts an engine on a free port of the loopback address, in addition to what the builder
    /// has.
    pub fn start<H: EventHandler>(
        builder: Builder,
        factory: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        TestEngine::start_exactly(builder.listen("127.0.0.1:0"), factory)
    }

    /// Starts one that sends back what comes.
    pub fn echo(builder: Builder) -> Self {
        TestEngine::start(builder, |_| Echo)
    }

    /// Starts an engine that listens where the builder says and nowhere else.
    pub fn start_exactly<H: EventHandler>(
        builder: Builder,
        factory: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        TestEngine { engine: builder.start(factory).expect("the engine starts") }
    }

    /// The IP addresses that it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.local_addrs().iter().filter_map(Address::socket_addr).collect()
    }

    /// The first of its IP addresses.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Connects a client.
    pub fn connect(&self) -> TcpStream {
        connect(*self.addresses().last().expect("it listens"))
    }
}

/// Connects a client, none of whose waits takes too long.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream.set_nodelay(true).expect("a socket has the option");
    stream
}

impl Deref for TestEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        let _ = self.engine.stop(DEADLINE); // The test may have stopped it.
        let waited = self.engine.wait();
        if thread::panicking() {
            return; // The test failed already; a second panic would hide why.
        }
        waited.expect("the engine ends well");
        assert_empty(&self.engine);
    }
}

/// Everything that an engine leases is back, and its counts agree.
pub fn assert_empty(engine: &Engine) {
    assert_eq!(engine.connections(), 0, "connections are left");
    let stats = engine.stats();
    assert_eq!(stats.listening_sockets, 0, "sockets that listen");
    assert_eq!(stats.memory_held, 0, "memory of all reactors");
    for (index, reactor) in stats.reactors.iter().enumerate() {
        assert_eq!(reactor.connections, 0, "connections of reactor {index}");
        assert_eq!(reactor.datagram_sockets, 0, "sockets for datagrams of reactor {index}");
        assert_eq!(reactor.inbox_depth, 0, "requests of reactor {index}");
        assert_eq!(reactor.attempts, 0, "attempts to connect of reactor {index}");
        assert_eq!(reactor.sockets, 0, "sockets of reactor {index}");
        assert_eq!(reactor.timers, 0, "timers of reactor {index}");
        assert_eq!(reactor.rings_leased, 0, "rings of reactor {index}");
        assert_eq!(reactor.memory_held, 0, "memory of reactor {index}");
        assert_eq!(reactor.output_queues_leased, 0, "output queues of reactor {index}");
        let closed: u64 = reactor.closed.iter().sum();
        assert_eq!(reactor.accepted, closed, "opened and closed on reactor {index}");
    }
}

/// A datagram to this address is answered by one of its length.
#[track_caller]
pub fn assert_answers(address: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    socket.connect(address).expect("an address");
    socket.send(b"hello").expect("it is sent");
    let mut answer = [0; 10];
    assert_eq!(socket.recv(&mut answer).expect("it is answered"), 5);
}

/// Sends back what comes.
#[derive(Default)]
pub struct Echo;

impl EventHandler for Echo {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let _ = socket.reply(&datagram, datagram.bytes); // Datagrams may be lost.
        Action::Continue
    }
}

/// Both accept modes, each with one reactor and with three.
pub fn modes() -> impl Iterator<Item = (String, Builder)> {
    [AcceptMode::MainAcceptor, AcceptMode::ReusePort].into_iter().flat_map(|mode| {
        [1, 3].map(|reactors| {
            let name = format!("{mode:?} with {reactors} reactors");
            (name, Engine::builder().accept_mode(mode).reactors(reactors))
        })
    })
}

/// Pseudo-random bytes, the same for the same seed.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A panic's payload whose destructor panics, too.
pub struct FragilePayload;

impl Drop for FragilePayload {
    fn drop(&mut self) {
        panic!("expected: in the destructor of a panic's payload");
    }
}

/// Keeps panics whose message begins with `expected:`, or whose payload is fragile, from being
/// printed.
pub fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let expected = info
                .payload()
                .downcast_ref::<&str>()
                .is_some_and(|message| message.starts_with("expected:"));
            if !expected && !info.payload().is::<FragilePayload>() {
                print(info);
            }
        }));
    });
}

/// Compares bytes, and says where they differ instead of printing them.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8]) {
    if got == expected {
        return; // Looking for the difference byte by byte takes its time.
    }
    let differs = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert_eq!(
        differs,
        None,
        "the first difference, of {} and {} bytes",
        got.len(),
        expected.len()
    );
    assert_eq!(got.len(), expected.len(), "the lengths");
}

/// Reads this many bytes.
#[track_caller]
pub fn read_exactly(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("the bytes arrive");
    bytes
}

/// Reads until the other side ends.
#[track_caller]
pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the stream ends orderly");
    bytes
}

/// Reads what comes until the connection is reset; returns what came before that.
#[track_caller]
pub fn read_to_reset(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).expect_err("the connection is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    bytes
}

/// Ends the client's side; the other direction goes on.
pub fn end(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("the connection stands");
}

/// Closes a connection with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket has the option");
    drop(stream);
}

/// Waits for a message from a callback.
#[track_caller]
pub fn receive<T>(from: &Receiver<T>) -> T {
    match from.recv_timeout(DEADLINE) {
        Ok(message) => message,
        Err(RecvTimeoutError::Timeout) => panic!("no message within {DEADLINE:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("nobody is left to send the message"),
    }
}

/// Waits until something that no channel tells has come about.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        // sleep: paces the polling; the condition decides, not the time.
        thread::sleep(Duration::from_millis(1));
    }
}
