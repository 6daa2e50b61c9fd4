//! Connections that an answer hands over to another protocol.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use millstream::http::{
    Answered, Exchange, Failure, Handler, HttpServer, OwnedResponse, Protocol, ProtocolConn,
    ProtocolRemote, Responder, StatusCode,
};
use millstream::sim::Faults;
use millstream::{Action, Builder, CloseReason, Engine, TimerId};

use super::{LONG, World, refusal, response, text};
use crate::common::seeds::for_each_seed;
use crate::common::{
    TestEngine, assert_same, pattern, read_exactly, read_to_end, receive, silence_expected_panics,
};

const SOON: Duration = Duration::from_secs(1);
const UPGRADE: &str = "GET /lines HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h9, Lines\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\nX: y\r\n\r\n";

/// Sends each line back, and does what some say.
struct Lines {
    tell: Sender<String>,
    /// How long it waits for the next line.
    patience: Option<Duration>,
    remotes: Sender<ProtocolRemote<Lines>>,
}

impl Lines {
    fn tell(&self, what: impl Into<String>) {
        let _ = self.tell.send(what.into()); // The test may be over.
    }
}

impl Protocol for Lines {
    fn on_open(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        conn.set_idle_timeout(self.patience);
        let _ = self.remotes.send(conn.remote()); // As above.
        conn.output().write(b"hello\n");
        Action::Continue
    }

    fn on_bytes(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        let (input, output) = conn.split();
        let Some(line) = input.take_through(b"\n") else { return Action::Continue };
        match line {
            b"panic\n" => panic!("an expected panic"),
            b"quit\n" => return Action::Close,
            b"timer\n" => {
                conn.set_timer(SOON, 7);
            }
            line => output.write(line),
        }
        Action::Continue
    }

    fn on_end(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        conn.output().write(b"end\n");
        Action::Close
    }

    fn on_high_water(&mut self, _: &mut ProtocolConn<'_, '_, Self>) -> Action {
        self.tell("high");
        Action::Continue
    }

    fn on_low_water(&mut self, _: &mut ProtocolConn<'_, '_, Self>) -> Action {
        self.tell("low");
        Action::Continue
    }

    fn on_timer(
        &mut self,
        conn: &mut ProtocolConn<'_, '_, Self>,
        _: TimerId,
        value: u64,
    ) -> Action {
        conn.output().write(format!("timer {value}\n").as_bytes());
        Action::Continue
    }

    fn on_drain(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        conn.output().write(b"going away\n");
        Action::Close
    }

    fn on_closing(&mut self, conn: &mut ProtocolConn<'_, '_, Self>, reason: &CloseReason) {
        conn.output().write(b"bye\n");
        self.tell(format!("closing: {reason}"));
    }

    fn on_close(&mut self, _: &mut ProtocolConn<'_, '_, Self>, reason: &CloseReason) {
        self.tell(format!("closed: {reason}"));
    }
}

/// What the test has of its server.
struct Ends {
    told: Receiver<String>,
    remotes: Receiver<ProtocolRemote<Lines>>,
    responders: Receiver<Responder>,
}

fn server(patience: Option<Duration>) -> (impl Handler + Send, Ends) {
    let ((tell, told), (remote, remotes), (later, responders)) = (channel(), channel(), channel());
    let handler = move |exchange: Exchange<'_>| {
        let lines = Lines { tell: tell.clone(), patience, remotes: remote.clone() };
        match exchange.path() {
            "/lines" => Ok(exchange.upgrade("lines")?.field("X", "y")?.to(lines)),
            "/given" => Ok(exchange.respond(StatusCode::OK).field("X", "y")?.hand_over(lines)),
            "/fails" => {
                let _answered = exchange.upgrade("lines")?.to(lines);
                Err(StatusCode::FORBIDDEN.into())
            }
            "/later" => {
                let (responder, answered) = exchange.later();
                later.send(responder).expect("the test waits");
                Ok(answered)
            }
            _ => Ok(exchange.respond(StatusCode::OK).body(b"now")),
        }
    };
    (handler, Ends { told, remotes, responders })
}

fn world(patience: Option<Duration>) -> (World<impl Handler>, Ends) {
    let (handler, ends) = server(patience);
    (World::new(0, HttpServer::new().serve(handler)), ends)
}

fn told(ends: &Ends) -> Vec<String> {
    ends.told.try_iter().collect()
}

#[test]
fn bytes_that_come_with_the_request_are_the_new_protocols() {
    let (mut world, ends) = world(None);
    let mut peer = world.connect();
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let sent = [get, UPGRADE, "one\nGET / HTTP/1.1\r\n\ntw"].concat();
    world.0.send_all(&mut peer, sent.as_bytes()).expect("it is received");
    let first = response("200 OK", "", "now") + SWITCHED;
    let expected = first + "hello\none\nGET / HTTP/1.1\r\n\n";
    assert_eq!(world.read_for(&mut peer, SOON), expected);
    for byte in b"o\nthree" {
        world.0.send_all(&mut peer, &[*byte]).expect("it is received");
    }
    assert_eq!(world.read_for(&mut peer, SOON), "two\n");
    world.0.send_all(&mut peer, b"\nquit\nunread").expect("it is received");
    assert_eq!(world.read_to_end(&mut peer), "three\nbye\n");
    peer.shutdown();
    world.0.run(SOON);
    assert_eq!(told(&ends), ["closing: local", "closed: local"]);
}

#[test]
fn only_what_the_client_offers_is_gone_on_with() {
    let cases = [
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("keep-alive, Upgrade", "keep-alive"),
        UPGRADE.replace("Lines", "Lines/2"),
        UPGRADE.replace("Upgrade: h9, Lines\r\n", ""),
    ];
    for case in cases {
        let (mut world, ends) = world(None);
        let request =
            case.replace("keep-alive, ", "").replace("Connection: ", "Connection: close, ");
        let fields = "Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
                      Connection: upgrade\r\nUpgrade: lines\r\n";
        let status = "426 Upgrade Required";
        let refusal = response(status, fields, &format!("{status}\n"));
        assert_eq!(world.ask(&request), refusal, "{request}");
        assert_eq!(told(&ends), [""; 0]);
    }
    // Whose bytes are behind a request that fails after it was upgraded, nobody knows.
    let (mut world, ends) = world(None);
    let request = UPGRADE.replace("/lines", "/fails") + UPGRADE;
    assert_eq!(world.ask(&request), refusal("403 Forbidden"));
    assert_eq!(told(&ends), [""; 0]);
}

#[test]
fn an_ordinary_answer_may_hand_over() {
    let (mut world, _ends) = world(None);
    let request = "GET /given HTTP/1.1\r\nHost: a\r\n\r\none\nquit\n";
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nX: y\r\n\r\n";
    assert_eq!(world.ask(request), format!("{head}hello\none\nbye\n"));
}

#[test]
fn earlier_answers_go_out_first() {
    let (mut world, ends) = world(None);
    let mut peer = world.connect();
    let later = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
    let sent = [later, later, UPGRADE, "one\ntwo\n"].concat();
    world.0.send_all(&mut peer, sent.as_bytes()).expect("it is received");
    world.0.run(SOON);
    world.0.send_all(&mut peer, b"three\n").expect("it is received");
    assert_eq!(world.read_for(&mut peer, LONG), "");
    let responders: Vec<_> = ends.responders.try_iter().collect();
    let mut expected = String::new();
    for (responder, body) in responders.into_iter().zip(["first", "second"]) {
        assert_eq!(world.read_for(&mut peer, SOON), expected);
        responder.send(OwnedResponse::new(StatusCode::OK).body(body));
        expected = response("200 OK", "", body);
    }
    expected += SWITCHED;
    expected += "hello\none\ntwo\nthree\n";
    assert_eq!(world.read_for(&mut peer, SOON), expected);
    assert_eq!(world.0.open_connections(), 1);
}

#[test]
fn times_are_those_of_the_new_protocol() {
    let (mut world, _ends) = world(None);
    let mut peer = world.connect();
    world.0.send_all(&mut peer, (UPGRADE.to_owned() + "par").as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, LONG), SWITCHED.to_owned() + "hello\n");
    world.0.send_all(&mut peer, b"t\ntimer\n").expect("it is received");
    assert_eq!(world.read_for(&mut peer, SOON / 2), "part\n");
    assert_eq!(world.read_for(&mut peer, SOON), "timer 7\n");

    let (mut world, ends) = self::world(Some(5 * SOON));
    let mut peer = world.connect();
    world.0.send_all(&mut peer, UPGRADE.as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, 4 * SOON), SWITCHED.to_owned() + "hello\n");
    assert_eq!(world.read_for(&mut peer, 2 * SOON), "bye\n");
    assert!(peer.ended());
    assert_eq!(told(&ends)[..1], ["closing: idle timeout"]);
}

#[test]
fn a_server_that_stops_tells_the_new_protocol() {
    let (mut world, ends) = world(None);
    let (mut open, mut waiting) = (world.connect(), world.connect());
    world.0.send_all(&mut open, UPGRADE.as_bytes()).expect("it is received");
    let later = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
    world.0.send_all(&mut waiting, [later, UPGRADE].concat().as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut open, SOON), SWITCHED.to_owned() + "hello\n");
    world.0.stop(LONG).expect("it runs");
    assert_eq!(world.read_to_end(&mut open), "going away\nbye\n");
    let responder = ends.responders.recv().expect("it came");
    responder.send(OwnedResponse::new(StatusCode::OK).body("first"));
    let first = response("200 OK", "", "first") + SWITCHED;
    assert_eq!(world.read_to_end(&mut waiting), first + "hello\ngoing away\nbye\n");
    drop((open, waiting));
    assert!(!world.0.run(LONG), "the engine has ended");
    assert_eq!(told(&ends).len(), 4);
}

#[test]
fn a_panic_ends_the_protocol_as_it_does_any_connection() {
    silence_expected_panics();
    let (mut world, ends) = world(None);
    let mut peer = world.connect();
    world
        .0
        .send_all(&mut peer, (UPGRADE.to_owned() + "panic\n").as_bytes())
        .expect("it is received");
    world.0.run(SOON);
    assert_eq!(world.0.open_connections(), 0);
    assert_eq!(told(&ends), ["closing: panicked", "closed: panicked"]);
}

#[test]
fn the_clients_end_is_told() {
    let (mut world, ends) = world(None);
    let mut peer = world.connect();
    world
        .0
        .send_all(&mut peer, (UPGRADE.to_owned() + "one\nt").as_bytes())
        .expect("it is received");
    peer.shutdown();
    assert_eq!(world.read_to_end(&mut peer), SWITCHED.to_owned() + "hello\none\nend\nbye\n");
    world.0.run(SOON);
    assert_eq!(told(&ends).len(), 2);
}

/// Sends random lines in random pieces to a server with low water marks, and reads slowly.
fn run(seed: u64, faults: Faults) {
    let mut rng = Rng::with_seed(seed);
    let (handler, ends) = server(None);
    let builder = Builder::default().water_marks(500, 2_000);
    let mut world = World::with(seed, faults, builder, HttpServer::new().serve(handler));
    let mut peer = world.connect();
    let lines: String =
        (0..rng.usize(1..200)).map(|_| "l".repeat(rng.usize(..200)) + "\n").collect();
    let sent = format!("{UPGRADE}{lines}quit\n");
    let (mut unsent, mut received) = (sent.as_bytes(), Vec::new());
    for _ in 0..100_000 {
        if !unsent.is_empty() {
            let most = rng.usize(1..=unsent.len().min(3_000));
            unsent = &unsent[peer.send(&unsent[..most]).expect("the server is there")..];
        }
        if rng.bool() {
            received.extend(peer.receive());
        }
        if peer.ended() {
            break;
        }
        world.0.turn(Duration::from_millis(rng.u64(1..100)));
    }
    assert!(peer.ended(), "the connection does not end");
    assert_eq!(text(&received), format!("{SWITCHED}hello\n{lines}bye\n"));
    let water: Vec<_> = told(&ends).into_iter().filter(|what| !what.contains("clos")).collect();
    let pairs =
        water.chunks(2).all(|pair| pair[0] == "high" && pair.get(1).is_none_or(|low| low == "low"));
    assert!(pairs, "{water:?}");
}

#[test]
fn random_pieces_come_whole_to_slow_readers() {
    for_each_seed(100, |seed| {
        run(seed, if seed % 2 == 0 { Faults::harmless() } else { Faults::none() });
    });
}

fn engine() -> (TestEngine, Ends) {
    let (tell, told) = channel();
    let (remote, remotes) = channel();
    let (_, responders) = channel();
    let server = HttpServer::new();
    let engine = TestEngine::start(Engine::builder().reactors(2), move |_| {
        let (tell, remote) = (tell.clone(), remote.clone());
        server.serve(move |exchange: Exchange<'_>| -> Result<Answered, Failure> {
            let lines = Lines { tell: tell.clone(), patience: None, remotes: remote.clone() };
            Ok(exchange.upgrade("lines")?.field("X", "y")?.to(lines))
        })
    });
    (engine, Ends { told, remotes, responders })
}

#[test]
fn other_threads_reach_the_protocol() {
    let (engine, ends) = engine();
    let mut client = engine.connect();
    std::io::Write::write_all(&mut client, UPGRADE.as_bytes()).expect("it is sent");
    let remote = receive(&ends.remotes);
    assert!(remote.is_open());
    let large = pattern(1 << 20, 1);
    let (done, finished) = channel();
    remote.write("one\n").expect("it is open");
    remote.write_then(large.clone(), move |result| done.send(result).expect("the test waits"));
    let other = remote.clone();
    let asking = thread::spawn(move || {
        let written = |lines: &mut Lines, conn: &mut ProtocolConn<'_, '_, Lines>| {
            lines.tell("ran");
            conn.output().write(b"two\n");
            Action::Continue
        };
        other.run(written).expect("it is open");
    });
    asking.join().expect("no panic");
    while receive(&ends.told) != "ran" {} // The large one may have been above the high-water mark.
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\nhello\none\n") {
        received.extend(read_exactly(&mut client, 1));
    }
    assert_same(&read_exactly(&mut client, large.len()), &large);
    assert_eq!(read_exactly(&mut client, 4), b"two\n");
    assert_eq!(receive(&finished), Ok(()));
    remote.close().expect("it is open");
    assert_eq!(read_to_end(&mut client), b"bye\n");
    assert!(!remote.is_open() && remote.write("late").is_err());
    drop(client);
    while receive(&ends.told) != "closing: local" {} // As above.
    assert_eq!(receive(&ends.told), "closed: local");
}
