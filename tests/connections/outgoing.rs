//! Outgoing connections over several engines, reactors and threads. What one reactor does with one
//! of them is in `behaviour`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::common::{
    DEADLINE, Echo, TestEngine, assert_empty, assert_same, eventually, pattern, receive,
};
use millstream::{
    Action, CloseReason, Conn, Connect, ConnectError, Engine, EventHandler, Reactor, ReactorAction,
    Reactors, Stopped,
};

/// Sends its messages one by one, each when the one before it came back, and then closes. In an
/// engine that also listens, it echoes to those that connect.
struct Client {
    reactor: usize,
    told: Sender<Told>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// All messages came back, on this reactor.
    Echoed(usize),
    Closed,
}

#[derive(Default)]
struct Course {
    messages: Vec<Vec<u8>>,
    received: Vec<u8>,
}

impl EventHandler for Client {
    type State = Course;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if !conn.is_outgoing() {
            conn.output.write(conn.input.take_all());
            return Action::Continue;
        }
        conn.state.received.extend_from_slice(conn.input.take_all());
        let expected = conn.state.messages.last().expect("nothing comes after the last message");
        if conn.state.received.len() < expected.len() {
            return Action::Continue;
        }
        assert_same(&conn.state.received, expected);
        conn.state.received.clear();
        conn.state.messages.pop();
        if let Some(message) = conn.state.messages.last() {
            conn.output.write(message);
            return Action::Continue;
        }
        let _ = self.told.send(Told::Echoed(self.reactor)); // It fails if the test has failed.
        Action::Close
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        if conn.is_outgoing() {
            assert!(matches!(reason, CloseReason::Local), "{reason}");
            let _ = self.told.send(Told::Closed);
        }
    }
}

fn client(reactors: usize) -> (Engine, Reactors<Client>, Receiver<Told>) {
    let (told, telling) = channel();
    let factory = move |reactor| Client { reactor, told: told.clone() };
    let engine = Engine::builder().reactors(reactors).start(factory).expect("it starts");
    let handle = engine.reactors().expect("it is the engine's handler");
    (engine, handle, telling)
}

/// Makes a reactor open a connection on which some messages go to and fro.
fn converse(reactors: &Reactors<Client>, reactor: usize, to: SocketAddr, seed: u64) {
    let messages: Vec<_> = [1, 64, 5000, 100_000].map(|len| pattern(len, seed)).into();
    let connected = reactors.connect(reactor, Connect::to(to), |_, _, conn| {
        let conn = conn.expect("it listens");
        conn.output.write(messages.last().expect("there are some"));
        conn.state.messages = messages;
        Action::Continue
    });
    connected.expect("the engine runs");
}

#[track_caller]
fn stop(engine: &Engine) {
    engine.stop(DEADLINE).expect("nobody stopped it before");
    engine.wait().expect("it ends well");
    assert_empty(engine);
    assert!(
        engine.stats().reactors.iter().all(|reactor| reactor.panics == 0 && reactor.timers == 0)
    );
}

#[test]
fn an_engine_is_the_client_of_another_one() {
    const CONNECTIONS: usize = 30;
    for count in [1, 3] {
        let server = TestEngine::echo(Engine::builder().reactors(count));
        let (engine, reactors, telling) = client(count);
        assert_eq!((engine.local_addrs(), reactors.len()), (Vec::new(), count));
        for number in 0..CONNECTIONS {
            converse(&reactors, number % count, server.address(), number as u64);
        }
        let mut echoed = vec![0; count];
        let mut closed = 0;
        for _ in 0..2 * CONNECTIONS {
            match receive(&telling) {
                Told::Echoed(reactor) => echoed[reactor] += 1,
                Told::Closed => closed += 1,
            }
        }
        assert_eq!((echoed, closed), (vec![CONNECTIONS / count; count], CONNECTIONS));
        stop(&engine);
    }
}

#[test]
fn an_engine_is_its_own_client() {
    for count in [1, 3] {
        let (told, telling) = channel();
        let builder = Engine::builder().reactors(count);
        let engine =
            TestEngine::start(builder, move |reactor| Client { reactor, told: told.clone() });
        let reactors = engine.reactors::<Client>().expect("it is the engine's handler");
        for reactor in 0..count {
            converse(&reactors, reactor, engine.address(), reactor as u64);
        }
        for _ in 0..2 * count {
            receive(&telling);
        }
    }
}

#[test]
fn the_handle_is_for_the_engines_handler_alone() {
    let (engine, _, _telling) = client(1);
    assert!(engine.reactors::<Echo>().is_none());
    stop(&engine);
}

/// Connects as soon as it boots.
struct Eager(SocketAddr);

impl EventHandler for Eager {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        let connect = Connect::to(self.0);
        let begun = reactor.reactors().connect(reactor.index(), connect, |_, _, conn| {
            conn.expect("it listens").output.write(b"hello");
            Action::Continue
        });
        begun.expect("the own reactor is there");
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        assert_same(conn.input.take_all(), b"hello");
        Action::Shutdown
    }
}

#[test]
fn a_client_connects_as_it_boots() {
    let server = TestEngine::echo(Engine::builder().reactors(1));
    let address = server.address();
    let engine = Engine::builder().reactors(2).start(move |_| Eager(address)).expect("it starts");
    eventually("the reply stops the engine", || engine.is_stopping());
    engine.wait().expect("it ends well");
    assert_empty(&engine);
}

/// An attempt's end: its closure ran or was dropped.
struct Ends {
    ran: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    done: bool,
}

impl Ends {
    fn told(&mut self) {
        self.done = true;
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let counter = if self.done { &self.ran } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_attempt_ends_once_however_the_engine_stops() {
    const THREADS: usize = 3;
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it listens");
    for round in 0..20 {
        let (engine, reactors, _telling) = client(2);
        let (ran, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let attempt = |reactors: &Reactors<Client>, reactor| {
            let mut ends =
                Ends { ran: Arc::clone(&ran), dropped: Arc::clone(&dropped), done: false };
            reactors.connect(reactor, Connect::to(address), move |_, _, conn| {
                ends.told();
                if conn.is_ok() { Action::Close } else { Action::Continue }
            })
        };
        let (begun, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (reactors, attempt, begun, refused) = (&reactors, &attempt, &begun, &refused);
                scope.spawn(move || {
                    while attempt(reactors, number % 2).is_ok() {
                        // The listener's backlog is short, and the more attempts the longer the
                        // stop.
                        if begun.fetch_add(1, Ordering::Relaxed) > 200 {
                            // sleep: paces the flood, so that a busy machine can work off in time
                            // what was asked before the stop.
                            thread::sleep(Duration::from_micros(50));
                        }
                    }
                    refused.fetch_add(1, Ordering::Relaxed);
                });
            }
            eventually("some have begun", || begun.load(Ordering::Relaxed) > 10 * round);
            engine.stop(Duration::from_millis(10)).expect("nobody stopped it before");
            engine.wait().expect("it ends well");
        });
        let (begun, refused) = (begun.into_inner(), refused.into_inner());
        let (ran, dropped) = (ran.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        assert_eq!(ran + dropped, begun + refused, "each closure ended once");
        assert!(dropped >= THREADS && refused == THREADS, "{dropped} dropped, {refused} refused");
        assert!(ran > 0, "of those that were begun in time each is told its end");
        assert_empty(&engine);
    }
}

#[test]
fn an_engine_that_has_stopped_connects_no_more() {
    let (engine, reactors, _telling) = client(1);
    stop(&engine);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let never = |_: &mut Client,
                 _: &mut Reactor<'_, Client>,
                 _: Result<&mut Conn<'_, Client>, ConnectError>|
     -> Action { panic!("the reactor has ended") };
    assert_eq!(reactors.connect(0, Connect::to(address), never), Err(Stopped));
}
