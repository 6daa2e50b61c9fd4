//! What becomes of connections when the engine stops: they go on until the deadline, or are closed.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use millstream::{
    Action, Builder, CloseReason, Conn, Engine, EventHandler, Reactor, ReactorAction,
    ShutdownAction, SocketOptions,
};

use super::{IMPATIENCE, PATIENCE, assert_over, echo};
use crate::common::{
    TestEngine, assert_same, end, eventually, modes, pattern, read_exactly, read_to_end,
    read_to_reset, receive,
};

/// What a [`Draining`] handler tells.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Opened,
    /// `on_shutdown` was called on this reactor, which had this many connections.
    Shutdown(usize, usize),
    Closed(String),
}

/// Replies to the first bytes with many and to further ones with an echo, and tells of its
/// callbacks.
struct Draining {
    answer: Arc<Vec<u8>>,
    on_shutdown: ShutdownAction,
    news: Sender<News>,
}

impl Draining {
    fn tell(&self, news: News) {
        let _ = self.news.send(news); // The test may have seen enough.
    }
}

impl EventHandler for Draining {
    /// Whether it has answered.
    type State = bool;

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.tell(News::Opened);
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        let answered = std::mem::replace(conn.state, true);
        conn.output.write(if answered { bytes } else { &self.answer });
        Action::Continue
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(News::Closed(reason.to_string()));
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.tell(News::Shutdown(reactor.index(), reactor.connections()));
        self.on_shutdown
    }
}

struct Rig {
    news: Receiver<News>,
    answer: Arc<Vec<u8>>,
    engine: TestEngine,
}

impl Rig {
    fn new(builder: Builder, answer: usize, on_shutdown: ShutdownAction) -> Self {
        let (sender, news) = channel();
        let answer = Arc::new(pattern(answer, 7));
        let of_handlers = Arc::clone(&answer);
        let factory = move |_| Draining {
            answer: Arc::clone(&of_handlers),
            on_shutdown,
            news: sender.clone(),
        };
        // How long a close may take is not the subject.
        let builder = builder.close_timeout(10 * PATIENCE);
        Rig { news, answer, engine: TestEngine::start(builder, factory) }
    }

    /// Connects a client that asked for the answer, and has seen its first byte.
    fn ask(&self) -> TcpStream {
        let mut client = self.engine.connect();
        assert_eq!(receive(&self.news), News::Opened);
        client.write_all(b"ask").expect("the server reads");
        assert_eq!(read_exactly(&mut client, 1), self.answer[..1]);
        client
    }

    /// Waits until all reactors have told that they shut down.
    #[track_caller]
    fn shutdowns(&self, case: &str) -> Vec<(usize, usize)> {
        let reactors = self.engine.stats().reactors.len();
        let mut shutdowns: Vec<_> = (0..reactors)
            .map(|_| match receive(&self.news) {
                News::Shutdown(reactor, connections) => (reactor, connections),
                news => panic!("{case}: {news:?}"),
            })
            .collect();
        shutdowns.sort_unstable();
        shutdowns
    }
}

/// More than the kernel takes from a server with [`narrow`] sockets while the client doesn't read.
const MUCH: usize = 16 << 20;

fn narrow(builder: Builder) -> Builder {
    builder.socket_options(SocketOptions::new().send_buffer(256 * 1024))
}

#[test]
fn on_shutdown_is_told_once_per_reactor_with_its_connections() {
    for (mode, builder) in modes() {
        let rig = Rig::new(builder, 1, ShutdownAction::Close);
        let clients: Vec<_> = (0..5).map(|_| rig.ask()).collect();
        rig.engine.stop(PATIENCE).expect("the first stop");
        let shutdowns = rig.shutdowns(&mode);
        let indexes: BTreeSet<usize> = shutdowns.iter().map(|(reactor, _)| *reactor).collect();
        assert_eq!(indexes.len(), shutdowns.len(), "{mode}: a reactor told twice: {shutdowns:?}");
        let connections: usize = shutdowns.iter().map(|(_, connections)| connections).sum();
        assert_eq!(connections, 5, "{mode}");
        drop(clients);
        rig.engine.wait().expect("it ends");
        let rest: Vec<News> = rig.news.try_iter().collect();
        assert_eq!(rest.len(), 5, "{mode}: {rest:?}");
        assert!(rest.iter().all(|news| matches!(news, News::Closed(_))), "{mode}: {rest:?}");
    }
}

#[test]
fn output_that_a_slow_peer_takes_before_the_deadline_is_flushed_to_the_last_byte() {
    for (mode, builder) in modes() {
        let rig = Rig::new(narrow(builder), MUCH, ShutdownAction::Close);
        let mut client = rig.ask();
        rig.engine.stop(PATIENCE).expect("the first stop");
        rig.shutdowns(&mode);
        // Only now the client goes on reading.
        assert_same(&read_to_end(&mut client), &rig.answer[1..]);
        drop(client);
        rig.engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!(receive(&rig.news), News::Closed("shutdown".to_owned()), "{mode}");
        assert_over(&rig.engine, &mode);
    }
}

#[test]
fn output_that_the_peer_does_not_take_is_cut_off_by_a_reset_at_the_deadline() {
    for (mode, builder) in modes() {
        let rig = Rig::new(narrow(builder), MUCH, ShutdownAction::Close);
        let mut client = rig.ask();
        rig.engine.stop(IMPATIENCE).expect("the first stop");
        rig.engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
        rig.shutdowns(&mode);
        assert_eq!(receive(&rig.news), News::Closed("shutdown".to_owned()), "{mode}");
        let got = read_to_reset(&mut client);
        assert!(got.len() < MUCH - 1, "{mode}: the test shows nothing, everything arrived");
        assert_same(&got, &rig.answer[1..=got.len()]);
        assert_over(&rig.engine, &mode);
    }
}

#[test]
fn connections_that_on_shutdown_leaves_alone_go_on_and_close_by_themselves() {
    for (mode, builder) in modes() {
        let rig = Rig::new(builder, 1, ShutdownAction::Drain);
        let mut client = rig.ask();
        rig.engine.stop(PATIENCE).expect("the first stop");
        rig.shutdowns(&mode);
        for _ in 0..10 {
            echo(&mut client, b"unfinished business");
        }
        drop(client);
        rig.engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!(receive(&rig.news), News::Closed("peer".to_owned()), "{mode}");
        assert_over(&rig.engine, &mode);
    }
}

#[test]
fn connections_that_on_shutdown_leaves_alone_are_closed_at_the_deadline() {
    for (mode, builder) in modes() {
        let rig = Rig::new(builder, 1, ShutdownAction::Drain);
        let mut client = rig.ask();
        rig.engine.stop(IMPATIENCE).expect("the first stop");
        assert_eq!(read_to_end(&mut client), b"", "{mode}: nothing was cut off, so no reset");
        rig.engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
        rig.shutdowns(&mode);
        assert_eq!(receive(&rig.news), News::Closed("shutdown".to_owned()), "{mode}");
    }
}

#[test]
fn no_connection_is_accepted_while_others_still_drain() {
    for (mode, builder) in modes() {
        let rig = Rig::new(builder, 1, ShutdownAction::Drain);
        let mut client = rig.ask();
        rig.engine.stop(PATIENCE).expect("the first stop");
        rig.shutdowns(&mode);
        let address = rig.engine.address();
        // The acceptor may take a moment to close; what it accepted meanwhile does not open.
        eventually("connections are refused", || {
            TcpStream::connect(address).is_err_and(|error| {
                matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
            })
        });
        echo(&mut client, b"still there?");
        assert_eq!(rig.news.try_iter().collect::<Vec<_>>(), [], "{mode}");
        assert_eq!(rig.engine.connections(), 1, "{mode}");
        drop(client);
        rig.engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

/// Says goodbye to each connection, and goes on until its peer ends it.
struct Polite(ShutdownAction);

impl EventHandler for Polite {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.0
    }

    fn on_drain(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(b"bye");
        Action::Continue
    }
}

#[test]
fn on_drain_is_told_once_per_connection_that_on_shutdown_leaves_alone() {
    for (mode, builder) in modes() {
        let engine = TestEngine::start(builder, |_| Polite(ShutdownAction::Drain));
        let mut clients: Vec<TcpStream> = (0..5).map(|_| engine.connect()).collect();
        clients.iter_mut().for_each(|client| echo(client, b"hello"));
        engine.stop(PATIENCE).expect("the first stop");
        for client in &mut clients {
            assert_eq!(read_exactly(client, 3), b"bye", "{mode}");
            echo(client, b"one more");
            end(client);
            assert_eq!(read_to_end(client), b"", "{mode}: told once");
        }
        engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

/// A client that has a connection when the engine stops is not turned away, however far it has got.
#[test]
fn connections_on_their_way_to_a_reactor_are_drained_like_the_others() {
    let builder = Engine::builder().reactors(2).inbox_budget(1);
    let engine = TestEngine::start(builder, |_| Polite(ShutdownAction::Drain));
    let reactors = engine.reactors::<Polite>().expect("it is the handler");
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().expect("nobody panicked");
    for reactor in 0..2 {
        let gate = Arc::clone(&gate);
        let stuck = reactors.run(reactor, move |_, _| {
            drop(gate.lock());
            ReactorAction::Continue
        });
        stuck.expect("it runs");
    }
    let mut clients: Vec<TcpStream> = (0..10).map(|_| engine.connect()).collect();
    eventually("they are accepted", || engine.connections() == 10);
    engine.stop(PATIENCE).expect("the first stop");
    drop(held);
    for client in &mut clients {
        assert_eq!(read_exactly(client, 3), b"bye");
        end(client);
    }
    engine.wait().expect("it ends");
}

#[test]
fn on_drain_is_not_told_where_on_shutdown_closes() {
    for (mode, builder) in modes() {
        let engine = TestEngine::start(builder, |_| Polite(ShutdownAction::Close));
        let mut client = engine.connect();
        echo(&mut client, b"hello");
        engine.stop(PATIENCE).expect("the first stop");
        assert_eq!(read_to_end(&mut client), b"", "{mode}");
        drop(client);
        engine.wait().unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}
