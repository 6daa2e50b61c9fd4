//! The PROXY protocol, accepted and sent.
//!
//! - Version 1 and 2, over IPv4, IPv6 and Unix sockets, in both accept modes: the address that was
//!   told is the peer's, and what follows the header arrives, in one piece with it or byte by byte.
//! - What is not a header, too long, too late or cut off opens no connection, and is counted.
//! - A proxy on the engine tells its server who its client is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use millstream::internals::with_layers;
use millstream::{
    Action, Address, Builder, CloseReason, Conn, Connect, Engine, EventHandler, Listen,
    ProxyHeader, ProxyVersion, Reactor, ShutdownAction, Stats, UnixAddress,
};

use crate::common::layer::{ALERT, DATA, END, Frames, frame};
use crate::common::recorder::{On, Recorder, collect};
use crate::common::stage::Stage;
use crate::common::wire::Wire;
use crate::common::{
    DEADLINE, TestEngine, end, eventually, modes, read_exactly, read_to_end, receive,
};

/// So long that nothing in these tests is over because of it.
const TIMEOUT: Duration = Duration::from_secs(3600);

fn address(text: &str) -> Address {
    text.parse::<SocketAddr>().expect("it is an address").into()
}

fn unix(path: &str) -> Address {
    UnixAddress::path(path).expect("it is a path").into()
}

fn encoded(header: ProxyHeader, version: ProxyVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.write_to(version, &mut bytes).expect("a vector takes all");
    bytes
}

/// What a connection was seen to be when it opened.
#[derive(Debug, PartialEq)]
struct Seen {
    peer: Address,
    proxied: Option<ProxyHeader>,
    direct: Address,
}

/// Echoes, and tells what it saw.
struct Telling(std::sync::mpsc::Sender<Seen>);

impl EventHandler for Telling {
    type State = bool;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state = true;
        let (peer, direct) = (conn.peer_addr(), conn.direct_peer_addr());
        let _ = self.0.send(Seen { peer, proxied: conn.proxied(), direct });
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        assert!(*conn.state, "on_open comes first");
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        assert!(*conn.state, "no on_close without on_open");
    }
}

fn start(builder: Builder, listen: Listen) -> (TestEngine, Receiver<Seen>) {
    let (send, seen) = channel();
    let engine = TestEngine::start(builder.listen(listen), move |_| Telling(send.clone()));
    (engine, seen)
}

fn tcp() -> Listen {
    Listen::from("127.0.0.1:0").proxy_protocol(TIMEOUT, 536)
}

/// A client of the first listener, and its own address.
fn client(engine: &TestEngine) -> (TcpStream, Address) {
    let stream = TcpStream::connect(engine.addresses()[0]).expect("it accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream.set_nodelay(true).expect("a socket has the option");
    let address = stream.local_addr().expect("it is bound").into();
    (stream, address)
}

/// How many connections were closed for a header.
fn bad_headers(stats: &Stats) -> u64 {
    let index = CloseReason::NAMES.iter().position(|name| *name == "proxy header").unwrap();
    stats.reactors.iter().map(|reactor| reactor.closed[index]).sum()
}

/// No callback panicked, in which the handler's own checks are.
fn assert_no_panics(engine: &Engine) {
    assert!(engine.stats().reactors.iter().all(|reactor| reactor.panics == 0));
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let pairs = [
        (address("192.0.2.7:50000"), address("198.51.100.1:443")),
        (address("[2001:db8::7]:50000"), address("[2001:db8::1]:443")),
        (unix("/run/client"), unix("/run/service")),
    ];
    for (name, builder) in modes() {
        let (engine, seen) = start(builder, tcp());
        for (source, destination) in pairs {
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let header = ProxyHeader { source, destination };
                let is_known = version == ProxyVersion::V2 || source.ip().is_some();
                for pieces in [true, false] {
                    let (mut client, direct) = client(&engine);
                    let bytes = [&encoded(header, version)[..], b"hello"].concat();
                    if pieces {
                        bytes.iter().for_each(|byte| client.write_all(&[*byte]).unwrap());
                    } else {
                        client.write_all(&bytes).unwrap();
                    }
                    assert_eq!(read_exactly(&mut client, 5), b"hello", "{name}: {header:?}");
                    let proxied = is_known.then_some(header);
                    let peer = if is_known { source } else { direct };
                    assert_eq!(receive(&seen), Seen { peer, proxied, direct }, "{name}");
                    end(&client);
                    assert_eq!(read_to_end(&mut client), b"");
                }
            }
        }
        assert_no_panics(&engine);
    }
}

/// Also what has no bytes behind the header opens, since the server may be the one to speak.
#[test]
fn a_connection_opens_with_its_header_and_echoes_much_behind_it() {
    let much = crate::common::pattern(1_000_000, 7);
    for (name, builder) in modes() {
        let (engine, seen) = start(builder, tcp());
        let (mut client, _) = client(&engine);
        let header = ProxyHeader::new(([192, 0, 2, 7], 1), ([192, 0, 2, 8], 2));
        client.write_all(&encoded(header, ProxyVersion::V2)).unwrap();
        assert_eq!(receive(&seen).proxied, Some(header), "{name}");
        let mut writer = client.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&much).unwrap());
            crate::common::assert_same(&read_exactly(&mut client, much.len()), &much);
        });
        drop((client, writer));
        assert_no_panics(&engine);
    }
}

/// A connection that waits for its header when the engine begins to drain is told of that when it
/// opens.
#[test]
fn the_drain_is_told_after_the_opening() {
    for (name, builder) in modes() {
        let (told, heard) = channel();
        let builder = builder.listen(tcp());
        let engine = TestEngine::start(builder, move |_| Draining(told.clone()));
        let mut clients = [client(&engine).0, client(&engine).0];
        let header =
            encoded(ProxyHeader::new(([192, 0, 2, 7], 1), ([192, 0, 2, 8], 2)), ProxyVersion::V2);
        clients[0].write_all(&header).unwrap();
        assert_eq!(receive(&heard), "on_open", "{name}");
        eventually("both are taken in", || engine.connections() == 2);
        engine.stop(DEADLINE).expect("the first stop");
        assert_eq!(receive(&heard), "on_drain", "{name}");
        clients[1].write_all(&header).unwrap();
        assert_eq!([receive(&heard), receive(&heard)], ["on_open", "on_drain"], "{name}");
        drop(clients);
        engine.wait().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(heard.try_recv().is_err(), "{name}: told once");
    }
}

/// Tells which callbacks run.
struct Draining(std::sync::mpsc::Sender<&'static str>);

impl EventHandler for Draining {
    type State = ();

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        let _ = self.0.send("on_open");
        Action::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain
    }

    fn on_drain(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        let _ = self.0.send("on_drain");
        Action::Continue
    }
}

/// Of a connection behind a layer only the header comes in plain bytes, in one piece with the first
/// of the others.
#[test]
fn a_layer_gets_what_is_behind_the_header() {
    let header = ProxyHeader::new(([192, 0, 2, 7], 1), ([192, 0, 2, 8], 2));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let builder = Wire::Flipped.build(Stage::builder()).listen(tcp());
        let stage = Stage::start(builder, move |on, conn| {
            if on == On::Open {
                assert_eq!(conn.proxied(), Some(header));
                conn.output.write(b"welcome");
            }
            collect(on, conn)
        });
        let mut client = TcpStream::connect(stage.addresses()[0]).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut seam = Wire::Flipped.client();
        let hello = seam.seal(b"hello");
        client.write_all(&[encoded(header, version), hello.clone()].concat()).unwrap();
        assert_eq!(seam.open(&read_exactly(&mut client, 7)).unwrap(), b"welcome");
        stage.comes_to_rest();
        assert_eq!(stage.stats().reactors[0].timers, 0, "what the header had to come by is over");
        client.write_all(&hello).unwrap();
        end(&client);
        assert_eq!(stage.closed().received, b"hellohello");
    }
}

/// What is behind the header is no frame of the layer's, which does not look at it any more.
#[test]
fn what_is_behind_the_header_is_dropped_if_the_connection_closes_as_it_opens() {
    let builder = with_layers(Stage::builder(), || Box::<Frames>::default()).listen(tcp());
    let stage = Stage::start(builder, |on, conn| {
        if on == On::Open {
            conn.output.write(b"bye");
            conn.close();
        }
        collect(on, conn)
    });
    let mut client = TcpStream::connect(stage.addresses()[0]).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let header = ProxyHeader::new(([192, 0, 2, 7], 1), ([192, 0, 2, 8], 2));
    let sent = [encoded(header, ProxyVersion::V2), frame(ALERT, b"")].concat();
    client.write_all(&sent).unwrap();
    assert_eq!(read_to_end(&mut client), [frame(DATA, b"bye"), frame(END, b"")].concat());
    end(&client);
    assert_eq!(stage.closed().reason, "local");
}

/// While reading is paused there is no traffic, and what came behind the header is there when it
/// goes on.
#[test]
fn what_is_behind_the_header_waits_for_a_pause_to_end() {
    waits_for_a_pause_to_end(Wire::Plain);
}

#[test]
fn what_a_layer_gets_behind_the_header_waits_for_a_pause_to_end() {
    waits_for_a_pause_to_end(Wire::Flipped);
}

fn waits_for_a_pause_to_end(wire: Wire) {
    let builder = wire.build(Stage::builder()).listen(tcp());
    let stage = Stage::start(builder, |on, conn| {
        match on {
            On::Open => {
                conn.pause_reading();
                conn.set_timer(Duration::from_millis(20), 0);
            }
            On::Timer => conn.resume_reading(),
            On::Traffic => {
                conn.output.write(conn.input.take_all());
            }
            _ => {}
        }
        on.usual()
    });
    let mut client = TcpStream::connect(stage.addresses()[0]).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let header = ProxyHeader::new(([192, 0, 2, 7], 1), ([192, 0, 2, 8], 2));
    let hello = wire.client().seal(b"hello");
    client.write_all(&[&encoded(header, ProxyVersion::V2)[..], &hello].concat()).unwrap();
    stage.expect(On::Open);
    stage.expect(On::Timer);
    assert_eq!(read_exactly(&mut client, 5), hello);
    client.write_all(&hello).unwrap();
    assert_eq!(read_exactly(&mut client, 5), hello);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_peer() {
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x02xx".as_slice();
    for (name, builder) in modes() {
        let (engine, seen) = start(builder, tcp());
        for header in [b"PROXY UNKNOWN\r\n", local] {
            let (mut client, direct) = client(&engine);
            client.write_all(header).unwrap();
            let expected = Seen { peer: direct, proxied: None, direct };
            assert_eq!(receive(&seen), expected, "{name}");
        }
    }
}

#[test]
fn a_unix_listener_takes_headers_too() {
    let folder = std::env::temp_dir().join(format!("millstream-proxy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = UnixAddress::path(folder.join("s")).unwrap();
    let listen = Listen::unix(path).proxy_protocol(TIMEOUT, 536);
    let (engine, seen) = start(Engine::builder().reactors(2), listen);
    let mut client = UnixStream::connect(path.as_path().unwrap()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nhello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    let seen = receive(&seen);
    assert_eq!(seen.peer, address("192.0.2.7:1"));
    assert_eq!(seen.direct, Address::Unix(UnixAddress::UNNAMED));
    drop((client, engine));
    std::fs::remove_dir_all(folder).unwrap();
}

// --- what opens nothing --------------------------------------------------------------------------

#[test]
fn what_is_no_header_is_reset_and_counted() {
    let too_long =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x09".iter().copied().chain([1; 521]).collect();
    // Of one that is too long no more than its head has to come.
    let unfinished = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x09".into();
    let bad: [Vec<u8>; 7] = [
        b"GET / HTTP/1.1\r\n\r\n".into(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n".into(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 080\r\n".into(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\nhello".to_vec()].concat(),
        too_long,
        unfinished,
    ];
    for (name, builder) in modes() {
        let (engine, seen) = start(builder, tcp());
        for (count, bytes) in (1..).zip(&bad) {
            let (mut client, _) = client(&engine);
            client.write_all(bytes).unwrap();
            let mut rest = Vec::new();
            let error = client.read_to_end(&mut rest).expect_err("it is reset");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}");
            eventually("it is counted", || bad_headers(&engine.stats()) == count);
        }
        assert!(seen.try_recv().is_err(), "{name}: nothing opened");
        assert_no_panics(&engine);
    }
}

#[test]
fn who_does_not_say_in_time_is_reset_and_counted() {
    let timeout = Duration::from_millis(30);
    for (_, builder) in modes() {
        let listen = Listen::from("127.0.0.1:0").proxy_protocol(timeout, 536);
        let (engine, seen) = start(builder, listen);
        let (mut silent, _) = client(&engine);
        let (mut halfway, _) = client(&engine);
        halfway.write_all(b"PROXY TCP4 1.2").unwrap();
        for client in [&mut silent, &mut halfway] {
            client.read_to_end(&mut Vec::new()).expect_err("it is reset");
        }
        eventually("both are counted", || bad_headers(&engine.stats()) == 2);
        assert!(seen.try_recv().is_err());
        // A client that has said it may take its time after that.
        let (mut slow, _) = client(&engine);
        slow.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        receive(&seen);
        // sleep: nothing is to happen although the time for a header passes.
        std::thread::sleep(3 * timeout);
        slow.write_all(b"late").unwrap();
        assert_eq!(read_exactly(&mut slow, 4), b"late");
    }
}

#[test]
fn who_leaves_before_its_header_is_there_is_no_connection() {
    for (name, builder) in modes() {
        let (engine, seen) = start(builder, tcp());
        for sent in [b"".as_slice(), b"PROXY TCP4"] {
            let (mut client, _) = client(&engine);
            client.write_all(sent).unwrap();
            end(&client);
            assert_eq!(read_to_end(&mut client), b"", "{name}");
        }
        eventually("both are gone", || engine.connections() == 0);
        assert_eq!(bad_headers(&engine.stats()), 0, "{name}: it may have looked whether we live");
        assert!(seen.try_recv().is_err(), "{name}");
    }
}

/// A stop waits for nobody who has not said who it is.
#[test]
fn a_stop_ends_connections_that_wait_for_a_header() {
    for (_, builder) in modes() {
        let (engine, seen) = start(builder, tcp());
        let (mut client, _) = client(&engine);
        client.write_all(b"PROXY ").unwrap();
        eventually("it is accepted", || engine.connections() == 1);
        engine.stop(DEADLINE).unwrap();
        engine.wait().unwrap();
        assert!(seen.try_recv().is_err());
        let _ = client.read_to_end(&mut Vec::new());
    }
}

#[test]
fn limits_go_by_the_proxys_address() {
    for (name, builder) in modes() {
        let (engine, seen) = start(builder.max_connections_per_source(1), tcp());
        let (mut first, _) = client(&engine);
        first.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n").unwrap();
        receive(&seen);
        let (mut second, _) = client(&engine);
        let _ = second.write_all(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n");
        let _ = second.read_to_end(&mut Vec::new());
        assert_eq!(engine.stats().refused, 1, "{name}");
        drop(first);
        eventually("its place is free", || engine.connections() == 0);
        let (mut third, _) = client(&engine);
        third.write_all(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n").unwrap();
        assert_eq!(receive(&seen).peer, address("192.0.2.9:1"), "{name}");
    }
}

/// Statistics and deadlines are those of every connection; the first callbacks come in one turn.
#[test]
fn a_whole_life_behind_a_header() {
    let (send, bytes) = channel();
    let stage = Stage::start(Stage::builder().listen(tcp()), move |on, conn| {
        if on == On::Traffic {
            send.send(conn.input.take_all().to_vec()).unwrap();
        }
        on.usual()
    });
    let mut client = TcpStream::connect(stage.addresses()[0]).unwrap();
    client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nhello").unwrap();
    stage.expect(On::Open);
    stage.expect(On::Traffic);
    assert_eq!(receive(&bytes), b"hello");
    end(&client);
    stage.expect(On::End);
    stage.expect_closed();
}

#[test]
fn a_bad_configuration_is_refused() {
    let reason = |listen: Listen| {
        let error =
            Engine::builder().listen(listen).start(|_| crate::common::Echo).expect_err("no");
        error.to_string()
    };
    let listen = || Listen::from("127.0.0.1:0");
    assert_eq!(
        reason(listen().proxy_protocol(Duration::ZERO, 536)),
        "the configuration is unusable: proxy_protocol = 0ns: the timeout must be at least a millisecond"
    );
    assert_eq!(
        reason(listen().proxy_protocol(TIMEOUT, 106)),
        "the configuration is unusable: proxy_protocol = 106: a header must be allowed at least 107 bytes"
    );
}

// --- sending -------------------------------------------------------------------------------------

/// A proxy's way: the header is the first thing that is written.
#[test]
fn a_proxy_tells_its_server_who_its_client_is() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let header = ProxyHeader::new(([192, 0, 2, 7], 50_000), ([198, 51, 100, 1], 443));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let stage = Stage::start(Stage::builder(), move |on, conn| {
            if on == On::Open {
                header.write_to(version, &mut conn.output).unwrap();
                conn.output.write(b"hello");
            }
            on.usual()
        });
        let reactors = stage.reactors::<Recorder>().unwrap();
        reactors.connect(0, Connect::to(to), |_, _, conn| Action::from(conn.map(|_| ()))).unwrap();
        let (mut upstream, _) = server.accept().unwrap();
        upstream.set_read_timeout(Some(DEADLINE)).unwrap();
        let expected = [&encoded(header, version)[..], b"hello"].concat();
        assert_eq!(read_exactly(&mut upstream, expected.len()), expected);
        drop(upstream);
        stage.closed();
    }
}

/// A client that is still sending learns of the refusal like one that has sent all: by reading.
#[test]
fn a_refusal_is_the_same_however_the_header_is_cut() {
    let line = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200], b"\r\nhello".to_vec()].concat();
    for (name, builder) in modes() {
        let (engine, _seen) = start(builder, tcp());
        for cut in [1, 106, 107, 108, 150, line.len()] {
            let (mut client, _) = client(&engine);
            client.write_all(&line[..cut]).unwrap();
            // sleep: lets the server see the first piece alone, usually.
            std::thread::sleep(Duration::from_millis(20));
            let rest = client.write_all(&line[cut..]);
            let read = client.read_to_end(&mut Vec::new());
            // Should this process not run for a while in between, its writing is told instead.
            let told = rest.and(read.map(|_| ())).expect_err("it is reset");
            assert_eq!(told.kind(), std::io::ErrorKind::ConnectionReset, "{name}, cut at {cut}");
        }
    }
}
