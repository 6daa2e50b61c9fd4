//! [`Remote`], the handle that crosses threads: what one thread asks is done in its order, every
//! completion runs exactly once, a closed connection returns [`Closed`] and nothing worse, and a
//! handle never reaches the connection that has its place now.
//!
//! Covers F1 (at the level of the API), F4, F5 and F18 of the fault checklist.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::seeds::for_each_seed;
use crate::common::{
    DEADLINE, TestEngine, assert_same, eventually, pattern, read_exactly, read_to_end,
    read_to_reset, receive, silence_expected_panics,
};
use millstream::{
    Action, Builder, CloseReason, Closed, Conn, Engine, EventHandler, Reactor, ReactorAction,
    Remote, SocketOptions, Stopped,
};
use socket2::SockRef;

// --- the rig -------------------------------------------------------------------------------------

/// What the handler tells of its callbacks.
enum News {
    Opened(Remote<Reporter>),
    /// What was unread when `on_traffic` began.
    Traffic(Vec<u8>),
    /// The reason, and the thread that told it.
    Closed(String, thread::ThreadId),
}

/// Tells of its callbacks, and echoes lines. What is not a whole line stays unread; a wake that
/// finds nothing unread writes `!`.
struct Reporter {
    news: Sender<News>,
    /// Counted by closures.
    runs: u32,
}

impl Reporter {
    fn tell(&self, news: News) {
        let _ = self.news.send(news); // The test may have seen enough.
    }
}

impl EventHandler for Reporter {
    /// Counted by closures.
    type State = u32;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(News::Opened(conn.remote()));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(News::Traffic(conn.input.peek().to_vec()));
        if conn.input.is_empty() {
            conn.output.write(b"!");
        }
        while let Some(line) = conn.input.take_through(b"\n") {
            conn.output.write(line);
        }
        Action::Continue
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(News::Closed(reason.to_string(), thread::current().id()));
    }
}

struct Rig {
    news: Receiver<News>,
    engine: TestEngine,
}

impl Rig {
    fn new() -> Self {
        Self::with(Engine::builder())
    }

    /// An engine with one reactor, so that news comes in the order of events.
    fn with(builder: Builder) -> Self {
        let (sender, news) = channel();
        let factory = move |_| Reporter { news: sender.clone(), runs: 0 };
        Rig { news, engine: TestEngine::start(builder.reactors(1), factory) }
    }

    /// Connects; returns the client and the handle of the server's connection.
    fn connect(&self) -> (TcpStream, Remote<Reporter>) {
        let client = self.engine.connect();
        match receive(&self.news) {
            News::Opened(remote) => (client, remote),
            _ => panic!("other news than a new connection's"),
        }
    }

    fn traffic(&self) -> Vec<u8> {
        match receive(&self.news) {
            News::Traffic(unread) => unread,
            _ => panic!("other news than of traffic"),
        }
    }

    /// Skips news of traffic.
    fn close_reason(&self) -> String {
        loop {
            match receive(&self.news) {
                News::Closed(reason, _) => return reason,
                News::Traffic(_) => {}
                News::Opened(_) => panic!("a connection that nobody made"),
            }
        }
    }
}

/// What became of requests whose completions were handed out. Each holds the channel open until it
/// has run or was dropped, so the channel's end shows that none is left.
struct Outcomes {
    sender: Sender<(usize, Result<(), Closed>)>,
    /// The lock lets threads share the whole to make completions.
    receiver: Mutex<Receiver<(usize, Result<(), Closed>)>>,
}

impl Outcomes {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Outcomes { sender, receiver: Mutex::new(receiver) }
    }

    /// The completion of a request.
    fn note(&self, request: usize) -> impl FnOnce(Result<(), Closed>) + Send + 'static + use<> {
        let sender = self.sender.clone();
        move |outcome| {
            let _ = sender.send((request, outcome)); // The test may have failed.
        }
    }

    /// Waits until no completion is left, and returns what they said, in the order of requests.
    /// Each of `0..requests` must have been completed exactly once.
    #[track_caller]
    fn of(self, requests: usize) -> Vec<Result<(), Closed>> {
        drop(self.sender);
        let receiver = self.receiver.into_inner().expect("nobody panics with it");
        let deadline = Instant::now() + DEADLINE;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut outcomes = Vec::new();
        while let Ok(outcome) = receiver.recv_timeout(left()) {
            outcomes.push(outcome);
        }
        assert!(!left().is_zero(), "completions neither ran nor were dropped");
        outcomes.sort_by_key(|(request, _)| *request);
        let completed: Vec<usize> = outcomes.iter().map(|(request, _)| *request).collect();
        let expected: Vec<usize> = (0..requests).collect();
        assert!(completed == expected, "{} completions of {requests}", completed.len());
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// Resets the peer's side.
fn reset(client: TcpStream) {
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket has the option");
    drop(client);
}

// --- order ---------------------------------------------------------------------------------------

#[test]
fn what_each_of_many_threads_writes_arrives_completely_and_in_its_order() {
    const THREADS: u32 = 8;
    const RECORDS: u32 = 10_000;
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let remote = remote.clone();
            scope.spawn(move || (0..RECORDS).for_each(|number| send(&remote, thread, number)));
        }
        let mut next = [0; THREADS as usize];
        for _ in 0..THREADS * RECORDS {
            let (thread, number) = split(&read_exactly(&mut client, 8));
            assert_eq!(number, next[thread as usize], "the order of thread {thread}");
            next[thread as usize] += 1;
        }
        assert_eq!(next, [RECORDS; THREADS as usize]);
    });
}

/// Sends a record by each of the ways to write in turn.
fn send(remote: &Remote<Reporter>, thread: u32, number: u32) {
    let mut record = thread.to_le_bytes().to_vec();
    record.extend(number.to_le_bytes());
    match number % 3 {
        0 => remote.write(record).expect("it is open"),
        1 => remote.write_then(record, |outcome| assert_eq!(outcome, Ok(()))),
        _ => {
            let write = move |_: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
                conn.output.write(&record);
                Action::Continue
            };
            remote.run(write).expect("it is open");
        }
    }
}

fn split(record: &[u8]) -> (u32, u32) {
    let part = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    (part(&record[..4]), part(&record[4..]))
}

#[test]
fn requests_of_all_kinds_are_done_in_the_order_they_were_asked() {
    let rig = Rig::new();
    for _ in 0..200 {
        let (mut client, remote) = rig.connect();
        remote.write("write ").expect("it is open");
        remote
            .run(|_, conn| {
                conn.output.write(b"run ");
                Action::Continue
            })
            .expect("it is open");
        remote.wake().expect("it is open");
        remote.write_then(" then", |outcome| assert_eq!(outcome, Ok(())));
        remote.close().expect("it is open");
        let _ = remote.write("too late"); // Whether it is closed by now is not said.
        assert_eq!(read_to_end(&mut client), b"write run ! then");
        drop(client);
        assert_eq!(rig.close_reason(), "local");
    }
}

#[test]
fn one_threads_requests_to_several_connections_are_done_in_the_order_they_were_asked() {
    let rig = Rig::new();
    let connections = [rig.connect(), rig.connect(), rig.connect()];
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..3_000 {
        let order = Arc::clone(&order);
        let note = move |_: &mut Reporter, _: &mut Conn<'_, Reporter>| {
            order.lock().expect("nobody panics with it").push(number);
            Action::Continue
        };
        connections[number % 3].1.run(note).expect("it is open");
    }
    eventually("all have run", || order.lock().expect("nobody panics with it").len() == 3_000);
    let order = order.lock().expect("nobody panics with it");
    assert!(order.is_sorted(), "out of order");
}

/// Though the reactor takes one in a turn, and the engine stops.
#[test]
fn closures_that_a_reactor_has_accepted_run_though_the_engine_stops() {
    const CLOSURES: u64 = 500;
    let rig = Rig::with(Engine::builder().inbox_budget(1));
    let reactors = rig.engine.reactors::<Reporter>().expect("it is the engine's handler");
    let (own, ran) = (reactors.clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&ran);
    let ask_and_stop = move |_: &mut Reporter, _: &mut Reactor<'_>| {
        for _ in 0..CLOSURES {
            let counted = Arc::clone(&counted);
            let count = move |_: &mut Reporter, _: &mut Reactor<'_>| {
                counted.fetch_add(1, Ordering::Relaxed);
                ReactorAction::Continue
            };
            own.run(0, count).expect("it runs");
        }
        ReactorAction::Shutdown
    };
    reactors.run(0, ask_and_stop).expect("it runs");
    rig.engine.wait().expect("it ends");
    assert_eq!(ran.load(Ordering::Relaxed), CLOSURES);
}

// --- what the requests do ------------------------------------------------------------------------

#[test]
fn a_wake_calls_on_traffic_with_what_is_unread() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    client.write_all(b"half a li").expect("the server reads");
    assert_eq!(rig.traffic(), b"half a li");
    for _ in 0..3 {
        remote.wake().expect("it is open");
        assert_eq!(rig.traffic(), b"half a li");
    }
    client.write_all(b"ne\n").expect("the server reads");
    assert_eq!(rig.traffic(), b"half a line\n");
    assert_eq!(read_exactly(&mut client, 12), b"half a line\n");
    remote.wake().expect("it is open");
    assert_eq!(rig.traffic(), b"");
}

#[test]
fn a_closure_reaches_handler_state_and_connection_and_its_action_is_obeyed() {
    let rig = Rig::new();
    let (mut first, remote) = rig.connect();
    let (_second, other) = rig.connect();
    let (sender, seen) = channel();
    for (remote, last) in [(&remote, false), (&other, false), (&remote, true)] {
        let (id, sender) = (remote.id(), sender.clone());
        let closure = move |handler: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
            handler.runs += 1;
            *conn.state += 1;
            sender.send((handler.runs, *conn.state, conn.id() == id)).expect("the test waits");
            if last { Action::Close } else { Action::Continue }
        };
        remote.run(closure).expect("it is open");
    }
    let seen = [receive(&seen), receive(&seen), receive(&seen)];
    assert_eq!(seen, [(1, 1, true), (2, 1, true), (3, 2, true)], "handler, state, own id");
    assert_eq!(read_to_end(&mut first), b"");
    drop(first);
    assert_eq!(rig.close_reason(), "local");
}

#[test]
fn is_open_until_on_close() {
    let rig = Rig::new();
    let (client, remote) = rig.connect();
    let clone = remote.clone();
    assert!(remote.is_open() && clone.is_open());
    drop(client);
    assert_eq!(rig.close_reason(), "peer");
    assert!(!remote.is_open() && !clone.is_open());
}

// --- completions ---------------------------------------------------------------------------------

/// A server that can't push much into the kernel while its client doesn't read.
fn narrow() -> Builder {
    Engine::builder().socket_options(SocketOptions::new().send_buffer(256 * 1024))
}

/// So much that it doesn't fit into the kernel's buffers of a [`narrow`] server and its client.
const CHUNKS: usize = 256;
const CHUNK: usize = 64 * 1024;

/// Writes the chunks, each with a completion. Returns how many had completed when the reactor had
/// seen all and the client had read nothing.
fn write_chunks(remote: &Remote<Reporter>, bytes: &[u8], outcomes: &Outcomes) -> usize {
    let completed = Arc::new(AtomicU64::new(0));
    for (request, chunk) in bytes.chunks(CHUNK).enumerate() {
        let (note, completed) = (outcomes.note(request), Arc::clone(&completed));
        remote.write_then(chunk.to_vec(), move |outcome| {
            completed.fetch_add(1, Ordering::Relaxed);
            note(outcome);
        });
    }
    for _ in 0..4 {
        look(remote, &completed);
    }
    look(remote, &completed)
}

/// Returns how many writes have completed while others wait for the kernel. Each look is in a later
/// turn of the reactor than the one before.
fn look(remote: &Remote<Reporter>, completed: &Arc<AtomicU64>) -> usize {
    let (sender, seen) = channel();
    let completed = Arc::clone(completed);
    let look = move |_: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
        assert!(conn.output.pending() > 0, "the kernel took all: the test shows nothing");
        sender.send(completed.load(Ordering::Relaxed)).expect("the test waits");
        Action::Continue
    };
    remote.run(look).expect("it is open");
    receive(&seen) as usize
}

#[test]
fn a_write_completes_when_its_bytes_were_taken_and_not_before() {
    let rig = Rig::with(narrow());
    let (mut client, remote) = rig.connect();
    let bytes = pattern(CHUNKS * CHUNK, 1);
    let outcomes = Outcomes::new();
    let before = write_chunks(&remote, &bytes, &outcomes);
    assert!(before < CHUNKS, "{before} of {CHUNKS} completed while the client read nothing");
    assert_same(&read_exactly(&mut client, bytes.len()), &bytes);
    assert_eq!(outcomes.of(CHUNKS), [Ok(()); CHUNKS]);
}

#[test]
fn an_empty_write_completes_too() {
    let rig = Rig::new();
    let (_client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write_then("", outcomes.note(0));
    assert_eq!(outcomes.of(1), [Ok(())]);
}

/// F18 of the fault checklist.
#[test]
fn writes_that_a_reset_overtakes_complete_with_closed_the_earlier_ones_with_ok() {
    let rig = Rig::with(narrow());
    let (client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    let before = write_chunks(&remote, &pattern(CHUNKS * CHUNK, 2), &outcomes);
    reset(client);
    let outcomes = outcomes.of(CHUNKS);
    let taken = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!(taken >= before, "{taken} completed well, and {before} had before the reset");
    assert!(taken < CHUNKS, "nobody read, and all completed well");
    assert!(outcomes[taken..].iter().all(|outcome| *outcome == Err(Closed)), "out of order");
    assert!(rig.close_reason().starts_with("failed"));
}

#[test]
fn a_write_behind_a_close_completes_with_closed() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write_then("before", outcomes.note(0));
    remote.close_then(outcomes.note(1));
    remote.write_then("after", outcomes.note(2));
    assert_eq!(read_to_end(&mut client), b"before");
    drop(client);
    assert_eq!(outcomes.of(3), [Ok(()), Ok(()), Err(Closed)]);
}

#[test]
fn a_write_beyond_the_cap_completes_with_closed() {
    let rig = Rig::with(narrow().output_cap(1 << 20));
    let (client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write_then(vec![0; (1 << 20) + 1], outcomes.note(0));
    assert_eq!(outcomes.of(1), [Err(Closed)]);
    assert_eq!(rig.close_reason(), "output overflow");
    drop(client);
}

#[test]
fn a_close_completes_after_on_close_for_everyone_who_asked() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    let closed_before = Arc::new(AtomicBool::new(false));
    let (note, seen, handle) = (outcomes.note(0), Arc::clone(&closed_before), remote.clone());
    remote.close_then(move |outcome| {
        seen.store(!handle.is_open(), Ordering::Relaxed);
        note(outcome);
    });
    (1..10).for_each(|request| remote.close_then(outcomes.note(request)));
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    assert_eq!(outcomes.of(10), [Ok(()); 10]);
    assert!(closed_before.load(Ordering::Relaxed), "it completed while the connection was open");
    assert!(matches!(rig.news.try_recv(), Ok(News::Closed(..))), "it completed before on_close");
}

#[test]
fn a_close_completes_with_ok_also_if_the_peer_resets_meanwhile() {
    let rig = Rig::with(narrow());
    let (client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    remote.write(pattern(CHUNKS * CHUNK, 3)).expect("it is open");
    remote.close_then(outcomes.note(0));
    reset(client);
    assert_eq!(outcomes.of(1), [Ok(())]);
}

#[test]
fn completions_run_on_the_reactors_thread_and_once_it_is_closed_on_the_callers() {
    let rig = Rig::new();
    let (client, remote) = rig.connect();
    let (sender, threads) = channel();
    let tell = |sender: &Sender<_>| {
        let sender = sender.clone();
        move |_| sender.send(thread::current().id()).expect("the test waits")
    };
    remote.write_then("x", tell(&sender));
    let of_write = receive(&threads);
    drop(client);
    let News::Closed(_, reactor) = receive(&rig.news) else { panic!("other news than the end's") };
    assert_eq!(of_write, reactor);
    remote.write_then("x", tell(&sender));
    remote.close_then(tell(&sender));
    let at_once: Vec<_> = threads.try_iter().collect();
    assert_eq!(at_once, [thread::current().id(); 2]);
}

// --- closed connections --------------------------------------------------------------------------

/// Asks for everything that a handle offers: each must answer that the connection is closed.
#[track_caller]
fn assert_closed(remote: &Remote<Reporter>) {
    assert!(!remote.is_open());
    assert_eq!(remote.write("x"), Err(Closed));
    assert_eq!(remote.wake(), Err(Closed));
    assert_eq!(remote.close(), Err(Closed));
    assert_eq!(remote.run(|_, _| unreachable!("it is closed")), Err(Closed));
    let outcomes = Outcomes::new();
    remote.write_then("x", outcomes.note(0));
    remote.close_then(outcomes.note(1));
    assert_eq!(outcomes.of(2), [Err(Closed); 2]);
}

/// Lets several threads at a time find the handles' connections closed.
#[track_caller]
fn assert_closed_for_all(remotes: &[Remote<Reporter>]) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| remotes.iter().for_each(assert_closed)));
        }
    });
}

/// F18 of the fault checklist: however the connection came to its end.
#[test]
fn every_method_answers_closed_from_any_thread_after_the_close() {
    let rig = Rig::new();
    let mut remotes = Vec::new();
    type End = fn(TcpStream, &Remote<Reporter>);
    let ends: [(&str, End); 3] = [
        ("peer", |client, _| drop(client)),
        ("failed", |client, _| reset(client)),
        ("local", |mut client, remote| {
            remote.close().expect("it is open");
            assert_eq!(read_to_end(&mut client), b"");
        }),
    ];
    for (reason, end) in ends {
        let (client, remote) = rig.connect();
        end(client, &remote);
        let told = rig.close_reason();
        assert!(told.starts_with(reason), "{told} instead of {reason}");
        remotes.push(remote);
    }
    assert_closed_for_all(&remotes);
}

/// F18 of the fault checklist.
#[test]
fn every_method_answers_closed_after_the_engine_stopped_and_is_gone() {
    let rig = Rig::new();
    let (client, remote) = rig.connect();
    rig.engine.stop(Duration::ZERO).expect("the first stop");
    rig.engine.wait().expect("it ends");
    assert_closed_for_all(std::slice::from_ref(&remote));
    drop((client, rig));
    assert_closed(&remote);
}

/// F18 of the fault checklist: the stop races with requests.
#[test]
fn requests_that_a_stop_overtakes_complete_exactly_once() {
    let rig = Rig::new();
    let (mut client, remote) = rig.connect();
    let outcomes = Outcomes::new();
    let (requests, completed) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let deadline = Instant::now() + DEADLINE;
                while remote.is_open() {
                    assert!(Instant::now() < deadline, "it is open after the engine ended");
                    // Few enough that a busy machine completes them in the moment that a stop has
                    // for it.
                    let asked = requests.load(Ordering::Relaxed);
                    if asked - completed.load(Ordering::Relaxed).min(asked) > 10_000 {
                        thread::yield_now();
                        continue;
                    }
                    let request = requests.fetch_add(1, Ordering::Relaxed) as usize;
                    let (note, completed) = (outcomes.note(request), Arc::clone(&completed));
                    remote.write_then("x", move |outcome| {
                        completed.fetch_add(1, Ordering::Relaxed);
                        note(outcome);
                    });
                }
            });
        }
        assert_eq!(read_exactly(&mut client, 1_000), [b'x'; 1_000]);
        rig.engine.stop(Duration::ZERO).expect("the first stop");
        rig.engine.wait().expect("it ends");
    });
    let requests = requests.into_inner() as usize;
    let taken = outcomes.of(requests).iter().filter(|outcome| outcome.is_ok()).count();
    assert!(taken >= 1_000, "{taken} completed well");
}

/// Asks its own connection for things in `on_close`, with a handle that it made at `on_open` or
/// that it makes only there.
struct LastWords {
    early: bool,
    said: Sender<(bool, Result<(), Closed>)>,
}

impl EventHandler for LastWords {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if self.early {
            drop(conn.remote());
        }
        Action::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        let remote = conn.remote();
        let _ = self.said.send((remote.is_open(), remote.wake()));
    }
}

/// F18 of the fault checklist, and what [`EventHandler::on_close`] says of the handles.
#[test]
fn in_on_close_the_connections_handles_answer_closed_also_one_that_is_made_there() {
    for early in [true, false] {
        let (said, heard) = channel();
        let engine = TestEngine::start(Engine::builder().reactors(1), move |_| LastWords {
            early,
            said: said.clone(),
        });
        drop(engine.connect());
        assert_eq!(receive(&heard), (false, Err(Closed)), "made at on_open: {early}");
    }
}

// --- strangers -----------------------------------------------------------------------------------

/// Knows each connection by a number that is in its state and is not used again.
struct Numbered {
    shelf: Arc<Shelf>,
}

/// Handles to hammer on, with their connections' numbers: the youngest ones, open or closed.
#[derive(Default)]
struct Shelf {
    next: AtomicU64,
    handles: Mutex<Vec<(u64, Remote<Numbered>)>>,
    /// Closures that ran for another connection than the handle's.
    strangers: AtomicU64,
    /// Requests to open connections, and refusals of closed ones.
    served: AtomicU64,
    refused: AtomicU64,
}

const ON_THE_SHELF: usize = 8;

impl EventHandler for Numbered {
    type State = u64;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state = self.shelf.next.fetch_add(1, Ordering::Relaxed);
        conn.output.write(&conn.state.to_le_bytes());
        let mut handles = self.shelf.handles.lock().expect("nobody panics with it");
        if handles.len() == ON_THE_SHELF {
            handles.remove(0);
        }
        handles.push((*conn.state, conn.remote()));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        conn.output.write(&conn.state.to_le_bytes());
        Action::Continue
    }
}

impl Shelf {
    /// Asks a connection from the shelf for something, and now and then closes it.
    fn hammer(self: &Arc<Self>, random: &mut fastrand::Rng) {
        let chosen = {
            let handles = self.handles.lock().expect("nobody panics with it");
            handles.get(random.usize(..ON_THE_SHELF)).cloned()
        };
        let Some((number, remote)) = chosen else { return thread::yield_now() };
        let asked = match random.u32(..100) {
            0 => remote.close(),
            1..40 => remote.write(number.to_le_bytes().to_vec()),
            40..60 => remote.wake(),
            _ => {
                let shelf = Arc::clone(self);
                remote.run(move |_, conn| {
                    let stranger = *conn.state != number;
                    shelf.strangers.fetch_add(u64::from(stranger), Ordering::Relaxed);
                    Action::Continue
                })
            }
        };
        let count = if asked.is_ok() { &self.served } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads a few numbers from a connection: all must be its own. The server may close it meanwhile.
fn read_numbers(client: &mut TcpStream) {
    let mut own = None;
    let mut number = [0; 8];
    for _ in 0..6 {
        match client.read_exact(&mut number) {
            Ok(()) => assert_eq!(*own.get_or_insert(number), number, "a stranger's bytes"),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// F1 of the fault checklist, at the level of the API: connections come and go in the same few
/// places while threads keep asking through handles of those that were there before.
#[test]
fn a_stale_handle_never_reaches_the_connection_that_has_its_place_now() {
    for_each_seed(1, hammer_on_places_that_are_used_again);
}

fn hammer_on_places_that_are_used_again(seed: u64) {
    const CONNECTIONS: usize = 3_000;
    let shelf = Arc::new(Shelf::default());
    let of_handlers = Arc::clone(&shelf);
    let factory = move |_| Numbered { shelf: Arc::clone(&of_handlers) };
    let engine = TestEngine::start(Engine::builder().reactors(1), factory);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..3 {
            let (shelf, done) = (&shelf, &done);
            let mut random = fastrand::Rng::with_seed(seed + thread);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    shelf.hammer(&mut random);
                }
            });
        }
        let _done = OnDrop(&done);
        for _ in 0..CONNECTIONS {
            read_numbers(&mut engine.connect());
        }
    });
    let [served, refused, strangers] = [&shelf.served, &shelf.refused, &shelf.strangers]
        .map(|counter| counter.load(Ordering::Relaxed));
    assert_eq!(strangers, 0, "closures ran for a stranger");
    assert!(served > 1_000 && refused > 1_000, "too little asked: {served} and {refused}");
    shelf.handles.lock().expect("nobody panics with it").clear();
}

/// Sets a flag, also when the test fails, so that its threads end.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// --- wake-ups ------------------------------------------------------------------------------------

/// Lets threads go on together: when all of them have arrived in a round, each gets a message.
struct Gate {
    opened: Sender<Remote<Gate>>,
    arrived: usize,
    threads: Vec<Sender<()>>,
}

impl Gate {
    fn arrive(&mut self) {
        self.arrived += 1;
        if self.arrived.is_multiple_of(self.threads.len()) {
            for thread in &self.threads {
                let _ = thread.send(()); // The test may have failed.
            }
        }
    }
}

impl EventHandler for Gate {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.opened.send(conn.remote()).expect("the test waits");
        Action::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

/// F4 of the fault checklist. In each round every thread posts once, and nobody goes on before all
/// posts were served; so nobody's next post makes up for a wake-up that was lost, and the reactor
/// falls asleep between rounds.
#[test]
fn no_wake_up_is_lost_while_the_reactor_falls_asleep() {
    const THREADS: usize = 3;
    let (gates, mut waits) = (0..THREADS).map(|_| channel()).collect::<(Vec<_>, Vec<_>)>();
    let (opened, handles) = channel();
    let factory = move |_| Gate { opened: opened.clone(), arrived: 0, threads: gates.clone() };
    let engine = TestEngine::start(Engine::builder().reactors(1), factory);
    let _client = engine.connect();
    let remote = receive(&handles);
    let rounds = AtomicU64::new(0);
    // The first thread decides when it is over, and all end in the same round.
    let (start, end) = (Instant::now(), AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        for (thread, wait) in waits.drain(..).enumerate() {
            let (remote, rounds, end) = (&remote, &rounds, &end);
            scope.spawn(move || {
                for round in 0.. {
                    if thread == 0 {
                        rounds.store(round, Ordering::Relaxed);
                        if start.elapsed() > Duration::from_secs(3) {
                            end.store(round, Ordering::Relaxed);
                        }
                    }
                    let arrive = |gate: &mut Gate, _: &mut Conn<'_, Gate>| {
                        gate.arrive();
                        Action::Continue
                    };
                    remote.run(arrive).expect("it is open");
                    receive(&wait);
                    if end.load(Ordering::Relaxed) <= round {
                        return;
                    }
                }
            });
        }
    });
    let rounds = rounds.into_inner();
    assert!(rounds > 100, "the reactor has to fall asleep often: {rounds} times");
    let (sender, served) = channel();
    remote.write_then("", move |_| sender.send(()).expect("the test waits"));
    receive(&served);
}

#[test]
fn a_busy_reactor_is_not_woken_by_each_request() {
    const THREADS: usize = 4;
    const POSTS: usize = 5_000;
    let rig = Rig::new();
    let (_client, remote) = rig.connect();
    let wakeups = || rig.engine.stats().reactors[0].wakeups;
    let before = wakeups();
    let (busy, is_busy) = channel();
    let (release, released) = channel::<()>();
    remote
        .run(move |_, _| {
            busy.send(()).expect("the test waits");
            let _ = released.recv_timeout(DEADLINE);
            Action::Continue
        })
        .expect("it is open");
    receive(&is_busy);
    let outcomes = Outcomes::new();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (remote, outcomes) = (&remote, &outcomes);
            scope.spawn(move || {
                for number in 0..POSTS {
                    remote.write_then("", outcomes.note(thread * POSTS + number));
                }
            });
        }
    });
    assert!(rig.engine.stats().reactors[0].inbox_depth >= THREADS * POSTS);
    drop(release);
    assert!(outcomes.of(THREADS * POSTS).iter().all(Result::is_ok));
    let woken = wakeups() - before;
    assert!(woken < 10, "{woken} wake-ups for {} requests", THREADS * POSTS);
}

// --- panics --------------------------------------------------------------------------------------

/// F5 of the fault checklist.
#[test]
fn requests_behind_a_closure_that_panics_are_served() {
    silence_expected_panics();
    let rig = Rig::new();
    let [(mut victim, panics), (mut other, remote), (mut third, closes)] =
        [rig.connect(), rig.connect(), rig.connect()];
    let outcomes = Outcomes::new();
    panics.run(|_, _| panic!("expected: in a closure")).expect("it is open");
    panics.write_then("never", outcomes.note(0));
    remote.write_then("still ", outcomes.note(1));
    remote
        .run(|_, conn| {
            conn.output.write(b"served");
            Action::Continue
        })
        .expect("it is open");
    closes.close_then(outcomes.note(2));
    assert_eq!(read_exactly(&mut other, 12), b"still served");
    assert_eq!(read_to_reset(&mut victim), b"");
    assert_eq!(rig.close_reason(), "panicked");
    assert_eq!(read_to_end(&mut third), b"");
    drop(third);
    assert_eq!(outcomes.of(3), [Err(Closed), Ok(()), Ok(())]);
    let stats = &rig.engine.stats().reactors[0];
    let panicked = CloseReason::NAMES.iter().position(|name| *name == "panicked");
    assert_eq!((stats.panics, stats.closed[panicked.expect("a reason")]), (1, 1));
}

/// F5 of the fault checklist, with all threads panicking at a time.
#[test]
fn closures_of_many_threads_that_panic_close_only_their_own_connections() {
    silence_expected_panics();
    const THREADS: usize = 8;
    let rig = Rig::new();
    let (mut witness, remote) = rig.connect();
    let victims: Vec<_> = (0..THREADS).map(|_| rig.connect()).collect();
    let together = Barrier::new(THREADS);
    thread::scope(|scope| {
        for (mut client, victim) in victims {
            let (remote, together) = (&remote, &together);
            scope.spawn(move || {
                together.wait();
                victim.run(|_, _| panic!("expected: in a closure")).expect("it is open");
                remote.write("x").expect("it is open");
                read_to_reset(&mut client);
            });
        }
    });
    assert_eq!(read_exactly(&mut witness, THREADS), [b'x'; THREADS]);
    assert_eq!(rig.engine.stats().reactors[0].panics, THREADS as u64);
    eventually("only the witness is left", || rig.engine.connections() == 1);
}

// --- reactors ------------------------------------------------------------------------------------

/// What each reactor keeps is its own; a closure goes there, and its reply comes back by
/// [`Remote`].
#[test]
fn another_reactor_is_reached_by_a_closure_that_runs_there() {
    const REACTORS: usize = 3;
    struct Shard(usize, u32);
    impl EventHandler for Shard {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            for &reactor in conn.input.take_all() {
                let asker = conn.remote();
                let reactor = usize::from(reactor);
                let visit = move |shard: &mut Shard, there: &mut Reactor<'_>| {
                    assert_eq!((shard.0, there.index()), (reactor, reactor));
                    shard.1 += 1;
                    let _ = asker.write(vec![reactor as u8, shard.1 as u8]);
                    ReactorAction::Continue
                };
                assert_eq!(conn.reactors().len(), REACTORS);
                conn.reactors().run(reactor, visit).expect("the engine runs");
            }
            Action::Continue
        }
    }
    let builder = Engine::builder().reactors(REACTORS);
    let engine = TestEngine::start(builder, |index| Shard(index, 0));
    for visit in 1..=4 {
        let mut client = engine.connect();
        client.write_all(&[0, 1, 2]).expect("the server reads");
        let mut replies = read_exactly(&mut client, 2 * REACTORS);
        let mut replies: Vec<&mut [u8]> = replies.chunks_mut(2).collect();
        replies.sort();
        assert_eq!(replies, [[0, visit], [1, visit], [2, visit]]);
    }
}

#[test]
fn a_closure_for_a_reactor_ends_in_one_way() {
    silence_expected_panics();
    let (told, news) = channel();
    let rig = Rig::new();
    let (_client, remote) = rig.connect();
    let reactors = {
        let (give, take) = channel();
        let hand_out = move |_: &mut Reporter, conn: &mut Conn<'_, Reporter>| {
            let _ = give.send(conn.reactors().clone());
            Action::Continue
        };
        remote.run(hand_out).expect("it is open");
        receive(&take)
    };
    let panics =
        |_: &mut Reporter, _: &mut Reactor<'_>| -> ReactorAction { panic!("expected: a closure") };
    reactors.run(0, panics).expect("the engine runs");
    for number in 0..100 {
        let told = told.clone();
        let tell = move |_: &mut Reporter, _: &mut Reactor<'_>| {
            let _ = told.send(number);
            ReactorAction::Continue
        };
        reactors.run(0, tell).expect("the engine runs");
        assert_eq!(receive(&news), number, "out of order, or the panic ended the reactor");
    }
    assert_eq!(rig.engine.stats().reactors[0].panics, 1);
    let shut_down = |_: &mut Reporter, _: &mut Reactor<'_>| ReactorAction::Shutdown;
    reactors.run(0, shut_down).expect("the engine runs");
    rig.engine.wait().expect("it ends well");
    let late =
        |_: &mut Reporter, _: &mut Reactor<'_>| -> ReactorAction { unreachable!("it has ended") };
    assert_eq!(reactors.run(0, late), Err(Stopped));
}
