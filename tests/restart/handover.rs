//! Listening sockets that were there before, and how engines hand them to each other.
//!
//! - Inherited sockets: any number for one address, in every mode; what can't be listened on.
//! - A handover between two engines: which has the sockets and their files, before and after;
//!   newcomers that give up, are late, say nonsense, or come in numbers.
//! - What a newcomer does that finds something else at the address.

mod failures;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use millstream::restart::{Handover, HandoverError, InheritError, MessageError};
use millstream::{
    AcceptMode, Action, Builder, Conn, Engine, EventHandler, Listen, ListenError, Reactor,
    ShutdownAction, StartError, Transport, UnixAddress,
};
use socket2::{Domain, Socket, Type};

use crate::common::folder::Folder;
use crate::common::{DEADLINE, Echo, assert_empty, eventually, modes, read_exactly, read_to_end};

// --- inherited sockets ---------------------------------------------------------------------------

/// This many sockets that share a port.
fn sockets(count: usize) -> (SocketAddr, Vec<OwnedFd>) {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
        socket.set_reuse_port(true).expect("a socket has the option");
        socket.bind(&address.into()).expect("the port is free");
        socket.listen(128).expect("it is bound");
        address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("IP");
        sockets.push(socket.into());
    }
    (address, sockets)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream
}

#[track_caller]
fn assert_echoes(mut stream: impl Read + Write) {
    stream.write_all(b"ping").expect("the connection stands");
    assert_eq!(read_exactly(&mut stream, 4), b"ping");
}

fn stop(engine: &Engine) {
    let _ = engine.stop(DEADLINE); // A handover may have stopped it.
    engine.wait().expect("it ends well");
    assert_empty(engine);
}

/// A client that waits in any of the queues is served, whether there are fewer sockets than
/// reactors or more; and so is one that comes later.
#[test]
fn all_inherited_sockets_are_accepted_on() {
    for count in [1, 2, 3, 5] {
        for (mode, builder) in modes() {
            serve_inherited(count, &format!("{mode}, {count} sockets"), builder);
        }
    }
}

fn serve_inherited(count: usize, mode: &str, builder: Builder) {
    let (address, sockets) = sockets(count);
    let early: Vec<_> = (0..40).map(|_| connect(address)).collect();
    let listen = Listen::inherited(sockets).expect("they listen");
    let engine = builder.listen(listen).start(|_| Echo).expect("it starts");
    assert_eq!(engine.local_addrs()[0], address, "{mode}");
    assert_eq!(engine.listeners()[0].transport(), Transport::Tcp);
    early.iter().for_each(assert_echoes);
    for _ in 0..40 {
        assert_echoes(connect(address));
    }
    drop(early);
    let listener = engine.listeners().remove(0);
    listener.close();
    assert!(listener.wait_closed(DEADLINE), "{mode}: all of its sockets close");
    TcpStream::connect(address).expect_err("nobody listens");
    stop(&engine);
}

#[test]
fn an_inherited_file_stays() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let socket = UnixListener::bind(&path).expect("the folder is new");
    let engine = Engine::builder().start(|_| Echo).expect("it starts");
    let inherited = Listen::inherited([socket.into()]).expect("it listens");
    let listener = engine.listen(inherited).expect("it listens");
    let address = UnixAddress::path(&path).expect("it is short");
    assert_eq!(listener.local_addr().unix(), Some(&address));
    assert_echoes(UnixStream::connect(&path).expect("it listens"));
    stop(&engine);
    assert!(Path::new(&path).exists());
    UnixStream::connect(&path).expect_err("nobody listens");
}

#[test]
fn what_cannot_be_inherited_is_told() {
    let error = |sockets: Vec<OwnedFd>| Listen::inherited(sockets).expect_err("it is unusable");
    let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("there is a socket");
    let text = "the socket at (unnamed) carries neither streams nor datagrams";
    assert_eq!(error(vec![packets.into()]).to_string(), text);
    let file = fs::File::open("/dev/null").expect("it is there");
    assert!(matches!(error(vec![file.into()]), InheritError::NoSocket { .. }));
    assert!(matches!(error(Vec::new()), InheritError::Nothing));
    let listen = || TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let (first, other) = (listen(), listen());
    let addresses = [&first, &other].map(|listener| listener.local_addr().expect("it is bound"));
    let text = format!("a listener has one address, not {} and {}", addresses[0], addresses[1]);
    assert_eq!(error(vec![first.into(), other.into()]).to_string(), text);
    let stream = listen();
    let address = stream.local_addr().expect("it is bound");
    let datagrams = UdpSocket::bind(address).expect("UDP has ports of its own");
    let text = format!("a listener has one transport, and the sockets at {address} do not");
    assert_eq!(error(vec![stream.into(), datagrams.into()]).to_string(), text);
    let inherited = || Listen::inherited([listen().into()]).expect("it listens");
    let engine = Engine::builder().start(|_| Echo).expect("it starts");
    for unusable in [inherited().backlog(5), inherited().mode(0o600)] {
        let error = engine.listen(unusable).expect_err("it has these already");
        assert!(matches!(error, ListenError::Config(_)), "{error}");
    }
    stop(&engine);
}

// --- handovers -----------------------------------------------------------------------------------

/// What two engines hand over.
struct Rig {
    folder: Folder,
    timeout: Duration,
}

impl Rig {
    fn new() -> Self {
        Rig { folder: Folder::new(), timeout: DEADLINE }
    }

    fn handover_path(&self) -> String {
        self.folder.path("handover")
    }

    fn socket_path(&self) -> String {
        self.folder.path("socket")
    }

    fn take(&self) -> Result<Handover, HandoverError> {
        Handover::take(UnixAddress::path(self.handover_path()).expect("it is short"), self.timeout)
    }

    /// Starts an engine that listens on what was taken over, or opens it.
    fn start(&self, handover: &mut Handover, builder: Builder) -> Engine {
        let unix = Listen::from(format!("unix://{}", self.socket_path())).mode(0o600);
        let inherited = &mut handover.inherited;
        let builder =
            builder.listen(inherited.listen("127.0.0.1:0")).listen(inherited.listen(unix));
        let builder = builder.listen(inherited.listen("udp://127.0.0.1:0"));
        builder.start(|_| Echo).expect("it starts")
    }

    fn first(&self, builder: Builder) -> Engine {
        let mut handover = self.take().expect("nobody is there");
        assert!(!handover.has_predecessor() && handover.inherited.is_empty());
        let engine = self.start(&mut handover, builder);
        handover.ready(&engine, DEADLINE).expect("it serves handovers");
        engine
    }

    fn next(&self, builder: Builder) -> Engine {
        let mut handover = self.take().expect("somebody is there");
        assert!(handover.has_predecessor());
        let engine = self.start(&mut handover, builder);
        handover.ready(&engine, DEADLINE).expect("it takes over");
        engine
    }

    #[track_caller]
    fn assert_serves(&self, engine: &Engine) {
        let before: u64 = engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
        let address = engine.local_addrs()[0].socket_addr().expect("it is IP");
        assert_echoes(connect(address));
        assert_echoes(UnixStream::connect(self.socket_path()).expect("it listens"));
        let after: u64 = engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
        assert_eq!(after, before + 2, "it was this engine");
        let datagrams = engine.local_addrs()[2].socket_addr().expect("it is IP");
        let client = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
        client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        client.send_to(b"ping", datagrams).expect("it is bound");
        assert_eq!(client.recv_from(&mut [0; 8]).expect("it is answered"), (4, datagrams));
    }
}

fn ends(engine: &Engine) {
    eventually("the engine stops", || engine.is_stopping());
    stop(engine);
}

/// Addresses, sockets and files go from engine to engine, whatever their modes are.
#[test]
fn engines_hand_over_in_a_chain() {
    let rig = Rig::new();
    let mut engine = rig.first(Engine::builder());
    let addresses = engine.local_addrs();
    let mode = fs::metadata(rig.handover_path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is for the same user alone");
    for (mode, builder) in modes() {
        rig.assert_serves(&engine);
        let next = rig.next(builder);
        assert_eq!(next.local_addrs(), addresses, "{mode}");
        ends(&engine);
        engine = next;
    }
    rig.assert_serves(&engine);
    assert!(Path::new(&rig.socket_path()).exists());
    stop(&engine);
    for path in [rig.socket_path(), rig.handover_path()] {
        assert!(!Path::new(&path).exists(), "{path} goes with its last owner");
    }
}

/// Echoes, but lets nobody in while the gate is held.
struct Gated(Arc<RwLock<()>>);

impl EventHandler for Gated {
    type State = ();

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        drop(self.0.read());
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain
    }
}

/// A client that waits in any of the queues is served by the newcomer, and one that is accepted by
/// the old one is served there.
#[test]
fn the_queues_of_all_reactors_are_handed_over() {
    const CLIENTS: usize = 60;
    for (mode, builder) in modes() {
        let rig = Rig::new();
        let gate = Arc::new(RwLock::new(()));
        let held = gate.write().expect("nobody panicked");
        let old = Engine::builder().reactors(3).accept_mode(AcceptMode::ReusePort);
        let of_handlers = Arc::clone(&gate);
        let old = old.listen("127.0.0.1:0").start(move |_| Gated(Arc::clone(&of_handlers)));
        let old = old.expect("it starts");
        let handover = rig.take().expect("nobody is there");
        handover.ready(&old, DEADLINE).expect("it serves handovers");
        let address = old.local_addrs()[0].socket_addr().expect("it is IP");
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
        eventually("each reactor is stuck", || old.connections() == 3);
        let mut handover = rig.take().expect("somebody is there");
        let listen = handover.inherited.listen("127.0.0.1:0");
        let next = builder.listen(listen).start(|_| Echo).expect("it starts");
        handover.ready(&next, DEADLINE).expect("it takes over");
        eventually(&format!("{mode}: all others are served"), || next.connections() == CLIENTS - 3);
        drop(held);
        clients.iter().for_each(assert_echoes);
        drop(clients);
        ends(&old);
        stop(&next);
    }
}

#[test]
fn a_newcomer_that_gives_up_changes_nothing() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    for _ in 0..3 {
        drop(rig.take().expect("somebody is there"));
        // With its listeners in use, and its engine ended. It has accepted nobody.
        let mut handover = rig.take().expect("somebody is there");
        let newcomer = rig.start(&mut handover, Engine::builder());
        rig.assert_serves(&engine);
        drop(handover);
        let listeners = newcomer.listeners();
        listeners[0].close();
        assert!(listeners[0].wait_closed(DEADLINE), "it does not wait for the handover");
        stop(&newcomer);
        assert!(listeners[1].wait_closed(DEADLINE), "nor does a stop");
        rig.assert_serves(&engine);
    }
    let next = rig.next(Engine::builder());
    ends(&engine);
    rig.assert_serves(&next);
    stop(&next);
}

#[test]
fn a_newcomer_that_is_late_is_refused() {
    let rig = Rig { timeout: Duration::from_millis(50), ..Rig::new() };
    let engine = rig.first(Engine::builder());
    let rig = Rig { timeout: DEADLINE, ..rig };
    let mut handover = rig.take().expect("somebody is there");
    let newcomer = rig.start(&mut handover, Engine::builder());
    // sleep: that it is late is the subject; the other one waits much shorter.
    thread::sleep(Duration::from_millis(500));
    let error = handover.ready(&newcomer, DEADLINE).expect_err("it is late");
    assert!(matches!(error, HandoverError::Refused), "{error}");
    stop(&newcomer);
    assert!(!engine.is_stopping());
    rig.assert_serves(&engine);
    stop(&engine);
}

#[test]
fn of_several_newcomers_one_takes_over() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let mut newcomers: Vec<_> = (0..3).map(|_| rig.take().expect("somebody is there")).collect();
    let mut first = newcomers.pop().expect("there are three");
    let next = rig.start(&mut first, Engine::builder());
    first.ready(&next, DEADLINE).expect("it is the first");
    ends(&engine);
    for late in newcomers {
        let error = late.ready(&next, DEADLINE).expect_err("it is not the first");
        assert!(matches!(error, HandoverError::Refused), "{error}");
    }
    rig.assert_serves(&next);
    stop(&next);
}

#[test]
fn a_stop_does_not_wait_for_a_newcomer() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let handover = rig.take().expect("somebody is there");
    let addresses = engine.local_addrs();
    stop(&engine);
    // The newcomer has the sockets, and is the only one.
    let mut handover = handover;
    let next = rig.start(&mut handover, Engine::builder());
    handover.ready(&next, DEADLINE).expect("there is nobody to wait for");
    assert_eq!(next.local_addrs(), addresses);
    rig.assert_serves(&next);
    let last = rig.next(Engine::builder());
    ends(&next);
    rig.assert_serves(&last);
    stop(&last);
}

/// A newcomer whose engine stops already takes nothing over.
#[test]
fn a_newcomer_that_stops_leaves_its_predecessor_alone() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let mut handover = rig.take().expect("somebody is there");
    let next = rig.start(&mut handover, Engine::builder());
    stop(&next);
    let error = handover.ready(&next, DEADLINE).expect_err("it stops");
    assert!(matches!(error, HandoverError::Stopping), "{error}");
    rig.assert_serves(&engine);
    stop(&engine);
}

/// What is opened after a newcomer was given the listeners is not one of them, and ends with its
/// engine.
#[test]
fn a_listener_that_came_too_late_takes_its_file_along() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let mut handover = rig.take().expect("somebody is there");
    let late = rig.folder.path("late");
    engine.listen(format!("unix://{late}")).expect("the folder is new");
    let next = rig.start(&mut handover, Engine::builder());
    handover.ready(&next, DEADLINE).expect("it takes over");
    ends(&engine);
    assert!(!Path::new(&late).exists(), "nobody has it any more");
    rig.assert_serves(&next);
    let last = rig.next(Engine::builder());
    ends(&next);
    rig.assert_serves(&last);
    stop(&last);
}

/// Somebody who connects and says something else is sent away, and so are too many at a time.
#[test]
fn who_says_nonsense_does_not_take_over() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let connect = || {
        let stream = UnixStream::connect(rig.handover_path()).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        stream
    };
    for nonsense in [&b"x"[..], b"RR", &[0; 1000]] {
        let mut stream = connect();
        let _ = stream.write_all(nonsense); // It may be sent away before it has said all.
        let mut greeting = Vec::new();
        let _ = stream.read_to_end(&mut greeting); // With a reset if not all was read.
        assert!(greeting.starts_with(b"millhand"));
    }
    let crowd: Vec<_> = (0..16).map(|_| connect()).collect();
    let mut greeted = crowd.iter().map(|mut stream| read_exactly(&mut stream, 8));
    assert!(greeted.all(|magic| magic == b"millhand"));
    assert_eq!(read_to_end(&mut connect()), b"", "there are too many");
    drop(crowd);
    drop(rig.take().expect("there is room again"));
    assert!(!engine.is_stopping());
    let next = rig.next(Engine::builder());
    ends(&engine);
    stop(&next);
}

/// What a newcomer asks for besides the address holds for the sockets that it inherits.
#[test]
fn limits_hold_for_inherited_sockets() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let mut handover = rig.take().expect("somebody is there");
    let limited = handover.inherited.listen(Listen::from("127.0.0.1:0").max_connections(1));
    let next = Engine::builder().listen(limited).start(|_| Echo).expect("it starts");
    handover.ready(&next, DEADLINE).expect("it takes over");
    ends(&engine);
    let address = next.local_addrs()[0].socket_addr().expect("it is IP");
    let first = connect(address);
    assert_echoes(&first);
    assert_eq!(read_to_end(&mut connect(address)), b"", "one too many");
    drop(first);
    stop(&next);
}

/// What was listened on and is not any more is closed; what is new is opened.
#[test]
fn addresses_may_change() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let old = engine.local_addrs()[0].socket_addr().expect("it is IP");
    let mut handover = rig.take().expect("somebody is there");
    let unix = UnixAddress::path(rig.socket_path()).expect("it is short");
    assert_eq!(handover.inherited.named("nothing").len(), 0);
    let kept = handover.inherited.listen(unix);
    let other = format!("unix://{}", rig.folder.path("other"));
    let builder = Engine::builder().listen(kept).listen(handover.inherited.listen(other));
    let next = builder.start(|_| Echo).expect("it starts");
    handover.ready(&next, DEADLINE).expect("it takes over");
    ends(&engine);
    TcpStream::connect(old).expect_err("nobody listens");
    assert_echoes(UnixStream::connect(rig.socket_path()).expect("it listens"));
    let mut last = rig.take().expect("somebody is there");
    let mut listens = last.inherited.named(&rig.socket_path());
    assert_eq!(listens.len(), 1);
    listens.extend(last.inherited.rest());
    assert!(last.inherited.is_empty());
    let builder = listens.into_iter().fold(Engine::builder(), Builder::listen);
    let end = builder.start(|_| Echo).expect("it starts");
    assert_eq!(end.local_addrs(), next.local_addrs());
    last.ready(&end, DEADLINE).expect("it takes over");
    ends(&next);
    stop(&end);
}

// --- what a newcomer finds -----------------------------------------------------------------------

/// What a newcomer replies to a peer that says this and then waits, or ends.
fn found(says: &'static [u8], ends: bool) -> HandoverError {
    let rig = Rig { timeout: Duration::from_millis(300), ..Rig::new() };
    let listener = UnixListener::bind(rig.handover_path()).expect("the folder is new");
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the newcomer connects");
        stream.write_all(says).expect("the newcomer waits");
        if !ends {
            let _ = stream.read(&mut [0]);
        }
    });
    let begin = Instant::now();
    let error = rig.take().expect_err("it is nonsense");
    assert!(begin.elapsed() < DEADLINE);
    other.join().expect("it does not panic");
    error
}

#[test]
fn a_newcomer_tells_what_is_wrong_with_its_predecessor() {
    let message = |says, ends| match found(says, ends) {
        HandoverError::Message(error) => error,
        error => panic!("not of the message: {error:?}"),
    };
    assert_eq!(message(b"HTTP/1.1 400 Bad", false), MessageError::Magic);
    let version = MessageError::Version { version: 0x0203 };
    assert_eq!(message(b"millhand\x02\x03\0\0\0\0", false), version);
    let length = MessageError::TooLong { length: 0x0100_0000 };
    assert_eq!(message(b"millhand\0\x02\x01\0\0\0", false), length);
    let field = MessageError::Field("transport");
    assert_eq!(message(b"millhand\0\x02\0\0\0\x02\0\x01", false), field);
    let field = MessageError::Field("own socket");
    assert_eq!(message(b"millhand\0\x02\0\0\0\0", false), field);
    assert!(matches!(found(b"", false), HandoverError::Timeout));
    assert!(matches!(found(b"mill", false), HandoverError::Timeout));
}

/// The socket of a process that has crashed is replaced, also if it crashes while it says
/// something.
#[test]
fn a_predecessor_that_crashed_is_none() {
    let promises_a_socket = b"millhand\0\x02\0\0\0\x0e\0\x04unix\0\0\0\0\0\0\0\x01";
    for says in [None, Some(&b""[..]), Some(b"mill"), Some(promises_a_socket)] {
        let rig = Rig::new();
        let listener = UnixListener::bind(rig.handover_path()).expect("the folder is new");
        let crashes = says.map(|says| {
            thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("the newcomer connects");
                stream.write_all(says).expect("the newcomer waits");
            })
        });
        stop(&rig.first(Engine::builder()));
        crashes.into_iter().for_each(|crash| crash.join().expect("it does not panic"));
    }
}

#[test]
fn a_handover_that_nobody_can_reach_is_told() {
    let path = UnixAddress::path("/no such folder/handover").expect("it is short");
    let error = Handover::take(path, DEADLINE).expect_err("there is no folder");
    assert!(matches!(error, HandoverError::Address { .. }), "{error}");
    // The address of a listener that was not inherited is in use.
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let taken = engine.local_addrs()[0];
    let error = Engine::builder().listen(taken).start(|_| Echo).expect_err("it is taken");
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    stop(&engine);
}
