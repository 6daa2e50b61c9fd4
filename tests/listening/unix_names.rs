//! Every name that Linux allows a Unix socket, wherever the engine meets one: a path of 108 bytes,
//! which then has no zero at its end, and abstract names of up to 107 bytes, with zeros in them or
//! of no byte at all.
//!
//! - A client so named is served and told by its name, however it comes: accepted, adopted, by
//!   datagrams, connected to, through a proxy. No other connection notices.
//! - Listeners so named: made here, inherited, and the handover's own.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use millstream::restart::Handover;
use millstream::{
    Action, Address, Conn, Connect, Datagram, DatagramSocket, Engine, EventHandler, Listen,
    ProxyHeader, ProxyVersion, UnixAddress,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen,
    recv, sendto, socket,
};

use crate::common::folder::Folder;
use crate::common::{DEADLINE, TestEngine, modes, read_exactly, read_to_end, receive};

/// The longest path and the longest abstract name.
const LONGEST: usize = 108;
const LONGEST_ABSTRACT: usize = 107;

/// A name as the system has it: a path, or a zero and an abstract name.
#[derive(Clone, Debug)]
struct Name(Vec<u8>);

impl Name {
    /// A path in a folder, of this many bytes.
    fn path(folder: &Folder, file: &str, length: usize) -> Self {
        let mut name = folder.path(file).into_bytes();
        name.resize(length, b'x');
        Name(name)
    }

    /// An abstract name that nobody else has, of this many bytes, with a zero among them.
    fn abstract_name(length: usize) -> Self {
        static NAMES: AtomicUsize = AtomicUsize::new(0);
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let mut name = format!("\0millstream\0{}-{number}-", process::id()).into_bytes();
        name.resize(1 + length, b'x');
        Name(name)
    }

    fn all(folder: &Folder, file: &str) -> Vec<Self> {
        vec![
            Name::path(folder, &format!("{file}-short"), LONGEST - 1),
            Name::path(folder, &format!("{file}-long"), LONGEST),
            Name::abstract_name(40),
            Name::abstract_name(LONGEST_ABSTRACT),
        ]
    }

    fn address(&self) -> UnixAddress {
        let address = match self.0.strip_prefix(b"\0") {
            Some(name) => UnixAddress::abstract_name(name),
            None => UnixAddress::path(std::str::from_utf8(&self.0).expect("it is text")),
        };
        address.expect("Linux allows it")
    }

    /// As the system's calls have it, not by the engine's own code.
    fn system(&self) -> SocketAddrUnix {
        let name = match self.0.strip_prefix(b"\0") {
            Some(name) => SocketAddrUnix::new_abstract_name(name),
            None => SocketAddrUnix::new(&self.0[..]),
        };
        name.expect("Linux allows it")
    }

    fn socket(&self, kind: SocketType) -> OwnedFd {
        let socket = socket(AddressFamily::UNIX, kind, None).expect("there is a socket");
        bind(&socket, &self.system()).expect("Linux allows the name");
        socket
    }

    /// A client with this name.
    fn connect(&self, to: &Name) -> UnixStream {
        let socket = self.socket(SocketType::STREAM);
        connect(&socket, &to.system()).expect("it listens");
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        stream
    }
}

/// Tells the address of each peer, and echoes.
struct Telling(Sender<Address>);

impl EventHandler for Telling {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let _ = self.0.send(conn.peer_addr()); // Nobody listens if the test has failed.
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let _ = self.0.send(datagram.from);
        socket.reply(&datagram, datagram.bytes).expect("the queue is empty");
        Action::Continue
    }
}

#[track_caller]
fn assert_echoes(mut stream: impl std::io::Read + Write) {
    stream.write_all(b"ping").expect("the connection stands");
    assert_eq!(read_exactly(&mut stream, 4), b"ping");
}

#[test]
fn a_client_of_any_name_is_served_and_told_by_it() {
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let server = Name::path(&folder, "s", 80);
        let (tell, told) = channel();
        let builder = builder.listen(server.address());
        let engine = TestEngine::start(builder, move |_| Telling(tell.clone()));
        let mut other = engine.connect();
        assert_echoes(&mut other);
        receive(&told);
        for name in Name::all(&folder, "c") {
            assert_echoes(name.connect(&server));
            assert_eq!(receive(&told), Address::Unix(name.address()), "{mode}");
        }
        let crowd = (0..30).map(|number| {
            Name::path(&folder, &format!("crowd-{number}-"), LONGEST).connect(&server)
        });
        let crowd: Vec<_> = crowd.collect();
        crowd.iter().for_each(assert_echoes);
        assert_echoes(&mut other);
        assert_eq!(engine.stats().accept_errors, 0, "{mode}");
    }
}

/// A name of one zero and nothing else: it is one, and told as one.
#[test]
fn the_empty_abstract_name_is_told() {
    let folder = Folder::new();
    let server = Name::path(&folder, "s", 80);
    let (tell, told) = channel();
    let builder = Engine::builder().reactors(1).listen(server.address());
    let _engine = TestEngine::start(builder, move |_| Telling(tell.clone()));
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("there is a socket");
    let empty = SocketAddrUnix::new_abstract_name(b"").expect("it is short");
    if bind(&socket, &empty).is_err() {
        return; // Somebody else on the machine has it.
    }
    connect(&socket, &server.system()).expect("it listens");
    assert_echoes(UnixStream::from(socket));
    let peer = receive(&told);
    assert_eq!(peer.unix().and_then(UnixAddress::as_abstract_name), Some(&b""[..]), "{peer}");
}

#[test]
fn a_socket_whose_peer_has_any_name_is_adopted() {
    let folder = Folder::new();
    let (tell, told) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(2), move |_| Telling(tell.clone()));
    let reactors = engine.reactors::<Telling>().expect("it is the handler");
    for (reactor, name) in Name::all(&folder, "c").into_iter().enumerate() {
        let server = Name::path(&folder, &format!("s{reactor}"), LONGEST);
        let listener = server.socket(SocketType::STREAM);
        listen(&listener, 1).expect("it is bound");
        let client = name.connect(&server);
        let accepted = accept(&listener).expect("a client waits");
        let adopt = reactors.adopt(reactor % 2, accepted, |_, _, conn| {
            conn.expect("it is a connected stream");
            Action::Continue
        });
        adopt.expect("the engine runs");
        assert_eq!(receive(&told), Address::Unix(name.address()));
        assert_echoes(client);
    }
}

#[test]
fn datagrams_from_any_name_are_answered() {
    let folder = Folder::new();
    for server in Name::all(&folder, "s") {
        let (tell, told) = channel();
        let builder = Engine::builder().reactors(2).listen(Listen::unix_datagram(server.address()));
        let _engine = TestEngine::start(builder, move |_| Telling(tell.clone()));
        for name in Name::all(&folder, "c") {
            let client = UnixDatagram::from(name.socket(SocketType::DGRAM));
            client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
            sendto(&client, b"ping", SendFlags::empty(), &server.system()).expect("it is there");
            assert_eq!(receive(&told), Address::Unix(name.address()));
            let mut answer = [0; 8];
            let (length, _) = recv(&client, &mut answer, RecvFlags::empty()).expect("it comes");
            assert_eq!(&answer[..length], b"ping");
            if let Some(path) = name.address().as_path() {
                std::fs::remove_file(path).expect("it was bound");
            }
        }
    }
}

/// The engine listens on every name, is found there, and connects there from every name.
#[test]
fn any_name_is_listened_on_and_connected_to() {
    let folder = Folder::new();
    let (tell, told) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Telling(tell.clone()));
    let reactors = engine.reactors::<Telling>().expect("it is the handler");
    for server in Name::all(&folder, "s") {
        let listener = engine.listen(server.address()).expect("Linux allows the name");
        assert_eq!(listener.local_addr(), Address::Unix(server.address()));
        let client = Name::path(&folder, "by-hand", LONGEST);
        assert_echoes(client.connect(&server));
        assert_eq!(receive(&told), Address::Unix(client.address()));
        std::fs::remove_file(client.address().as_path().expect("it is one")).expect("it is bound");
        for own in Name::all(&folder, "c") {
            let connect = Connect::to(server.address()).bind(own.address());
            let begun = reactors.connect(0, connect, |_, _, conn| {
                conn.expect("it listens");
                Action::Close
            });
            begun.expect("the engine runs");
            let mut both = [receive(&told), receive(&told)].map(|address| address.to_string());
            let mut expected = [server.address(), own.address()].map(|name| name.to_string());
            both.sort();
            expected.sort();
            assert_eq!(both, expected);
            if let Some(path) = own.address().as_path() {
                std::fs::remove_file(path).expect("it was bound");
            }
        }
        listener.close();
        assert!(listener.wait_closed(DEADLINE));
    }
}

#[test]
fn a_dead_socket_of_the_longest_path_is_replaced() {
    let folder = Folder::new();
    let server = Name::path(&folder, "s", LONGEST);
    drop(server.socket(SocketType::STREAM));
    let builder = Engine::builder().reactors(1).listen(server.address());
    let (tell, _told) = channel();
    let engine = TestEngine::start(builder, move |_| Telling(tell.clone()));
    assert_echoes(Name::abstract_name(30).connect(&server));
    engine.listen(server.address()).expect_err("somebody is there");
}

#[test]
fn a_listener_of_any_name_is_inherited() {
    let folder = Folder::new();
    for server in Name::all(&folder, "s") {
        let listener = server.socket(SocketType::STREAM);
        listen(&listener, 16).expect("it is bound");
        let inherited = Listen::inherited([listener]).expect("it listens");
        let (tell, _told) = channel();
        let engine =
            TestEngine::start_exactly(Engine::builder().reactors(1).listen(inherited), move |_| {
                Telling(tell.clone())
            });
        assert_eq!(engine.local_addrs(), [Address::Unix(server.address())]);
        assert_echoes(Name::abstract_name(30).connect(&server));
    }
}

#[test]
fn a_proxy_tells_of_any_name() {
    let folder = Folder::new();
    let (tell, told) = channel();
    let listen = Listen::from("127.0.0.1:0").proxy_protocol(DEADLINE, 536);
    let builder = Engine::builder().reactors(1).listen(listen);
    let engine = TestEngine::start_exactly(builder, move |_| Telling(tell.clone()));
    for name in Name::all(&folder, "c") {
        let mut client = TcpStream::connect(engine.address()).expect("it listens");
        client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        let header = ProxyHeader::new(name.address(), name.address());
        header.write_to(ProxyVersion::V2, &mut client).expect("the connection stands");
        assert_echoes(&mut client);
        assert_eq!(receive(&told), Address::Unix(name.address()));
    }
}

/// A process that is not a newcomer connects, with the longest name: the engine and the handover go
/// on.
#[test]
fn a_handover_of_any_name_stands_a_stranger_of_any_name() {
    let folder = Folder::new();
    for own in Name::all(&folder, "h") {
        let (tell, _told) = channel();
        let engine =
            TestEngine::start(Engine::builder().reactors(1), move |_| Telling(tell.clone()));
        let handover = Handover::take(own.address(), DEADLINE).expect("nobody is there");
        handover.ready(&engine, Duration::ZERO).expect("it serves");
        for stranger in Name::all(&folder, "c") {
            let mut stranger_socket = stranger.connect(&own);
            stranger_socket.write_all(b"nonsense").expect("the connection stands");
            let told = read_to_end(&mut stranger_socket);
            assert_eq!(told.first(), Some(&b'm'), "a greeting, and then the refusal");
            if let Some(path) = stranger.address().as_path() {
                std::fs::remove_file(path).expect("it was bound");
            }
        }
        assert_echoes(engine.connect());
        let newcomer = Handover::take(own.address(), DEADLINE).expect("it still serves");
        assert!(newcomer.has_predecessor());
    }
}
