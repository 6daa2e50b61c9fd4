//! What the system refuses one thread, as a sandbox does, or a system at its limits: it fails what
//! was asked for, or another way is taken, and nothing else ends.
#![cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))] // It is about epoll.
// As `common::denied`.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::channel;

use crate::common::denied::{Call, denied, deny};
use crate::common::folder::Folder;
use crate::common::{
    DEADLINE, Echo, TestEngine, assert_answers, modes, read_exactly, read_to_reset, receive,
};
use millstream::{
    Action, Address, Conn, Connect, ConnectError, Engine, EventHandler, ListenError, OpenDatagram,
    OpenError, Reactor, ReactorAction, StartError, WaitError,
};

/// A client and what it says come back.
#[track_caller]
fn assert_echoes(mut stream: impl Read + Write) {
    stream.write_all(b"hello").expect("the connection stands");
    assert_eq!(read_exactly(&mut stream, 5), b"hello");
}

/// Makes an engine listen where no socket can be watched any more; returns the system's error.
#[track_caller]
fn refused(engine: &Engine, at: &str) -> Option<i32> {
    let listening = denied(&[Call::watch()], libc::ENOSPC, || engine.listen(at));
    match listening.expect_err(at) {
        ListenError::Refused { source, .. } => source.raw_os_error(),
        // A Unix socket cannot be one for each reactor, so there would be a thread that accepts.
        ListenError::Acceptor(error) => match *error {
            StartError::Driver(source) => source.raw_os_error(),
            error => panic!("{at}: {error}"),
        },
        error => panic!("{at}: {error}"),
    }
}

#[test]
fn a_listener_that_cannot_be_watched_is_refused_and_nothing_else_ends() {
    for (mode, builder) in modes() {
        let folder = Folder::new();
        let engine = TestEngine::echo(builder);
        let mut client = engine.connect();
        assert_echoes(&mut client);
        let before = (engine.local_addrs(), engine.stats().listening_sockets);
        let path = folder.path("socket");
        let unix = [format!("unix://{path}"), format!("unixgram://{path}")];
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let tcp = port.expect("a free port").to_string();
        let places = [tcp.as_str(), "udp://127.0.0.1:0", &unix[0], &unix[1]];
        for at in places {
            assert_eq!(refused(&engine, at), Some(libc::ENOSPC), "{mode}: {at}");
            let now = (engine.local_addrs(), engine.stats().listening_sockets);
            assert_eq!(now, before, "{mode}: {at}: something is left");
            assert!(!folder.join("socket").exists(), "{mode}: {at}: the file is left");
            assert!(!engine.is_stopping(), "{mode}: {at}");
            assert_echoes(&mut client);
            // The address is free, and serves as soon as the system allows it.
            let listener = engine.listen(at).unwrap_or_else(|error| panic!("{mode}: {error}"));
            match listener.local_addr() {
                Address::Ip(address) if listener.transport().is_stream() => {
                    assert_echoes(std::net::TcpStream::connect(address).expect("it accepts"));
                }
                Address::Ip(address) => assert_answers(address),
                Address::Unix(_) => {}
            }
            listener.close();
            assert!(listener.wait_closed(DEADLINE), "{mode}: {at}");
        }
        assert_echoes(engine.connect());
    }
}

#[test]
fn a_callback_learns_that_its_listener_cannot_be_watched() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let mut clients: Vec<_> = (0..4).map(|_| engine.connect()).collect();
        clients.iter_mut().for_each(assert_echoes);
        let reactors = engine.reactors::<Echo>().expect("it is the handler's type");
        let (send, learned) = channel();
        let run = reactors.run(0, move |_, reactor| {
            deny(&[Call::watch()], libc::ENOSPC);
            let listen = |at| reactor.engine().listen(at).map(|listener| listener.local_addr());
            send.send(["127.0.0.1:0", "udp://127.0.0.1:0"].map(listen)).expect("it waits");
            ReactorAction::Continue
        });
        run.expect("it runs");
        for outcome in receive(&learned) {
            match outcome {
                Err(ListenError::Refused { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC), "{mode}");
                }
                other => panic!("{mode}: {other:?}"),
            }
        }
        clients.iter_mut().for_each(assert_echoes);
        assert!(!engine.is_stopping(), "{mode}");
    }
}

/// The reactor that serves cannot watch, but who asks can.
#[test]
fn what_a_reactor_cannot_watch_fails_alone() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let mut clients: Vec<_> = (0..4).map(|_| engine.connect()).collect();
        clients.iter_mut().for_each(assert_echoes);
        let reactors = engine.reactors::<Echo>().expect("it is the handler's type");
        let refuse = |_: &mut Echo, _: &mut Reactor<'_, Echo>| {
            deny(&[Call::watch()], libc::ENOSPC);
            ReactorAction::Continue
        };
        reactors.run(0, refuse).expect("it runs");
        let (send, learned) = channel();
        let connected = send.clone();
        let to = engine.address();
        let connect = reactors.connect(0, Connect::to(to), move |_, _, outcome| {
            connected
                .send(match outcome {
                    Err(ConnectError::Failed { source, .. }) => source.raw_os_error(),
                    other => panic!("{:?}", other.map(|_| ())),
                })
                .expect("it waits");
            Action::Continue
        });
        connect.expect("it tries");
        assert_eq!(receive(&learned), Some(libc::ENOSPC), "{mode}: connecting");
        let on: SocketAddr = ([127, 0, 0, 1], 0).into();
        let open = reactors.open_datagram(0, OpenDatagram::on(on), move |_, _, outcome| {
            send.send(match outcome {
                Err(OpenError::Failed { source, .. }) => source.raw_os_error(),
                other => panic!("{:?}", other.map(|_| ())),
            })
            .expect("it waits");
            Action::Continue
        });
        open.expect("it tries");
        assert_eq!(receive(&learned), Some(libc::ENOSPC), "{mode}: datagrams");
        // What is asked for from here is watched from here.
        let listener = engine.listen("udp://127.0.0.1:0").expect("it listens");
        assert_answers(listener.local_addr().socket_addr().expect("an IP address"));
        engine.listen("127.0.0.1:0").expect("it listens");
        clients.iter_mut().for_each(assert_echoes);
        assert!(!engine.is_stopping(), "{mode}");
    }
}

/// Echoes, the second time without a system call.
struct Stumbles(libc::c_long);

impl EventHandler for Stumbles {
    type State = bool;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        if std::mem::replace(conn.state, true) {
            deny(&[Call::any(self.0)], libc::EIO);
        }
        Action::Continue
    }
}

/// A connection that breaks on this side alone: its peer must not take what it got for the whole.
#[test]
fn a_connection_that_breaks_on_this_side_has_no_orderly_end() {
    for call in [libc::SYS_sendto, libc::SYS_recvfrom] {
        let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Stumbles(call));
        let mut client = engine.connect();
        assert_echoes(&mut client);
        client.write_all(b"hello").expect("it is taken");
        if call == libc::SYS_recvfrom {
            assert_eq!(read_exactly(&mut client, 5), b"hello");
            client.write_all(b"hello").expect("it is taken");
        }
        assert_eq!(read_to_reset(&mut client), b"");
    }
}

/// Its reactor can't wait for anything.
struct Hasty;

impl EventHandler for Hasty {
    type State = ();

    fn on_boot(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        let calls = [
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
        ];
        deny(&calls.map(Call::any), libc::EIO);
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

/// What [`WaitError::Failed`] says holds for every thread that waits.
#[test]
fn every_wait_tells_that_the_system_failed_a_thread() {
    let engine = Engine::builder().listen("127.0.0.1:0").reactors(1).start(|_| Hasty);
    let engine = engine.expect("it starts");
    let _ = engine.stop(DEADLINE); // The engine may stop itself before.
    for _ in 0..3 {
        let waited = engine.wait();
        assert!(matches!(waited, Err(WaitError::Failed(_))), "{waited:?}");
    }
}

/// Where a sandbox doesn't know accept4(2), connections are accepted by accept(2); they don't
/// block, and are closed when another program is executed.
#[test]
fn connections_are_accepted_by_the_older_call() {
    for error in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
        let folder = Folder::new();
        let path = folder.path("socket");
        let engine = denied(&[Call::any(libc::SYS_accept4)], error, || {
            let builder = Engine::builder().reactors(1).listen(format!("unix://{path}").as_str());
            TestEngine::echo(builder)
        });
        let mut clients = [engine.connect(), engine.connect()];
        clients.iter_mut().for_each(|client| assert_echoes(client));
        assert_echoes(std::os::unix::net::UnixStream::connect(&path).expect("it listens"));
        assert_eq!(engine.stats().accept_errors, 0, "{error}");
    }
}
