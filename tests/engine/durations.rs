//! Every time that a user gives may be none, or as long as there is, or end at the last moment that
//! the clock can tell. `tests/tidy/times.rs` sees to it that none is forgotten.

use std::io::{Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::alone::alone;
use crate::common::folder::Folder;
use crate::common::{DEADLINE, Echo, TestEngine, read_exactly, receive};
use millstream::codec::{Delimited, FrameHandler, Framed, FramedConn};
use millstream::http;
use millstream::restart::Handover;
use millstream::rpc::{Call, Client, Deadline, MethodOptions, Middleware, Request, Router, Server};
use millstream::sim::{Faults, Simulation};
use millstream::tls::{TlsClient, TlsServer};
use millstream::websocket;
use millstream::{
    Action, AlreadyStopping, Backoff, Conn, Connect, Either, Engine, EventHandler, Keepalive,
    Listen, Opening, Reactor, ReactorAction, SocketOptions, TimerId, UnixAddress,
};

const MAX: Duration = Duration::MAX;
const ZERO: Duration = Duration::ZERO;

/// The longest time from now on that ends within the clock's range, less a moment for the test to
/// use it.
fn to_the_end_of_the_clock() -> Duration {
    let (mut good, mut bad) = (ZERO, MAX);
    while bad.saturating_sub(good) > Duration::from_millis(1) {
        let middle = good + (bad - good) / 2;
        if Instant::now().checked_add(middle).is_some() { good = middle } else { bad = middle }
    }
    good - Duration::from_millis(100)
}

/// Echoes, with a timer that is far away and, when it opens, one that is due.
struct Timed(Duration);

impl EventHandler for Timed {
    type State = Option<TimerId>;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state = Some(conn.set_timer(self.0, 0));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        conn.set_idle_timeout(self.0);
        conn.set_read_timeout(self.0);
        conn.set_write_timeout(self.0);
        if self.0 > DEADLINE {
            let timer = conn.state.take().expect("it was set");
            assert!(conn.reset_timer(timer, self.0), "it has run out");
            assert!(conn.cancel_timer(timer), "it has run out");
            *conn.state = Some(conn.set_timer(self.0, 0));
        }
        Action::Continue
    }

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        let timer = reactor.set_timer(self.0, 0);
        reactor.reset_timer(timer, self.0);
        ReactorAction::Continue
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        reactor.set_tick(Some(self.0));
        ReactorAction::Continue
    }
}

#[test]
fn handshakes_and_looks_at_files_have_whatever_time() {
    let folder = Folder::new();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    std::fs::write(folder.join("chain"), key.cert.pem()).expect("the folder can be written to");
    std::fs::write(folder.join("key"), key.signing_key.serialize_pem()).expect("so it can");
    for time in [ZERO, MAX, to_the_end_of_the_clock()] {
        let tls = TlsServer::builder().pem_files(folder.join("chain"), folder.join("key"));
        let tls = tls.handshake_timeout(time).reload_when_changed(time).build().expect("it is");
        let listen = Listen::from("127.0.0.1:0").tls(&tls.handshake_timeout(time));
        let engine = TestEngine::start_exactly(Engine::builder().listen(listen), |_| Echo);
        let client = TlsClient::builder().dangerously_trust_everyone().handshake_timeout(time);
        let client = client.build().expect("it is").handshake_timeout(time);
        let connect = Connect::to(engine.address()).tls(&client);
        let (send, connected) = channel();
        let reactors = engine.reactors::<Echo>().expect("it is the handler's type");
        let connecting = reactors.connect(0, connect, move |_, _, connected| {
            send.send(connected.is_ok()).expect("it waits");
            Action::Close
        });
        connecting.expect("it tries");
        // With none it may be over before the clock is looked at.
        assert!(receive(&connected) || time.is_zero(), "{time:?}");
    }
}

#[test]
fn an_engine_serves_whatever_its_times() {
    for time in [MAX, to_the_end_of_the_clock(), Duration::from_millis(u64::MAX)] {
        let builder = Engine::builder().reactors(2).idle_timeout(time).read_timeout(time);
        let builder = builder.write_timeout(time).close_timeout(time).stop_timeout(time);
        let builder = builder.tick(time).stall_threshold(Some(time));
        let engine = TestEngine::start(builder, move |_| Timed(time));
        let mut client = engine.connect();
        client.write_all(b"hello").expect("the connection stands");
        assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
        let reactors = engine.reactors::<Timed>().expect("it is the handler's type");
        let connect = Connect::to(engine.address()).timeout(time).attempt_delay(time);
        let (send, connected) = channel();
        let connecting = reactors.connect(0, connect.clone(), move |_, _, connected| {
            send.send(connected.is_ok()).expect("it waits");
            Action::Close
        });
        connecting.expect("it tries");
        assert!(receive(&connected), "{time:?}");
        // One that never begins.
        let later = reactors.connect(0, connect.after(time), |_, _, _| Action::Continue);
        later.expect("it takes it");
        let listener = engine.listen("127.0.0.1:0").expect("it listens");
        assert!(!listener.wait_closed(ZERO), "it is open");
        listener.close();
        assert!(listener.wait_closed(time), "{time:?}");
        drop(client);
        engine.stop(time).expect("it runs");
        engine.wait().expect("it ends well");
    }
}

#[test]
fn no_time_at_all_is_a_time() {
    let builder = Engine::builder().reactors(1).close_timeout(ZERO).stop_timeout(ZERO);
    let engine = TestEngine::start(builder.stall_threshold(Some(ZERO)), |_| Timed(ZERO));
    let mut client = engine.connect();
    client.write_all(b"hello").expect("the connection stands");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    let _ = client.read_to_end(&mut Vec::new()); // It ends, in whatever way.
    let reactors = engine.reactors::<Timed>().expect("it is the handler's type");
    let (send, outcome) = channel();
    let connect = Connect::to(engine.address()).timeout(ZERO).after(ZERO).attempt_delay(ZERO);
    let connecting = reactors.connect(0, connect, move |_, _, connected| {
        send.send(connected.map(drop).map_err(|error| error.to_string())).expect("it waits");
        Action::Close
    });
    connecting.expect("it tries");
    let _ = receive(&outcome); // In time or not: it has ended.
    engine.stop(ZERO).expect("it runs");
}

#[test]
fn a_reactor_takes_whatever_time_for_a_turn() {
    for time in [Duration::from_nanos(1), MAX] {
        let builder = Engine::builder().reactors(1).turn_time(time).busy_poll(time);
        let engine = TestEngine::echo(builder);
        let mut client = engine.connect();
        client.write_all(b"hello").expect("the connection stands");
        assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
    }
    for builder in [Engine::builder().turn_time(ZERO), Engine::builder().busy_poll(ZERO)] {
        builder.start(|_| Echo).expect_err("it would do nothing");
    }
}

/// Sends lines back, which may take this long if it is said.
struct Lines(Option<Duration>);

impl FrameHandler for Lines {
    type Codec = Delimited;
    type State = ();

    fn codec(&self) -> Delimited {
        Delimited::new("\n", 100)
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        if let Some(time) = self.0 {
            conn.set_frame_timeout(time);
        }
        Action::Continue
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
        conn.output.write(line);
        Action::Continue
    }
}

#[test]
fn a_frame_has_whatever_time() {
    let times = [ZERO, MAX, to_the_end_of_the_clock()];
    for (time, own) in times.iter().flat_map(|time| [(*time, None), (*time, Some(*time))]) {
        let all = if own.is_some() { DEADLINE } else { time };
        let handler = move |_| Framed::new(Lines(own)).frame_timeout(all);
        let engine = TestEngine::start(Engine::builder().reactors(1), handler);
        let mut client = engine.connect();
        client.write_all(b"hello\nhe").expect("the connection stands");
        assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
        if time.is_zero() {
            let _ = client.read_to_end(&mut Vec::new()); // It ends, in whatever way.
        } else {
            client.write_all(b"llo\n").expect("the connection stands");
            assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
        }
    }
}

#[test]
fn a_decision_has_whatever_time() {
    for time in [ZERO, MAX, to_the_end_of_the_clock()] {
        let handler = move |_| {
            let begins = |opening: &Opening<'_>| opening.begins_with(&[b"hello"]);
            let lines = || Framed::new(Lines(None));
            Either::new(lines(), lines(), begins).decision_timeout(time)
        };
        let engine = TestEngine::start(Engine::builder().reactors(1), handler);
        let mut client = engine.connect();
        if time.is_zero() {
            let _ = client.read_to_end(&mut Vec::new()); // It ends, in whatever way.
        } else {
            client.write_all(b"he").expect("the connection stands");
            client.write_all(b"llo\n").expect("the connection stands");
            assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
        }
    }
}

#[test]
fn a_proxy_has_whatever_time_for_its_header() {
    let listen = |time| Listen::from("127.0.0.1:0").proxy_protocol(time, 536);
    for time in [MAX, to_the_end_of_the_clock()] {
        let builder = Engine::builder().reactors(1).listen(listen(time));
        let engine = TestEngine::start_exactly(builder, |_| Echo);
        let mut client = engine.connect();
        client.write_all(b"PROXY UNKNOWN\r\nhello").expect("the connection stands");
        assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
    }
    let none = Engine::builder().listen(listen(ZERO)).start(|_| Echo);
    none.expect_err("no header would come in time");
}

#[test]
fn a_socket_takes_a_time_or_an_error_says_that_it_cannot() {
    for time in [ZERO, MAX, to_the_end_of_the_clock()] {
        let options = SocketOptions::new;
        let options = [
            options().linger(time),
            options().user_timeout(time),
            options().defer_accept(time),
            options().busy_poll(time),
            options().keepalive(Keepalive { idle: time, interval: time, count: 1 }),
        ];
        for option in options {
            let listen = Listen::from("127.0.0.1:0").socket_options(option);
            if let Ok(engine) = Engine::builder().reactors(1).listen(listen).start(|_| Echo) {
                engine.stop(ZERO).expect("it runs");
                engine.wait().expect("it ends well");
            }
        }
    }
}

#[test]
fn a_signal_stops_whatever_the_time() {
    alone(|| {
        for time in [ZERO, MAX, to_the_end_of_the_clock()] {
            let engine = TestEngine::echo(Engine::builder().reactors(1));
            engine.stop_on_signals(time).expect("there are handlers");
            let process = std::process::id().to_string();
            let kill = std::process::Command::new("kill").args(["-TERM", &process]).status();
            assert!(kill.expect("there is such a program").success());
            engine.wait().expect("it ends well");
        }
    });
}

/// Somebody waits while a callback keeps the engine from ending.
#[test]
fn waiting_for_a_stop_whose_deadline_is_the_end_of_the_clock() {
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let (blocked, is_blocked) = channel();
    let (release, released) = channel::<()>();
    let block = move |_: &mut Echo, _: &mut Reactor<'_, Echo>| {
        blocked.send(()).expect("it waits");
        let _ = released.recv_timeout(DEADLINE);
        ReactorAction::Continue
    };
    let reactors = engine.reactors::<Echo>().expect("it is the handler's type");
    reactors.run(0, block).expect("it runs");
    receive(&is_blocked);
    engine.stop(to_the_end_of_the_clock()).expect("it runs");
    let waits = Engine::clone(&engine);
    let waiting = thread::spawn(move || waits.wait());
    // sleep: the subject is somebody who waits; that it has begun can't be seen from outside.
    thread::sleep(Duration::from_millis(50));
    release.send(()).expect("it is blocked");
    waiting.join().expect("it does not panic").expect("the engine ends well");
    assert_eq!(engine.stop(MAX), Err(AlreadyStopping));
}

#[test]
fn a_handover_takes_whatever_times() {
    for time in [MAX, to_the_end_of_the_clock()] {
        let folder = Folder::new();
        let at = || UnixAddress::path(folder.join("handover")).expect("it is short enough");
        let start = || {
            let mut handover = Handover::take(at(), time).expect("the address can be used");
            let listen = handover.inherited.listen("127.0.0.1:0");
            let builder = Engine::builder().reactors(1).listen(listen);
            let engine = TestEngine::start_exactly(builder, |_| Echo);
            handover.ready(&engine, time).expect("it takes over");
            engine
        };
        let first = start();
        let second = start();
        first.wait().expect("it ends well");
        let mut client = second.connect();
        client.write_all(b"hello").expect("the connection stands");
        assert_eq!(read_exactly(&mut client, 5), b"hello", "{time:?}");
    }
}

#[test]
fn http_takes_whatever_times() {
    for time in [ZERO, MAX, to_the_end_of_the_clock()] {
        let server = http::HttpServer::new()
            .head_timeout(time)
            .body_timeout(time)
            .body_pace(1, time)
            .idle_timeout(time)
            .write_timeout(time);
        let routes = http::Router::new()
            .layer(http::Timeout::new(time))
            .layer(http::RateLimit::new(1, time))
            .layer(http::Cors::any().max_age(time))
            .get("/", move |mut exchange| {
                exchange.limit_timeout(time);
                let answer = exchange.respond(http::StatusCode::OK).close();
                let (mut events, answered) = answer.events(time);
                events.send(http::ServerEvent::new("now").retry(time))?;
                events.into_writer().finish()?;
                Ok(answered)
            })
            .build()
            .expect("one route");
        let engine =
            TestEngine::start(Engine::builder().reactors(1), move |_| server.serve(routes.clone()));
        let mut client = engine.connect();
        let sent = client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut received = Vec::new();
        let end = client.read_to_end(&mut received); // Without any time it ends in whatever way.
        if !time.is_zero() {
            sent.and(end).expect("the connection stands");
            assert!(received.starts_with(b"HTTP/1.1 200 OK\r\n"), "{time:?}");
        }
    }
}

#[test]
fn http_clients_take_whatever_times() {
    let server = http::HttpServer::new();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| {
        server.serve(|exchange: http::Exchange<'_>| {
            Ok(exchange.respond(http::StatusCode::OK).body(b"hello"))
        })
    });
    let url = format!("http://{}/", engine.address());
    for time in [ZERO, MAX, to_the_end_of_the_clock()] {
        let client = http::HttpClient::builder()
            .timeout(time)
            .connect_timeout(time)
            .idle_timeout(time)
            .keep_alive(time)
            .drain_timeout(time)
            .build()
            .expect("it starts");
        for _ in 0..2 {
            let request = http::HttpRequest::get(&url).expect("it is a URL").timeout(time);
            let response = client.call(request); // Without any time it ends in whatever way.
            if !time.is_zero() {
                assert_eq!(response.expect("a response").body, "hello", "{time:?}");
            }
        }
        client.stop(ZERO).expect("it ends well");
    }
}

/// Gives its handle away.
struct Handled(Sender<websocket::WebSocketRemote<Handled>>);

impl websocket::WebSocketHandler for Handled {
    fn on_open(&mut self, socket: &mut websocket::Socket<'_, Self>) {
        let _ = self.0.send(socket.remote()); // The test may have failed.
    }
}

#[test]
fn web_sockets_take_whatever_times() {
    for time in [ZERO, MAX, to_the_end_of_the_clock()] {
        let sockets = websocket::WebSocketServer::new()
            .ping_interval(time)
            .pong_timeout(time)
            .close_timeout(time);
        let (sender, remotes) = channel();
        let engine = TestEngine::start(Engine::builder().reactors(1), move |_| {
            let (sockets, sender) = (sockets.clone(), sender.clone());
            http::HttpServer::new().serve(move |exchange: http::Exchange<'_>| {
                sockets.accept(exchange, Handled(sender.clone()))
            })
        });
        let mut client = engine.connect();
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        client.write_all(head.as_bytes()).expect("the connection stands");
        let remote = receive(&remotes);
        let sent = remote.send_within(&websocket::PreparedMessage::text("a"), time);
        let closed = remote.close(websocket::CloseCode::NORMAL, "");
        if time.is_zero() {
            continue; // It is taken for dead at any moment.
        }
        assert_eq!((sent, closed), (Ok(()), Ok(())), "{time:?}");
        client.write_all(b"\x88\x80\0\0\0\0").expect("the connection stands");
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("the connection ends");
        let replied = received.ends_with(b"\x88\x02\x03\xe8") || received.ends_with(b"\x88\0");
        assert!(replied, "{time:?}: {}", received.escape_ascii());
    }
}

#[test]
fn calls_take_whatever_times() {
    for time in [MAX, to_the_end_of_the_clock()] {
        let (engine, client) = server_and_client(time);
        let request = Request::new("durations/echo").body(&b"hello"[..]).timeout(time);
        let response = client.call(request).expect("it is answered");
        assert_eq!(response.body, "hello", "{time:?}");
        client.stop(time).expect("it ends well");
        drop(engine);
    }
}

#[test]
fn calls_end_without_any_time() {
    let (engine, client) = server_and_client(ZERO);
    let request = Request::new("durations/echo").body(&b"hello"[..]).timeout(ZERO);
    client.call(request).expect_err("it has no time");
    client.stop(ZERO).expect("it ends well");
    drop(engine);
}

/// Both ends of RPC, with this everywhere where a time can be given.
fn server_and_client(time: Duration) -> (TestEngine, Client<impl Middleware>) {
    let server = Server::new().timeout(time).keepalive(time, time).idle_timeout(time);
    let server = server.frame_timeout(time);
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| {
        let echo = move |call: &mut Call<'_>| {
            call.limit_timeout(time);
            call.answer(call.body())
        };
        let options = MethodOptions::new().timeout(time);
        server.clone().serve(Router::new().method_with("durations/echo", options, echo))
    });
    let client = Client::builder()
        .address(engine.address().to_string())
        .timeout(time)
        .connect_timeout(time)
        .keepalive(time, time)
        .frame_timeout(time)
        .drain_timeout(time)
        .reconnect(Backoff::new(time, time))
        .layer(Deadline::new().or(time).at_most(time));
    (engine, client.build().expect("it starts"))
}

#[test]
fn a_simulation_runs_to_the_end_of_its_clock() {
    let simulation = Simulation::new(1, Faults::harmless(), Engine::builder(), Echo);
    let mut simulation = simulation.expect("it starts");
    assert!(simulation.run_until(MAX, || true));
    assert!(simulation.turn(ZERO));
    for _ in 0..3 {
        assert!(simulation.turn(MAX), "nothing is due, so time passes");
    }
    simulation.run(MAX);
    simulation.stop(MAX).expect("it runs");
    while simulation.turn(Duration::from_secs(1)) {}
}
