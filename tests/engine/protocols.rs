//! Two handlers on one engine: whose a connection is, when that is known, and what each of the two
//! sees of the engine.

use std::io::Write;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::common::seeds::for_each_seed;
use crate::common::tls::{IDENTITY, connecting};
use crate::common::{DEADLINE, TestEngine, assert_same, end, read_exactly, read_to_end, receive};
use millstream::codec::{FrameHandler, Framed, FramedConn, Lines};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::tls::TlsServer;
use millstream::{
    Action, CloseReason, Conn, ConnId, Datagram, DatagramSocket, Either, EitherState, Engine,
    EventHandler, Listen, Opening, Reactor, ReactorAction, ShutdownAction, TimerId,
};

/// The prefix by which a connection is the first handler's.
const FIRST: &[u8] = b"FIRST ";

/// Says its name when a connection opens, sends everything back, and says `.` at the peer's end and
/// `!` when it is drained. It tells of all that happens.
struct Speaker {
    name: char,
    tell: Sender<String>,
    on_shutdown: ShutdownAction,
    /// It does not read for this long.
    pauses: Option<Duration>,
    /// Its connections.
    ids: Vec<ConnId>,
}

impl Speaker {
    fn new(name: char, tell: &Sender<String>) -> Self {
        let (tell, on_shutdown) = (tell.clone(), ShutdownAction::Drain);
        Speaker { name, tell, on_shutdown, pauses: None, ids: Vec::new() }
    }

    fn tell(&self, what: &str) {
        let _ = self.tell.send(format!("{} {what}", self.name)); // After a failure nobody listens.
    }
}

impl EventHandler for Speaker {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        reactor.set_timer(Duration::from_millis(1), u64::from(self.name));
        ReactorAction::Continue
    }

    fn on_reactor_timer(
        &mut self,
        _reactor: &mut Reactor<'_, Self>,
        _timer: TimerId,
        value: u64,
    ) -> ReactorAction {
        assert_eq!(value, u64::from(self.name));
        self.tell("timer");
        ReactorAction::Continue
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        reactor.set_tick(None);
        self.tell("tick");
        ReactorAction::Continue
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell("open");
        self.ids.push(conn.id());
        conn.output.write(format!("{}:", self.name).as_bytes());
        if let Some(time) = self.pauses {
            conn.pause_reading();
            conn.set_timer(time, 0);
        }
        Action::Continue
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, _timer: TimerId, _value: u64) -> Action {
        self.tell("resumes");
        conn.resume_reading();
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        assert!(!bytes.starts_with(b"panic"), "as asked");
        conn.output.write(bytes);
        Action::Continue
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(b".");
        Action::Close
    }

    fn on_drain(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(b"!");
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(&reason.to_string());
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let reply = [self.name.to_string().as_bytes(), datagram.bytes].concat();
        socket.reply(&datagram, &reply).into()
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.on_shutdown
    }
}

type Pair = Either<Speaker, Speaker>;

/// Two speakers, `a` and `b`, and where they tell what happens.
fn speakers() -> ([Speaker; 2], Receiver<String>) {
    let (tell, told) = channel();
    (['a', 'b'].map(|name| Speaker::new(name, &tell)), told)
}

fn by_first_bytes([first, second]: [Speaker; 2]) -> Pair {
    Either::new(first, second, |opening: &Opening<'_>| opening.begins_with(&[FIRST]))
}

fn simulate(seed: u64, faults: Faults, handler: Pair) -> Simulation<Pair> {
    Simulation::new(seed, faults, Engine::builder(), handler).expect("it starts")
}

/// All that was told of connections.
fn told_of_connections(told: &Receiver<String>) -> Vec<String> {
    told.try_iter().filter(|told| !told.ends_with("timer")).collect()
}

/// What a peer is answered that sends this, in pieces of this many bytes, and ends its side.
fn reply(seed: u64, faults: Faults, bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<String>) {
    let (speakers, told) = speakers();
    let mut simulation = simulate(seed, faults, by_first_bytes(speakers));
    let mut peer = simulation.connect().expect("it listens");
    for piece in bytes.chunks(piece) {
        simulation.send_all(&mut peer, piece).expect("it reads");
        simulation.run(Duration::from_millis(5));
    }
    peer.shutdown();
    let reply = simulation.receive_to_end(&mut peer).expect("it ends");
    drop(simulation);
    (reply, told_of_connections(&told))
}

/// The first bytes decide, however they come; what can't be the first handler's is the second's, at
/// the latest when no more bytes come. A peer that sends nothing is nobody's.
#[test]
fn the_first_bytes_decide_however_they_come() {
    let long = [FIRST, &[b'x'; 3000]].concat();
    let cases: [(&[u8], char); 7] = [
        (b"FIRST hello", 'a'),
        (b"FIRST ", 'a'),
        (&long, 'a'),
        (b"FIRTS hello", 'b'),
        (b"\0\xff garbage \r\n", 'b'),
        (b"FIRST", 'b'), // There the peer ends.
        (b"F", 'b'),
    ];
    let check = |seed, faults: Faults| {
        for (bytes, name) in cases {
            for piece in [1, 4, 4000] {
                let (reply, told) = reply(seed, faults, bytes, piece.max(bytes.len() / 40));
                let greeting = format!("{name}:");
                assert_same(&reply, &[greeting.as_bytes(), bytes, b"."].concat());
                assert_eq!(told, [format!("{name} open"), format!("{name} peer")]);
            }
        }
        assert_eq!(reply(seed, faults, b"", 1), (vec![], vec![]));
    };
    check(1, Faults::none());
    for_each_seed(10, |seed| check(seed, Faults::harmless()));
}

/// The same by sockets, for several at a time.
#[test]
fn each_connection_of_a_listener_has_its_own_handler() {
    let (tell, _told) = channel();
    let engine = TestEngine::start(Engine::builder(), move |_| {
        let speaker = |name| Speaker::new(name, &tell);
        by_first_bytes(['a', 'b'].map(speaker))
    });
    let mut clients: Vec<_> = (0..10).map(|_| engine.connect()).collect();
    for byte in FIRST {
        for (number, client) in clients.iter_mut().enumerate() {
            let byte = if number % 2 == 0 { *byte } else { b'-' };
            client.write_all(&[byte]).expect("it reads");
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        end(client);
        let expected = if number % 2 == 0 { "a:FIRST ." } else { "b:------." };
        assert_eq!(String::from_utf8_lossy(&read_to_end(client)), expected);
    }
}

/// With TLS, what was agreed on in the handshake decides, without a byte behind it.
#[test]
fn what_tls_agreed_on_decides() {
    let identity = &IDENTITY;
    let tls = TlsServer::builder().pem(identity.chain.as_bytes(), identity.key.as_bytes());
    let tls = tls.alpn(["a", "b"]).build().expect("it is a certificate and its key");
    let (tell, _told) = channel();
    let listen = Listen::from("127.0.0.1:0").tls(&tls);
    let engine = TestEngine::start_exactly(Engine::builder().listen(listen), move |_| {
        let [first, second] = ['a', 'b'].map(|name| Speaker::new(name, &tell));
        let rule = |opening: &Opening<'_>| Some(opening.tls()?.alpn() == Some(b"a"));
        Either::new(first, second, rule)
    });
    for (protocol, expected) in [(Some("a"), b"a:"), (Some("b"), b"b:"), (None, b"b:")] {
        let mut config = connecting(&identity.chain);
        config.alpn_protocols.extend(protocol.map(|name| name.as_bytes().to_vec()));
        let name = "localhost".try_into().expect("it is a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("it is configured");
        let mut stream = StreamOwned::new(client, engine.connect());
        assert_eq!(read_exactly(&mut stream, 2), expected);
    }
}

/// Frames that are left for later are served by the handler that left them.
#[test]
fn frames_wait_for_their_turn() {
    struct Lengths;

    impl FrameHandler for Lengths {
        type Codec = Lines;
        type State = usize;

        fn codec(&self) -> Lines {
            Lines::new()
        }

        fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
            **conn.state += line.len();
            let sum = conn.state.to_string();
            conn.send(sum.as_bytes()).into()
        }
    }

    let framed = || Framed::new(Lengths).frames_per_turn(2);
    let pair =
        Either::new(framed(), framed(), |opening: &Opening<'_>| opening.begins_with(&[FIRST]));
    let mut simulation =
        Simulation::new(1, Faults::none(), Engine::builder(), pair).expect("it starts");
    for first in ["FIRST ", "123456"] {
        let mut peer = simulation.connect().expect("it listens");
        let lines = format!("{first}\n{}", "1\n".repeat(50));
        simulation.send_all(&mut peer, lines.as_bytes()).expect("it reads");
        let expected: String = (6..=56).map(|sum| format!("{sum}\n")).collect();
        let replies = simulation.receive_exact(&mut peer, expected.len()).expect("all are served");
        assert_eq!(String::from_utf8_lossy(&replies), expected);
    }
}

/// A connection is as large as the larger state makes it.
#[test]
fn a_pair_keeps_one_state() {
    struct Large;

    impl EventHandler for Large {
        type State = [u64; 30];

        fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
            Action::Continue
        }
    }

    let word = size_of::<u64>();
    assert_eq!(size_of::<EitherState<Large, Speaker>>(), 31 * word);
    assert_eq!(size_of::<EitherState<Large, Large>>(), 31 * word);
    assert!(size_of::<EitherState<Speaker, Speaker>>() <= word);
}

/// A peer that does not say whose it is, is given up in time, and nobody hears of it.
#[test]
fn a_peer_that_does_not_decide_is_given_up() {
    for bytes in [&b""[..], b"F", b"FIRST"] {
        let (speakers, told) = speakers();
        let pair = by_first_bytes(speakers).decision_timeout(Duration::from_secs(3));
        let mut simulation = simulate(1, Faults::none(), pair);
        let mut peer = simulation.connect().expect("it listens");
        simulation.run(Duration::from_millis(10));
        simulation.send_all(&mut peer, bytes).expect("it reads");
        simulation.run(Duration::from_millis(2900));
        assert!(!peer.ended() && !peer.was_reset());
        simulation.run(Duration::from_millis(200));
        assert_eq!(peer.receive(), b"");
        assert!(peer.ended());
        peer.shutdown();
        simulation.run(Duration::from_millis(200));
        let closed = simulation.engine().stats().reactors[0].closed;
        let by_timeout = CloseReason::NAMES.iter().zip(closed).filter(|(_, count)| *count > 0);
        let by_timeout: Vec<_> = by_timeout.collect();
        assert_eq!(by_timeout, [(&"frame timeout", 1)]);
        assert_eq!(told_of_connections(&told), [""; 0]);
    }
}

/// One that has decided has all the time in the world.
#[test]
fn a_decision_ends_its_deadline() {
    let (speakers, told) = speakers();
    let pair = by_first_bytes(speakers).decision_timeout(Duration::from_secs(1));
    let mut simulation = simulate(1, Faults::none(), pair);
    let mut peers: Vec<SimPeer> = Vec::new();
    for bytes in [FIRST, b"second"] {
        let mut peer = simulation.connect().expect("it listens");
        simulation.send_all(&mut peer, bytes).expect("it reads");
        peers.push(peer);
    }
    simulation.run(Duration::from_secs(60));
    assert!(peers.iter().all(|peer| !peer.ended() && !peer.was_reset()));
    assert_eq!(told_of_connections(&told), ["a open", "b open"]);
}

/// A rule that never knows leaves a connection to the second handler, with 64 bytes.
#[test]
fn what_is_never_known_is_the_seconds() {
    let ([first, second], told) = speakers();
    let mut simulation = simulate(1, Faults::none(), Either::new(first, second, |_| None));
    let mut peer = simulation.connect().expect("it listens");
    simulation.send_all(&mut peer, &[b'x'; 63]).expect("it reads");
    simulation.run(Duration::from_secs(1));
    assert_eq!(told_of_connections(&told), [""; 0]);
    simulation.send_all(&mut peer, b"x").expect("it reads");
    assert_eq!(simulation.receive_exact(&mut peer, 66).expect("it answers").len(), 66);
    assert_eq!(told_of_connections(&told), ["b open"]);
}

/// A handler that pauses as its connection opens is given the first bytes when it resumes.
#[test]
fn a_handler_may_pause_before_the_first_bytes() {
    let ([first, mut second], told) = speakers();
    second.pauses = Some(Duration::from_secs(1));
    let mut simulation = simulate(1, Faults::none(), by_first_bytes([first, second]));
    let mut peer = simulation.connect().expect("it listens");
    simulation.send_all(&mut peer, b"second").expect("it reads");
    simulation.run(Duration::from_millis(900));
    assert_eq!(peer.receive(), b"b:");
    assert_eq!(simulation.receive_exact(&mut peer, 6).expect("it resumes"), b"second");
    assert_eq!(told_of_connections(&told), ["b open", "b resumes"]);
}

/// At a stop each connection ends as its handler says. One of which nothing is known ends at once;
/// one that has begun to say whose it is may say the rest.
#[test]
fn a_stop_drains_by_handler() {
    for (on_shutdown, expected) in
        [(ShutdownAction::Drain, "b:second!"), (ShutdownAction::Close, "b:second")]
    {
        let ([first, mut second], _told) = speakers();
        second.on_shutdown = on_shutdown;
        let mut simulation = simulate(1, Faults::none(), by_first_bytes([first, second]));
        let mut peers = Vec::new();
        for bytes in [&b"FIRST 1"[..], b"second", b"", b"FIR"] {
            let mut peer = simulation.connect().expect("it listens");
            simulation.send_all(&mut peer, bytes).expect("it reads");
            peers.push(peer);
        }
        simulation.run(Duration::from_millis(100));
        simulation.stop(Duration::from_secs(60)).expect("it runs");
        simulation.run(Duration::from_secs(1));
        let [first, second, silent, begun] = &mut peers[..] else { panic!("there are four") };
        let all = [first, second, silent].map(|peer| {
            let received = peer.receive();
            assert!(peer.ended());
            String::from_utf8(received).expect("it is text")
        });
        assert_eq!(all, ["a:FIRST 1!", expected, ""]);
        assert!(!begun.ended() && !begun.was_reset());
        simulation.send_all(begun, b"ST 2").expect("it reads");
        simulation.run(Duration::from_secs(1));
        // It is drained before its bytes are looked at, as one that opens then is.
        assert_eq!(begun.receive(), b"a:!");
        assert!(begun.ended());
    }
}

/// A panic closes the connection in whose callback it came, also where that was not known before.
#[test]
fn a_panic_is_of_one_connection() {
    crate::common::silence_expected_panics();
    let (speakers, told) = speakers();
    let mut simulation = simulate(1, Faults::none(), by_first_bytes(speakers));
    let mut other = simulation.connect().expect("it listens");
    simulation.send_all(&mut other, b"FIRST ").expect("it reads");
    let mut peer = simulation.connect().expect("it listens");
    simulation.send_all(&mut peer, b"panic").expect("it reads");
    simulation.run(Duration::from_secs(1));
    assert!(peer.was_reset() && !other.ended());
    assert_eq!(told_of_connections(&told), ["a open", "b open", "b panicked"]);
}

/// Each handler has its own timers without connections, and both have the tick.
#[test]
fn both_have_the_reactor() {
    let (tell, told) = channel();
    let builder = Engine::builder().reactors(1).tick(Duration::from_millis(1));
    let _engine = TestEngine::start(builder, move |_| {
        let speaker = |name| Speaker::new(name, &tell);
        // Three of them: one of the two is a pair.
        Either::new(speaker('a'), by_first_bytes(['b', 'c'].map(speaker)), |_| None)
    });
    let mut all: Vec<String> = (0..6).map(|_| receive(&told)).collect();
    all.sort_unstable();
    assert_eq!(all, ["a tick", "a timer", "b tick", "b timer", "c tick", "c timer"]);
}

/// Where datagrams come to is a handler's by its listener, and where they are sent from is that of
/// the one that opened it.
#[test]
fn a_socket_for_datagrams_has_one_handler() {
    let (tell, told) = channel();
    let builder = Engine::builder().reactors(1);
    let builder = builder.listen("udp://127.0.0.1:0").listen("udp://127.0.0.1:0");
    let engine = TestEngine::start_exactly(builder, move |_| {
        let speaker = |name| Speaker::new(name, &tell);
        let rule = |opening: &Opening<'_>| Some(opening.listener()?.index() == 0);
        Either::new(speaker('a'), speaker('b'), rule)
    });
    let client = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    let hear = || {
        let mut buffer = [0; 100];
        let (count, from) = client.recv_from(&mut buffer).expect("it is answered");
        (String::from_utf8_lossy(&buffer[..count]).into_owned(), from)
    };
    for (address, expected) in engine.addresses().into_iter().zip(["a1", "b1"]) {
        client.send_to(b"1", address).expect("it is sent");
        assert_eq!(hear().0, expected);
    }
    let reactors = engine.reactors::<Pair>().expect("it is the engine's handler");
    let to = client.local_addr().expect("it is bound");
    for (reactors, expected) in [(reactors.first(), "a2"), (reactors.second(), "b2")] {
        let open = millstream::OpenDatagram::to(to);
        let opened = reactors.open_datagram(0, open, |speaker, _, socket| {
            speaker.tell("opens");
            socket.expect("it opens").send(b"hello").into()
        });
        opened.expect("the engine runs");
        let (said, from) = hear();
        assert_eq!(said, "hello");
        client.send_to(b"2", from).expect("it is sent");
        assert_eq!(hear().0, expected);
    }
    let opens: Vec<_> = told.try_iter().filter(|told| told.ends_with("opens")).collect();
    assert_eq!(opens, ["a opens", "b opens"]);
}

/// A connection's id names it for both handlers. What runs with its handler runs only there.
#[test]
fn the_other_handlers_connections_are_neighbours() {
    let (speakers, told) = speakers();
    let mut simulation = simulate(1, Faults::none(), by_first_bytes(speakers));
    let mut peers: [SimPeer; 2] = [FIRST, b"second"].map(|bytes| {
        let mut peer = simulation.connect().expect("it listens");
        simulation.send_all(&mut peer, bytes).expect("it reads");
        simulation.run(Duration::from_millis(10));
        peer.receive();
        peer
    });
    let reactors = simulation.engine().reactors::<Pair>().expect("it is the engine's handler");
    let ids = ids(&mut simulation);
    let asked = reactors.first().run(0, move |speaker, reactor| {
        reactor.neighbours().write_to_all(ids.clone(), "to all");
        for id in ids {
            let told = speaker.tell.clone();
            let run = reactor.neighbours().run(id, move |speaker, conn| {
                conn.output.write(b", and more");
                let _ = told.send(format!("{} runs", speaker.name));
                Action::Close
            });
            run.expect("it is this reactor's");
        }
        ReactorAction::Continue
    });
    asked.expect("the engine runs");
    simulation.run(Duration::from_millis(100));
    assert_eq!(peers.each_mut().map(SimPeer::receive), [&b"to all, and more"[..], b"to all"]);
    assert_eq!(told_of_connections(&told), ["a open", "b open", "a runs"]);
    assert!(peers[0].ended() && !peers[1].ended());
}

/// The ids of both handlers' connections.
fn ids(simulation: &mut Simulation<Pair>) -> Vec<ConnId> {
    let (tell, told) = channel();
    let reactors = simulation.engine().reactors::<Pair>().expect("it is the engine's handler");
    for reactors in [reactors.first(), reactors.second()] {
        let tell = tell.clone();
        let asked = reactors.run(0, move |speaker, _| {
            let _ = tell.send(speaker.ids.clone());
            ReactorAction::Continue
        });
        asked.expect("the engine runs");
    }
    simulation.run(Duration::from_millis(10));
    told.try_iter().flatten().collect()
}

/// A connection leaves the engine with its handler's closure.
#[test]
fn a_handlers_connection_can_be_detached() {
    struct Leaver;

    impl EventHandler for Leaver {
        type State = u8;

        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            *conn.state = 7;
            let line = conn.input.take(FIRST.len()).unwrap_or_default().to_vec();
            let left = conn.detach(move |_leaver, reactor, detached| {
                assert_eq!((reactor.index(), &*detached.unread), (0, &b"rest"[..]));
                let mut stream = std::net::TcpStream::from(detached.socket);
                stream.set_nonblocking(false).expect("a socket has the option");
                stream.write_all(&line).expect("the client reads");
                ReactorAction::Continue
            });
            left.into()
        }
    }

    let builder = Engine::builder().reactors(1);
    let engine = TestEngine::start(builder, |_| {
        let ([first, _], _) = speakers();
        Either::new(first, Leaver, |opening: &Opening<'_>| opening.begins_with(&[b"no"]))
    });
    let mut client = engine.connect();
    client.write_all(&[FIRST, b"rest"].concat()).expect("it reads");
    assert_eq!(read_exactly(&mut client, FIRST.len()), FIRST);
    assert_eq!(read_to_end(&mut client), b"");
}
