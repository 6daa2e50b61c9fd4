//! Who looks host names up, on which threads, and what becomes of lookups that take long. What
//! comes of the addresses is in `behaviour`.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{DEADLINE, TestEngine, assert_empty, eventually, read_exactly, receive};
use millstream::{
    Action, Address, Builder, Conn, Connect, ConnectError, Engine, EventHandler, Reactors, Resolve,
};

/// How many lookups are under way at a time, and how many may wait.
const MOST_THREADS: usize = 4;
const MOST_WAITING: usize = 1024;

struct Client;

impl EventHandler for Client {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        Action::Continue
    }
}

type Outcome = Result<Address, ConnectError>;

fn client(builder: Builder) -> (Engine, Reactors<Client>) {
    let engine = builder.reactors(2).start(|_| Client).expect("it starts");
    let reactors = engine.reactors().expect("it is the engine's handler");
    (engine, reactors)
}

/// Makes a reactor connect, and close the connection at once.
fn connect(reactors: &Reactors<Client>, connect: Connect, told: &Sender<Outcome>) {
    let told = told.clone();
    let begun = reactors.connect(0, connect, move |_, _, connected| {
        let _ = told.send(connected.map(|conn| conn.peer_addr())); // Not all are waited for.
        Action::Close
    });
    begun.expect("the engine runs");
}

fn stop(engine: &Engine) {
    engine.stop(DEADLINE).expect("nobody stopped it before");
    engine.wait().expect("it ends well");
    assert_empty(engine);
    assert!(engine.stats().reactors.iter().all(|reactor| reactor.timers == 0));
}

/// A resolver that answers when it is let, and whose lookups are counted.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>, Arc<AtomicUsize>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    fn begun(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Resolve for Gate {
    fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(thread::current().name(), Some("millstream-resolver"));
        self.1.fetch_add(1, Ordering::Relaxed);
        let open = self.0.0.lock().expect("no panic");
        let waited = self.0.1.wait_timeout_while(open, DEADLINE, |open| !*open);
        assert!(!waited.expect("no panic").1.timed_out(), "nobody opens");
        Err(ErrorKind::NotFound.into())
    }
}

fn not_found(telling: &Receiver<Outcome>) {
    let error = receive(telling).expect_err("nothing is found");
    let ConnectError::Unresolved { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::NotFound);
}

#[test]
fn the_system_knows_localhost() {
    let server = TestEngine::echo(Engine::builder());
    let address = server.address();
    let (engine, reactors) = client(Engine::builder());
    let (told, telling) = channel();
    connect(&reactors, Connect::to_host("localhost", address.port()), &told);
    assert_eq!(receive(&telling).expect("it listens"), address);
    connect(&reactors, Connect::to_host("", 1), &told);
    connect(&reactors, Connect::to_host("nul\0byte", 1), &told);
    for _ in 0..2 {
        let error = receive(&telling).expect_err("it is no name");
        assert!(matches!(error, ConnectError::Unresolved { .. }), "{error}");
    }
    stop(&engine);
}

#[test]
fn an_address_is_no_name() {
    let v4 = SocketAddr::from(([127, 0, 0, 1], 7));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 7));
    let zoned = SocketAddrV6::new("fe80::1".parse().expect("an address"), 7, 0, 1);
    for (host, address) in [
        ("127.0.0.1", v4),
        ("::1", v6),
        ("[::1]", v6),
        ("fe80::1%1", zoned.into()),
        #[cfg(target_os = "linux")]
        ("fe80::1%lo", zoned.into()),
    ] {
        assert_eq!(Connect::to_host(host, 7), Connect::to(address), "{host}");
    }
}

#[test]
fn an_attempt_does_not_wait_for_a_slow_resolver() {
    let gate = Gate::default();
    let (engine, reactors) = client(Engine::builder().resolver(gate.clone()));
    let (told, telling) = channel();
    for _ in 0..MOST_THREADS {
        connect(&reactors, Connect::to_host("slow", 1).timeout(DEADLINE), &told);
    }
    eventually("the threads are busy", || gate.begun() == MOST_THREADS);
    connect(&reactors, Connect::to_host("short", 1).timeout(Duration::from_millis(20)), &told);
    let error = receive(&telling).expect_err("the resolver is blocked");
    assert_eq!(error.to_string(), "cannot connect to short:1: no answer within 20ms");
    assert_eq!(engine.connections(), MOST_THREADS);
    gate.open();
    connect(&reactors, Connect::to_host("late", 1), &told);
    for _ in 0..=MOST_THREADS {
        not_found(&telling);
    }
    assert_eq!(gate.begun(), MOST_THREADS + 1, "who gave up is not looked up");
    stop(&engine);
}

/// Nor does the engine: it ends while a lookup goes on, whose thread ends when that is over.
#[test]
fn an_engine_ends_while_its_resolver_is_blocked() {
    let gate = Gate::default();
    let resolver = gate.clone();
    let alive = Arc::new(());
    let held = Arc::downgrade(&alive);
    let resolve = move |host: &str, port| {
        let _held = &alive;
        resolver.resolve(host, port)
    };
    let (engine, reactors) = client(Engine::builder().resolver(resolve));
    let (told, telling) = channel();
    for _ in 0..2 * MOST_THREADS {
        connect(&reactors, Connect::to_host("slow", 1), &told);
    }
    eventually("it is looked up", || gate.begun() == MOST_THREADS);
    stop(&engine);
    for _ in 0..2 * MOST_THREADS {
        let error = receive(&telling).expect_err("the engine stops");
        assert!(matches!(error, ConnectError::Stopped { .. }), "{error}");
    }
    drop(engine);
    assert!(held.upgrade().is_some(), "it goes on");
    gate.open();
    eventually("the threads end", || held.upgrade().is_none());
    assert_eq!(gate.begun(), MOST_THREADS, "what waited was forgotten");
}

#[test]
fn lookups_wait_for_a_thread_and_not_without_a_limit() {
    let gate = Gate::default();
    let (engine, reactors) = client(Engine::builder().resolver(gate.clone()));
    let (told, telling) = channel();
    // In their order: the first ones have the threads, of the others some give up and make room.
    let short = Connect::to_host("short", 1).timeout(Duration::from_millis(20));
    for _ in 0..MOST_THREADS {
        connect(&reactors, Connect::to_host("long", 1).timeout(DEADLINE), &told);
    }
    eventually("the threads are busy", || gate.begun() == MOST_THREADS);
    for _ in 0..MOST_WAITING {
        connect(&reactors, short.clone(), &told);
    }
    for _ in 0..MOST_WAITING {
        let error = receive(&telling).expect_err("the resolver is blocked");
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    }
    for _ in 0..=MOST_WAITING {
        connect(&reactors, Connect::to_host("long", 1).timeout(DEADLINE), &told);
    }
    let error = receive(&telling).expect_err("too many wait");
    let ConnectError::Unresolved { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::ResourceBusy);
    gate.open();
    for _ in 0..MOST_THREADS + MOST_WAITING {
        not_found(&telling);
    }
    stop(&engine);
}

/// Where connections come from and what they are used for is not asked: only that bytes pass.
#[test]
fn many_hosts_are_connected_to_at_a_time() {
    const CONNECTIONS: usize = 100;
    let server = TestEngine::echo(Engine::builder().reactors(2));
    let address = server.address();
    // Each host has an address that refuses, too.
    let refuses = SocketAddr::new(IpAddr::from([127, 0, 0, 9]), 1);
    let resolver = move |_: &str, _| Ok(vec![refuses, address]);
    let (engine, reactors) = client(Engine::builder().resolver(resolver));
    let (told, telling) = channel();
    for number in 0..CONNECTIONS {
        connect(&reactors, Connect::to_host(format!("host-{number}"), 1), &told);
    }
    for _ in 0..CONNECTIONS {
        assert_eq!(receive(&telling).expect("it listens"), address);
    }
    let mut peer = server.connect();
    peer.write_all(b"still here").expect("it reads");
    assert_eq!(read_exactly(&mut peer, 10), b"still here");
    stop(&engine);
}
