//! Listeners of all kinds: Unix sockets and their files, families of TCP, and listeners that come
//! and go while the engine runs.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::{env, thread};

use crate::common::folder::Folder;
use crate::common::pairs::converse;
use crate::common::{
    DEADLINE, Echo, TestEngine, assert_empty, assert_same, eventually, modes, pattern,
    read_exactly, receive, silence_expected_panics,
};
use millstream::{
    AcceptMode, Action, Address, Conn, Connect, ConnectError, Engine, EventHandler, Listen,
    ListenError, Listener, Reactor, ReactorAction, Target, Transport, UnixAddress,
};

/// Says which listener a connection came in on, and then echoes.
struct Tells;

impl EventHandler for Tells {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let listener = conn.listener().expect("it was accepted");
        conn.output.write(&[listener.index() as u8]);
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

fn unix(path: &Path) -> UnixAddress {
    UnixAddress::path(path).expect("it is short enough")
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream
}

fn connect_tcp(address: impl Into<Address>) -> TcpStream {
    let address = address.into().socket_addr().expect("an IP address");
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream
}

/// The listener that a connection came in on, by what it says.
fn told(mut stream: impl Read) -> usize {
    read_exactly(&mut stream, 1)[0].into()
}

#[track_caller]
fn assert_refused(error: ListenError, kind: ErrorKind) {
    match error {
        ListenError::Refused { source, .. } => assert_eq!(source.kind(), kind, "{source}"),
        error => panic!("{error}"),
    }
}

#[test]
fn ten_clients_echo_over_a_unix_socket() {
    const LEN: usize = 1 << 20;
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let path = folder.join("echo.socket");
        let engine = TestEngine::echo(builder.listen(unix(&path)));
        let listener = &engine.listeners()[0];
        assert_eq!(listener.transport(), Transport::Unix, "{mode}");
        assert_eq!(listener.local_addr().unix().and_then(UnixAddress::as_path), Some(&*path));
        thread::scope(|scope| {
            for seed in 0..10 {
                let path = &path;
                scope.spawn(move || converse(&connect_unix(path), &pattern(LEN, seed)));
            }
        });
        eventually("all are closed", || engine.connections() == 0);
        let accepted: u64 = engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
        assert_eq!(accepted, 10, "{mode}");
        drop(engine);
        assert!(!path.exists(), "the file goes with its socket");
    }
}

/// One Unix socket can't be shared by several listeners: there, the main acceptor serves it.
#[test]
fn with_reuse_port_a_unix_socket_is_served_by_all_reactors() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let builder = Engine::builder().accept_mode(AcceptMode::ReusePort).reactors(3);
    let engine = TestEngine::echo(builder.listen(unix(&path)));
    assert_eq!(engine.stats().listening_sockets, 1 + 3);
    let clients: Vec<_> = (0..6).map(|_| connect_unix(&path)).collect();
    for client in &clients {
        converse(client, b"hello");
    }
    let spread: Vec<_> =
        engine.stats().reactors.iter().map(|reactor| reactor.connections).collect();
    assert_eq!(spread, [2, 2, 2]);
}

/// F25 of the fault checklist.
#[test]
fn an_address_is_listened_on_again_and_again() {
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let path = folder.join("socket");
        let engine = TestEngine::start(builder, |_| Tells);
        let probe = engine.listen("127.0.0.1:0").expect("there is a port");
        let tcp = probe.local_addr();
        probe.close();
        assert!(probe.wait_closed(DEADLINE), "{mode}");
        let mut survivors = Vec::new();
        for round in 0..10 {
            let listeners = [Listen::from(tcp), Listen::from(unix(&path))]
                .map(|listen| engine.listen(listen).expect("nobody listens there"));
            let mut streams = (connect_tcp(tcp), connect_unix(&path));
            let came_in = [told(&mut streams.0), told(&mut streams.1)];
            assert_eq!(came_in, listeners.each_ref().map(|listener| listener.id().index()));
            let bytes = pattern(10_000, round);
            converse(&streams.0, &bytes);
            converse(&streams.1, &bytes);
            for listener in &listeners {
                listener.close();
                assert!(listener.wait_closed(DEADLINE), "{listener:?} in {mode}");
                listener.close(); // Which changes nothing.
            }
            assert!(!path.exists(), "{mode}");
            let refused = TcpStream::connect(tcp).expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{mode}");
            survivors.push(streams);
        }
        assert_eq!(engine.listeners().len(), 1, "{mode}");
        // Who came in before goes on.
        for (round, (tcp, unix)) in survivors.iter().enumerate() {
            converse(tcp, &pattern(1000, round as u64));
            converse(unix, &pattern(1000, round as u64));
        }
    }
}

#[test]
fn a_path_is_taken_over_from_the_dead_alone() {
    let folder = Folder::new();
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let listen = |path: &Path| engine.listen(unix(path));

    let stale = folder.join("stale");
    drop(UnixListener::bind(&stale).expect("the path is free"));
    assert!(stale.exists(), "std leaves the file");
    listen(&stale).expect("nobody answers there");
    converse(&connect_unix(&stale), b"hello");

    let live = folder.join("live");
    let owner = UnixListener::bind(&live).expect("the path is free");
    assert_refused(listen(&live).expect_err("somebody listens"), ErrorKind::AddrInUse);
    owner.accept().expect("it was asked whether it lives");
    let _client = connect_unix(&live);
    owner.accept().expect("it still has its path");
    assert_refused(listen(&stale).expect_err("the engine listens"), ErrorKind::AddrInUse);
    converse(&connect_unix(&stale), b"still");

    let file = folder.join("file");
    fs::write(&file, b"precious").expect("there is room");
    assert_refused(listen(&file).expect_err("it is no socket"), ErrorKind::AlreadyExists);
    assert_same(&fs::read(&file).expect("it is there"), b"precious");
    let nowhere = folder.join("no such folder").join("socket");
    assert_refused(listen(&nowhere).expect_err("there is no folder"), ErrorKind::NotFound);
    assert_eq!(engine.listeners().len(), 2, "those that failed are not known");
}

#[test]
fn the_file_goes_with_the_socket_unless_it_is_somebody_elses() {
    let folder = Folder::new();
    let paths = ["ours", "theirs", "gone"].map(|name| folder.join(name));
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let [ours, theirs, gone] =
        paths.each_ref().map(|path| engine.listen(unix(path)).expect("free"));
    fs::remove_file(&paths[1]).expect("it is there");
    let _other = UnixListener::bind(&paths[1]).expect("the path is free");
    fs::remove_file(&paths[2]).expect("it is there");
    for listener in [ours, theirs, gone] {
        listener.close();
        assert!(listener.wait_closed(DEADLINE));
    }
    assert_eq!(paths.each_ref().map(|path| path.exists()), [false, true, false]);
    UnixStream::connect(&paths[1]).expect("the other one still listens");
}

/// The mask belongs to the process, so each gets its own process, in which this test runs alone.
#[test]
fn the_files_mode_is_what_was_asked_for_under_any_mask() {
    const MASK: &str = "MILLSTREAM_MASK";
    if let Ok(mask) = env::var(MASK) {
        return modes_under(u32::from_str_radix(&mask, 8).expect("it is a number"));
    }
    for mask in ["000", "022", "077", "277"] {
        let status = Command::new("sh")
            .args(["-c", "umask \"$1\" && exec \"$0\" --exact \"$2\""])
            .arg(env::current_exe().expect("a test is a program"))
            .args([mask, thread::current().name().expect("a test has a name")])
            .env(MASK, mask)
            .status();
        assert!(status.expect("there is a shell").success(), "with mask {mask}, see above");
    }
}

fn modes_under(mask: u32) {
    let folder = env::temp_dir().join(format!("millstream-mask-{}-{mask}", std::process::id()));
    fs::DirBuilder::new().create(&folder).expect("it is new");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    for mode in [None, Some(0o600), Some(0o660), Some(0o777), Some(0o200)] {
        let path = folder.join("socket");
        let listen = Listen::unix(unix(&path));
        let listen = mode.map_or(listen.clone(), |mode| listen.mode(mode));
        let listener = engine.listen(listen).expect("the path is free");
        let file = fs::metadata(&path).expect("it is there");
        assert!(file.file_type().is_socket());
        let expected = mode.unwrap_or(0o777 & !mask);
        assert_eq!(file.permissions().mode() & 0o7777, expected, "{mode:?} with {mask:o}");
        listener.close();
        assert!(listener.wait_closed(DEADLINE));
    }
    drop(engine);
    fs::remove_dir(&folder).expect("it is empty");
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn an_abstract_name_is_no_file_and_is_free_again_after_a_close() {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;
    let name = format!("millstream-{}", std::process::id());
    let engine = TestEngine::echo(Engine::builder().reactors(2));
    for _ in 0..3 {
        let listener = engine.listen(format!("unix://@{name}")).expect("nobody listens there");
        let address = listener.local_addr();
        assert_eq!(address.unix().and_then(|unix| unix.as_abstract_name()), Some(name.as_bytes()));
        assert_refused(engine.listen(address).expect_err("it is in use"), ErrorKind::AddrInUse);
        let to = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        converse(&UnixStream::connect_addr(&to).expect("it listens"), b"hello");
        listener.close();
        assert!(listener.wait_closed(DEADLINE));
    }
}

/// Opens and closes listeners in its callbacks: for a byte 1 it opens one on its own path, for 0 it
/// closes the one that it opened last.
struct Opens {
    folder: PathBuf,
    engine: Option<Engine>,
    opened: Vec<Listener>,
    told: Sender<Listener>,
}

impl EventHandler for Opens {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.engine = Some(reactor.engine());
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        for &byte in conn.input.take_all() {
            let listener = if byte == 0 {
                let listener = self.opened.pop().expect("it was opened before");
                listener.close();
                // A callback doesn't wait; whether it is closed by now depends on who accepts.
                let _ = listener.wait_closed(DEADLINE);
                listener
            } else {
                let path = self.folder.join(format!("{}-{}", conn.id(), self.opened.len()));
                let engine = self.engine.as_ref().expect("it has booted");
                let listener = engine.listen(unix(&path)).expect("the path is free");
                self.opened.push(listener.clone());
                listener
            };
            let _ = self.told.send(listener); // Nobody listens if the test has failed.
        }
        Action::Continue
    }
}

#[test]
fn callbacks_open_and_close_listeners() {
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let (told, telling) = channel();
        let path = folder.join("");
        let engine = TestEngine::start(builder, move |_| Opens {
            folder: path.clone(),
            engine: None,
            opened: Vec::new(),
            told: told.clone(),
        });
        let mut client = engine.connect();
        for _ in 0..5 {
            client.write_all(&[1, 1]).expect("it is connected");
            let opened = [receive(&telling), receive(&telling)];
            for listener in &opened {
                let address = listener.local_addr();
                let path = address.unix().and_then(UnixAddress::as_path).expect("it is a path");
                // A connection to it is served like all others.
                let mut other = connect_unix(path);
                other.write_all(&[1]).expect("it is connected");
                let third = receive(&telling);
                other.write_all(&[0]).expect("it is connected");
                assert_eq!(receive(&telling).id(), third.id());
                assert!(third.wait_closed(DEADLINE), "{mode}");
            }
            client.write_all(&[0, 0]).expect("it is connected");
            let closed = [receive(&telling), receive(&telling)];
            assert!(closed.iter().all(|listener| listener.wait_closed(DEADLINE)), "{mode}");
            let ids = |listeners: &[Listener]| Vec::from_iter(listeners.iter().map(Listener::id));
            assert_eq!(ids(&[closed[1].clone(), closed[0].clone()]), ids(&opened));
        }
        assert_eq!(engine.listeners().len(), 1, "{mode}");
    }
}

#[test]
fn threads_open_and_close_listeners_while_others_are_served() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 25;
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let engine = TestEngine::start(builder, |_| Tells);
        let steady = engine.connect();
        told(&steady);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (engine, path) = (&engine, folder.join(number.to_string()));
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let listen = match round % 2 {
                            0 => Listen::from(unix(&path)),
                            _ => Listen::from("127.0.0.1:0"),
                        };
                        let listener = engine.listen(listen).expect("the place is free");
                        let index = listener.id().index();
                        let bytes = pattern(1000, index as u64);
                        if round % 2 == 0 {
                            let stream = connect_unix(&path);
                            assert_eq!(told(&stream), index);
                            converse(&stream, &bytes);
                        } else {
                            let stream = connect_tcp(listener.local_addr());
                            assert_eq!(told(&stream), index);
                            converse(&stream, &bytes);
                        }
                        listener.close();
                        assert!(listener.wait_closed(DEADLINE));
                    }
                });
            }
            converse(&steady, &pattern(1 << 20, 1));
        });
        let left: Vec<_> =
            engine.listeners().iter().map(|listener| listener.id().index()).collect();
        assert_eq!(left, [0], "{mode}");
        assert_eq!(engine.local_addrs().len(), 1);
        converse(&steady, &pattern(1 << 20, 2));
        drop(steady);
        eventually("all are closed", || engine.connections() == 0);
        let accepted: u64 = engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
        assert_eq!(accepted, 1 + (THREADS * ROUNDS) as u64, "{mode}");
    }
}

/// Listens where it is told as soon as it boots, and echoes. A second one closes its listener at
/// once.
struct Early(PathBuf);

impl EventHandler for Early {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        let path = self.0.join(reactor.index().to_string());
        let listener = reactor.engine().listen(unix(&path)).expect("the path is free");
        if reactor.index() > 0 {
            listener.close();
            assert!(listener.wait_closed(DEADLINE));
        }
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

#[test]
fn an_engine_listens_as_it_boots() {
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let path = folder.join("");
        let engine = TestEngine::start(builder, move |_| Early(path.clone()));
        converse(&connect_unix(&folder.join("0")), b"hello");
        assert!(!folder.join("1").exists(), "{mode}");
        assert_eq!(engine.listeners().len(), 2, "{mode}");
    }
}

/// An engine that does not start leaves no socket, even if something has a handle of it.
#[test]
fn an_engine_that_does_not_start_listens_no_more() {
    struct Fails(Sender<Engine>, PathBuf);
    impl EventHandler for Fails {
        type State = ();
        fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
            let engine = reactor.engine();
            engine.listen(unix(&self.1)).expect("the path is free");
            let _ = self.0.send(engine);
            panic!("expected: it does not boot");
        }
        fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
            Action::Continue
        }
    }
    silence_expected_panics();
    let folder = Folder::new();
    let (told, telling) = channel();
    let path = folder.join("socket");
    let started = Engine::builder()
        .reactors(1)
        .listen("127.0.0.1:0")
        .start(move |_| Fails(told.clone(), path.clone()));
    started.expect_err("it does not boot");
    let engine = receive(&telling);
    assert!(!folder.join("socket").exists());
    assert_empty(&engine);
    assert!(matches!(engine.listen("127.0.0.1:0"), Err(ListenError::Stopped)));
}

#[test]
fn an_engine_that_stops_listens_no_more() {
    let folder = Folder::new();
    let engine = Engine::builder().reactors(2).start(|_| Echo).expect("it starts");
    let listener = engine.listen(unix(&folder.join("socket"))).expect("the path is free");
    engine.stop(DEADLINE).expect("nobody stopped it before");
    let error = engine.listen("127.0.0.1:0").expect_err("it stops");
    assert!(matches!(error, ListenError::Stopped), "{error}");
    assert!(listener.wait_closed(DEADLINE), "the stop closes it");
    engine.wait().expect("it ends well");
    let error = engine.listen("127.0.0.1:0").expect_err("it has stopped");
    assert!(matches!(error, ListenError::Stopped), "{error}");
    assert_empty(&engine);
    assert!(!folder.join("socket").exists());
}

/// A text that is not an address changes nothing.
#[test]
fn a_bad_address_is_told() {
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    for text in ["nowhere", "unix://", "tcp4://[::1]:0", "udp6:0"] {
        let error = engine.listen(text).expect_err("it is no address");
        let ListenError::Config(error) = error else { panic!("{error}") };
        assert!(error.value.contains(text), "{error}");
    }
    assert_eq!(engine.listeners().len(), 1);
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn each_family_is_listened_on_alone_or_both_together() {
    let v4 = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for (mode, builder) in modes() {
        let engine = TestEngine::start(builder, |_| Tells);
        let serves =
            |text: &str, addresses: &[fn(u16) -> SocketAddr], not: &[fn(u16) -> SocketAddr]| {
                let listener = engine.listen(text).expect("there is a port");
                let port = listener.local_addr().port().expect("it is TCP");
                assert_ne!(port, 0);
                for address in addresses {
                    let stream = connect_tcp(address(port));
                    assert_eq!(told(&stream), listener.id().index(), "{text} in {mode}");
                    converse(&stream, b"hello");
                }
                for address in not {
                    // Somebody else may listen on that very port of the other family, but not every
                    // time.
                    let refused = (0..5).any(|_| {
                        let listener = engine.listen(text).expect("there is a port");
                        let port = listener.local_addr().port().expect("it is TCP");
                        let connected = TcpStream::connect(address(port));
                        listener.close();
                        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
                    });
                    assert!(refused, "{text} listens on both families in {mode}");
                }
                listener.close();
            };
        serves("tcp4://:0", &[v4], &[]);
        serves("tcp://127.0.0.1:0", &[v4], &[]);
        if has_ipv6() {
            serves("tcp4://:0", &[v4], &[v6]);
            serves("tcp6://:0", &[v6], &[v4]);
            serves("tcp6://[::]:0", &[v6], &[v4]);
            serves("tcp://:0", &[v4, v6], &[]);
            serves("tcp://[::]:0", &[v4, v6], &[]);
            serves("0.0.0.0:0", &[v4, v6], &[]);
            serves("[::1]:0", &[v6], &[]);
            serves("tcp6://[::1%1]:0", &[v6], &[]);
        } else {
            serves("tcp://:0", &[v4], &[]);
        }
    }
}

/// An engine is a client of Unix sockets, too.
#[test]
fn an_engine_connects_to_unix_sockets() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let builder = Engine::builder().reactors(2).listen(unix(&path));
    let server = TestEngine::echo(builder);
    let (told, telling) = channel();
    let client = Engine::builder().reactors(2).start(move |_| Asks(told.clone())).expect("starts");
    let reactors = client.reactors::<Asks>().expect("it is the engine's handler");
    for number in 0..20_u8 {
        let message = pattern(10_000, number.into());
        let connect = Connect::to(unix(&path));
        let connected = reactors.connect(usize::from(number) % 2, connect, move |_, _, conn| {
            let conn = conn.expect("it listens");
            assert!(conn.is_outgoing());
            assert_eq!(conn.transport(), Transport::Unix);
            conn.output.write(&message);
            *conn.state = message;
            Action::Continue
        });
        connected.expect("the engine runs");
    }
    for _ in 0..20 {
        assert_eq!(receive(&telling), Ok(()));
    }
    let gone = folder.join("nobody");
    let connected = reactors.connect(0, Connect::to(unix(&gone)), |asks, _, outcome| {
        let Err(ConnectError::Failed { to, source }) = outcome else { panic!("it is there") };
        let _ = asks.0.send(Err((to, source.kind())));
        Action::Continue
    });
    connected.expect("the engine runs");
    let nobody = Target::Address(unix(&gone).into());
    assert_eq!(receive(&telling), Err((nobody, ErrorKind::NotFound)));
    client.stop(DEADLINE).expect("nobody stopped it before");
    client.wait().expect("it ends well");
    assert_empty(&client);
    assert_eq!(client.stats().reactors.iter().map(|reactor| reactor.panics).sum::<u64>(), 0);
    drop(server);
}

/// Compares what comes back with what it sent, and closes.
struct Asks(Sender<Result<(), (Target, ErrorKind)>>);

impl EventHandler for Asks {
    type State = Vec<u8>;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.input.len() < conn.state.len() {
            return Action::Continue;
        }
        assert_same(conn.input.take_all(), conn.state);
        let _ = self.0.send(Ok(())); // Nobody listens if the test has failed.
        Action::Close
    }
}

/// An engine has an address once, also where its sockets could share it.
#[test]
fn an_address_is_listened_on_once() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        match engine.listen(engine.address()) {
            Err(ListenError::Refused { source, .. }) => {
                assert_eq!(source.kind(), ErrorKind::AddrInUse, "{mode}");
            }
            other => panic!("{mode}: {other:?}"),
        }
        assert_eq!(engine.listeners().len(), 1, "{mode}");
    }
}
