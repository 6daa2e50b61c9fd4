//! Socket options: that what is asked for is what the kernel has, on accepted and on outgoing
//! connections, for the whole engine, for a listener and for one connection, and that what can't be
//! had is refused.

use std::sync::mpsc::channel;
use std::time::Duration;

use millstream::sim::{Faults, Simulation};
use millstream::{
    Action, Address, ConfigError, Conn, Connect, ConnectError, Engine, EventHandler, Keepalive,
    Listen, ListenError, ListenerId, OptionError, Reactor, Socket, SocketOptions, SocketRole,
    StartError, UnixAddress,
};

use crate::common::recorder::{On, Recorder};
use crate::common::stage::{Stage, run};
use crate::common::{Echo, TestEngine, modes, receive};

const SECOND: Duration = Duration::from_secs(1);
const KEEPALIVE: Keepalive = Keepalive { idle: Duration::from_secs(7), interval: SECOND, count: 3 };

/// What every TCP connection may have, with values that no system begins with.
fn common() -> SocketOptions {
    SocketOptions::new()
        .nodelay(true)
        .keepalive(KEEPALIVE)
        .receive_buffer(20_000)
        .send_buffer(30_000)
        .linger(Duration::ZERO)
        .traffic_class(0x28)
}

#[track_caller]
fn assert_common(socket: &Socket<'_>) {
    assert!(socket.nodelay().unwrap());
    assert_eq!(socket.keepalive().unwrap(), Some(KEEPALIVE));
    // Linux doubles what it was asked for, to cover its own overhead.
    assert!((20_000..=40_000).contains(&socket.receive_buffer().unwrap()));
    assert!((30_000..=60_000).contains(&socket.send_buffer().unwrap()));
    assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    assert_eq!(socket.traffic_class().unwrap(), 0x28);
}

#[track_caller]
fn assert_plain(socket: &Socket<'_>) {
    assert!(socket.nodelay().unwrap(), "by default it is set");
    assert_eq!(socket.keepalive().unwrap(), None);
    assert_eq!(socket.linger().unwrap(), None);
    assert_eq!(socket.traffic_class().unwrap(), 0);
}

/// Looks at the socket of each connection as it opens.
fn on_open(look: fn(&Socket<'_>)) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync {
    move |on, conn| {
        if on == On::Open {
            look(&conn.socket().expect("it has a socket"));
        }
        on.usual()
    }
}

#[test]
fn the_engines_options_are_those_of_every_connection() {
    for (name, builder) in modes() {
        let stage = Stage::start(builder.socket_options(common()), on_open(assert_common));
        stage.open();
        connect(&stage, Connect::to(stage.address())).unwrap_or_else(|e| panic!("{name}: {e}"));
        (0..2).for_each(|_| drop(stage.wait_for(On::Open)));
    }
}

/// What no listener has is set on what it accepts.
#[test]
#[cfg(target_os = "linux")]
fn the_engines_options_reach_what_is_accepted_though_its_listener_has_them_not() {
    for (_, builder) in modes() {
        let options = SocketOptions::new().quick_ack(false);
        let look = |socket: &Socket<'_>| assert!(!socket.quick_ack().unwrap());
        let stage = Stage::start(builder.socket_options(options), on_open(look));
        let _client = stage.connect();
        stage.expect(On::Open);
    }
}

#[test]
fn a_listeners_and_an_outgoing_connections_options_are_theirs_alone() {
    // Quicker than what the engine says, but it says more.
    let engine = SocketOptions::new().traffic_class(0x10).keepalive(KEEPALIVE);
    for (_, builder) in modes() {
        let special = Listen::from("127.0.0.1:0").socket_options(common());
        let builder = builder.socket_options(engine.clone()).listen(special);
        let (send, seen) = channel();
        let stage = Stage::start(builder, move |on, conn| {
            if on == On::Open {
                let socket = conn.socket().unwrap();
                let listener = conn.listener().map(ListenerId::index);
                let class = socket.traffic_class().unwrap();
                assert_eq!(socket.keepalive().unwrap(), Some(KEEPALIVE));
                send.send((listener, class, socket.linger().unwrap().is_some())).unwrap();
            }
            on.usual()
        });
        let [special, plain] = [0, 1].map(|index| stage.addresses()[index]);
        for (address, listener, class, lingers) in
            [(special, 0, 0x28, true), (plain, 1, 0x10, false)]
        {
            let _client = std::net::TcpStream::connect(address).unwrap();
            assert_eq!(receive(&seen), (Some(listener), class, lingers));
        }
        let other = Connect::to(plain).socket_options(SocketOptions::new().traffic_class(0x08));
        connect(&stage, other).unwrap();
        let mut pair = [receive(&seen), receive(&seen)];
        pair.sort_unstable();
        assert_eq!(pair, [(None, 0x08, false), (Some(1), 0x10, false)]);
    }
}

/// Makes the first reactor connect, and returns the outcome.
#[allow(clippy::result_large_err, reason = "that is what the engine returns")]
fn connect(stage: &Stage, connect: Connect) -> Result<(), ConnectError> {
    let (send, done) = channel();
    let reactors = stage.reactors::<Recorder>().expect("it is the handler");
    let tell = move |_: &mut Recorder,
                     _: &mut Reactor<'_, Recorder>,
                     connected: Result<&mut Conn<'_, Recorder>, _>| {
        send.send(connected.map(|_| ())).unwrap();
        Action::Continue
    };
    reactors.connect(0, connect, tell).expect("it runs");
    receive(&done)
}

/// Which option an outgoing connection doesn't have.
#[track_caller]
fn unfit(connected: Result<(), ConnectError>) -> (&'static str, SocketRole) {
    let Err(ConnectError::Option { source, .. }) = connected else { panic!("{connected:?}") };
    let OptionError::Unfit { option, role, .. } = *source else { panic!("{source}") };
    (option, role)
}

#[test]
fn an_open_connections_options_can_be_changed() {
    let stage = Stage::start(Stage::builder(), on_open(assert_plain));
    let (_client, remote) = stage.open();
    run(&remote, |conn| {
        let socket = conn.socket().unwrap();
        socket.set(&common()).unwrap();
        assert_common(&socket);
        let off = SocketOptions::new().nodelay(false).keepalive(None).linger(None);
        socket.set(&off).unwrap();
        assert!(!socket.nodelay().unwrap());
        assert_eq!((socket.keepalive().unwrap(), socket.linger().unwrap()), (None, None));
    });
}

#[test]
fn an_ipv6_connection_has_a_traffic_class() {
    let class = SocketOptions::new().traffic_class(0x28);
    let builder = Stage::builder().socket_options(class).listen("tcp6://[::1]:0");
    let look = |socket: &Socket<'_>| assert_eq!(socket.traffic_class().unwrap(), 0x28);
    let stage = Stage::start(builder, on_open(look));
    connect(&stage, Connect::to(stage.addresses()[0])).unwrap();
    (0..2).for_each(|_| drop(stage.wait_for(On::Open)));
}

// --- Linux ---------------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{ErrorKind, Write};
    use std::net::{Shutdown, TcpStream};

    use millstream::Builder;

    use super::*;
    use crate::common::recorder::keep;

    fn special() -> SocketOptions {
        SocketOptions::new()
            .congestion_control("reno")
            .user_timeout(Duration::from_millis(12_345))
            .unsent_low_water(4321)
    }

    fn assert_special(socket: &Socket<'_>) {
        assert_eq!(socket.congestion_control().unwrap(), "reno");
        assert_eq!(socket.user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        assert_eq!(socket.unsent_low_water().unwrap(), 4321);
    }

    #[test]
    fn what_only_linux_has_is_on_every_connection_too() {
        for (_, builder) in modes() {
            let stage = Stage::start(builder.socket_options(special()), on_open(assert_special));
            connect(&stage, Connect::to(stage.address())).unwrap();
            (0..2).for_each(|_| drop(stage.wait_for(On::Open)));
        }
    }

    #[test]
    fn what_only_linux_has_can_be_changed_on_an_open_connection() {
        let stage = Stage::start(Stage::builder(), |on, _| on.usual());
        let (_client, remote) = stage.open();
        run(&remote, |conn| {
            let socket = conn.socket().unwrap();
            socket.set(&special().quick_ack(false)).unwrap();
            assert_special(&socket);
            assert!(!socket.quick_ack().unwrap());
            socket.set(&SocketOptions::new().quick_ack(true)).unwrap();
            assert!(socket.quick_ack().unwrap());
            assert!(socket.incoming_cpu().is_ok());
            assert_eq!(socket.bind_device().unwrap(), None);
        });
    }

    #[test]
    fn a_listener_and_an_outgoing_connection_can_be_bound_to_a_device() {
        let lo = || SocketOptions::new().bind_device("lo");
        let builder = Stage::builder().listen(Listen::from("127.0.0.1:0").socket_options(lo()));
        let look = |socket: &Socket<'_>| {
            assert_eq!(socket.bind_device().unwrap().as_deref(), Some("lo"));
        };
        let stage = Stage::start(builder, on_open(look));
        connect(&stage, Connect::to(stage.addresses()[0]).socket_options(lo())).unwrap();
        (0..2).for_each(|_| drop(stage.wait_for(On::Open)));
    }

    /// They may need a privilege; without it they are refused by name.
    #[test]
    fn a_privileged_option_is_set_or_refused() {
        let stage = Stage::start(Stage::builder(), |on, _| on.usual());
        let (_client, remote) = stage.open();
        run(&remote, |conn| {
            let socket = conn.socket().unwrap();
            let set = |options: SocketOptions, name: &str| match socket.set(&options) {
                Ok(()) => true,
                Err(OptionError::Refused { option, source, .. }) => {
                    assert_eq!((option, source.kind()), (name, ErrorKind::PermissionDenied));
                    false
                }
                Err(error) => panic!("{error}"),
            };
            let time = Duration::from_micros(77);
            if set(SocketOptions::new().mark(5), "mark") {
                assert_eq!(socket.mark().unwrap(), 5);
            }
            if set(SocketOptions::new().busy_poll(time), "busy_poll") {
                assert_eq!(socket.busy_poll().unwrap(), time);
            }
            if set(SocketOptions::new().prefer_busy_poll(true), "prefer_busy_poll") {
                assert!(socket.prefer_busy_poll().unwrap());
            }
        });
    }

    /// Bytes go both ways over connections that are made and accepted with it.
    #[test]
    fn fast_open_works() {
        let options = SocketOptions::new().fast_open(16);
        let listen = Listen::from("127.0.0.1:0").socket_options(options);
        let stage = Stage::start(Stage::builder().listen(listen), |on, conn| {
            let outgoing = conn.is_outgoing();
            match on {
                On::Open if outgoing => {
                    assert!(conn.socket().unwrap().fast_open_connect().unwrap());
                    conn.output.write(b"hello");
                }
                On::Traffic if outgoing => {
                    assert_eq!(conn.input.take_all(), b"hello");
                    return Action::Close;
                }
                On::Traffic => conn.output.write(conn.input.take_all()),
                _ => {}
            }
            on.usual()
        });
        let fast = SocketOptions::new().fast_open_connect(true);
        for _ in 0..3 {
            let to = Connect::to(stage.addresses()[0]).socket_options(fast.clone());
            connect(&stage, to).unwrap();
            (0..2).for_each(|_| drop(stage.wait_for(On::Close)));
        }
    }

    /// A client that connects first and says nothing is accepted after one that speaks.
    #[test]
    fn accepting_is_deferred_until_something_is_sent() {
        let options = SocketOptions::new().defer_accept(60 * SECOND);
        let listen = Listen::from("127.0.0.1:0").socket_options(options);
        let stage = Stage::start(Stage::builder().listen(listen), |on, conn| {
            if on == On::Traffic {
                keep(conn);
            }
            on.usual()
        });
        let client = || TcpStream::connect(stage.addresses()[0]).unwrap();
        let (mut silent, mut speaks) = (client(), client());
        for (client, word) in [(&mut speaks, b"one"), (&mut silent, b"two")] {
            client.write_all(word).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stage.closed().received, word);
        }
    }

    #[test]
    fn a_congestion_control_that_the_system_lacks_is_refused() {
        let bad = || SocketOptions::new().congestion_control("no such");
        let assert_refused = |error: OptionError| {
            let OptionError::Refused { option, value, source } = error else { panic!("{error}") };
            assert_eq!((option, value.as_str()), ("congestion_control", "\"no such\""));
            assert_eq!(source.kind(), ErrorKind::NotFound);
        };
        let start = |builder: Builder| builder.listen("127.0.0.1:0").start(|_| Echo);
        match start(Engine::builder().socket_options(bad())) {
            Err(StartError::ListenOption { source, .. }) => assert_refused(source),
            other => panic!("{other:?}"),
        }
        let stage = Stage::start(Stage::builder(), |on, _| on.usual());
        let to = Connect::to(stage.address()).socket_options(bad());
        match connect(&stage, to) {
            Err(ConnectError::Option { source, .. }) => assert_refused(*source),
            other => panic!("{other:?}"),
        }
        let (_client, remote) = stage.open();
        assert_refused(run(&remote, move |conn| conn.socket().unwrap().set(&bad()).unwrap_err()));
    }
}

// --- what can't be had ---------------------------------------------------------------------------

#[test]
fn a_value_that_is_out_of_range_is_refused_everywhere() {
    let good = KEEPALIVE;
    let options = SocketOptions::new;
    let mut bad = vec![
        (options().keepalive(Keepalive { idle: SECOND / 2, ..good }), "keepalive"),
        (options().keepalive(Keepalive { interval: Duration::MAX, ..good }), "keepalive"),
        (options().keepalive(Keepalive { idle: 32_768 * SECOND, ..good }), "keepalive"),
        (options().keepalive(Keepalive { count: 0, ..good }), "keepalive"),
        (options().keepalive(Keepalive { count: 128, ..good }), "keepalive"),
        (options().receive_buffer(0), "receive_buffer"),
        (options().receive_buffer(1 << 31), "receive_buffer"),
        (options().send_buffer(0), "send_buffer"),
        (options().send_buffer(usize::MAX), "send_buffer"),
        (options().linger(SECOND / 2), "linger"),
        (options().linger(Duration::MAX), "linger"),
        (options().traffic_class(1), "traffic_class"),
    ];
    if cfg!(target_os = "linux") {
        bad.extend([
            (options().congestion_control(""), "congestion_control"),
            (options().congestion_control("a\0b"), "congestion_control"),
            (options().user_timeout(Duration::ZERO), "user_timeout"),
            (options().user_timeout(Duration::MAX), "user_timeout"),
            (options().unsent_low_water(0), "unsent_low_water"),
            (options().fast_open(0), "fast_open"),
            (options().defer_accept(Duration::ZERO), "defer_accept"),
            (options().bind_device("sixteen letters!"), "bind_device"),
            (options().busy_poll(Duration::MAX), "busy_poll"),
        ]);
    }
    for (options, expected) in bad {
        let is_it = |error: OptionError| match error {
            OptionError::Value { option, .. } => assert_eq!(option, expected),
            other => panic!("{expected}: {other}"),
        };
        let engine = Engine::builder().socket_options(options.clone());
        let listen = Listen::from("127.0.0.1:0").socket_options(options);
        for builder in [engine, Engine::builder().listen(listen)] {
            match builder.start(|_| -> Echo { unreachable!("nothing is started") }) {
                Err(StartError::Option(error)) => is_it(error),
                Err(StartError::ListenOption { source, .. }) => is_it(source),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
    // What is at the edge is taken.
    let edge =
        options().keepalive(Keepalive { idle: 32_767 * SECOND, interval: SECOND, count: 127 });
    let edge = edge.receive_buffer(1).send_buffer(1).linger(None);
    drop(TestEngine::echo(Engine::builder().socket_options(edge)));
}

#[test]
fn a_refusal_reads_as_one_sentence() {
    let zero = Engine::builder().socket_options(SocketOptions::new().send_buffer(0));
    let error = zero.start(|_| Echo).expect_err("it is refused");
    let sentence = "the socket option send_buffer = 0: it must be from 1 to 2147483647";
    assert_eq!(error.to_string(), sentence);
}

/// Of several listeners, the one that can't have its option is named, before the engine runs and
/// then.
#[test]
fn a_listener_that_cannot_have_an_option_is_named() {
    let wrong = SocketOptions::new().send_buffer(0);
    let listen = || Listen::from("127.0.0.1:7").socket_options(wrong.clone());
    let named = Address::from(([127, 0, 0, 1], 7));
    let builder = Engine::builder().listen("127.0.0.1:0").listen(listen());
    let error = builder.start(|_| Echo).expect_err("it is refused");
    let why = "the socket option send_buffer = 0: it must be from 1 to 2147483647";
    assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:7: {why}"));
    let StartError::ListenOption { address, source } = error else { panic!("{error}") };
    assert_eq!(*address, named);
    assert!(matches!(source, OptionError::Value { option: "send_buffer", .. }), "{source}");
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    match engine.listen(listen()) {
        Err(ListenError::Option { address, .. }) => assert_eq!(*address, named),
        other => panic!("{other:?}"),
    }
}

/// A path for a socket, in a folder that is removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("millstream-options-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn socket(&self) -> UnixAddress {
        UnixAddress::path(self.0.join("s")).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the engine has for all is set where it fits; what is asked for by name must fit.
#[test]
fn a_unix_socket_has_buffers_and_none_of_tcps_options() {
    let folder = Folder::new("unix");
    let listen = Listen::unix(folder.socket());
    let wrong = listen.clone().socket_options(SocketOptions::new().nodelay(true));
    let why = "a unix socket that is a listener has no option nodelay";
    match Engine::builder().listen(wrong.clone()).start(|_| Echo) {
        Err(StartError::ListenOption { source, .. }) => assert_eq!(source.to_string(), why),
        other => panic!("{other:?}"),
    }

    let listen = listen.socket_options(SocketOptions::new().send_buffer(30_000));
    let look = |socket: &Socket<'_>| {
        let nodelay = socket.nodelay();
        if matches!(nodelay, Err(OptionError::Unfit { option: "nodelay", .. })) {
            assert!((30_000..=60_000).contains(&socket.send_buffer().unwrap()));
        }
    };
    let builder = Stage::builder().socket_options(common()).listen(listen);
    let stage = Stage::start(builder, on_open(look));
    let to = || Connect::to(folder.socket());
    connect(&stage, to()).unwrap();
    (0..2).for_each(|_| drop(stage.wait_for(On::Open)));
    let (option, role) =
        unfit(connect(&stage, to().socket_options(SocketOptions::new().keepalive(KEEPALIVE))));
    assert_eq!((option, role), ("keepalive", SocketRole::Outgoing));

    let error = stage.listen(wrong).expect_err("a running engine refuses it, too");
    let ListenError::Option { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.to_string(), why);
}

#[test]
#[cfg(target_os = "linux")]
fn a_listeners_option_is_none_of_a_connections() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let listeners = SocketOptions::new().defer_accept(SECOND);
    let (option, role) =
        unfit(connect(&stage, Connect::to(stage.address()).socket_options(listeners.clone())));
    assert_eq!((option, role), ("defer_accept", SocketRole::Outgoing));

    let (_client, remote) = stage.open();
    let error = run(&remote, move |conn| conn.socket().unwrap().set(&listeners).unwrap_err());
    assert!(matches!(error, OptionError::Unfit { role: SocketRole::Connection, .. }), "{error}");
}

/// On an engine that listens with it, an option of listeners does not prevent connecting.
#[test]
#[cfg(target_os = "linux")]
fn the_engines_options_are_set_where_they_fit() {
    let options = SocketOptions::new().fast_open(8).quick_ack(true).reuse_address(true);
    let folder = Folder::new("fits");
    let builder = Stage::builder().socket_options(options).listen(folder.socket());
    let stage = Stage::start(builder, |on, _| on.usual());
    connect(&stage, Connect::to(stage.address())).unwrap();
    connect(&stage, Connect::to(folder.socket())).unwrap();
}

#[test]
fn a_simulated_connection_has_no_socket() {
    struct Look;
    impl EventHandler for Look {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            assert!(matches!(conn.socket(), Err(OptionError::NoSocket)));
            Action::Close
        }
    }
    let mut simulation =
        Simulation::new(1, Faults::none(), Engine::builder().socket_options(common()), Look)
            .unwrap();
    let mut peer = simulation.connect().unwrap();
    peer.send(b"x").unwrap();
    assert!(simulation.run_until(SECOND, || peer.ended()));
    assert_eq!(simulation.engine().stats().reactors[0].panics, 0);
}

/// The other values of a configuration are refused as before.
#[test]
fn a_bad_backlog_is_a_configuration_error() {
    let listen = Listen::from("127.0.0.1:0").backlog(0).socket_options(common());
    let error = Engine::builder().listen(listen).start(|_| Echo).expect_err("it is refused");
    assert!(matches!(error, StartError::Config(ConfigError { .. })), "{error}");
}
