//! The networks that the suite runs on: real sockets on loopback, real Unix sockets, and the
//! simulation.

use std::any::Any;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, iter, process};

use millstream_platform::address::{Address, UnixAddress};
use millstream_platform::driver::sim::{Faults, SimDatagrams, SimDriver, SimNetwork, SimPeer};
use millstream_platform::driver::{Budget, Driver, Listening, Readiness};
use millstream_platform::socket::{Listener, SocketOptions, listen_unix};
use socket2::{Domain, SockRef, Socket, Type};

use crate::child;

/// Supplies a driver and far ends.
pub(crate) trait World: Clone {
    type Driver: Driver;
    type Listener: Into<<Self::Driver as Listening>::Listener>;
    type Far: Far;
    type FarDatagrams: FarDatagrams;

    /// Whether a driver's wait blocks its thread; else it moves a virtual time.
    const BLOCKS: bool;

    fn driver(&self, budget: Budget) -> Self::Driver;

    fn listen(&self) -> (Self::Listener, Address);

    /// Connects to an address; `None` if nobody listens there.
    fn connect(&self, to: Address) -> Option<Self::Far>;

    /// Accepts a connection instead of a driver, if one waits.
    fn accept(listener: &Self::Listener) -> Option<Self::Far>;

    /// A far socket for datagrams.
    fn far_datagrams(&self) -> Self::FarDatagrams;

    /// Lets what was sent arrive.
    fn pass(&self) {}

    /// Leaves no descriptor for a new connection, until what it returns is dropped.
    fn starve(&self) -> Box<dyn Any>;

    /// Called when the driver is gone: was every connection closed?
    fn check_closed(&self) {}
}

/// The end of a connection that the driver does not have.
pub(crate) trait Far {
    /// The address of the end that connected: this one or, if it accepted, the driver's.
    fn address(&self) -> Address;

    /// Sends what the connection takes now.
    fn send(&mut self, bytes: &[u8]) -> usize;

    /// Sends a byte outside of the stream, where there is such a thing.
    fn send_urgent(&mut self, _byte: u8) {}

    /// Receives what is there or comes within a millisecond.
    fn receive(&mut self) -> Vec<u8>;

    fn shutdown(&mut self);

    fn reset(self);

    /// Whether `receive` has met the end.
    fn ended(&self) -> bool;

    /// Whether `receive` has met a reset.
    fn was_reset(&self) -> bool;
}

/// A socket for datagrams that the driver does not have.
pub(crate) trait FarDatagrams {
    fn address(&self) -> Address;

    fn send(&mut self, to: Address, bytes: &[u8]);

    /// Receives a datagram that is there or comes within a millisecond.
    fn receive(&mut self) -> Option<(Address, Vec<u8>)>;
}

const MOMENT: Duration = Duration::from_millis(1);

/// Real sockets.
#[derive(Clone)]
pub(crate) struct Loopback;

impl World for Loopback {
    type Driver = Readiness;
    type Listener = Listener;
    type Far = Stream<TcpStream>;
    type FarDatagrams = UdpSocket;

    const BLOCKS: bool = true;

    fn driver(&self, budget: Budget) -> Readiness {
        child::is_inside();
        Readiness::new(budget).unwrap()
    }

    fn listen(&self) -> (Listener, Address) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (Listener::Tcp(listener), address.into())
    }

    fn connect(&self, to: Address) -> Option<Stream<TcpStream>> {
        let stream = match TcpStream::connect(to) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            stream => stream.unwrap(),
        };
        stream.set_nodelay(true).unwrap();
        let address = stream.local_addr().unwrap();
        Some(Stream::new(stream, address.into()))
    }

    fn accept(listener: &Listener) -> Option<Stream<TcpStream>> {
        let Listener::Tcp(listener) = listener else { unreachable!("it listens on TCP") };
        listener.set_nonblocking(true).unwrap();
        let (stream, peer) = listener.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        Some(Stream::new(stream, peer.into()))
    }

    fn far_datagrams(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(MOMENT)).unwrap();
        socket
    }

    /// The whole process has no descriptor left, so the test needs its own process.
    fn starve(&self) -> Box<dyn Any> {
        let files = iter::from_fn(|| File::open("/dev/null").ok());
        Box::new(files.collect::<Vec<_>>())
    }
}

impl FarDatagrams for UdpSocket {
    fn address(&self) -> Address {
        self.local_addr().unwrap().into()
    }

    fn send(&mut self, to: Address, bytes: &[u8]) {
        assert_eq!(self.send_to(bytes, to).unwrap(), bytes.len());
    }

    fn receive(&mut self) -> Option<(Address, Vec<u8>)> {
        let mut bytes = vec![0; 64 * 1024];
        let (len, from) = self.recv_from(&mut bytes).ok()?;
        bytes.truncate(len);
        Some((from.into(), bytes))
    }
}

/// The end of a real connection.
pub(crate) struct Stream<S> {
    stream: S,
    address: Address,
    ended: bool,
    reset: bool,
}

impl<S: AsFd> Stream<S> {
    fn new(stream: S, address: Address) -> Self {
        SockRef::from(&stream).set_read_timeout(Some(MOMENT)).unwrap();
        Stream { stream, address, ended: false, reset: false }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: AsFd + Read> Far for Stream<S> {
    fn address(&self) -> Address {
        self.address
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        SockRef::from(&self.stream).send_with_flags(bytes, flags).unwrap_or(0)
    }

    fn send_urgent(&mut self, byte: u8) {
        SockRef::from(&self.stream).send_out_of_band(&[byte]).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let len = match self.stream.read(&mut bytes) {
            Ok(len) => {
                self.ended |= len == 0;
                len
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.reset = true;
                0
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
                0
            }
        };
        bytes.truncate(len);
        bytes
    }

    fn shutdown(&mut self) {
        SockRef::from(&self.stream).shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn was_reset(&self) -> bool {
        self.reset
    }
}

/// Real Unix sockets, in their own folder. Each client has a name, to be told from the others by.
#[derive(Clone)]
pub(crate) struct Unix {
    folder: Arc<Folder>,
}

struct Folder {
    path: PathBuf,
    names: AtomicUsize,
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // What is left there harms nobody.
    }
}

impl Unix {
    pub(crate) fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-{}-{number}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Unix { folder: Arc::new(Folder { path, names: AtomicUsize::new(0) }) }
    }

    fn name(&self) -> UnixAddress {
        let number = self.folder.names.fetch_add(1, Ordering::Relaxed);
        UnixAddress::path(self.folder.path.join(number.to_string())).unwrap()
    }
}

impl World for Unix {
    type Driver = Readiness;
    type Listener = Listener;
    type Far = Stream<UnixStream>;
    type FarDatagrams = UdpSocket;

    const BLOCKS: bool = true;

    fn driver(&self, budget: Budget) -> Readiness {
        child::is_inside();
        Readiness::new(budget).unwrap()
    }

    fn listen(&self) -> (Listener, Address) {
        let address = self.name();
        let listener = listen_unix(&address, None, 128, &SocketOptions::default()).unwrap();
        // Where nobody listens any more a client is refused, as with other sockets.
        if let Listener::Unix { file: Some(file), .. } = &listener {
            file.stay();
        }
        (listener, address.into())
    }

    fn connect(&self, to: Address) -> Option<Stream<UnixStream>> {
        let own = Address::from(self.name());
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&own.to_sock_addr().unwrap()).unwrap();
        match socket.connect(&to.to_sock_addr().unwrap()) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            connected => connected.unwrap(),
        }
        Some(Stream::new(socket.into(), own))
    }

    /// An engine's own socket has no name.
    fn accept(listener: &Listener) -> Option<Stream<UnixStream>> {
        let Listener::Unix { listener, .. } = listener else { unreachable!("it is a Unix socket") };
        let (stream, peer) = listener.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        Some(Stream::new(stream, peer.try_into().unwrap()))
    }

    fn far_datagrams(&self) -> UdpSocket {
        Loopback.far_datagrams()
    }

    /// The whole process has no descriptor left, so the test needs its own process.
    fn starve(&self) -> Box<dyn Any> {
        Loopback.starve()
    }
}

/// The simulation.
#[derive(Clone)]
pub(crate) struct Simulated {
    pub(crate) network: SimNetwork,
    faults: Faults,
}

impl Simulated {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Simulated { network: SimNetwork::new(seed, faults), faults }
    }
}

/// The simulation, while no file is left.
struct Starved(Simulated);

impl Drop for Starved {
    fn drop(&mut self) {
        self.0.network.set_faults(self.0.faults);
    }
}

impl World for Simulated {
    type Driver = SimDriver;
    type Listener = <SimDriver as Listening>::Listener;
    type Far = Peer;
    type FarDatagrams = SimFarDatagrams;

    const BLOCKS: bool = false;

    fn driver(&self, budget: Budget) -> SimDriver {
        SimDriver::new(&self.network, budget)
    }

    fn listen(&self) -> (<SimDriver as Listening>::Listener, Address) {
        let listener = self.network.listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.address();
        (listener, address.into())
    }

    fn connect(&self, to: Address) -> Option<Peer> {
        let peer = self.network.connect(&to.socket_addr()?).ok()?;
        let caller = peer.address().into();
        Some(Peer { peer, caller, network: self.network.clone() })
    }

    fn accept(listener: &<SimDriver as Listening>::Listener) -> Option<Peer> {
        let peer = listener.accept()?;
        let caller = peer.peer_address().into();
        Some(Peer { peer, caller, network: listener.network().clone() })
    }

    fn far_datagrams(&self) -> SimFarDatagrams {
        let socket = self.network.bind_datagrams((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        SimFarDatagrams { socket, network: self.network.clone() }
    }

    fn pass(&self) {
        self.network.advance(Faults::harmless().delay);
    }

    fn starve(&self) -> Box<dyn Any> {
        self.network.set_faults(Faults { accept: 1.0, ..self.faults });
        Box::new(Starved(self.clone()))
    }

    fn check_closed(&self) {
        assert_eq!(
            self.network.open_connections(),
            0,
            "the driver is gone and left connections open"
        );
        assert_eq!(self.network.open_datagram_sockets(), 0, "the driver left sockets open");
    }
}

pub(crate) struct SimFarDatagrams {
    socket: SimDatagrams,
    network: SimNetwork,
}

impl FarDatagrams for SimFarDatagrams {
    fn address(&self) -> Address {
        self.socket.address().into()
    }

    fn send(&mut self, to: Address, bytes: &[u8]) {
        self.socket.send_to(to.socket_addr().unwrap(), bytes).unwrap();
    }

    fn receive(&mut self) -> Option<(Address, Vec<u8>)> {
        self.network.advance(MOMENT);
        let (from, bytes) = self.socket.receive()?;
        Some((from.into(), bytes))
    }
}

pub(crate) struct Peer {
    peer: SimPeer,
    caller: Address,
    network: SimNetwork,
}

impl Far for Peer {
    fn address(&self) -> Address {
        self.caller
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.peer.send(bytes).unwrap_or(0)
    }

    fn receive(&mut self) -> Vec<u8> {
        self.network.advance(MOMENT);
        self.peer.receive()
    }

    fn shutdown(&mut self) {
        self.peer.shutdown();
    }

    fn reset(self) {
        self.peer.reset();
    }

    fn ended(&self) -> bool {
        self.peer.ended()
    }

    fn was_reset(&self) -> bool {
        self.peer.was_reset()
    }
}
