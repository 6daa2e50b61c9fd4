//! Every time that a user gives may be none, or as long as there is, or end at the last moment that
//! the clock can tell.

use std::io::Write;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::folder::Folder;
use crate::common::{DEADLINE, Echo, TestEngine, read_exactly, receive};
use millstream::restart::Handover;
use millstream::rpc::{Call, Client, Request, Router, Server};
use millstream::sim::{Faults, Simulation};
use millstream::{
    Action, AlreadyStopping, Conn, Connect, Engine, EventHandler, Reactor, ReactorAction, TimerId,
    UnixAddress,
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
        *conn.state = Some(conn.set_timer(self.0));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        if self.0 > DEADLINE {
            let timer = conn.state.take().expect("it was set");
            assert!(conn.cancel_timer(timer), "it has run out");
            *conn.state = Some(conn.set_timer(self.0));
        }
        Action::Continue
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_>) -> ReactorAction {
        reactor.set_tick(Some(self.0));
        ReactorAction::Continue
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
        let connecting = reactors.connect(0, connect.clone(), move |_, connected| {
            send.send(connected.is_ok()).expect("it waits");
            Action::Close
        });
        connecting.expect("it tries");
        assert!(receive(&connected), "{time:?}");
        // One that never begins.
        let later = reactors.connect(0, connect.after(time), |_, _| Action::Continue);
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
    let reactors = engine.reactors::<Timed>().expect("it is the handler's type");
    let (send, outcome) = channel();
    let connect = Connect::to(engine.address()).timeout(ZERO).after(ZERO).attempt_delay(ZERO);
    let connecting = reactors.connect(0, connect, move |_, connected| {
        send.send(connected.map(drop).map_err(|error| error.to_string())).expect("it waits");
        Action::Close
    });
    connecting.expect("it tries");
    let _ = receive(&outcome); // In time or not: it has ended.
    engine.stop(ZERO).expect("it runs");
}

/// Somebody waits while a callback keeps the engine from ending.
#[test]
fn waiting_for_a_stop_whose_deadline_is_the_end_of_the_clock() {
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Echo);
    let (blocked, is_blocked) = channel();
    let (release, released) = channel::<()>();
    let block = move |_: &mut Echo, _: &mut Reactor<'_>| {
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
fn calls_take_whatever_times() {
    for time in [MAX, to_the_end_of_the_clock()] {
        let server = Server::new().timeout(time).keepalive(time, time).idle_timeout(time);
        let engine = TestEngine::start(Engine::builder().reactors(1), move |_| {
            let echo = |call: &mut Call<'_>| call.answer(call.body());
            server.serve(Router::new().method("durations/echo", echo))
        });
        let client = Client::builder()
            .address(engine.address().to_string())
            .timeout(time)
            .connect_timeout(time)
            .keepalive(time, time)
            .drain_timeout(time)
            .build()
            .expect("it starts");
        let request = Request::new("durations/echo").body(&b"hello"[..]).timeout(time);
        let response = client.call(request).expect("it is answered");
        assert_eq!(response.body, "hello", "{time:?}");
        client.stop(time).expect("it ends well");
    }
}

#[test]
fn a_simulation_runs_to_the_end_of_its_clock() {
    let simulation = Simulation::new(1, Faults::harmless(), Engine::builder(), Echo);
    let mut simulation = simulation.expect("it starts");
    assert!(simulation.run_until(MAX, || true));
    assert!(simulation.turn(ZERO));
    simulation.stop(MAX).expect("it runs");
    while simulation.turn(Duration::from_secs(1)) {}
}
